"""Which splits are evaluated, and their figures by name."""

from collections.abc import Iterable, Mapping
import pathlib
from typing import Any, NamedTuple

from attnlab import errors


class Watched(NamedTuple):
  """What a training evaluates as it goes.

  Attributes:
    splits: the splits; the first one is monitored.
    metric: the figure that chooses the best checkpoint.
    mode: 'max' or 'min'.
  """

  splits: tuple[str, ...]
  metric: str
  mode: str


def watched(config: Mapping[str, Any], task: Any) -> Watched:
  """Reads `config.evaluation.splits`: names with commas, '' is the first.

  Args:
    config: of the run.
    task: whose `monitor` says which figure of a split is watched.

  Raises:
    UserError: the task has no such split.
  """
  given = config.get('evaluation', {}).get('splits', '')
  names = [name.strip() for name in given.split(',') if name.strip()]
  for name in names:
    if name not in task.splits:
      raise errors.unknown('evaluation.splits', name, task.splits)
  splits = tuple(dict.fromkeys(names)) or task.splits[:1]
  metric, mode = task.monitor
  return Watched(splits, f'{splits[0]}/{metric.partition("/")[2]}', mode)


def evaluate(
  task: Any,
  workdir: pathlib.Path | None = None,
  *,
  splits: Iterable[str] | None = None,
  full: bool = True,
) -> dict[str, float]:
  """Evaluates `task.model`.

  Args:
    task: a `tasks.base.Task`.
    workdir: where predictions and pictures go; None for nowhere.
    splits: which; None is all of the task.
    full: decode with care and write into `workdir`; else quickly.

  Returns:
    {'test/bleu': ...}.
  """
  values = {}
  for split in task.splits if splits is None else splits:
    found = task.evaluate(task.model, split, full=full, workdir=workdir)
    head = f'{split}/'
    values |= {
      name if name.startswith(head) else head + name: float(value)
      for name, value in found.items()
    }
  return values
