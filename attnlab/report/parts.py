"""What there is to choose from: every part, its docstring and its settings.

`launch.py --list`, the catalogue, the support table and the benchmark of all
mechanisms read this alone: a new part is a function, and is in all of them.
"""

from collections.abc import Callable, Mapping
import importlib
import importlib.util
import inspect
import re
import types
from typing import Any, NamedTuple

from attnlab import configs

REQUIRED = inspect.Parameter.empty


class Choice(NamedTuple):
  """One function that a flag may name.

  Attributes:
    name: of the function.
    make: the function.
    summary: the first line of its docstring.
    text: the paragraphs after it.
    settings: its arguments with their defaults, REQUIRED without one.
    meanings: what the docstring says of each argument.
  """

  name: str
  make: Callable
  summary: str
  text: tuple[str, ...]
  settings: Mapping[str, Any]
  meanings: Mapping[str, str]


class Section(NamedTuple):
  """Choices of one kind.

  Attributes:
    title: the flag that names one, or what they are called.
    flag: the path in a config that names one; '' where there is none.
    choices: by name, in the order of the module.
    shared: settings that all of them have.
  """

  title: str
  flag: str
  choices: Mapping[str, Choice]
  shared: Mapping[str, Any] = types.MappingProxyType({})


# Functions that no config names, by what they return; '' is anything of those
# whose arguments are settings alone.
LIBRARY = {
  'masks': ('attnlab.attention.masks', 'Mask'),
  'heads': ('attnlab.attention.heads', 'Attention'),
  'papers': ('attnlab.attention.papers', 'Attention'),
  'estimators': ('attnlab.attention.estimators', ''),
}
_HEADS = ('Args', 'Attributes', 'Returns', 'Raises', 'Yields')


def kinds() -> dict[str, str]:
  """{'score': 'attention.score', ..}: the parts of a mechanism."""
  paths = [path for path in configs.PARTS if path.startswith('attention.')]
  return {path.partition('.')[2]: path for path in paths}


def of_config(path: str) -> Section:
  """The choices of a part of the config, a key of `configs.PARTS`."""
  choices = {
    name: describe(name, function, configs.settings(path, name))
    for name, function in configs.choices(path).items()
  }
  flag = path.rpartition(':')[2]
  shared = {}
  if configs.PARTS[path].shared and choices:
    first, *others = (choice.settings for choice in choices.values())
    shared = {
      key: value
      for key, value in first.items()
      if all(key in settings for settings in others)
    }
  return Section(f'{path}.name', f'{flag}.name', choices, shared)


def of_library(title: str) -> Section:
  """The choices among 'masks', 'heads', 'papers' or 'estimators'.

  What a config can name is left to `of_config`.
  """
  name, returned = LIBRARY[title]
  named = any(part.module == name for part in configs.PARTS.values())
  if named or importlib.util.find_spec(name) is None:
    return Section(title, '', {})
  module = importlib.import_module(name)
  choices = {
    name: describe(name, function)
    for name, function in vars(module).items()
    if inspect.isfunction(function)
    and not name.startswith('_')
    and function.__module__ == module.__name__
    and (_returned(function) == returned if returned else _settings(function))
  }
  return Section(f'{title} ({module.__name__})', '', choices)


def pools() -> Section:
  """The pools of the classifiers; a class each, in snake case."""
  from attnlab.layers import pool
  from attnlab.models import classifier

  classes = {
    re.sub(r'(?<!^)(?=[A-Z])', '_', name).lower(): found
    for name, found in vars(pool).items()
    if inspect.isclass(found) and found.__module__ == pool.__name__
  }
  choices = {
    name: describe(name, classes[name], {}) for name in classifier.POOLS
  }
  return Section('model.pool of the classifiers', 'model.pool', choices)


def everything() -> list[Section]:
  """All sections that have a choice, as `launch.py --list` shows them."""
  sections = [of_config(path) for path in configs.PARTS]
  sections += [pools(), *(of_library(title) for title in LIBRARY)]
  return [section for section in sections if section.choices]


def describe(
  name: str, function: Callable, settings: Mapping[str, Any] | None = None
) -> Choice:
  """Reads a function's docstring and, unless given, its settings."""
  paragraphs, meanings = read(inspect.getdoc(function) or '')
  if settings is None:
    parameters = inspect.signature(function).parameters.values()
    settings = {p.name: p.default for p in parameters}
  summary, *text = paragraphs or ['']
  return Choice(name, function, summary, tuple(text), settings, meanings)


def call(name: str, settings: Mapping[str, Any]) -> str:
  """'additive(hidden=128)': a function with its settings, as Python."""
  words = (
    key if value is REQUIRED else f'{key}={value!r}'
    for key, value in settings.items()
  )
  return f'{name}({", ".join(words)})'


def read(doc: str) -> tuple[list[str], dict[str, str]]:
  """A docstring -> its paragraphs, and what it says of each argument.

  What stands under Returns and Raises is in neither.
  """
  paragraphs: list[str] = []
  meanings: dict[str, str] = {}
  head, current = '', ''
  for block in re.split(r'\n\s*\n', doc):
    lines = block.split('\n')
    if (word := lines[0].rstrip(':')) in _HEADS and lines[0].endswith(':'):
      head, lines = word, lines[1:]
    elif not lines[0].startswith(' '):
      head = ''
    if not head:
      paragraphs.append(' '.join(line.strip() for line in lines))
    if head not in ('Args', 'Attributes'):
      continue
    for line in lines:
      found = re.match(r'  ?(\*{0,2}\w+): (.*)', line)
      if found:
        current = found[1]
        meanings[current] = found[2]
      elif current:
        meanings[current] += ' ' + line.strip()
  return paragraphs, meanings


def _settings(function: Callable) -> bool:
  """Whether a function takes settings alone, as the choices of a config do."""
  kinds = {p.kind for p in inspect.signature(function).parameters.values()}
  return kinds <= {inspect.Parameter.KEYWORD_ONLY}


def _returned(function: Callable) -> str:
  """The last word of what a function is annotated to return."""
  annotation = inspect.signature(function).return_annotation
  name = getattr(annotation, '__name__', str(annotation))
  return name.rpartition('.')[2]
