"""Several runs side by side: a table, learning curves, BLEU by length.

What is compared comes out of run directories alone: summary.json,
metrics.jsonl and predictions/<split>.jsonl.
"""

from collections.abc import Mapping, Sequence
import json
import math
import pathlib
import typing
from typing import Any

from attnlab import errors
from attnlab.measures import lengths, statistics

if typing.TYPE_CHECKING:
  from rich.table import Table

Record = Mapping[str, Any]

# What a learning curve shows, the most telling first.
_CURVES = ('bleu', 'loss', 'accuracy', 'f1', 'aer')
_PANELS = 3


def compare(
  runs: Mapping[str, str | pathlib.Path], directory: str | pathlib.Path
) -> list[pathlib.Path]:
  """Prints a table of runs and draws them in common figures.

  Args:
    runs: label -> run directory.
    directory: where learning_curves and bleu_by_length are written, as PNG
      and PDF. The second is left out unless all runs translated the same
      sentences.

  Returns:
    The files that were written.

  Raises:
    UserError: a directory is no finished run, or there are none.
  """
  import numpy as np

  from attnlab.report import figures

  if not runs:
    raise errors.UserError('no run directory was given')
  paths = {label: pathlib.Path(path) for label, path in runs.items()}
  directory = pathlib.Path(directory)
  show(table({k: summary(path) for k, path in paths.items()}))
  for line in bleu_tests(paths):
    print(line)
  files = []
  curves = {k: _lines(path / 'metrics.jsonl') for k, path in paths.items()}
  if keys := curve_keys(curves):
    one_seed = {label: [lines] for label, lines in curves.items()}
    figure = figures.learning_curves(one_seed, keys)
    files += figures.save(figure, directory / 'learning_curves')
  translated = {label: records(path) for label, path in paths.items()}
  if bins := bleu_by_length(translated, tokenize=_tokenize(paths)):
    names, _, counts = next(iter(bins.values()))
    figure = figures.metric_by_length(
      {label: np.array([values]) for label, (_, values, _) in bins.items()},
      names,
      counts,
      ylabel='BLEU',
      counted='sentences',
      bottom=0,
    )
    files += figures.save(figure, directory / 'bleu_by_length')
  elif any(translated.values()):
    print('the runs translated different sentences: no BLEU by length')
  for file in files:
    print(file)
  return files


def show(table: 'Table') -> None:
  """Prints a table, whole where nobody's window bounds it."""
  from rich.console import Console

  console = Console()
  if not console.is_terminal:
    console.width = max(console.width, console.measure(table).maximum)
  console.print(table)


def summary(path: pathlib.Path) -> dict[str, Any]:
  """Returns summary.json of a run directory.

  Raises:
    UserError: there is none.
  """
  try:
    return json.loads((path / 'summary.json').read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise errors.UserError(
      f"workdir='{path}' is no finished run: it has no summary.json"
    ) from None


def over_seeds(summaries: Mapping[str, Mapping[str, Any]]) -> 'Table':
  """Returns the table of one config's seeds, mean and deviation first.

  Args:
    summaries: label of the seed -> figures.
  """
  keys = dict.fromkeys(key for found in summaries.values() for key in found)
  means, deviations = {}, {}
  for key in keys:
    values = [found.get(key) for found in summaries.values()]
    if '/' in key and all(is_number(v) and math.isfinite(v) for v in values):
      found = statistics.summarise(values)
      means[key], deviations[key] = found.mean, found.deviation
  result = table({'mean': means, 'deviation': deviations, **summaries})
  result.caption = None
  return result


def table(summaries: Mapping[str, Mapping[str, Any]]) -> 'Table':
  """Returns a table with a row for each figure and a column for each run."""
  from rich.table import Table

  result = Table(
    box=None,
    header_style='bold',
    pad_edge=False,
    caption=statistics.note(seeds=1) if len(summaries) > 1 else None,
    caption_justify='left',
  )
  result.add_column('figure')
  for label in summaries:
    result.add_column(label, justify='right')
  keys = dict.fromkeys(
    key
    for figures in summaries.values()
    for key, value in figures.items()
    if is_number(value) and '/' in key
  )
  # Results first, then what they cost.
  for key in sorted(keys, key=lambda k: k.startswith('train/')):
    row = [figures.get(key) for figures in summaries.values()]
    result.add_row(key, *(_number(value) for value in row))
  return result


def bleu_tests(paths: Mapping[str, pathlib.Path]) -> list[str]:
  """Returns a line for each split that all runs translated.

  It says whether two translations of one text differ, by the paired bootstrap
  over its sentences: nothing about other seeds.

  Args:
    paths: label -> run directory; the first one is compared with.
  """
  if len(paths) < 2:
    return []
  splits = [
    {file.stem for file in (path / 'predictions').glob('*.jsonl')}
    for path in paths.values()
  ]
  lines = []
  for split in sorted(set.intersection(*splits) - {'train', 'validation'}):
    runs = {
      label: _lines(path / 'predictions' / f'{split}.jsonl')
      for label, path in paths.items()
    }
    texts = [
      [(r.get('source'), r.get('reference')) for r in run]
      for run in runs.values()
    ]
    if texts[0] and all(t == texts[0] and t[0][1] is not None for t in texts):
      lines.append(_bleu_test(split, runs, _tokenize(paths)))
  return lines


def _bleu_test(
  split: str, runs: Mapping[str, Sequence[Record]], tokenize: str
) -> str:
  base, *_ = runs.values()
  found, signature = statistics.paired_bleu(
    {label: [r['hypothesis'] for r in run] for label, run in runs.items()},
    [record['reference'] for record in base],
    tokenize=tokenize,
  )
  words = [
    f'{label} {each.score:.1f} ± {each.interval:.1f}'
    + ('' if math.isnan(each.p) else f' (p = {each.p:.3f})')
    for label, each in found.items()
  ]
  return (
    f'{split}: BLEU {", ".join(words)}; 95 % interval and p against the first '
    f'by paired bootstrap over {len(base):,} sentences [{signature}]'
  )


def _tokenize(paths: Mapping[str, pathlib.Path]) -> str:
  """How the first run's BLEU is tokenised."""
  path = next(iter(paths.values())) / 'config.json'
  if not path.is_file():
    return 'none'
  config = json.loads(path.read_text(encoding='utf-8'))
  return config.get('evaluation', {}).get('tokenize', 'none')


def is_number(value: object) -> bool:
  """Whether a value of a summary is a figure, and no truth value."""
  return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object) -> str:
  """Four digits that matter, no exponent for common sizes."""
  if not isinstance(value, int | float):
    return '–'
  if not math.isfinite(value) or value == int(value):
    return f'{value:,.0f}' if math.isfinite(value) else str(value)
  size = math.floor(math.log10(abs(value))) + 1
  if size < -3:
    return f'{value:.2e}'
  return f'{value:,.{min(4, max(0, 4 - size))}f}'


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """The lines of a JSONL file; none if it does not exist."""
  if not path.exists():
    return []
  # Not splitlines: a sentence may hold U+2028, which is no end of line here.
  with path.open(encoding='utf-8', newline='\n') as file:
    return [json.loads(line) for line in file if line.strip()]


def curve_keys(curves: Mapping[str, Sequence[Record]]) -> list[str]:
  """Returns the metrics that the learning curves show, at most three."""
  present = {key for lines in curves.values() for line in lines for key in line}
  keys = [key for key in ('train/loss',) if key in present]
  validation = sorted(k for k in present if k.startswith('validation/'))
  ranked = [f'validation/{name}' for name in _CURVES]
  keys += [key for key in ranked if key in validation]
  keys += [key for key in validation if key not in keys]
  return keys[:_PANELS]


def records(path: pathlib.Path) -> list[Record]:
  """Returns the translations of a run's test splits."""
  files = sorted((path / 'predictions').glob('*.jsonl'))
  return [
    record
    for file in files
    if not file.stem.startswith(('validation', 'train'))
    for record in _lines(file)
    if {'source', 'reference', 'hypothesis'} <= record.keys()
  ]


def bleu_by_length(
  translated: Mapping[str, Sequence[Record]], *, tokenize: str = 'none'
) -> dict[str, tuple[list[str], list[float], list[int]]]:
  """Corpus BLEU of the sentences in each bin of source length.

  Args:
    translated: label -> records with 'source', 'reference' and 'hypothesis',
      words separated by blanks.
    tokenize: of sacrebleu.

  Returns:
    label -> (names of the bins, BLEU from 0 to 100, numbers of sentences); the
    same bins for all. Empty if there are no records, or if
    the runs translated different sentences.
  """
  sources = [sorted(r['source'] for r in run) for run in translated.values()]
  if not sources or not sources[0] or any(s != sources[0] for s in sources):
    return {}
  bins = lengths.bins(_words(source) for source in sources[0])
  names = [f'{first}–{last}' for first, last in bins]
  found = {}
  for label, run in translated.items():
    inside = [
      [r for r in run if first <= _words(r['source']) <= last]
      for first, last in bins
    ]
    values = [bleu(some, tokenize=tokenize) for some in inside]
    found[label] = names, values, [len(some) for some in inside]
  return found


def bleu(translated: Sequence[Record], *, tokenize: str) -> float:
  """Corpus BLEU, from 0 to 100, of records as `bleu_by_length` takes them."""
  import sacrebleu

  found = sacrebleu.corpus_bleu(
    [record['hypothesis'] for record in translated],
    [[record['reference'] for record in translated]],
    tokenize=tokenize,
    force=True,
  )
  return found.score


def _words(text: str) -> int:
  return len(text.split())
