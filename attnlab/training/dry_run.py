"""A dry run: the whole way of a run in two steps, before a long one."""

from collections.abc import Mapping
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np

from attnlab import configs, errors
from attnlab.training import (
  checkpoints,
  devices,
  evaluation,
  loop,
  optimizers,
)
from attnlab.training import settings as settings_lib
from attnlab.training import state as states
from attnlab.training import summary as summaries


def dry_run(config: Mapping[str, Any], task: Any) -> dict[str, Any]:
  """Two steps, an evaluation, a checkpoint that must come back the same.

  All in a temporary directory; nothing stays.

  Args:
    config: as for `fit`.
    task: a `tasks.base.Task`, or a function that builds it.

  Returns:
    The figures of the evaluation.

  Raises:
    UserError: a setting is wrong.
    Diverged: something is not finite.
    RuntimeError: what was restored is not what was saved.
  """
  config = configs.to_data(config)
  settings = settings_lib.read(config)
  layout = devices.layout(config)
  task = task() if callable(task) else task
  watched = evaluation.watched(config, task)
  seed = int(config.get('seed', 0))
  iterator = iter(task.train(seed))
  parts = states.take_apart(task.model)
  optimizer = optimizers.from_config(
    config.get('optimizer', {}), settings.steps
  )
  batches = [layout.batch(next(iterator)) for _ in range(2)]
  step = states.make_step(
    task.loss, parts, optimizer, batches[0], settings.log_every
  )
  state = states.create(parts, optimizer, step, seed, layout.create)
  step = layout.compile(step, state)
  flops = summaries.flops(step.run.trace(state, batches[0]).jaxpr)
  sizes = ', '.join(f'{k} {list(np.shape(v))}' for k, v in batches[0].items())
  print(summaries.table(parts.params, flops, sizes))
  for number, batch in enumerate(batches, 1):
    state, fault = step.run(state, batch)
    if int(fault):
      raise loop.Diverged(
        f'step {number}: {step.culprit(int(fault))} is not finite in the '
        f'batch of rows {loop.rows(batch.get("index", ()))}'
      )
  parts.update(task.model, *layout.local((states.used(state), state.rest)))
  values = evaluation.evaluate(task, splits=watched.splits, full=False)
  if watched.metric not in values:
    raise errors.unknown('monitor', watched.metric, values)
  with tempfile.TemporaryDirectory() as directory:
    directory = pathlib.Path(directory)
    checkpoints.save(directory, 2, state, {'iterator': iterator.get_state()})
    checkpoint = checkpoints.restore(directory, 2)
  again = states.create(parts, optimizer, step, seed, layout.create)
  again = layout.restore(again, checkpoint)
  other = iter(task.train(seed))
  other.set_state(checkpoint.meta['iterator'])
  # Equal in every bit, and a third step from either ends in the same place.
  _same(state, again, 'restored')
  _same(batch_a := next(iterator), batch_b := next(other), 'next batch')
  batch_a, batch_b = layout.batch(batch_a), layout.batch(batch_b)
  _same(step.run(state, batch_a), step.run(again, batch_b), 'next step')
  print('dry run: two steps, evaluation, checkpoint and restoration agree')
  print(loop.figures(values))
  return {
    **values,
    'parameters': sum(x.size for x in parts.params.values()),
    'train/compilations': loop.compilations(step),
    'seed': seed,
  }


def _same(one: Any, other: Any, what: str):
  """Raises unless two trees are equal in every bit."""
  pairs = zip(
    states.names(one),
    jax.tree.leaves(one),
    jax.tree.leaves(other),
    strict=True,
  )
  for name, a, b in pairs:
    if isinstance(a, jax.Array) and jax.numpy.issubdtype(
      a.dtype, jax.dtypes.prng_key
    ):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.tobytes() != b.tobytes():
      raise RuntimeError(f'dry run: {what}: {name} differs')
