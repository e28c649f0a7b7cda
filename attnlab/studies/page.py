"""The page of a study: its answers, its tests, and how it was made."""

from collections.abc import Collection, Mapping, Sequence
import math
import pathlib
from typing import Any

from attnlab.measures import statistics
from attnlab.report import results, tables
from attnlab.studies import questions


def answers(found: Sequence[questions.Answer]) -> str:
  """Each question with its answer, in a list."""
  return '\n'.join(
    f'{number}. **{tables.markdown_text(each.question.title)}** '
    f'{tables.markdown_text(each.text)}'
    for number, each in enumerate(found, 1)
  )


def tests(found: Sequence[questions.Answer]) -> str:
  """The tests of all questions as a table, and what it means."""
  lines = [
    ['question', 'seeds', 'effect', '95 % interval', 'unit', 'p', 'p, Holm',
     'smallest effect'],
    ['---:', '---:', '---:', '---:', '---', '---:', '---:', '---:'],
  ]  # fmt: skip
  for number, (question, finding, _) in enumerate(found, 1):
    shown = lambda value, digits=question.digits: (
      f'{value:.{digits}f}' if math.isfinite(value) else '–'
    )
    interval = '–'
    if not math.isnan(finding.low):
      interval = f'{shown(finding.low)} to {shown(finding.high)}'
    effect = shown(finding.effect)
    if finding.verdict in (questions.LARGER, questions.SMALLER):
      effect = f'**{effect}**'
    lines.append(
      [
        str(number),
        str(finding.seeds),
        effect,
        interval,
        question.unit,
        tables.p_value(finding.p),
        tables.p_value(finding.corrected),
        shown(finding.smallest),
      ]
    )
  tested = sum(not math.isnan(each.finding.p) for each in found)
  notes = (
    'Effect: the mean difference between paired seeds, with the 95 % interval '
    'of a BCa bootstrap over the seeds. p: exact permutation test over paired '
    f"seeds, two-sided, and after Holm's correction over {tested} tests; bold: "
    f'below {statistics.ALPHA:g}. Smallest effect: what such a design sees '
    'with a probability of 80 %, by the spread that was found; – where there '
    'is no test, or none can be significant.'
  )
  return f'{tables.grid(lines)}\n{notes}'


def by_seed(answer: questions.Answer) -> str:
  """The differences that a test is of, one a seed."""
  digits = answer.question.digits
  found = ', '.join(f'{d:.{digits}f}' for d in answer.finding.differences)
  unit = f' ({answer.question.unit})' if answer.question.unit else ''
  return f'Differences by seed{unit}: {found or "none"}.'


def table(
  entries: Sequence[Mapping[str, Any]],
  columns: Sequence[tables.Column],
  *,
  notes: str,
  bold: Collection[tuple[str, str]] = (),
) -> str:
  """Entries of `report.results` as rows, the mean over seeds ± one sd.

  Args:
    entries: the rows.
    columns: what is shown; one that no row has is left out.
    notes: below the table.
    bold: cells as (name of the entry, key of the column).
  """
  keys = {key for entry in entries for key in entry['figures']}
  columns = [column for column in columns if column.key in keys]
  rows = []
  for entry in entries:
    cells = []
    for column in columns:
      found = list(questions.values(entry, column.key).values())
      cell = tables.Cell(math.nan, math.nan, math.nan, math.nan, 0)
      if found:
        scaled = [value * column.scale for value in found]
        cell = tables.Cell(*statistics.summarise(scaled))
      cells.append(cell._replace(bold=(entry['name'], column.key) in bold))
    rows.append(
      tables.Row(entry['label'], len(entry['seeds']), cells, math.nan)
    )
  return tables.markdown(tables.Table('', '', columns, rows, -1, [notes]))


def made(entries: Mapping[str, Mapping[str, Any]], shown: Sequence[str]) -> str:
  """Hardware, versions, signatures, and commands.

  Args:
    entries: the cells.
    shown: the names of those whose command is shown.
  """
  every = list(entries.values())
  text = tables.markdown_text
  machines = dict.fromkeys(results.machine(e['hardware']) for e in every)
  versions = dict.fromkeys(
    f'commit {(e["commit"] or "unknown")[:10]}, Python {e["python"]}, '
    + ', '.join(f'{name} {v}' for name, v in e['versions'].items())
    for e in every
  )
  signatures = dict.fromkeys(
    f'- {text(name)}: {text(value)}'
    for e in every
    for name, value in e['signatures'].items()
  )
  commands = '\n\n'.join(
    f'    {entries[name]["command"]}' for name in shown if name in entries
  )
  return '\n\n'.join(
    [
      f'Hardware: {text("; ".join(machines))}.',
      f'Versions: {text("; ".join(versions))}.',
      'Signatures of the metrics:',
      '\n'.join(signatures),
      'Some of the commands, which each file has; `$SEED` is 0, 1 and so on:',
      commands,
    ]
  )


def write(path: pathlib.Path, blocks: Sequence[str]) -> None:
  """Writes the blocks of a page with an empty line between them."""
  path.parent.mkdir(parents=True, exist_ok=True)
  whole = '\n\n'.join(block.strip('\n') for block in blocks)
  path.write_text(whole + '\n', encoding='utf-8', newline='\n')
