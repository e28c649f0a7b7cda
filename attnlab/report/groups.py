"""Finished runs in groups: by task and data, and by all that is set there."""

from collections.abc import Mapping, Sequence
import json
import pathlib
import re
from typing import Any, NamedTuple

from attnlab import errors
from attnlab.report import runs as runs_lib

# Where data lie, how many devices share a batch: nothing that a figure of a
# paper depends on.
_ASIDE = ('data.dir', 'data.manual_dir', 'mesh.', 'evaluation.pictures')


class Setting(NamedTuple):
  """Runs that differ in nothing but their seed.

  Attributes:
    label: what tells it from the other rows of its table.
    runs: sorted by seed, each seed once.
    differs: what varies over the table -> this row's value.
  """

  label: str
  runs: Sequence[runs_lib.Run]
  differs: Mapping[str, Any]

  @property
  def config(self) -> Mapping[str, Any]:
    return self.runs[0].config

  def values(self, key: str) -> dict[tuple[str, ...], float]:
    """A figure of the summaries by seed, where it is a finite number."""
    found = {run.repeat: run.summary.get(key) for run in self.runs}
    return {k: float(v) for k, v in found.items() if runs_lib.is_finite(v)}


class Section(NamedTuple):
  """All settings of one task on one data set: a table.

  Attributes:
    name: fit for the name of a file.
    title: for the reader.
    task: 'translation', 'classification' ...
    settings: the rows.
  """

  name: str
  title: str
  task: str
  settings: Sequence[Setting]

  @property
  def runs(self) -> list[runs_lib.Run]:
    return [run for setting in self.settings for run in setting.runs]


def sections(
  runs: Sequence[runs_lib.Run], *, say: runs_lib.Say = runs_lib.warn
) -> list[Section]:
  """Groups runs by task and data set, and there by all that is set but a seed.

  Args:
    runs: as `read` returns them.
    say: is told of runs that repeat a seed of the same setting.
  """
  tables: dict[tuple[str, ...], list[runs_lib.Run]] = {}
  for run in runs:
    key = str(run.config['task']), *_source(run.config)
    tables.setdefault(key, []).append(run)
  short = {key: f'{key[0]} on {_short(*key[1:])}' for key in tables}
  found, names = [], set()
  for key, members in tables.items():
    title = short[key]
    if list(short.values()).count(title) > 1:
      title = f'{key[0]} on {key[1]} ({", ".join(key[2:])})'
    name = _file_name(title.replace(' on ', ' '))
    while name in names:
      name += '_'
    names.add(name)
    title = title[0].upper() + title[1:]
    found.append(Section(name, title, key[0], _settings(members, say)))
  return found


# Settings of a data set that say which test set it is, and not how it is read.
_FILES = ('dir', 'train', 'validation', 'test')
_TOLD = {'files': _FILES, 'tfds': ('dataset',)}
_OTHERS = ('classes', 'part', 'source_language', 'target_language')


def _source(config: Mapping[str, Any]) -> tuple[str, ...]:
  """Which data a run is of: its name, and what tells it from others."""
  name = str(config.get('data.name'))
  found = []
  for key in (*_TOLD.get(name, ()), *_OTHERS):
    value = config.get(f'data.{key}')
    if value not in (None, ''):
      place = str(pathlib.PurePath(value)) if key in _FILES else value
      found.append(f'{key}={place}')
  return name, *found


def _short(name: str, first: str = '', *rest: str) -> str:
  """A name; of a user's own files, and of TFDS, with their last part."""
  del rest
  place = pathlib.PurePath(first.partition('=')[2]).name
  return f'{name} {place}' if name in _TOLD and place else name


def _file_name(text: str) -> str:
  return re.sub('[^a-z0-9]+', '_', text.lower()).strip('_')[:60]


def _settings(runs: Sequence[runs_lib.Run], say: runs_lib.Say) -> list[Setting]:
  keys = _varying(runs)
  groups: dict[tuple[str, ...], list[runs_lib.Run]] = {}
  for run in runs:
    groups.setdefault(_key(run, keys), []).append(run)
  labels = _labels([group[0].config for group in groups.values()], keys)
  settings = []
  for label, group in zip(labels, groups.values(), strict=True):
    once: dict[tuple[str, ...], runs_lib.Run] = {}
    for run in group:
      if first := once.get(run.repeat):
        say(
          f'skipped {run.path}: {first.path} has the same setting and the same '
          'seed'
        )
      once.setdefault(run.repeat, run)
    order = sorted(once.values(), key=lambda run: str(run.repeat).zfill(40))
    differs = {
      key: group[0].config[key] for key in keys if key in group[0].config
    }
    settings.append(Setting(label, order, differs))
  return settings


def _varying(runs: Sequence[runs_lib.Run]) -> list[str]:
  """The settings with more than one value; mechanism and model first.

  One that only some of the runs have does not count unless its values differ
  there: a score's own settings come and go with its name.
  """
  values: dict[str, set[str]] = {}
  for run in runs:
    for key, value in run.config.items():
      if key not in runs_lib.REPEATED and not key.startswith(_ASIDE):
        values.setdefault(key, set()).add(json.dumps(value, default=str))
  for key, found in values.items():
    # Without attention there is no choice of a score to differ in.
    absent = any(
      key not in r.config and runs_lib.attends(r.config) for r in runs
    )
    if absent and key.endswith('.name'):
      found.add('null')
  keys = [key for key, found in values.items() if len(found) > 1]
  return sorted(keys, key=lambda key: (_rank(key), key))


def _rank(key: str) -> int:
  order = ('model.name', 'attention.', 'model.', 'data.', 'training.loss')
  named = 0 if key.endswith('.name') else len(order)
  place = next((i for i, o in enumerate(order) if key.startswith(o)), 5)
  # The pool of a classifier is as much of a mechanism as a name.
  return place if key.endswith('pool') else named + place


def _key(run: runs_lib.Run, keys: Sequence[str]) -> tuple[str, ...]:
  return tuple(json.dumps(run.config.get(k), default=str) for k in keys)


def _labels(
  rows: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> list[str]:
  """Names rows by what differs, in as few words as tell all of them apart.

  The names of mechanisms and models come first, and are all there.
  """
  if not keys:
    return [_only(row) for row in rows]
  chosen: list[str] = []
  seen = lambda some: [tuple(str(row.get(k)) for k in some) for row in rows]
  for key in keys:
    telling = len(set(seen([*chosen, key]))) > len(set(seen(chosen)))
    names = key.endswith('.name') and key.startswith(('model', 'attention'))
    if names or telling:
      chosen.append(key)
  shorts = [key.rpartition('.')[2] for key in chosen]
  labels = []
  for row in rows:
    words = []
    for key, short in zip(chosen, shorts, strict=True):
      value = row.get(key)
      if key not in row:
        continue
      if key.endswith('.name'):
        part = key.split('.')[-2]
        words.append(f'no {part}' if value is None else str(value))
      else:
        name = short if shorts.count(short) == 1 else key
        words.append(f'{name}={_shown(value)}')
    labels.append(', '.join(words) or 'default')
  return labels


def _only(row: Mapping[str, Any]) -> str:
  """The one row of a table by its mechanism."""
  keys = ('model.name', 'attention.score.name', 'attention.normalizer.name')
  return ', '.join(str(row[key]) for key in keys if row.get(key)) or 'default'


def _shown(value: Any) -> str:
  if isinstance(value, float):
    return f'{value:g}'
  return errors.shortened(value, 40) if not isinstance(value, str) else value
