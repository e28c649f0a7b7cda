"""Configs: experiment files, typed overrides, and parts that name a function.

A part of a config is a section with a `name`, such as `attention.score`. The
name is that of a function, and the function's keyword-only arguments are the
part's settings: no other key is accepted, and those that are not given take the
function's defaults. `PARTS` says in which module each part's functions are; no
other module is ever looked into, whatever a config says.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import difflib
import importlib
import importlib.util
import inspect
import json
import math
import pathlib
import sys
from typing import Any, NamedTuple

import ml_collections

from attnlab import errors


class Part(NamedTuple):
  """Where the functions of a part are.

  Attributes:
    module: the module; its public functions are the choices.
    shared: name of a function whose keyword-only arguments all choices have.
    positional: whether the choices take positional arguments as well, which
      the config does not hold. Elsewhere a function with some is a helper.
    open: whether the section also has keys that the task reads itself.
    other: the function for names that are not among the choices.
  """

  module: str
  shared: str = ''
  positional: bool = False
  open: bool = False
  other: str = ''


PARTS: dict[str, Part] = {
  'attention.score': Part('attnlab.attention.scores'),
  'attention.normalizer': Part('attnlab.attention.normalizers'),
  'attention.locality': Part('attnlab.attention.locality'),
  'attention.position': Part('attnlab.attention.positions'),
  'attention.heads': Part('attnlab.attention.heads', positional=True),
  'attention.hops': Part('attnlab.attention.hops', positional=True),
  'data': Part('attnlab.data.sources', open=True, other='tfds'),
  'model': Part('attnlab.models', positional=True),
  'optimizer': Part('attnlab.training.optimizers', shared='build'),
  'vocabulary': Part('attnlab.data.vocabulary', positional=True),
  # 'TASK:part' stands for 'part' in the configs of that task.
  'classification:data': Part(
    'attnlab.data.classification', open=True, other='tfds'
  ),
  'classification:model': Part(
    'attnlab.models.classification', positional=True
  ),
  'classification:training.loss': Part('attnlab.tasks.class_losses'),
}

# What every config has, and no experiment has to say. `mesh`: how many devices
# share a batch, -1 for all of them, and how many share the large parameters.
DEFAULTS = {'mesh': {'data': -1, 'model': 1}}

_ROOT = pathlib.Path(__file__).resolve().parent.parent


def experiments() -> dict[str, pathlib.Path]:
  """Returns the experiment files that come with attnlab, by bare name."""
  found = {}
  for directory in (_ROOT / 'experiments', pathlib.Path('experiments')):
    if directory.is_dir():
      for path in sorted(directory.glob('*.py')):
        if not path.name.startswith('_'):
          found.setdefault(path.stem, path)
  return found


def split(spec: str) -> tuple[str, str]:
  """Splits 'experiments/translation.py:luong' into its name and argument."""
  path, _, arg = spec.partition(':')
  return pathlib.PurePath(path).stem, arg


def words(arg: str, *groups: Sequence[str]) -> list[str]:
  """Returns one word of each group: that of an argument, or the first.

  Args:
    arg: of an experiment: words in any order, with commas between them.
    *groups: the words that there are.

  Raises:
    UserError: a word is in no group.
  """
  found = {group: group[0] for group in map(tuple, groups)}
  for word in filter(None, arg.split(',')):
    group = next((group for group in found if word in group), None)
    if group is None:
      raise errors.unknown('config argument', word, sum(found, ()))
    found[group] = word
  return list(found.values())


def load(spec: str) -> ml_collections.ConfigDict:
  """Runs an experiment file's `get_config` and completes its parts.

  Args:
    spec: 'path/to/file.py:argument', or 'translation:argument' for a file of
      `experiments`; the argument may be left out.

  Returns:
    The locked config.

  Raises:
    UserError: there is no such file, it has no get_config, or the config has a
      setting that a part does not know.
  """
  name, _, arg = spec.partition(':')
  known = experiments()
  path = pathlib.Path(name)
  if name in known:
    path = known[name]
  elif not path.is_file():
    inside = _ROOT / name
    if path.suffix != '.py' or path.is_absolute() or not inside.is_file():
      names = [*known, *(f'experiments/{n}.py' for n in known)]
      raise errors.unknown('config', name, names)
    path = inside
  get_config = getattr(_import_file(path), 'get_config', None)
  if not callable(get_config):
    raise errors.UserError(f'config={name!r} has no function get_config')
  if arg and not inspect.signature(get_config).parameters:
    raise errors.UserError(
      f'config={spec!r}: its get_config takes no argument: --config={name}'
    )
  config = get_config(arg) if arg else get_config()
  if not isinstance(config, ml_collections.ConfigDict):
    raise errors.UserError(
      f'config={name!r}: get_config returned a {type(config).__name__}, not '
      'a ConfigDict'
    )
  return from_data(config.to_dict())


def from_data(data: Mapping[str, Any]) -> ml_collections.ConfigDict:
  """Returns a locked config of plain data, with its parts completed."""
  data = dict(_tuples(data))
  for section, defaults in DEFAULTS.items():
    given = data.get(section, {})
    for key in given:
      if key not in defaults:
        raise errors.unknown(section, key, defaults)
    data[section] = {**defaults, **given}
  for path, part in parts(data.get('task')).items():
    parent, key = _find(data, path)
    if parent is not None and isinstance(parent.get(key), dict):
      parent[key] = _complete(part, parent[key])
  config = ml_collections.ConfigDict(
    data, convert_dict=True, allow_dotted_keys=False
  )
  return config.lock()


class Section(dict):
  """Plain data in which a setting that is missing is a UserError."""

  def __init__(self, data: Mapping[str, Any], path: str = ''):
    self._path = path
    super().__init__(
      {
        key: Section(value, f'{path}{key}.')
        if isinstance(value, Mapping)
        else value
        for key, value in data.items()
      }
    )

  def __missing__(self, key: str):
    raise errors.UserError(f'{self._path}{key} is missing from the config')


def to_data(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config as plain dicts."""
  if isinstance(config, ml_collections.ConfigDict):
    return config.to_dict()
  return dict(config)


def to_json(config: Mapping[str, Any]) -> str:
  """Returns the config as JSON; tuples become lists."""
  return json.dumps(to_data(config), indent=2)


def from_json(text: str, *, name: str = 'config') -> ml_collections.ConfigDict:
  """Returns the config that `to_json` wrote; data only, lists become tuples.

  Raises:
    UserError: the text is no JSON object, or a part does not know a setting.
  """
  try:
    data = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise errors.UserError(f'{name} is not JSON: {error}') from error
  if not isinstance(data, dict):
    raise errors.UserError(f'{name} holds no JSON object')
  return from_data(data)


def override(
  config: Mapping[str, Any], values: Mapping[str, str]
) -> ml_collections.ConfigDict:
  """Returns the config with some values replaced.

  Args:
    config: a config; it is not changed.
    values: {'optimizer.learning_rate': '3e-4'}. A text is read as the type of
      the value that is there. `PART.name=f`, or `PART=f` for short, replaces
      the part by f and its defaults, before other values apply; `PART=None`
      leaves the part out.

  Raises:
    UserError: names the first that is unknown or of another type.
  """
  data = to_data(config)
  # Names first: they decide which settings there are.
  known = parts(data.get('task'))
  ordered = sorted(
    values.items(), key=lambda item: item[0].removesuffix('.name') not in known
  )
  for path, text in ordered:
    _set(data, path, text)
  return from_data(data)


def override_all(
  loaded: Mapping[str, Any], overrides: Mapping[str, str]
) -> dict[str, Any]:
  """Applies the overrides to every config that has such a value.

  Twins differ: the one without attention has no score to replace. An override
  that no config takes is an error, and so is a wrong value for any.
  """
  if len(loaded) == 1:
    return {s: override(c, overrides) for s, c in loaded.items()}
  result = {}
  taken: set[str] = set()
  for spec, config in loaded.items():
    data = to_data(config)
    fit = {
      path: text
      for path, text in overrides.items()
      if not _switched_off(data, path)
    }
    for path in overrides.keys() - fit.keys():
      print(f'{spec} has no {path}: it stays as it is', file=sys.stderr)
    taken |= fit.keys()
    result[spec] = override(config, fit)
  for path in overrides.keys() - taken:
    raise errors.UserError(f'config.{path}: none of the configs has it')
  return result


def parts(task: Any) -> dict[str, str]:
  """Returns {path in a config of this task: its key in PARTS}."""
  found = {key: key for key in PARTS if ':' not in key}
  own = {key: key.removeprefix(f'{task}:') for key in PARTS}
  return found | {path: key for key, path in own.items() if path != key}


def choices(path: str) -> dict[str, Callable]:
  """Returns the functions that `path.name` may name, for a key of PARTS."""
  part = PARTS[path]
  try:
    module = importlib.import_module(part.module)
  except ModuleNotFoundError as error:
    if error.name != part.module:
      raise
    return {}
  return {
    name: function
    for name, function in vars(module).items()
    if inspect.isfunction(function)
    and not name.startswith('_')
    and function.__module__ == part.module
    and (_keywords if part.positional else _only_keywords)(function)
  }


def settings(path: str, name: str) -> dict[str, Any]:
  """Returns the settings of a part's function with their defaults."""
  part = PARTS[path]
  function = _function(path, name)
  found = {}
  if part.shared:
    module = importlib.import_module(part.module)
    found |= _defaults(getattr(module, part.shared))
  return found | _defaults(function)


def flat(data: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns {'a.b': value} of nested dicts."""
  found = {}
  for name, value in data.items():
    if isinstance(value, Mapping):
      found |= flat(value, f'{prefix}{name}.')
    else:
      found[prefix + name] = value
  return found


def _switched_off(data: dict[str, Any], path: str) -> bool:
  """Whether a section on the way to a value is None."""
  names = path.split('.')
  for i, name in enumerate(names[:-1]):
    if not isinstance(data, dict) or name not in data:
      return False
    data = data[name]
    if data is None:
      # A part that is off can be switched on by its name.
      return '.'.join(names[: i + 1]) not in PARTS
  return False


def _set(data: dict[str, Any], path: str, text: str):
  """Sets one value in nested dicts."""
  known = parts(data.get('task'))
  if path.removesuffix('.name') in known:
    part = path.removesuffix('.name')
    parent, key = _find(data, part)
    if parent is None or key not in parent:
      raise _unknown(data, part)
    if path == part and text in ('None', 'none', ''):
      parent[key] = None
      return
    present = parent[key] if isinstance(parent[key], dict) else {}
    if not choices(known[part]):
      raise errors.UserError(f'{part}={text!r}: there are no choices yet')
    parent[key] = _renamed(known[part], text, present)
    return
  parent, key = _find(data, path)
  if parent is None or key not in parent:
    raise _unknown(data, path)
  if isinstance(parent[key], dict):
    inside = ', '.join(f'{path}.{name}' for name in parent[key])
    raise errors.UserError(
      f'config.{path}={text!r}: this is a section; set {inside}'
    )
  parent[key] = _read(path, text, parent[key])


def _renamed(path: str, name: str, present: Mapping) -> dict[str, Any]:
  """A part with another function: its defaults, and what does not depend on it.

  That is what all choices share and what the section has besides.
  """
  part = PARTS[path]
  kept = set()
  if part.shared:
    module = importlib.import_module(part.module)
    kept |= _defaults(getattr(module, part.shared)).keys()
  if part.open and 'name' in present:
    kept |= present.keys() - settings(path, present['name']).keys() - {'name'}
  return {
    'name': name,
    **settings(path, name),
    **{key: value for key, value in present.items() if key in kept},
  }


def _read(path: str, text: str, present: Any) -> Any:
  """Reads a text as the type of the value that is there."""

  def wrong(kind):
    return errors.UserError(
      f'config.{path}={text!r} must be {kind}, such as {present!r}'
    )

  if isinstance(present, bool):
    values = {'true': True, '1': True, 'false': False, '0': False}
    if text.lower() not in values:
      raise errors.unknown(f'config.{path}', text, ('True', 'False'))
    return values[text.lower()]
  if isinstance(present, int):
    try:
      return int(text)
    except ValueError:
      raise wrong('a whole number') from None
  if isinstance(present, float):
    try:
      value = float(text)
    except ValueError:
      raise wrong('a number') from None
    if math.isnan(value):
      raise wrong('a number')
    return value
  if isinstance(present, str):
    return text
  try:
    value = _tuples(ast.literal_eval(text)) if text else ()
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    value = text
  if isinstance(present, tuple):
    if not isinstance(value, tuple):
      # 'a,b' and 'a' are as good as "('a', 'b')" and "('a',)".
      value = tuple(text.split(',')) if isinstance(value, str) else (value,)
    kinds = {type(item) for item in present}
    if kinds == {float}:
      value = tuple(float(v) if isinstance(v, int) else v for v in value)
    if kinds and not {type(item) for item in value} <= kinds:
      raise wrong('a tuple')
    return value
  if isinstance(value, (dict, set, bytes, complex)):
    raise wrong('a number, a text or a tuple')
  return value


def _unknown(data: Mapping[str, Any], path: str) -> errors.UserError:
  """The error for a path that is not there, with the nearest one that is."""
  section, _, last = path.rpartition('.')
  holder, _ = _find(data, path)
  names = list(holder or data)
  # Nearest in its own section, then by the last word anywhere, then by all.
  leaves = {name.rpartition('.')[2]: name for name in flat(data)}
  close = _near(last, names, 0.6) if holder is not None else ''
  if close:
    close = f'{section}.{close}' if section else close
  elif holder is None and (near := _near(path, flat(data), 0.85)):
    close = near
  elif near := _near(last, leaves, 0.7):
    close = leaves[near]
  elif holder is None:
    close = _near(path, flat(data), 0.6)
  hint = f'did you mean {close}? ' if close else ''
  return errors.UserError(
    f'config.{path} is unknown: {hint}'
    f'(config{"." + section if holder and section else ""} has: '
    f'{", ".join(sorted(names))})'
  )


def _near(word: str, names: Iterable[str], cutoff: float) -> str:
  """The name most like a word; 'lr' is like 'learning_rate'; '' for none."""
  names = list(names)
  close = difflib.get_close_matches(word, names, n=1, cutoff=cutoff)
  close += [n for n in names if ''.join(w[:1] for w in n.split('_')) == word]
  return close[0] if close else ''


def _complete(path: str, part: Mapping[str, Any]) -> dict[str, Any]:
  """A part with the defaults of what it leaves out, and nothing unknown."""
  name = part.get('name')
  shown = path.rpartition(':')[2]
  if name is None:
    if not choices(path):
      return dict(part)
    raise errors.UserError(f'{shown}.name is missing from the config')
  schema = settings(path, name)
  complete = {'name': name, **schema}
  for key, value in part.items():
    if key == 'name':
      continue
    if key not in schema and not PARTS[path].open:
      if not schema:
        raise errors.UserError(f'{shown}.{key}: {name!r} has no settings')
      raise errors.unknown(f'{shown} ({name})', key, schema)
    # An author's 1 for a float is a float, or an override could not be 0.5.
    if isinstance(schema.get(key), float) and type(value) is int:
      value = float(value)
    complete[key] = value
  return complete


def _function(path: str, name: Any) -> Callable:
  functions = choices(path)
  if name not in functions and PARTS[path].other and isinstance(name, str):
    name = PARTS[path].other
  if name not in functions:
    shown = path.rpartition(':')[2]
    raise errors.unknown(f'{shown}.name', name, functions)
  return functions[name]


def _keywords(function: Callable) -> bool:
  return bool(function.__kwdefaults__)


def _only_keywords(function: Callable) -> bool:
  kinds = {p.kind for p in inspect.signature(function).parameters.values()}
  return kinds <= {inspect.Parameter.KEYWORD_ONLY}


def _defaults(function: Callable) -> dict[str, Any]:
  return {
    parameter.name: parameter.default
    for parameter in inspect.signature(function).parameters.values()
    if parameter.kind is parameter.KEYWORD_ONLY
  }


def _find(
  data: Mapping[str, Any], path: str
) -> tuple[dict[str, Any] | None, str]:
  """The dict that holds the last key of a path; None where there is none."""
  *parents, key = path.split('.')
  for name in parents:
    data = data.get(name)
    if not isinstance(data, dict):
      return None, key
  return data, key


def _tuples(value: Any) -> Any:
  """Copies dicts, and makes tuples of lists: JSON knows no tuple."""
  if isinstance(value, Mapping):
    return {key: _tuples(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return tuple(_tuples(item) for item in value)
  return value


def _import_file(path: pathlib.Path) -> Any:
  """Runs a file that the user named."""
  name = f'attnlab_experiment_{path.stem}'
  spec = importlib.util.spec_from_file_location(name, path)
  if spec is None or spec.loader is None:
    raise errors.UserError(f'config={str(path)!r} is not a Python file')
  module = importlib.util.module_from_spec(spec)
  try:
    with _no_bytecode():
      spec.loader.exec_module(module)
  except SyntaxError as error:
    raise errors.UserError(
      f'config={str(path)!r}, line {error.lineno}: {error.msg}'
    ) from error
  except UnicodeDecodeError as error:
    raise errors.UserError(f'config={str(path)!r} is not UTF-8') from error
  return module


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
  # An experiment is a document: reading it leaves no folder beside it.
  before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
  try:
    yield
  finally:
    sys.dont_write_bytecode = before


def first_line(text: str | None) -> str:
  """Returns the first line of a docstring."""
  return (text or '').strip().partition('\n')[0]


def docstring(path: pathlib.Path) -> str:
  """Returns the first line of a file's docstring, without running it."""
  return first_line(ast.get_docstring(ast.parse(path.read_text('utf-8'))))
