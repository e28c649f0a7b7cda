"""What a training step costs at each source length, for --mode=measure."""

from collections.abc import Iterable, Mapping, Sequence
import math
import re
import statistics
import time
from typing import Any

import jax
import numpy as np

from attnlab import errors
from attnlab.training import optimizers
from attnlab.training import state as states

_ROUNDS = 5


def lengths(words: Sequence[str]) -> list[int]:
  """The lengths of a flag, sorted, each once.

  Raises:
    UserError: one is no whole number from 1 to 99,999.
  """
  for word in words:
    if not re.fullmatch('[1-9][0-9]{,4}', word):
      raise errors.UserError(
        f'lengths={errors.shortened(",".join(words))}: '
        f'{errors.shortened(word)} is no whole number from 1 to 99999'
      )
  return sorted({int(word) for word in words})


def by_length(
  config: Mapping[str, Any], task: Any, wanted: Iterable[int]
) -> dict[int, float]:
  """Times the training step that a run takes, at other lengths than its own.

  Forward, backward and the optimiser on this device, for a batch of as many
  rows as in training, without any padding: the ids of real examples over and
  over. A target is as long as its source; a document has as many of its
  sentences as make up the length.

  Args:
    config: of the run.
    task: a `tasks.base.Task` with data.
    wanted: tokens of a source.

  Returns:
    length -> milliseconds, the median of five steps after the first, which
    compiles.
  """
  parts = states.take_apart(task.model)
  optimizer = optimizers.from_config(config.get('optimizer', {}), _ROUNDS)
  found = {}
  for length in wanted:
    batch = of_length(task.example, length)
    step = states.make_step(task.loss, parts, optimizer, batch, log_every=1)
    state = states.create(parts, optimizer, step, int(config.get('seed', 0)))
    batch = jax.device_put(batch)
    seconds = []
    for _ in range(1 + _ROUNDS):
      start = time.perf_counter()
      state, fault = step.run(state, batch)
      fault.block_until_ready()
      seconds.append(time.perf_counter() - start)
    found[length] = 1e3 * statistics.median(seconds[1:])
  return found


def of_length(
  batch: Mapping[str, np.ndarray], length: int
) -> dict[str, np.ndarray]:
  """A batch whose texts all have `length` tokens; see `by_length`.

  Args:
    batch: ids [B, T] or [B, N, W] padded with 0, and whatever has one axis.
    length: of a text in tokens; N times W is the next that can be had.
  """
  made = {}
  for name, array in batch.items():
    if array.ndim < 2:
      made[name] = array
      continue
    rows, *_, words = array.shape
    shape = (rows, length)
    if array.ndim == 3:
      words = min(words, length)
      shape = (rows, math.ceil(length / words), words)
    made[name] = np.resize(array[array != 0], shape)
  return made
