"""Tables for papers: seeds pooled, tested, and written in three languages.

A row is a setting, a cell the mean over its seeds ± the sample's standard
deviation. One column is tested: the figure that the task is judged by, each row
against one that is chosen by what it is, never by how well it did. A cell that
differs from it significantly, after Holm's correction, is bold; below six seeds
nothing is, and the table says so.
"""

from collections.abc import Mapping, Sequence
import csv
import io
import math
import re
from typing import Any, NamedTuple
import unicodedata

from attnlab.measures import statistics
from attnlab.report import groups
from attnlab.report import runs as runs_lib

_WIDEST = 14  # columns of a table


class Column(NamedTuple):
  """One figure: its head, its key in the summaries, and how it is written."""

  head: str
  key: str
  digits: int = 1
  scale: float = 1.0
  larger: bool = True


class Cell(NamedTuple):
  """A figure over seeds, already scaled; count 0 where there is none."""

  mean: float
  deviation: float
  low: float
  high: float
  count: int
  bold: bool = False


class Row(NamedTuple):
  """A setting.

  Attributes:
    label: of the setting.
    seeds: how many.
    cells: one a column.
    p: of the tested column against the first row, corrected; NaN without a
      test.
  """

  label: str
  seeds: int
  cells: Sequence[Cell]
  p: float


class Table(NamedTuple):
  """What all three languages write.

  Attributes:
    name: fit for a file and a LaTeX label.
    title: the caption.
    columns: of figures.
    rows: the baseline first, then in the order of the settings.
    tested: the number of the column that a column of p follows; -1 for none.
    notes: sentences below the table.
  """

  name: str
  title: str
  columns: Sequence[Column]
  rows: Sequence[Row]
  tested: int
  notes: Sequence[str]


# name of a figure -> head, digits, scale, whether larger is better. The first
# that a task has is the one that it is judged by.
_FIGURES: dict[str, tuple[str, int, float, bool]] = {
  'bleu': ('BLEU', 1, 1.0, True),
  'chrf': ('chrF', 1, 1.0, True),
  'accuracy': ('accuracy, %', 1, 100.0, True),
  'macro_f1': ('macro-F1, %', 1, 100.0, True),
  'aer': ('AER', 3, 1.0, False),
  'pointing': ('gold word, %', 1, 100.0, True),
  'mass': ('mass on gold, %', 1, 100.0, True),
  'sentence_pointing': ('gold sentence, %', 1, 100.0, True),
  'entropy': ('entropy, nats', 2, 1.0, True),
}
_BY_TASK = {
  'translation': ('bleu', 'chrf', 'aer', 'entropy'),
  'classification': (
    'accuracy',
    'macro_f1',
    'pointing',
    'sentence_pointing',
    'entropy',
  ),
}
_COSTS = (
  Column('tokens/s', 'train/tokens_per_second', 0),
  Column('parameters', 'parameters', 0, larger=False),
  Column('minutes', 'seconds', 1, 1 / 60, larger=False),
)


def columns(section: groups.Section) -> list[Column]:
  """The figures of a section: those of its task on test splits, then costs.

  Other splits than test, such as one of long sentences, have the figure by
  which the task is judged. Without a test split validation stands in.
  """
  keys = {
    key for run in section.runs for key in run.summary.keys() - run.measured
  } or {key for run in section.runs for key in run.summary}
  splits = sorted(
    {key.partition('/')[0] for key in keys if '/' in key},
    key=lambda split: (split != 'test', split == 'validation', split),
  )
  splits = [split for split in splits if split != 'train']
  if 'test' in splits or len(splits) > 1:
    splits = [split for split in splits if split != 'validation']
  figures = _BY_TASK.get(section.task)
  if figures is None:
    names = {key.partition('/')[2] for key in keys}
    figures = tuple(name for name in _FIGURES if name in names) or ('loss',)
  found = []
  for number, split in enumerate(splits):
    for name in figures if number == 0 else figures[:1]:
      head, digits, scale, larger = _FIGURES.get(name, (name, 3, 1.0, False))
      if number or split != 'test':
        head += f' ({split.replace("_", " ")})'
      found.append(Column(head, f'{split}/{name}', digits, scale, larger))
  present = lambda column: any(
    setting.values(column.key) for setting in section.settings
  )
  return [column for column in (*found, *_COSTS) if present(column)]


def baseline(section: groups.Section) -> groups.Setting:
  """The row that the others are tested against: without attention, if any.

  Else one with equal weights, else the first. It is chosen by its config alone,
  so that the tests stay honest.
  """
  without = [s for s in section.settings if not runs_lib.attends(s.config)]
  uniform = [
    setting
    for setting in section.settings
    if setting.config.get('attention.normalizer.name') == 'uniform'
  ]
  return [*without, *uniform, *section.settings][0]


def build(section: groups.Section) -> Table:
  """The table of a section."""
  chosen = columns(section)
  judged = next((c for c in chosen if '/' in c.key), None)
  base = baseline(section)
  compared: Mapping[str, statistics.Comparison] = {}
  notes = [_spread(section)]
  if judged is not None and len(section.settings) > 1:
    compared, told = _tests(section, judged, base)
    notes += told
  rows = []
  for setting in [base, *(s for s in section.settings if s is not base)]:
    found = compared.get(setting.label)
    cells = []
    for column in chosen:
      cell = _cell(setting, column)
      if column is judged and found is not None and found.significant:
        better = (found.difference > 0) == column.larger
        cell = cell._replace(bold=better)
      cells.append(cell)
    p = found.corrected if found is not None else math.nan
    rows.append(Row(setting.label, len(setting.runs), cells, p))
  tested = -1
  if judged is not None and any(not math.isnan(row.p) for row in rows):
    tested = chosen.index(judged)
  notes += _left_out(section)
  return Table(section.name, section.title, chosen, rows, tested, notes)


def measures(section: groups.Section) -> Table | None:
  """What --mode=measure found, but for what the first table has; or None."""
  shown = {column.key for column in columns(section)}
  aside = re.compile(r'.*_of_\d+_to_\d+_words|loss|examples|step|average')
  keys = dict.fromkeys(
    key
    for run in section.runs
    for key in run.measured
    if key.count('/') == 1 and key not in shown
  )
  chosen = []
  for key in keys:
    split, _, name = key.partition('/')
    if split in ('validation', 'train', 'cost') or aside.fullmatch(name):
      continue
    if not any(setting.values(key) for setting in section.settings):
      continue
    head, digits, scale, larger = _FIGURES.get(
      name, (name.replace('_', ' '), 3, 1.0, True)
    )
    if split != 'test':
      head += f' ({split.replace("_", " ")})'
    chosen.append(Column(head, key, digits, scale, larger))
  if not chosen:
    return None
  rows = [
    Row(s.label, len(s.runs), [_cell(s, column) for column in chosen], math.nan)
    for s in section.settings
  ]
  title = f'{section.title}: what attention does'
  notes = [_spread(section), 'Nothing is tested here.']
  return Table(f'{section.name}_measures', title, chosen, rows, -1, notes)


def _cell(setting: groups.Setting, column: Column) -> Cell:
  values = list(setting.values(column.key).values())
  if not values:
    return Cell(math.nan, math.nan, math.nan, math.nan, 0)
  found = statistics.summarise([value * column.scale for value in values])
  return Cell(*found)


def _spread(section: groups.Section) -> str:
  counts = sorted({len(setting.runs) for setting in section.settings})
  if counts == [1]:
    return 'One seed a row.'
  return (
    'Mean ± standard deviation over seeds; the CSV file has the 95 % intervals '
    '(BCa bootstrap).'
  )


def _tests(
  section: groups.Section, column: Column, base: groups.Setting
) -> tuple[Mapping[str, statistics.Comparison], list[str]]:
  """Each row against the baseline over the seeds that all of them have."""
  values = {s.label: s.values(column.key) for s in section.settings}
  values = {label: found for label, found in values.items() if found}
  if base.label not in values or len(values) < 2:
    return {}, []
  common = set.intersection(*(set(found) for found in values.values()))
  shared = sorted(common, key=str)
  if len(shared) < statistics.FEWEST:
    note = (
      f'No test is possible: the rows share {len(shared)} of the at least '
      f'{statistics.FEWEST} seeds without which p < {statistics.ALPHA:g} is '
      'out of reach, so that a difference may be chance.'
    )
    return {}, [note]
  paired = {label: [v[k] for k in shared] for label, v in values.items()}
  first = paired.pop(base.label)
  compared = statistics.compare(first, paired)
  needed = statistics.fewest(len(paired))
  note = (
    f'p: {column.head} against "{base.label}", exact permutation test over '
    f"{len(shared)} paired seeds, Holm's correction over {len(paired)} "
    f'test{"" if len(paired) == 1 else "s"}; bold: better with p < '
    f'{statistics.ALPHA:g}.'
  )
  notes = [note]
  if len(shared) < needed:
    notes.append(
      f'With so many tests none can be significant below {needed} seeds.'
    )
  else:
    effects = [c.smallest for c in compared.values()]
    low, high = (
      f'{x * column.scale:.{column.digits + 1}f}'
      for x in (min(effects), max(effects))
    )
    size = low if low == high else f'{low} to {high}'
    notes.append(
      f'The design sees a difference of {size} with a probability of 80 %.'
    )
  return compared, notes


def _left_out(section: groups.Section) -> list[str]:
  """What differs between rows and is not in their labels."""
  labels = [setting.label for setting in section.settings]
  keys = dict.fromkeys(k for s in section.settings for k in s.differs)
  hidden = []
  for key in keys:
    short = key.rpartition('.')[2]
    named = key.endswith('.name') and key.startswith(('model', 'attention'))
    if not named and not any(f'{short}=' in label for label in labels):
      hidden.append(key)
  if not hidden:
    return []
  return [f'The rows also differ in {", ".join(hidden)}: see settings.']


def settings(section: groups.Section) -> list[list[str]]:
  """Every setting that varies, a row each, heads first; [] for one setting."""
  keys = list(dict.fromkeys(k for s in section.settings for k in s.differs))
  if not keys:
    return []
  rows = [['setting', *(s.label for s in section.settings)]]
  for key in keys:
    values = (s.differs.get(key, '–') for s in section.settings)
    rows.append([key, *(_plain(value) for value in values)])
  return rows


def _plain(value: Any) -> str:
  return f'{value:g}' if isinstance(value, float) else str(value)


# Text of a cell, the same in Markdown and LaTeX but for what is escaped.


def number(cell: Cell, column: Column, seeds: int = 0) -> str:
  """'36.1 ± 0.4', '36.1', or a dash where there is no figure.

  With `seeds`, how many a row has, a figure that not all of them have says so.
  """
  if not cell.count:
    return '–'
  text = f'{cell.mean:,.{column.digits}f}'
  # A count of parameters is the same for each seed.
  if cell.count > 1 and (cell.deviation or column.digits):
    text += f' ± {cell.deviation:,.{column.digits}f}'
  return f'{text} (n = {cell.count})' if cell.count < seeds else text


def p_value(p: float) -> str:
  """A p of a table: three digits, or a dash."""
  if math.isnan(p):
    return '–'
  return '< 0.001' if p < 0.001 else f'{p:.3f}'


def _heads(table: Table) -> list[str]:
  return [
    'setting',
    'seeds',
    *_with(table, [c.head for c in table.columns], 'p'),
  ]


def _with(table: Table, cells: list[str], p: str) -> list[str]:
  """Cells with that of p after the one that is tested, if any is."""
  if table.tested < 0:
    return cells
  place = table.tested + 1
  return [*cells[:place], p, *cells[place:]]


def markdown(table: Table) -> str:
  """GitHub's Markdown: the table, and its notes as a paragraph.

  A table of many figures is turned on its side: a row each.
  """
  lines = [[markdown_text(head) for head in _heads(table)]]
  for row in table.rows:
    cells = []
    for cell, column in zip(row.cells, table.columns, strict=True):
      text = number(cell, column, row.seeds)
      cells.append(f'**{text}**' if cell.bold else text)
    cells = _with(table, cells, markdown_text(p_value(row.p)))
    lines.append([markdown_text(row.label), str(row.seeds), *cells])
  if len(lines[0]) > _WIDEST:
    lines = [list(line) for line in zip(*lines, strict=True)]
  lines.insert(1, ['---', *['---:'] * (len(lines[0]) - 1)])
  notes = ' '.join(markdown_text(note) for note in table.notes)
  return f'{grid(lines)}\n{notes}\n'


def grid(lines: Sequence[Sequence[str]]) -> str:
  """Rows of escaped cells as lines with bars."""
  return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def comma_separated(table: Table) -> str:
  """CSV for a program: unrounded, a column for each number of a cell."""
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  heads = ['setting', 'seeds']
  for column in table.columns:
    for kind in ('mean', 'sd', 'low', 'high', 'n'):
      heads.append(f'{column.head} {kind}')
  writer.writerow([*heads, 'p'])
  for row in table.rows:
    cells: list[object] = [csv_text(row.label), row.seeds]
    for cell in row.cells:
      numbers = cell[:4] if cell.count else [math.nan] * 4
      cells += ['' if math.isnan(x) else f'{x:.6g}' for x in numbers]
      cells.append(cell.count)
    writer.writerow([*cells, '' if math.isnan(row.p) else f'{row.p:.6g}'])
  return out.getvalue()


def latex(table: Table) -> str:
  """A table environment, for the package booktabs."""
  caption = latex_text(f'{table.title}. {" ".join(table.notes)}')
  lines = [[latex_text(head) for head in _heads(table)]]
  if table.tested >= 0:
    lines[0][table.tested + 3] = r'\(p\)'
  for row in table.rows:
    cells = []
    for cell, column in zip(row.cells, table.columns, strict=True):
      text = number(cell, column, row.seeds).replace(' ± ', r' \(\pm\) ')
      text = text.replace('–', '--')
      cells.append(rf'\textbf{{{text}}}' if cell.bold else text)
    cells = _with(table, cells, latex_text(p_value(row.p)))
    lines.append([latex_text(row.label), str(row.seeds), *cells])
  if len(lines[0]) > _WIDEST:
    lines = [list(line) for line in zip(*lines, strict=True)]
  head, *body = (f'    {" & ".join(cells)} \\\\' for cells in lines)
  return '\n'.join(
    [
      r'\begin{table}',
      r'  \centering',
      rf'  \caption{{{caption}}}',
      rf'  \label{{tab:{table.name.replace("_", "-")}}}',
      rf'  \begin{{tabular}}{{l{"r" * (len(lines[0]) - 1)}}}',
      r'    \toprule',
      head,
      r'    \midrule',
      *body,
      r'    \bottomrule',
      r'  \end{tabular}',
      r'\end{table}',
      '',
    ]
  )


# Escaping. What comes out of a run may hold anything.

_LATEX = {
  '\\': r'\textbackslash{}',
  '{': r'\{',
  '}': r'\}',
  '&': r'\&',
  '%': r'\%',
  '$': r'\$',
  '#': r'\#',
  '_': r'\_',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '<': r'\textless{}',
  '>': r'\textgreater{}',
  '|': r'\textbar{}',
  '"': r'\char34{}',
  '`': r'\char96{}',
  '\0': '{}',
  '±': r'\(\pm\)',
  '–': '--',
  # Two of them would be a long dash, or a Spanish mark.
  '?': '?{}',
  '!': '!{}',
  '[': '{[}',
  ']': '{]}',
}
_MARKDOWN = {
  **{c: f'\\{c}' for c in '\\`*_{}[]#|~$'},
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  '@': '&#64;',
}


def one_line(text: str) -> str:
  """The text without line ends, control characters and half characters."""
  text = re.sub(r'\s+', ' ', text)
  # Cc, Cf (directions), Cs (halves): none of them is seen.
  return ''.join(c for c in text if unicodedata.category(c)[0] != 'C').strip()


def latex_text(text: str) -> str:
  """Text that LaTeX prints as it is."""
  # Two of a kind would become one sign.
  apart = re.sub(r"([-',])(?=\1)", '\\1\0', one_line(text))
  return ''.join(_LATEX.get(c, c) for c in apart)


def markdown_text(text: str) -> str:
  """Text that Markdown shows as it is, in a cell or a paragraph."""
  return ''.join(_MARKDOWN.get(c, c) for c in one_line(text))


def csv_text(text: str) -> str:
  """Text that a spreadsheet takes for no formula."""
  text = one_line(text)
  return f"'{text}" if text[:1] in ('=', '+', '-', '@') else text
