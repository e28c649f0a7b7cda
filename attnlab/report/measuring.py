"""--mode=measure: what the attention of a run does, in one file of figures."""

from collections.abc import Callable, Mapping, Sequence
import json
import pathlib
from typing import Any

from attnlab import errors

EXAMPLES = 128
FILE = 'measures.json'
COST = 'cost/milliseconds_at_'  # and a source length


def measure(
  task: Any,
  workdir: pathlib.Path,
  *,
  splits: Sequence[str] | None = None,
  examples: int | None = None,
  alignments: str | None = None,
  other: Any = None,
  costs: Callable[[], Mapping[int, float]] = dict,
  predictions: pathlib.Path | None = None,
  **about: Any,
) -> dict[str, Any]:
  """Measures `task.model` and writes measures.json.

  Args:
    task: a `tasks.base.Task` with a restored model.
    workdir: its run directory.
    splits: which; None is all of the task but for the validation split, which
      chooses thresholds.
    examples: of each split that are looked at closely, with other weights and
      without some words; None is EXAMPLES.
    alignments: a folder with human gold of the run's languages.
    other: the task of a run that translates the other way round, for the
      links of the gold that both have.
    costs: source length -> milliseconds of a training step.
    predictions: the run directory where what it has written is of this model,
      so that nothing has to be decoded again.
    **about: what else the file holds: the step, overrides.

  Returns:
    What was written: 'test/entropy' and so on, and 'signatures'.

  Raises:
    UserError: the task measures nothing, or has no use for gold alignments.
  """
  examples = EXAMPLES if examples is None else examples
  errors.check_number('examples', examples, 1)
  for each in (task, other):
    if alignments and each is not None and each.measure_gold is None:
      raise errors.UserError(
        f'alignments={alignments!r} is for translation, and '
        f'{"the run" if each is task else "that of reverse"} is none'
      )
  if task.measure is None:
    raise errors.UserError(
      f'workdir={str(workdir)!r}: its task has no measures'
    )
  for split in splits or ():
    if split not in task.splits:
      raise errors.unknown('splits', split, task.splits)
  values: dict[str, float] = {}
  signatures: dict[str, str] = {}
  # First what a user can have got wrong.
  if alignments is not None:
    gold = pathlib.Path(alignments)
    back = other and other.align(other.model, gold)
    name, found = task.measure_gold(task.model, gold, back)
    values |= {f'{name}/{key}': value for key, value in found.items()}
    about = {**about, 'alignments': str(gold)}
  for split in splits or task.splits[1:] or task.splits:
    found, signatures = task.measure(
      task.model, split, examples=examples, workdir=predictions
    )
    values |= {f'{split}/{key}': value for key, value in found.items()}
  values |= {f'{COST}{length}': value for length, value in costs().items()}
  values = {key: float(value) for key, value in values.items()}
  record = {
    **values,
    **about,
    'examples': examples,
    'alignment_shift': 0,
    'signatures': dict(signatures),
  }
  path = workdir / FILE
  text = json.dumps(record, indent=2, ensure_ascii=False)
  path.write_text(text + '\n', encoding='utf-8')
  return record


def usual(record: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
  """Whether measures are of what a summary is of.

  That is the best checkpoint, with the settings of the run.

  Args:
    record: measures.json.
    summary: summary.json.
  """
  best = summary.get('train/best_step')
  return (
    not record.get('overrides')
    and record.get('average', 1) == 1
    and (best is None or record.get('step', best) == best)
  )


def table(values: Mapping[str, float], signatures: Mapping[str, str]) -> str:
  """A line a figure, a column a split, and what the figure is.

  Args:
    values: 'split/name' -> figure.
    signatures: name -> how it was computed.
  """
  splits = list(dict.fromkeys(key.partition('/')[0] for key in values))
  names = list(dict.fromkeys(key.partition('/')[2] for key in values))
  rows = [
    [
      name,
      *(_number(values.get(f'{split}/{name}')) for split in splits),
      signatures.get(name, ''),
    ]
    for name in names
  ]
  rows = [['', *splits, ''], *rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(
      [
        row[0].ljust(widths[0]),
        *(
          cell.rjust(width)
          for cell, width in zip(row[1:-1], widths[1:-1], strict=True)
        ),
        row[-1],
      ]
    ).rstrip()
    for row in rows
  )


def _number(value: float | None) -> str:
  if value is None:
    return '–'
  return f'{value:.1f}' if abs(value) >= 100 else f'{value:.3f}'
