"""A training step of the sentiment LSTM beside the same in PyTorch.

  python benchmarks/lstm_speed.py

The model: embeddings of 128 for 10,000 words, an LSTM of 256 both ways,
attention from the states alone (tanh, then one vector), a linear layer to two
classes; Adam, batches of 64 sentences of exactly 50 words, float32, no
dropout. Exact lengths spare both the work of masking. The two take turns, each
in a process of its own with two threads; a figure is the median over rounds of
the median step. Two CPU cores, about a minute; needs torch (extra bench).
Expect a ratio of 1.0.
"""

import argparse
from collections.abc import Callable, Sequence
import json
import pathlib
import statistics
import subprocess
import sys
import time

from attnlab import allocator

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIZES = {
  'batch': 64,
  'words': 50,
  'vocabulary': 10_000,
  'embedding': 128,
  'hidden': 256,
  'attention': 256,
}


def attnlab_step() -> Callable[[], None]:
  """Returns a function that does one training step, as the loop does it."""
  from flax import nnx
  import jax
  import numpy as np
  import optax

  from attnlab import attention
  from attnlab.models import classification
  from attnlab.training import optimizers, state

  mechanism = attention.compose(
    score=attention.scores.keys_only(hidden=SIZES['attention']),
    normalizer=attention.normalizers.softmax(),
  )
  model = classification.classifier(
    SIZES['vocabulary'],
    2,
    mechanism,
    nnx.Rngs(0),
    cell='lstm',
    embedding=SIZES['embedding'],
    hidden=SIZES['hidden'],
    pool='attention',
    shortcut=False,
    dropout=0.0,
  )

  def loss(model, batch, rng):
    logits, _ = model(batch, rng)
    losses = optax.softmax_cross_entropy_with_integer_labels(
      logits, batch['label']
    )
    return losses.sum(), {'weight': jax.numpy.float32(SIZES['batch'])}

  batch = dict(zip(('tokens', 'label'), examples(np), strict=True))
  parts = state.take_apart(model)
  optimizer = optimizers.from_config({'name': 'adam'}, 1000)
  step = state.make_step(loss, parts, optimizer, batch, log_every=100)
  current = state.create(parts, optimizer, step, seed=0)

  def run():
    nonlocal current
    current, fault = step.run(current, batch)
    fault.block_until_ready()

  return run


def torch_step() -> Callable[[], None]:
  """Returns the same in PyTorch, written as its users write it."""
  import numpy as np
  import torch
  from torch import nn

  torch.set_num_threads(2)
  torch.manual_seed(0)

  class Classifier(nn.Module):
    def __init__(self):
      super().__init__()
      self.embed = nn.Embedding(SIZES['vocabulary'], SIZES['embedding'])
      self.lstm = nn.LSTM(
        SIZES['embedding'],
        SIZES['hidden'],
        batch_first=True,
        bidirectional=True,
      )
      self.keys = nn.Linear(2 * SIZES['hidden'], SIZES['attention'])
      self.score = nn.Linear(SIZES['attention'], 1, bias=False)
      self.output = nn.Linear(2 * SIZES['hidden'], 2)

    def forward(self, tokens):
      states, _ = self.lstm(self.embed(tokens))
      weights = self.score(torch.tanh(self.keys(states))).softmax(dim=1)
      return self.output((weights * states).sum(dim=1))

  model = Classifier()
  optimizer = torch.optim.Adam(model.parameters())
  tokens, labels = (torch.from_numpy(x).long() for x in examples(np))

  def run():
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(tokens), labels).backward()
    optimizer.step()

  return run


def examples(np):
  """Tokens [B, T], none of them padding, and labels [B]."""
  rng = np.random.default_rng(0)
  size = SIZES['batch'], SIZES['words']
  tokens = rng.integers(4, SIZES['vocabulary'], size, dtype=np.int32)
  return tokens, rng.integers(0, 2, SIZES['batch'], dtype=np.int32)


def seconds(run: Callable[[], None], steps: int) -> float:
  """Returns the median seconds of a step, after ten that are left out."""
  times = []
  for _ in range(steps + 10):
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
  return statistics.median(times[10:])


def main(arguments: Sequence[str] | None = None) -> int:
  """Measures both, prints the ratio and writes the entry for results/."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--out', type=pathlib.Path, default=ROOT / 'results')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--steps', type=int, default=60)
  parser.add_argument(
    '--measure', choices=('attnlab', 'torch'), help=argparse.SUPPRESS
  )
  given = parser.parse_args(arguments)
  if given.measure:
    step = attnlab_step() if given.measure == 'attnlab' else torch_step()
    print(json.dumps(seconds(step, given.steps)))
    return 0
  taken = {'attnlab': [], 'torch': []}
  for number in range(given.rounds):
    for side, found in taken.items():
      command = [sys.executable, __file__, f'--measure={side}']
      command.append(f'--steps={given.steps}')
      done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True
      )
      found.append(json.loads(done.stdout.splitlines()[-1]))
    line = ', '.join(f'{k} {v[-1] * 1e3:.1f} ms' for k, v in taken.items())
    print(f'round {number + 1}: {line}', flush=True)
  from attnlab.report import results

  medians = {side: statistics.median(found) for side, found in taken.items()}
  words = SIZES['batch'] * SIZES['words']
  ratio = medians['torch'] / medians['attnlab']
  entry = {
    'name': 'lstm_speed',
    'label': 'LSTM 256 both ways, attention, 64 × 50 words',
    'command': 'python benchmarks/lstm_speed.py',
    'seeds': [0],
    'figures': {
      'attnlab/tokens_per_second': words / medians['attnlab'],
      'torch/tokens_per_second': words / medians['torch'],
      'ratio': ratio,
    },
    'rounds': taken,
    **results.here('jax', 'flax', 'torch'),
    'config': SIZES,
  }
  print(f'ratio {ratio:.2f}')
  print(results.write(entry, given.out))
  return 0


if __name__ == '__main__':
  # As launch.py does; PyTorch starts as its users start it.
  if '--measure=attnlab' in sys.argv:
    allocator.keep()
  sys.exit(main())
