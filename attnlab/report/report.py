"""A report: the way from run directories to what a paper prints.

  python launch.py --report=runs/sst2 --out=report

writes tables (Markdown, CSV, LaTeX), figures (PNG, PDF), references.bib,
CITATION.cff, report.md with all of them and a paragraph on methods, and
examples.html, a page on which to see what each run looked at.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import json
import os
import pathlib
import re
import shutil
import tempfile
from typing import Any

from absl import flags
import numpy as np

from attnlab import errors
from attnlab.measures import lengths as lengths_lib
from attnlab.report import (
  citations,
  compare,
  figures,
  groups,
  measuring,
  methods,
  tables,
  viewer,
)
from attnlab.report import runs as runs_lib

MANIFEST = 'report.json'
_MOST_LINES = 12  # settings in one picture
_MOST_PANELS = 6
_LARGEST = 30  # words of a side in a picture
_LONGEST = 60  # of a text, which is one row


def command(args: flags.FlagValues, overrides: Mapping[str, str]) -> int:
  """Runs `launch.py --report=RUNS --out=DIR`, and returns the exit code.

  Raises:
    UserError: as `write`; or a flag was given that a report does not read.
  """
  read = ('report', 'out')
  other = [name for name in args if args[name].present and name not in read]
  other += [f'config.{path}' for path in overrides]
  if other:
    raise errors.UserError(f'report: it does not read --{other[0]}')
  files = write(args.report, args.out)
  print(f'{files[-1].parent}: {len(files)} files, begin with report.md')
  return 0


def write(
  places: Sequence[str | os.PathLike[str]],
  out: str | os.PathLike[str],
  *,
  say: runs_lib.Say = runs_lib.warn,
) -> list[pathlib.Path]:
  """Writes the report of some runs.

  Args:
    places: run directories, folders that hold some, or patterns.
    out: the folder of the report. It is new or empty, or holds a report, which
      is written again, and nothing else.
    say: is told of each run, or record, that is left out.

  Returns:
    The files that were written.

  Raises:
    UserError: there is no finished run, or `out` holds anything else.
  """
  if not str(out):
    raise errors.UserError('out is missing: the folder of the report')
  folder = pathlib.Path(out).resolve()
  _check_out(folder)
  runs = runs_lib.read(runs_lib.find(places), say=say)
  sections = groups.sections(runs, say=say)
  folder.parent.mkdir(parents=True, exist_ok=True)
  # Made aside and moved, so that a report is whole or is not there.
  aside = pathlib.Path(
    tempfile.mkdtemp(prefix=f'.{folder.name}-', dir=folder.parent)
  )
  try:
    _write(sections, aside, say)
    names = sorted(
      path.relative_to(aside).as_posix()
      for path in aside.rglob('*')
      if path.is_file()
    )
    manifest = {'report': 1, 'runs': [r.name for r in runs], 'files': names}
    _text(aside / MANIFEST, json.dumps(manifest, indent=2) + '\n')
    aside.chmod(0o755)
    if folder.exists():
      _check_out(folder)
      shutil.rmtree(folder)
    aside.rename(folder)
  finally:
    shutil.rmtree(aside, ignore_errors=True)
  return [folder / name for name in (*names, MANIFEST)]


def _check_out(folder: pathlib.Path) -> None:
  """Refuses a folder with anything but a report in it."""
  if not folder.exists():
    return
  if not folder.is_dir():
    raise errors.UserError(f'out={str(folder)!r} is no folder')
  ours = {MANIFEST}
  try:
    manifest = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
    if isinstance(manifest, dict) and manifest.get('report') == 1:
      ours |= set(map(str, manifest.get('files', ())))
  except (OSError, ValueError, TypeError, RecursionError):
    ours = set()
  for base, folders, files in os.walk(folder):
    # A link to a folder is not followed, and is no part of a report.
    links = [name for name in folders if os.path.islink(f'{base}/{name}')]
    for name in sorted(files + links):
      path = pathlib.Path(base, name).relative_to(folder).as_posix()
      if path not in ours:
        raise errors.UserError(
          f'out={str(folder)!r} holds {path!r}, which is no part of a report: '
          'choose another folder'
        )


def _write(
  sections: Sequence[groups.Section], folder: pathlib.Path, say: runs_lib.Say
) -> None:
  runs = [run for section in sections for run in section.runs]
  blocks = ['# Report']
  for section in sections:
    blocks += [f'## {tables.markdown_text(section.title)}']
    blocks.append(_table(tables.build(section), folder / 'tables'))
    if measures := tables.measures(section):
      blocks += ['### Measures', _table(measures, folder / 'tables')]
    pictures = draw(section, folder / 'figures', say)
    blocks += [
      f'![{tables.markdown_text(text)}](figures/{name}.png)'
      for name, text in pictures.items()
    ]
    if lines := tables.settings(section):
      escaped = [[tables.markdown_text(c) for c in line] for line in lines]
      rule = ['---'] * len(lines[0])
      settings = tables.grid([escaped[0], rule, *escaped[1:]])
      _text(folder / 'tables' / f'{section.name}_settings.md', settings)
      if len(lines[0]) < 8:
        blocks += ['### Settings', settings]
      else:
        blocks.append(
          f'[Settings](tables/{section.name}\\_settings.md) of all rows.'
        )
  bib, lacking = citations.bibtex(runs)
  for key in lacking:
    say(f'references.bib has no entry for {key}')
  _text(folder / 'references.bib', bib)
  _text(folder / 'CITATION.cff', citations.citation_file())
  blocks.append(
    '[Examples](examples.html): what each run predicted, and where it looked.'
  )
  text = methods.markdown(sections, cite=['attnlab', *methods.keys(runs)])
  whole = '\n\n'.join(block.strip('\n') for block in [*blocks, text])
  _text(folder / 'report.md', whole + '\n')
  page = viewer.page(viewer.examples(sections, say=say))
  _text(folder / 'examples.html', page)


def _table(table: tables.Table, folder: pathlib.Path) -> str:
  """Writes a table in all languages, and returns its Markdown."""
  text = tables.markdown(table)
  _text(folder / f'{table.name}.md', text)
  _text(folder / f'{table.name}.csv', tables.comma_separated(table))
  _text(folder / f'{table.name}.tex', tables.latex(table))
  return text


def _text(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text, encoding='utf-8', newline='\n')


# Figures.


def draw(
  section: groups.Section, folder: pathlib.Path, say: runs_lib.Say
) -> dict[str, str]:
  """Draws all that a section has data for.

  Returns:
    The names of the files without their endings -> what they show.
  """
  drawn: dict[str, str] = {}

  def save(figure: Any, name: str, text: str) -> None:
    figures.save(figure, folder / f'{section.name}_{name}')
    drawn[f'{section.name}_{name}'] = text

  shown = section.settings[:_MOST_LINES]
  more = len(section.settings) - len(shown)
  first = f', the first {len(shown)} of {len(section.settings)}' if more else ''
  lines = {s.label: [run.metrics for run in s.runs] for s in shown}
  flat = {run.name: run.metrics for s in shown for run in s.runs}
  if keys := compare.curve_keys(flat):
    figure = figures.learning_curves(lines, keys)
    save(figure, 'learning_curves', f'Learning curves{first}')
  looks = _of_weights(flat)
  if looks:
    figure = figures.learning_curves(lines, looks)
    save(figure, 'entropy', f'Entropy of the weights over training{first}')
  for name, figure in _by_length(section, shown, say).items():
    save(figure, f'{name.lower()}_by_length', f'{name} by source length{first}')
  if costs := _costs(shown):
    figure = figures.cost_by_length(costs, 'training step (ms)')
    save(figure, 'cost_by_length', f'Time of a training step by length{first}')
  for number, figure in _side_by_side(section).items():
    text = f'Weights for example {number}, mechanisms side by side'
    save(figure, f'weights_{number}', text)
  return drawn


def _of_weights(runs: Mapping[str, Sequence[Mapping]]) -> list[str]:
  """The metrics of metrics.jsonl that tell how spread the weights are."""
  present = {key for lines in runs.values() for line in lines for key in line}
  wanted = re.compile(r'(.*[/_])?(entropy|effective_support|support)$')
  return sorted(key for key in present if wanted.match(key))[:3]


def _by_length(
  section: groups.Section,
  shown: Sequence[groups.Setting],
  say: runs_lib.Say,
) -> dict[str, Any]:
  """BLEU or accuracy in bins of source length, over all test splits."""
  records = {
    setting.label: [_tested(run, say) for run in setting.runs]
    for setting in shown
  }
  kinds = {
    ('BLEU' if 'hypothesis' in record else 'Accuracy')
    for runs in records.values()
    for run in runs
    for record in run
  }
  if len(kinds) != 1:
    return {}
  kind = kinds.pop()
  texts = [
    [next(iter(r.values())) for r in run]
    for rs in records.values()
    for run in rs
  ]
  # Bins of the same texts, or lengths could not be compared.
  sources = sorted(texts[0])
  records = {
    label: [
      run
      for run in runs
      if sorted(next(iter(r.values())) for r in run) == sources
    ]
    for label, runs in records.items()
  }
  left = sum(map(len, records.values()))
  if left < len(texts):
    say(
      f'{section.title}: {len(texts) - left} of {len(texts)} runs answered '
      f'other texts: {kind} by length leaves them out'
    )
  records = {label: runs for label, runs in records.items() if runs}
  lengths = [len(text.split()) for text in sources]
  if not lengths or max(lengths) < 2:
    return {}
  bins = lengths_lib.bins(lengths)
  if len(bins) > 8:
    bins = _joined(bins, lengths)
  if len(bins) < 2:
    return {}
  metric = _accuracy
  if kind == 'BLEU':
    tokenize = str(shown[0].config.get('evaluation.tokenize', 'none'))
    metric = functools.partial(compare.bleu, tokenize=tokenize)
  series = {
    label: np.array([[metric(_within(run, *b)) for b in bins] for run in runs])
    for label, runs in records.items()
  }
  counts = [sum(a <= n <= b for n in lengths) for a, b in bins]
  figure = figures.metric_by_length(
    series,
    [f'{a}–{b}' for a, b in bins],
    counts,
    ylabel='BLEU' if kind == 'BLEU' else 'accuracy (%)',
  )
  return {kind: figure}


def _costs(
  shown: Sequence[groups.Setting],
) -> dict[str, dict[int, list[float]]]:
  """Milliseconds by label and length, of those that --lengths has timed."""
  found: dict[str, dict[int, list[float]]] = {}
  for setting in shown:
    for run in setting.runs:
      for key, value in run.measured.items():
        length = key.removeprefix(measuring.COST)
        if length == key or not (length.isascii() and length.isdigit()):
          continue
        if runs_lib.is_finite(value) and value > 0:
          points = found.setdefault(setting.label, {})
          points.setdefault(int(length), []).append(value)
  return found


def _joined(
  bins: Sequence[tuple[int, int]], lengths: Sequence[int]
) -> list[tuple[int, int]]:
  """Eight bins at most, of about as many examples each."""
  wanted = len(lengths) / 8
  joined: list[tuple[int, int]] = []
  for first, last in bins:
    before = joined[-1] if joined else None
    if before and sum(before[0] <= n <= before[1] for n in lengths) < wanted:
      joined[-1] = before[0], last
    else:
      joined.append((first, last))
  return joined


def _tested(run: runs_lib.Run, say: runs_lib.Say) -> list[dict]:
  """The predictions of a run's test splits."""
  return [
    record
    for split in filter(runs_lib.is_test, runs_lib.splits(run))
    for record in runs_lib.predictions(run, split, say=say)
    if record is not None
  ]


def _within(records: Sequence[dict], first: int, last: int) -> list[dict]:
  return [
    r for r in records if first <= len(next(iter(r.values())).split()) <= last
  ]


def _accuracy(records: Sequence[dict]) -> float:
  right = [record['label'] == record['prediction'] for record in records]
  return 100 * float(np.mean(right)) if right else float('nan')


def _side_by_side(section: groups.Section) -> dict[str, Any]:
  """Three examples that most mechanisms recorded, a panel each."""
  silent: Callable[[str], None] = lambda _: None
  classified = section.task == 'classification'
  longest = _LONGEST if classified else _LARGEST
  looked: dict[str, dict[int, dict]] = {}
  for setting in section.settings:
    records = runs_lib.attention(setting.runs[0], say=silent)
    if found := next(iter(records.values()), None):
      looked[setting.label] = found
  counts: dict[int, int] = {}
  for found in looked.values():
    for number, record in found.items():
      if max(len(record['source']), len(record['target'])) <= longest:
        counts[number] = counts.get(number, 0) + 1
  size = lambda n: next(len(f[n]['source']) for f in looked.values() if n in f)
  # Of those that most have, a short, a middling and a long one.
  most = max(counts.values(), default=0)
  numbers = sorted((n for n in counts if counts[n] == most), key=size)
  places = sorted({len(numbers) // 4, len(numbers) // 2, 7 * len(numbers) // 8})
  drawn = {}
  for number in [numbers[p] for p in places if p < len(numbers)]:
    panels = [
      figures.Panel(label, found[number]['weights'], *_sides(found[number]))
      for label, found in looked.items()
      if number in found
    ][:_MOST_PANELS]
    if classified:
      panels = [_joined_rows(panels)]
    drawn[number] = figures.side_by_side(panels)
  return drawn


def _sides(record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
  """Source and target as a reader would write them, cut to be printed."""
  plain = lambda word: tables.one_line(word.lstrip('▁'))[:16] or '_'
  return [*map(plain, record['source'])], [*map(plain, record['target'])]


def _joined_rows(panels: Sequence[figures.Panel]) -> figures.Panel:
  """Mechanisms as the rows of one picture: each gives a text one row."""
  words = panels[0].source
  same = [p for p in panels if list(p.source) == list(words)]
  return figures.Panel(
    '',
    np.concatenate([p.weights[:1] for p in same]),
    words,
    [f'{p.title}: {p.target[0]}' for p in same],
  )
