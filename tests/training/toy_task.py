"""A task that trains in a blink: a linear model on numbers made by a seed.

As a program it fits the task: toy_task.py WORKDIR
[section.name=value | pause=seconds | evaluation_pause=seconds ...]
[process=INDEX,COUNT,HOST:PORT].
"""

import ast
import json
import pathlib
import sys
import time

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from attnlab import training
from attnlab.tasks import base
from attnlab.training import devices


class Numbers:
  """Batches that are a function of (seed, position), like the real ones."""

  def __init__(self, seed, batch_size, broken=-1, pause=0.0, shard=(0, 1)):
    self.seed = seed
    self.batch_size = batch_size
    self.broken = broken
    self.pause = pause
    self.shard = shard
    self.position = 0

  def __iter__(self):
    return self

  def __next__(self):
    time.sleep(self.pause)
    start = self.position * self.batch_size
    index = np.arange(start, start + self.batch_size, dtype=np.int32)
    index = np.split(index, self.shard[1])[self.shard[0]]
    rows = [rows_of(self.seed, i) for i in index]
    batch = {
      'x': np.stack([x for x, _ in rows]),
      'y': np.stack([y for _, y in rows]),
      'index': index,
    }
    if self.position == self.broken:
      batch['x'][0] = np.nan
    self.position += 1
    return batch

  def get_state(self):
    return {'position': self.position}

  def set_state(self, state):
    self.position = state['position']


def rows_of(seed, i):
  rng = np.random.default_rng([seed, i])
  x = rng.normal(size=3).astype(np.float32)
  y = np.float32(x @ [1.0, -2.0, 0.5] + 0.1 * rng.normal())
  return x, y


class Linear(nnx.Module):
  def __init__(self, width=3):
    self.out = nnx.Linear(width, 1, rngs=nnx.Rngs(0))
    self.seen = nnx.BatchStat(jnp.zeros((), jnp.int32))

  def __call__(self, x):
    return self.out(x)[:, 0]


def config(**changes):
  result = ml_collections.ConfigDict(
    {
      'seed': 0,
      'data': {'batch_size': 4, 'broken': -1},
      'model': {'dropout': 0.1},
      'optimizer': {'name': 'adam', 'learning_rate': 0.05},
      'training': {
        'steps': 20,
        'log_every': 5,
        'eval_every': 10,
        'checkpoint_every': 10,
        'keep': 2,
        'patience': 0,
      },
    }
  )
  for name, value in changes.items():
    section, _, key = name.partition('__')
    if key:
      with result.unlocked():
        result[section][key] = value
    else:
      result[section] = value
  return result


def build(
  config, evaluations=None, model=None, pause=0.0, evaluation_pause=0.0
):
  """The task; `evaluations` are what the monitored metric is to be in turn."""
  data = config['data']
  script = iter(evaluations or ())

  def loss(model, batch, rng):
    x = batch['x']
    if rng is not None:
      keep = jax.random.bernoulli(rng, 1 - config['model']['dropout'], x.shape)
      x = jnp.where(keep, x, 0.0)
    model.seen[...] += 1
    error = (model(x) - batch['y']) ** 2
    weight = jnp.float32(error.shape[0])
    return error.sum(), {'weight': weight, 'absolute': jnp.sqrt(error).sum()}

  def evaluate(model, split, *, full, workdir):
    del workdir
    time.sleep(evaluation_pause)
    rows = [rows_of(7 + len(split), i) for i in range(32)]
    x = np.stack([x for x, _ in rows])
    y = np.stack([y for _, y in rows])
    value = float(np.mean((np.asarray(model(x)) - y) ** 2))
    found = {'error': value if full else next(script, value)}
    return found | ({'full': 1.0} if full else {})

  batches = Numbers(0, data['batch_size'])
  return base.Task(
    model=model or Linear(),
    loss=loss,
    train=lambda seed, shard=(0, 1): Numbers(
      seed, data['batch_size'], data['broken'], pause, shard
    ),
    evaluate=evaluate,
    splits=('validation', 'test'),
    monitor=('validation/error', 'min'),
    predict=lambda model, lines: iter(()),
    example=next(batches),
    fingerprint={'data': f'numbers-{data["batch_size"]}', 'model': 'linear'},
    signatures={'error': 'mean square'},
    save_assets=lambda workdir: (workdir / 'assets').write_text('toy'),
  )


def main(argv):
  workdir = pathlib.Path(argv[1])
  pauses, changes, process = {}, {}, ('',)
  for word in argv[2:]:
    name, value = word.split('=')
    if name == 'process':
      index, count, coordinator = value.split(',')
      process = (coordinator, int(count), int(index))
      continue
    place = pauses if name.endswith('pause') else changes
    place[name.replace('.', '__')] = ast.literal_eval(value)
  toy = config(**changes)
  try:
    with devices.joined(*process):
      task = lambda: build(toy, **pauses)
      try:
        summary = training.fit(toy, task, workdir)
      except training.Stopped as stopped:
        return 128 + stopped.number
  except ValueError as error:
    print(error, file=sys.stderr)
    return 2
  print(json.dumps(summary))
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
