"""results/NAME.json from run directories, and README's tables from those.

  python -m attnlab.report.results RUN_DIR... --name=NAME --label='GRU'
  python -m attnlab.report.results        writes README's tables again

Each file holds one row of a table and all that is needed to judge it or to
make it again: command, config, versions, hardware, seeds, metric signatures.
Several run directories are seeds, or folds, of one experiment: the row is their
mean.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import statistics
import sys
from typing import Any, NamedTuple

from attnlab import errors
from attnlab.measures import statistics as tests
from attnlab.report import compare, measuring

BEGIN = '<!-- results:begin -->'
END = '<!-- results:end -->'


class Column(NamedTuple):
  """One column: its head, the figure's key, and how a number is written.

  The first column of a table that says whether larger is better is tested.
  """

  head: str
  key: str
  format: str = '.1f'
  scale: float = 1.0
  larger: bool | None = None


# A column shows where some row has its figure.
COLUMNS = (
  Column('BLEU', 'test/bleu', larger=True),
  Column('BLEU, long', 'long/bleu'),
  Column('chrF', 'test/chrf'),
  Column('AER', 'test/aer', '.3f'),
  Column('AER, human zh-en', 'zh-en/aer', '.3f'),
  Column('AER, human de-en', 'de-en/aer', '.3f'),
  Column('target tokens/s', 'train/tokens_per_second', ',.0f'),
  Column('minutes', 'seconds', '.1f', 1 / 60),
)
CLASS_COLUMNS = (
  Column('accuracy', 'test/accuracy', '.1f', 100, larger=True),
  Column('macro-F1', 'test/macro_f1', '.1f', 100),
  Column('gold word', 'test/pointing', '.1f', 100),
  Column('gold sentence', 'test/sentence_pointing', '.1f', 100),
  Column('minutes', 'seconds', '.1f', 1 / 60),
)
SPEED_COLUMNS = (
  Column('attnlab, tokens/s', 'attnlab/tokens_per_second', ',.0f'),
  Column('JoeyNMT, tokens/s', 'joeynmt/tokens_per_second', ',.0f'),
  Column('PyTorch, tokens/s', 'torch/tokens_per_second', ',.0f'),
  Column('ratio', 'ratio', '.2f'),
)


def collect(
  directories: Sequence[str | pathlib.Path], *, name: str, label: str = ''
) -> dict[str, Any]:
  """Returns the entry for one experiment, read from its run directories.

  Args:
    directories: finished runs which differ in nothing but the seed.
    name: the entry's name, the stem of its file.
    label: what the table calls it; the name if empty.

  Raises:
    UserError: a directory is no finished run, two runs have different
      configs or figures, or the name is no file name.
  """
  if not re.fullmatch(r'[a-z0-9_]+', name):
    raise errors.UserError(
      f'name={name!r} must consist of lower-case letters, digits and _'
    )
  if not directories:
    raise errors.UserError('no run directory was given')
  runs = [_read(pathlib.Path(directory)) for directory in directories]
  summaries, configs, environments = zip(*runs, strict=True)
  _check_same(directories, configs)
  measured = [
    _measured(pathlib.Path(directory), summary)
    for directory, summary in zip(directories, summaries, strict=True)
  ]
  if not all(measured):  # a mean is of all seeds, or of none
    measured = [{} for _ in runs]
  numbers = [
    {k: v for k, v in s.items() if compare.is_number(v) and k != 'seed'}
    | {k: v for k, v in m.items() if '/' in k and compare.is_number(v)}
    for s, m in zip(summaries, measured, strict=True)
  ]
  for directory, figures in zip(directories, numbers, strict=True):
    if missing := numbers[0].keys() ^ figures.keys():
      raise errors.UserError(
        f"'{directory}' and '{directories[0]}' differ in the figure"
        f' {min(missing)!r}'
      )
  first = environments[0]
  return _portable(
    {
      'name': name,
      'label': label or name,
      'command': command_line(first['command'], several=len(runs) > 1),
      **_measuring(measured[0]),
      'seeds': [environment['seed'] for environment in environments],
      'figures': {
        key: round(statistics.fmean(n[key] for n in numbers), 6)
        for key in sorted(numbers[0])
      },
      'deviations': {
        key: round(statistics.stdev([n[key] for n in numbers]), 6)
        for key in sorted(numbers[0])
        if len(numbers) > 1
      },
      'values': {
        key: [round(n[key], 6) for n in numbers]
        for key in sorted(numbers[0])
        if len(numbers) > 1
      },
      'intervals': {
        key: _interval([n[key] for n in numbers])
        for key in sorted(numbers[0])
        if len(numbers) > 2
      },
      'signatures': {**_signatures(measured[0]), **_signatures(summaries[0])},
      'hardware': {
        key: first[key]
        for key in ('cpu', 'cores', 'device', 'devices', 'platform')
        if key in first
      },
      'python': first['python'],
      'versions': first['versions'],
      'commit': first.get('commit'),
      'date': first.get('started', '')[:10],
      'config': configs[0],
    }
  )


def _interval(values: Sequence[float]) -> list[float]:
  """The 95 % interval of the mean, by BCa bootstrap over the seeds."""
  found = tests.summarise(values)
  return [round(found.low, 6), round(found.high, 6)]


def _read(path: pathlib.Path) -> tuple[dict, dict, dict]:
  parts = []
  for name in ('summary.json', 'config.json', 'environment.json'):
    try:
      parts.append(json.loads((path / name).read_text(encoding='utf-8')))
    except FileNotFoundError:
      raise errors.UserError(
        f"'{path}' is no finished run: it has no {name}"
      ) from None
  return tuple(parts)


def _measured(path: pathlib.Path, summary: Mapping[str, Any]) -> dict[str, Any]:
  """What --mode=measure found of what the summary is of, or {}."""
  try:
    found = json.loads((path / measuring.FILE).read_text(encoding='utf-8'))
  except FileNotFoundError:
    return {}
  return found if measuring.usual(found, summary) else {}


def _measuring(measured: Mapping[str, Any]) -> dict[str, str]:
  """The command that measured a run."""
  if not measured:
    return {}
  usual = {
    'alignments': None,
    'reverse': None,
    'examples': measuring.EXAMPLES,
    'average': 1,
  }
  flags = [
    f'--{name}={_portable(measured[name])}'
    for name, value in usual.items()
    if measured.get(name, value) != value
  ]
  command = ['python launch.py --mode=measure --workdir=$RUN', *flags]
  return {'measured': ' '.join(command)}


def _signatures(summary: Mapping[str, Any]) -> dict[str, str]:
  """The metric signatures of a summary: {'bleu': 'nrefs:1|case:mixed|...'}."""
  nested = summary.get('signatures') or {}
  flat = {
    key.removeprefix('signature/'): value
    for key, value in summary.items()
    if key.startswith('signature/')
  }
  return {**nested, **flat}


def _flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping):
      flat |= _flatten(value, f'{prefix}{key}.')
    else:
      flat[prefix + key] = value
  return flat


# What runs that are averaged may differ in.
_REPEATED = {'seed': '$SEED', 'data.fold': '$FOLD'}


def _check_same(
  directories: Sequence[str | pathlib.Path], configs: Sequence[Mapping]
) -> None:
  first = _flatten(configs[0])
  for directory, config in zip(directories, configs, strict=True):
    other = _flatten(config)
    for key in sorted(first.keys() | other.keys()):
      if first.get(key) != other.get(key) and key not in _REPEATED:
        raise errors.UserError(
          f"'{directory}' has {key}={other.get(key)!r}, but"
          f" '{directories[0]}' has {first.get(key)!r}: seeds of one"
          ' experiment share all else'
        )


def command_line(words: Iterable[str], *, several: bool = False) -> str:
  """Returns the command for a shell, without the user's own run directory.

  Args:
    words: of one run.
    several: it stands for runs of other seeds and folds as well, which the
      shell has to fill in.
  """
  kept, skip = [], False
  for word in words:
    if skip:
      skip = False
    elif word in ('--workdir', '-workdir'):
      skip = True
    elif not re.match(r'--?workdir=', word):
      for key, variable in _REPEATED.items() if several else ():
        if word.startswith(f'--config.{key}='):
          word = f'--config.{key}={variable}'
      kept.append(_portable(word))
  # A variable is for the shell to fill in.
  variables = ('$ATTNLAB_DATA', *_REPEATED.values())
  quoted = (
    w if any(v in w for v in variables) else shlex.quote(w) for w in kept
  )
  return ' '.join(['python', *quoted])


def _portable(value: Any) -> Any:
  """The same data without the folders of the machine it was made on."""
  if isinstance(value, Mapping):
    return {key: _portable(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_portable(item) for item in value]
  if not isinstance(value, str):
    return value
  head, equals, path = value.rpartition('=')
  if not path.startswith('/'):
    return value
  data = os.environ.get('ATTNLAB_DATA')
  if data and pathlib.Path(path).is_relative_to(pathlib.Path(data).resolve()):
    inside = pathlib.Path(path).relative_to(pathlib.Path(data).resolve())
    path = f'$ATTNLAB_DATA/{inside}'
  else:
    path = pathlib.Path(path).name
  return head + equals + path


def here(*packages: str) -> dict[str, Any]:
  """Hardware, versions, commit and day, for the entry of a benchmark.

  Args:
    *packages: whose versions count, besides attnlab's.
  """
  from attnlab.training import environment

  found = environment.describe(0)
  return {
    'hardware': {
      key: found[key] for key in ('cpu', 'cores', 'device', 'platform')
    },
    'python': platform.python_version(),
    'versions': {
      package: importlib.metadata.version(package)
      for package in ('attnlab', *packages)
    },
    'commit': found['commit'],
    'date': found['started'][:10],
  }


def machine(found: Mapping[str, Any]) -> str:
  """What a run was on: '2 cores of AMD EPYC', or '1 × ' and a GPU's name.

  Args:
    found: environment.json, or 'hardware' of an entry.
  """
  if found.get('device') not in (None, 'cpu'):
    return f'{found.get("devices", 1)} × {found["device"]}'
  count = found.get('cores', '?')
  return (
    f'{count} core{"" if count == 1 else "s"} of {found.get("cpu", "a CPU")}'
  )


def write(entry: Mapping[str, Any], directory: pathlib.Path) -> pathlib.Path:
  """Writes the entry as directory/NAME.json and returns the path."""
  directory.mkdir(parents=True, exist_ok=True)
  path = directory / f'{entry["name"]}.json'
  text = json.dumps(entry, indent=2, ensure_ascii=False, sort_keys=False)
  path.write_text(text + '\n', encoding='utf-8')
  return path


def render(directory: pathlib.Path) -> str:
  """Returns the Markdown tables of all entries in a folder."""
  entries = [
    json.loads(path.read_text(encoding='utf-8'))
    for path in sorted(directory.glob('*.json'))
  ]
  tables = {'translation': [], 'classification': [], 'training speed': []}
  for entry in entries:
    figures = entry['figures']
    if 'ratio' in figures:
      kind = 'training speed'
    elif 'test/macro_f1' in figures:
      kind = 'classification'
    else:
      kind = 'translation'
    tables[kind].append(entry)
  columns = (COLUMNS, CLASS_COLUMNS, SPEED_COLUMNS)
  blocks = [
    _table(head, chosen, shown)
    for (head, chosen), shown in zip(tables.items(), columns, strict=True)
    if chosen
  ]
  if not entries:
    blocks.append('No results yet.')
  else:
    blocks.append(_machines(entries))
  return '\n\n'.join(blocks)


def _table(
  head: str, entries: Sequence[Mapping], columns: Sequence[Column]
) -> str:
  columns = [c for c in columns if any(c.key in e['figures'] for e in entries)]
  bold, caption = _tested(entries, columns)
  rows = [
    [head, *(c.head for c in columns), 'on', 'seeds', 'command'],
    ['---', *('---:' for _ in columns), '---:', '---:', '---'],
  ]
  for entry in entries:
    link = f'[{_cell(entry["label"])}](results/{entry["name"]}.json)'
    numbers = [_figure(entry, column) for column in columns]
    numbers = [
      f'**{text}**' if (entry['name'], column.key) in bold else text
      for text, column in zip(numbers, columns, strict=True)
    ]
    command = f'`{_cell(entry["command"])}`'
    device = machine(entry['hardware']).partition(' of ')[0]
    rows.append([link, *numbers, device, _repeated(entry), command])
  table = '\n'.join(f'| {" | ".join(row)} |' for row in rows)
  return f'{table}\n\n{caption}' if caption else table


def _repeated(entry: Mapping) -> str:
  """How many seeds, or folds of one seed, a row is the mean of."""
  count = len(entry['seeds'])
  folds = count > 1 and len(set(entry['seeds'])) == 1
  return f'{count} folds' if folds else str(count)


def _tested(
  entries: Sequence[Mapping], columns: Sequence[Column]
) -> tuple[set[tuple[str, str]], str]:
  """What is bold, as (name, key), and what the caption says of tests.

  Rows of the same data and the same seeds are tested against their best one,
  in the first column that may be, with Holm's correction over the table.
  """
  tested = [column for column in columns if column.larger is not None]
  if not tested:
    return set(), ''
  column = tested[0]
  groups: dict[str, dict[str, list[float]]] = {}
  alone = set()
  for entry in entries:
    values = entry.get('values', {}).get(column.key, [])
    if len(values) < tests.FEWEST:
      alone.add(len(entry['seeds']))
      continue
    key = json.dumps([_data(entry), entry['seeds']], sort_keys=True)
    groups.setdefault(key, {})[entry['name']] = values
  rows = [group for group in groups.values() if len(group) > 1]
  sentences = []
  few = sorted(n for n in alone if n < tests.FEWEST)
  if few and not rows and len(few) == 1:
    sentences.append(tests.note(few[0]))
  elif few:
    sentences.append(
      f'No test is possible with fewer than {tests.FEWEST} seeds.'
    )
  bold: set[tuple[str, str]] = set()
  if rows:
    pick = max if column.larger else min
    found = []
    for group in rows:
      best = pick(group, key=lambda name: statistics.fmean(group[name]))
      found += [
        (best, tests.permutation(group[best], group[name]))
        for name in group
        if name != best
      ]
    corrected = tests.holm([p for _, p in found])
    lost = {
      best
      for (best, _), p in zip(found, corrected, strict=True)
      if p >= tests.ALPHA
    }
    bold = {(best, column.key) for best, _ in found if best not in lost}
    seeds = min(len(values) for group in rows for values in group.values())
    sentences.append(
      f'{column.head.capitalize()}, rows of the same data: '
      f'{tests.note(seeds, len(found))}'
    )
  return bold, ' '.join(sentences)


def _data(entry: Mapping) -> Any:
  return entry.get('config', {}).get('data')


def _figure(entry: Mapping, column: Column) -> str:
  value = entry['figures'].get(column.key)
  if value is None:
    return '–'
  text = format(value * column.scale, column.format)
  spread = entry.get('deviations', {}).get(column.key)
  if spread:
    text += f' ± {format(spread * column.scale, column.format)}'
  return text


def _cell(text: str) -> str:
  return text.replace('|', '\\|').replace('\n', ' ')


def _machines(entries: Sequence[Mapping]) -> str:
  """One sentence on where the figures were measured."""
  machines = dict.fromkeys(machine(e['hardware']) for e in entries)
  columns = (*COLUMNS, *CLASS_COLUMNS)
  shown = {column.key.rpartition('/')[2] for column in columns}
  signatures = dict.fromkeys(
    f'{name}: `{signature}`'
    for e in entries
    for name, signature in e.get('signatures', {}).items()
    if name in shown
  )
  text = f'Measured on {"; ".join(machines)}.'
  if signatures:
    text += f' Signatures: {"; ".join(signatures)}.'
  return text


def update_readme(readme: pathlib.Path, directory: pathlib.Path) -> None:
  """Writes the tables between the markers of a README.

  Raises:
    UserError: the markers are missing.
  """
  text = readme.read_text(encoding='utf-8')
  before, begin, rest = text.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not begin or not end:
    raise errors.UserError(f"'{readme}' lacks the lines {BEGIN} and {END}")
  tables = render(directory)
  readme.write_text(
    f'{before}{BEGIN}\n{tables}\n{END}{after}', encoding='utf-8'
  )


def main(arguments: Sequence[str] | None = None) -> int:
  """Collects run directories, if any, and writes README's tables."""
  parser = argparse.ArgumentParser(
    prog='python -m attnlab.report.results',
    description=(__doc__ or '').splitlines()[0],
  )
  parser.add_argument('directories', nargs='*', metavar='RUN_DIR')
  parser.add_argument('--name', help='stem of the file in results/')
  parser.add_argument('--label', default='', help='what the table calls it')
  parser.add_argument('--results', type=pathlib.Path, default='results')
  parser.add_argument('--readme', type=pathlib.Path, default='README.md')
  options = parser.parse_args(arguments)
  try:
    if options.directories:
      name = options.name or pathlib.Path(options.directories[0]).name
      entry = collect(options.directories, name=name, label=options.label)
      print(write(entry, options.results))
    update_readme(options.readme, options.results)
  except errors.UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())
