"""Run directories as data: found, read and checked.

Nothing in them is trusted: what is half written or malformed is left out, with
one line that names it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import glob
import json
import os
import pathlib
import sys
import types
from typing import Any, NamedTuple

import numpy as np

from attnlab import configs, errors
from attnlab.report import measuring

# What runs of one setting may differ in: they are its repetitions.
REPEATED = ('seed', 'data.fold')
# Models and pools that read no attention, whatever their config says of it.
_WITHOUT = {
  'model.name': ('fixed',),
  'model.pool': ('last', 'max', 'mean'),
  'model.sentence_pool': ('last', 'max', 'mean'),
}
_DEEPEST = 4  # folders below the one that was given
_LONGEST = 2_000  # tokens of a side of an attention record

Say = Callable[[str], None]


class Run(NamedTuple):
  """A finished run.

  Attributes:
    path: its directory.
    name: what tells it from the others of a report.
    config: flat, {'model.name': ...}.
    environment: versions, hardware, command; environment.json.
    summary: the figures; summary.json, and measures where there are some.
    metrics: lines of metrics.jsonl.
    measured: the figures of measures.json; empty without one.
  """

  path: pathlib.Path
  name: str
  config: Mapping[str, Any]
  environment: Mapping[str, Any]
  summary: Mapping[str, Any]
  metrics: Sequence[Mapping[str, Any]]
  measured: Mapping[str, Any] = types.MappingProxyType({})

  @property
  def repeat(self) -> tuple[str, ...]:
    """Seed and fold, as text: what pairs the runs of two settings."""
    return tuple(str(self.config.get(key)) for key in REPEATED)


def warn(line: str) -> None:
  """Prints a line to stderr."""
  print(errors.one_line(line), file=sys.stderr)


def find(
  places: Iterable[str | os.PathLike[str]], *, flag: str = 'report'
) -> list[pathlib.Path]:
  """Returns the run directories in some places, sorted, each once.

  Args:
    places: run directories, folders that hold some at any depth up to four,
      and patterns such as 'runs/sst2/*'.
    flag: where they were given, for messages.

  Raises:
    UserError: a place is no directory, or holds no run.
  """
  found: dict[pathlib.Path, pathlib.Path] = {}
  names = [str(place) for place in places]
  if not all(names) or not names:
    raise errors.UserError(f'{flag}: no run directory was given')
  for place in names:
    matches = [place] if os.path.isdir(place) else sorted(glob.glob(place))
    folders = [match for match in matches if os.path.isdir(match)]
    if not folders:
      raise errors.UserError(f'{flag}={place!r} is no directory')
    inside = [run for folder in folders for run in _walk(pathlib.Path(folder))]
    if not inside:
      raise errors.UserError(
        f'{flag}={place!r} holds no run directory: there is no config.json'
      )
    found |= {path.resolve(): path for path in inside}
  return sorted(found.values())


def _walk(folder: pathlib.Path, depth: int = 0) -> Iterator[pathlib.Path]:
  if (folder / 'config.json').is_file():
    yield folder
    return
  if depth == _DEEPEST:
    return
  try:
    inside = sorted(entry for entry in folder.iterdir() if entry.is_dir())
  except OSError as error:
    warn(f'skipped {folder}: {error.strerror}')
    return
  for entry in inside:
    if not entry.name.startswith('.') and not entry.is_symlink():
      yield from _walk(entry, depth + 1)


def read(paths: Sequence[pathlib.Path], *, say: Say = warn) -> list[Run]:
  """Reads run directories, and leaves out those that are not finished.

  Args:
    paths: as `find` returns them.
    say: is told of each that is left out, or its measures, and why.

  Raises:
    UserError: none is left.
  """
  base = os.path.commonpath([path.resolve() for path in paths])
  runs = []
  for path in paths:
    name = os.path.relpath(path.resolve(), base)
    try:
      name = path.resolve().name if name == '.' else name
      runs.append(_read(path, name, say))
    except errors.UserError as error:
      say(f'skipped {path}: {error}')
  if not runs:
    raise errors.UserError(
      f'report: none of {len(paths)} run directories is finished'
    )
  return runs


def _read(path: pathlib.Path, name: str, say: Say) -> Run:
  config = _object(path / 'config.json')
  if not isinstance(config.get('task'), str):
    raise errors.UserError('config.json names no task')
  summary = _object(path / 'summary.json')
  environment = _object(path / 'environment.json')
  for key in ('versions', 'fingerprint'):
    if not isinstance(environment.get(key, {}), dict):
      raise errors.UserError(f'environment.json: {key} is no object')
  measures: Mapping[str, Any] = {}
  if (path / measuring.FILE).is_file():
    measures = _object(path / measuring.FILE)
    if not measuring.usual(measures, summary):
      say(
        f'{path / measuring.FILE} is of another checkpoint or of other '
        'settings than summary.json, and is left out'
      )
      measures = {}
  both = {**_signatures(measures), **_signatures(summary)}
  summary = {
    key: value
    for key, value in {**measures, **summary}.items()
    if not isinstance(value, int | float) or is_finite(value)
  }
  summary['signatures'] = both
  lines = []
  if (path / 'metrics.jsonl').is_file():
    lines, wrong = _lines(path / 'metrics.jsonl')
    if wrong:
      raise errors.UserError(f'metrics.jsonl, line {wrong[0]} is no object')
  return Run(
    path,
    name,
    _complete(config),
    environment,
    summary,
    [
      {key: value for key, value in line.items() if is_finite(value)}
      for line in lines
      if is_finite(line.get('step'))
    ],
    measures,
  )


def _signatures(summary: Mapping[str, Any]) -> dict[str, str]:
  """How the figures of a summary were computed, where that is text."""
  found = summary.get('signatures')
  found = found if isinstance(found, dict) else {}
  return {k: v for k, v in found.items() if isinstance(v, str)}


def _object(path: pathlib.Path) -> dict[str, Any]:
  try:
    data = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise errors.UserError(
      f'it has no {path.name}, so that it is not finished'
    ) from None
  except OSError as error:
    raise errors.UserError(f'{path.name}: {error.strerror}') from None
  except (ValueError, RecursionError):
    raise errors.UserError(f'{path.name} is not JSON') from None
  if not isinstance(data, dict):
    raise errors.UserError(f'{path.name} holds no JSON object')
  return data


def _lines(path: pathlib.Path) -> tuple[list[dict[str, Any]], list[int]]:
  """The objects of a JSONL file, and the numbers of lines that are none."""
  found, wrong = [], []
  try:
    # Not splitlines: a sentence may hold U+2028, which is no end of line here.
    with path.open(encoding='utf-8', errors='replace', newline='\n') as file:
      for number, line in enumerate(file, 1):
        try:
          record = json.loads(line)
        except (ValueError, RecursionError):
          record = None
        if isinstance(record, dict):
          found.append(record)
        elif line.strip():
          wrong.append(number)
  except OSError as error:
    raise errors.UserError(f'{path}: {error.strerror}') from error
  return found, wrong


def _complete(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config, flat, with today's defaults for what an older run lacks."""
  try:
    full = configs.to_data(configs.from_data(config))
  except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
    full = dict(config)  # of another version: it is shown as it is
  flat = configs.flat(full)
  for part in configs.parts(full.get('task')):
    # A part that is off is a choice like any other.
    if part in flat and flat[part] is None:
      flat[f'{part}.name'] = flat.pop(part)
  if not attends(flat):
    return {k: v for k, v in flat.items() if not k.startswith('attention.')}
  return flat


def attends(config: Mapping[str, Any]) -> bool:
  """Whether a flat config is that of a model with attention."""
  if config.get('model.word_pool', 'mean') not in _WITHOUT['model.pool']:
    return True
  return not any(config.get(key) in _WITHOUT[key] for key in _WITHOUT)


def splits(run: Run) -> list[str]:
  """The splits that a run predicted, the tests before the others."""
  return [path.stem for path in _splits(run.path / 'predictions')]


def is_test(split: str) -> bool:
  """Whether a split took no part in the training."""
  return not split.startswith(('validation', 'train'))


def predictions(run: Run, split: str, *, say: Say = warn) -> list[dict | None]:
  """Returns the records of predictions/SPLIT.jsonl.

  Each is a translation (source, reference, hypothesis) or a text with its class
  (text, label, prediction, probability). A record that is neither is None, so
  that the others keep their numbers.
  """
  path = run.path / 'predictions' / f'{split}.jsonl'
  return _checked(path, _prediction, say) if path.is_file() else []


def attention(run: Run, *, say: Say = warn) -> dict[str, dict[int, dict]]:
  """Returns the records of attention/: split -> number of example -> record.

  `weights` of a record is an array [T, S]; `heads`, where there are some, is
  [layers, heads, T, S].
  """
  found = {}
  for path in _splits(run.path / 'attention'):
    records = _checked(path, _attention, say)
    found[path.stem] = {r['example']: r for r in records if r is not None}
  if not found:
    # Older runs hold the weights of a text with its prediction.
    for split in splits(run):
      records = predictions(run, split, say=lambda _: None)
      if not any(record and 'weights' in record for record in records[:5]):
        continue
      pairs = ((i, _of_prediction(r)) for i, r in enumerate(records))
      if held := {i: {**r, 'example': i} for i, r in pairs if r is not None}:
        found[split] = held
  return found


def _of_prediction(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
  if record is None or 'weights' not in record:
    return None
  source = record['text'].split()
  weights = np.asarray([record['weights']], np.float32)
  if weights.shape != (1, len(source)) or not 0 < len(source) <= _LONGEST:
    return None
  return {
    'source': source,
    'target': [record['prediction']],
    'weights': weights,
  }


def _splits(folder: pathlib.Path) -> list[pathlib.Path]:
  """JSONL files, test splits first."""
  return sorted(
    folder.glob('*.jsonl'),
    key=lambda path: (not is_test(path.stem), path.stem != 'test', path),
  )


def _checked(path: pathlib.Path, check: Callable, say: Say) -> list:
  records, wrong = _lines(path)
  checked = [check(record) for record in records]
  wrong += [i for i, record in enumerate(checked, 1) if record is None]
  if wrong:
    say(
      f'{path}: {len(wrong)} of {len(records)} records are malformed, or of '
      f'more than {_LONGEST:,} words, and left out; the first is line '
      f'{min(wrong)}'
    )
  return checked


def _prediction(record: dict) -> dict | None:
  translation = ('source', 'reference', 'hypothesis')
  classified = ('text', 'label', 'prediction')
  for keys in (translation, classified):
    if all(isinstance(record.get(key), str) for key in keys):
      found = {key: record[key] for key in keys}
      shares = record.get('probabilities')
      if isinstance(shares, list) and shares and all(map(is_finite, shares)):
        found['probability'] = max(map(float, shares))
      if keys is classified and (weights := _matrix(record.get('weights'))):
        found['weights'] = weights
      return found
  return None


def _matrix(rows: Any) -> list[float] | None:
  """Weights of sentences, one after the other, as older runs hold them."""
  if not isinstance(rows, list) or not all(isinstance(r, list) for r in rows):
    return None
  joined = [value for row in rows for value in row]
  return joined if all(map(is_finite, joined)) else None


def _attention(record: dict) -> dict | None:
  example = record.get('example')
  if not isinstance(example, int) or isinstance(example, bool) or example < 0:
    return None
  sides = [record.get(side) for side in ('source', 'target')]
  for side in sides:
    if not isinstance(side, list) or not 0 < len(side) <= _LONGEST:
      return None
    if not all(isinstance(token, str) for token in side):
      return None
  source, target = sides
  weights = _array(record.get('weights'), 2)
  if weights is None or weights.shape != (len(target), len(source)):
    return None
  found = {**dict(zip(('source', 'target'), sides, strict=True))}
  found |= {'example': example, 'weights': weights}
  heads = _array(record.get('heads'), 4)
  if heads is not None and heads.shape[2:] == weights.shape and heads.size:
    found['heads'] = heads
  gold = record.get('gold')
  if isinstance(gold, list) and all(
    isinstance(i, int) and 0 <= i < len(source) for i in gold
  ):
    found['gold'] = gold
  return found


def _array(value: Any, rank: int) -> np.ndarray | None:
  """Finite float32 of a rank, or None."""
  if not isinstance(value, list):
    return None
  try:
    array = np.asarray(value, np.float32)
  except (ValueError, TypeError, OverflowError):
    return None
  return array if array.ndim == rank and np.isfinite(array).all() else None


def is_finite(value: object) -> bool:
  """Whether it is a number that a float can hold; NaN is none."""
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and abs(value) <= sys.float_info.max
