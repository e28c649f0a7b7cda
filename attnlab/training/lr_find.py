"""The range test for a learning rate (Smith, 2017).

The rate grows exponentially from batch to batch. While it is too small the loss
stays, then it falls, then it explodes; a good rate is where it falls fastest.
"""

from collections.abc import Mapping, Sequence
import csv
import json
import math
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attnlab import errors
from attnlab.training import optimizers
from attnlab.training import state as states

# The running mean of the losses forgets a tenth at each step; when it is this
# many times the loss at the start, the test ends.
_MEMORY = 0.9
_EXPLODED = 4.0
# Before smoothing, losses are cut to so many times the loss at the start.
_CUT = 2.0
STEEPEST = 'where the loss falls fastest'
BEFORE_RISE = 'a tenth of where the loss rises, as it does not fall clearly'


class Found(NamedTuple):
  """What the test found.

  Attributes:
    rates: [n] the rate of each step.
    losses: [n] the loss of each step's batch, before its update.
    smoothed: [n] the same, smoothed.
    suggestion: the rate to take; None where the loss neither falls nor rises.
    reason: what it is, STEEPEST or BEFORE_RISE.
    exploded: whether the loss exploded before the last step.
  """

  rates: np.ndarray
  losses: np.ndarray
  smoothed: np.ndarray
  suggestion: float | None
  reason: str
  exploded: bool


def find(
  config: Mapping[str, Any],
  task: Any,
  *,
  steps: int = 100,
  low: float = 1e-7,
  high: float = 10.0,
) -> Found:
  """Trains from the start with a growing rate; writes nothing.

  Args:
    config: of a run; its optimiser is used, but for rate and schedule.
    task: a `tasks.base.Task`.
    steps: batches from `low` to `high`.
    low: the first rate.
    high: the last rate.

  Raises:
    UserError: a setting is out of range, or the first loss is not finite.
  """
  if steps < 10:
    raise errors.UserError(f'lr_steps={steps} must be 10 or more')
  if not 0 < low < high < math.inf:
    raise errors.UserError(
      f'lr_range={low:g},{high:g} must be two rates above 0, the first smaller'
    )
  growth = math.log(high / low) / (steps - 1)
  optimizer = optimizers.from_config(
    config.get('optimizer', {}),
    steps,
    lambda step: low * jnp.exp(growth * jnp.asarray(step, jnp.float32)),
  )
  seed = int(config.get('seed', 0))
  iterator = iter(task.train(seed))
  batch = next(iterator)
  parts = states.take_apart(task.model)
  step = states.make_step(task.loss, parts, optimizer, batch, log_every=1)
  state = states.create(parts, optimizer, step, seed)
  losses: list[float] = []
  running, exploded = 0.0, False
  for number in range(steps):
    state, fault = step.run(state, batch)
    sums = jax.device_get(state.sums)
    loss = float(sums['loss']) / (float(sums['weight']) or 1.0)
    if int(fault) or not math.isfinite(loss):
      exploded = True
      break
    losses.append(loss)
    running = _MEMORY * running + (1 - _MEMORY) * loss
    mean = running / (1 - _MEMORY ** (number + 1))
    if mean > _times(_EXPLODED, _start(losses)):
      exploded = True
      break
    batch = next(iterator)
  if not losses:
    raise errors.UserError(
      f'lr_range={low:g},{high:g}: the first loss is not finite'
    )
  rates = low * np.exp(growth * np.arange(len(losses)))
  smoothed = smooth(losses)
  suggestion, reason = suggest(rates, np.array(losses), smoothed, exploded)
  return Found(rates, np.array(losses), smoothed, suggestion, reason, exploded)


def smooth(losses: Sequence[float]) -> np.ndarray:
  """[n] losses -> [n], a Gaussian mean of the neighbours.

  It looks both ways, so that the curve does not lag behind the rate; and what
  explodes is cut first, so that it does not reach back.
  """
  from scipy import ndimage

  values = np.minimum(losses, _times(_CUT, _start(losses)))
  width = max(2.0, len(values) / 40)
  return ndimage.gaussian_filter1d(values, width, mode='nearest')


def suggest(
  rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray, exploded: bool
) -> tuple[float | None, str]:
  """Returns a rate, and what it is: see `Found`.

  A slope counts where the loss falls by more than the batches differ anyway.
  Where it does not, a tenth of the rate at which it begins to rise is taken;
  and none where it does not rise either.

  Args:
    rates: [n] growing.
    losses: [n] of the batches.
    smoothed: [n] the same, smoothed.
    exploded: whether the last of them is where the loss explodes.
  """
  start = _start(smoothed)
  # The median does not see the few batches that explode.
  noise = 2.0 * 1.4826 * float(np.median(np.abs(losses - smoothed)))
  end = int(np.argmin(smoothed)) + 1
  if end >= 3 and start - smoothed[end - 1] > noise:
    slope = np.gradient(smoothed[:end], np.log(rates[:end]))
    return float(rates[int(np.argmin(slope))]), STEEPEST
  above = np.flatnonzero(smoothed[end:] > start + noise)
  if len(above) or exploded:
    rise = end + above[0] if len(above) else -1
    return float(rates[rise]) / 10, BEFORE_RISE
  return None, ''


def _start(losses: Sequence[float] | np.ndarray) -> float:
  """The loss before the rate does anything: the mean of the first tenth."""
  return float(np.mean(losses[: max(5, len(losses) // 10)]))


def _times(factor: float, loss: float) -> float:
  """`factor` times a loss, and so far above it where it is negative."""
  return loss + (factor - 1) * abs(loss)


def run(
  config: Mapping[str, Any],
  task: Any,
  workdir: str | os.PathLike,
  *,
  steps: int = 100,
  low: float = 1e-7,
  high: float = 10.0,
) -> float:
  """Runs the test, writes workdir/lr_find and prints the suggestion.

  The folder holds losses.csv, lr_find.json, and losses.png and .pdf. Nothing
  else in `workdir` is read or written: a training in it is not disturbed.

  Args:
    config: see `find`.
    task: see `find`; or a function that builds it.
    workdir: the run directory.
    steps: see `find`.
    low: see `find`.
    high: see `find`.

  Returns:
    The rate that is suggested.

  Raises:
    UserError: as `find`; the folder cannot be written; no rate does anything.
  """
  config = config.to_dict() if hasattr(config, 'to_dict') else dict(config)
  task = task() if callable(task) else task
  found = find(config, task, steps=steps, low=low, high=high)
  folder = pathlib.Path(workdir) / 'lr_find'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'losses.csv').open('w', newline='') as file:
      writer = csv.writer(file)
      writer.writerow(('step', 'learning_rate', 'loss', 'smoothed'))
      columns = found.rates, found.losses, found.smoothed
      for number, row in enumerate(zip(*columns, strict=True)):
        writer.writerow((number, *(f'{value:.8g}' for value in row)))
    record = {
      'suggestion': found.suggestion,
      'reason': found.reason,
      'exploded': found.exploded,
      'steps': len(found.rates),
      'low': low,
      'high': high,
      'seed': int(config.get('seed', 0)),
      'optimizer': config.get('optimizer', {}),
    }
    (folder / 'lr_find.json').write_text(json.dumps(record, indent=2) + '\n')
    from attnlab.report import figures

    figures.save(
      figures.learning_rates(
        found.rates, found.losses, found.smoothed, found.suggestion
      ),
      folder / 'losses',
    )
  except OSError as error:
    raise errors.UserError(
      f'workdir={str(workdir)!r} cannot be written: {error.strerror or error}'
    ) from error
  end = 'where the loss explodes' if found.exploded else 'the end of the range'
  print(
    f'learning rates from {low:.3g} to {found.rates[-1]:.3g}, {end}: '
    f'{folder / "losses.png"}'
  )
  if found.suggestion is None:
    raise errors.UserError(
      f'lr_range={low:g},{high:g}: no rate changes the loss clearly; go '
      'higher, or give more --lr_steps'
    )
  print(
    f'suggestion: --config.optimizer.learning_rate={found.suggestion:.2g} '
    f'({found.reason})'
  )
  return found.suggestion
