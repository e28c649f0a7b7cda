"""What a checkpoint holds, or the mean of several, into a model or a run."""

import math
import os
import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np

from attnlab import errors
from attnlab.training import checkpoints, comparison
from attnlab.training import state as states


class Progress(NamedTuple):
  """What the loop itself has to remember; saved with each checkpoint.

  Attributes:
    evaluated: step of the last evaluation.
    best_step: step of the best one, -1 before the first.
    best: its figure.
    stale: evaluations since then.
    seconds: spent so far, all starts together.
    position: bytes of metrics.jsonl.
    summed: step at which the sums of the log began anew, where a run went on
      with another training.log_every.
  """

  evaluated: int = 0
  best_step: int = -1
  best: float = math.nan
  stale: int = 0
  seconds: float = 0.0
  position: int = 0
  summed: int = 0


def progress(checkpoint: checkpoints.Checkpoint) -> Progress:
  """Returns what the loop had written down.

  Raises:
    UserError: it is not what the loop writes.
  """
  try:
    found = Progress(**checkpoint.meta['progress'])
    if isinstance(checkpoint.meta['fingerprint'], dict):
      pairs = zip(Progress(), found, strict=True)
      return Progress(*(type(kind)(value) for kind, value in pairs))
  except (KeyError, TypeError, ValueError):
    pass
  raise errors.UserError(
    f'checkpoint of step {checkpoint.step}: its meta.json was not written by '
    'this program'
  )


def restore(
  task: Any,
  workdir: str | os.PathLike,
  *,
  step: int | None = None,
  average: int = 0,
) -> int:
  """Puts a run's parameters into `task.model` and returns their step.

  Where the run keeps a moving average of its parameters, it is that one.

  Args:
    task: built from the run's config.
    workdir: the run directory.
    step: which checkpoint; None is the best, or the newest where no evaluation
      has yet found a best one.
    average: take the mean of the newest `average` checkpoints up to `step`
      (Vaswani et al. 2017, section 6.1); 0 is one checkpoint as it is.

  Raises:
    UserError: there is none, or too few, or it belongs to another model.
  """
  checkpoint = find(workdir, step=step, average=average)
  adopt(task, checkpoint)
  return checkpoint.step


def find(
  workdir: str | os.PathLike, *, step: int | None = None, average: int = 0
) -> checkpoints.Checkpoint:
  """Returns what `restore` would put into a model."""
  directory = pathlib.Path(workdir).absolute() / 'checkpoints'
  found = checkpoints.steps(directory)
  if step is not None and found and step not in found:
    raise errors.unknown('step', step, found)
  if not found:
    raise errors.UserError(f'workdir={str(workdir)!r} holds no checkpoint')
  if average:
    return mean(directory, average, step)
  if step is not None:
    return checkpoints.restore(directory, step)
  return _best(directory)


def mean(
  directory: pathlib.Path, count: int, last: int | None = None
) -> checkpoints.Checkpoint:
  """Returns the mean of the parameters of the newest checkpoints.

  Args:
    directory: a run's `checkpoints`.
    count: how many.
    last: the newest step to consider; None is the newest there is.

  Returns:
    A checkpoint with the step, the meta data and all that is no parameter of
    the newest one; the parameters are [..] float32 means, summed in float64.

  Raises:
    UserError: there are fewer, or one of them is corrupt.
  """
  if count < 1:
    raise errors.UserError(f'average={count} must be 1 or more')
  found = [s for s in checkpoints.steps(directory) if last is None or s <= last]
  if len(found) < count:
    until = '' if last is None else f' up to step {last}'
    raise errors.UserError(
      f'average={count}: {directory} holds {len(found)} checkpoints{until}, of '
      f'the steps {", ".join(map(str, found))}; a run keeps training.keep of '
      'them and the best'
    )
  *others, last = found[-count:]
  newest = checkpoints.restore(directory, last)
  sums = {n: a.astype(np.float64) for n, a in weights(newest).items()}
  for step in others:
    for name, array in weights(checkpoints.restore(directory, step)).items():
      sums[name] += array
  means = {
    f'params.{name}': (sums[name] / count).astype(array.dtype)
    for name, array in weights(newest).items()
  }
  rest = {n: a for n, a in newest.arrays.items() if n.startswith('rest.')}
  return newest._replace(arrays=means | rest)


def weights(checkpoint: checkpoints.Checkpoint) -> dict[str, np.ndarray]:
  """Returns {name: array}, the moving average where the run keeps one."""
  for head in ('ema.', 'params.'):
    found = {
      name.removeprefix(head): array
      for name, array in checkpoint.arrays.items()
      if name.startswith(head)
    }
    if found:
      return found
  return {}


def adopt(task: Any, checkpoint: checkpoints.Checkpoint):
  """Puts a checkpoint into `task.model` if it belongs to the same model.

  Other data may be evaluated; other words or another model may not.

  Raises:
    UserError: a fingerprint, a shape or a dtype differs.
  """
  saved = checkpoint.meta['fingerprint']
  kept = {k: v for k, v in task.fingerprint.items() if k != 'data'}
  comparison.fingerprints({k: saved.get(k) for k in kept}, kept)
  put(task.model, checkpoint)


def put(model: Any, checkpoint: checkpoints.Checkpoint):
  """Puts the parameters of a checkpoint into a model."""
  parts = states.take_apart(model)
  template = {'params': parts.params, 'rest': parts.rest}
  wanted = {f'params.{n}': a for n, a in weights(checkpoint).items()}
  wanted |= {
    n: a for n, a in checkpoint.arrays.items() if n.startswith('rest.')
  }
  tree = checkpoints.fill(template, checkpoint._replace(arrays=wanted))
  parts.update(model, tree['params'], tree['rest'])


def _best(directory: pathlib.Path) -> checkpoints.Checkpoint:
  """The best good checkpoint, or the newest good one."""
  checkpoint = checkpoints.restore_newest(directory, _warn)
  if checkpoint is None:
    raise errors.UserError(f'{directory} holds no checkpoint')
  best = progress(checkpoint).best_step
  if best not in (-1, checkpoint.step):
    try:
      return checkpoints.restore(directory, best)
    except errors.UserError as error:
      _warn(f'warning: {error}; taking step {checkpoint.step}')
  return checkpoint


def _warn(text: str):
  print(text, file=sys.stderr, flush=True)
