"""Estimators of the gradient through a hard choice, beside the true gradient.

  python benchmarks/gradient_estimators.py [--keys=16] [--draws=4000]

The problem: a query chooses one of S keys by pi = softmax(z), z of a normal
distribution, and reads its value, of 8 numbers; a linear layer and a softmax
over 10 classes give the loss of that choice, -log p(y). Wanted is the gradient
over z of the expected loss, which `exact` finds by trying every key. Three
problems are drawn; a row is an estimator, and its figures are the means over
the problems. The last number of its name is how many draws it takes the mean
of: `leave_one_out` needs several, so that all have a row with 4.

bias: ||E g - g*|| / ||g*||, with its interval of 95 %; an estimator is shown to
be biased where that is above 0 (which happens to an unbiased one on one problem
in twenty). variance: E ||g - E g||^2 / ||g*||^2 of one estimate. cosine: of one
estimate to g*, the mean. time: for one estimate, compiled.

Two CPU cores, about a minute. Expect no bias of the score function (reinforce)
and a tenth of its variance with any baseline; of the others, a bias of 0.35 to
0.38 of g* with little variance at temperature 1, which falls to 0.1 at 0.3,
where the variance is that of the score function with a baseline.
"""

import argparse
from collections.abc import Callable, Sequence
import functools
import json
import pathlib
import statistics
import sys
from typing import Any

import jax
from rich import console, table

from attnlab.attention import estimators

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROBLEMS, DEPTH, CLASSES = 3, 8, 10


def rows() -> dict[str, estimators.Estimator]:
  """The estimators of the table, by the name of their row."""
  found = {'exact': estimators.exact()}
  baselines = {
    'zero': estimators.zero(),
    'running_mean': estimators.running_mean(),
    'learned': estimators.learned(),
    'self_critical': estimators.self_critical(),
    'leave_one_out': estimators.leave_one_out(),
  }
  for samples in (1, 4):
    for name, baseline in baselines.items():
      if samples >= baseline.least:
        found[f'reinforce_{name}_{samples}'] = estimators.reinforce(
          baseline=baseline, samples=samples
        )
    for name in ('straight_through', 'gumbel', 'gumbel_st'):
      make = getattr(estimators, name)
      found[f'{name}_{samples}'] = make(samples=samples)
    found[f'gumbel_0.3_{samples}'] = estimators.gumbel(
      temperature=0.3, samples=samples
    )
  return found


def problem(seed: int, keys: int) -> tuple[jax.Array, Callable]:
  """Returns logits [S], and the loss of weights [S]."""
  rngs = jax.random.split(jax.random.key(seed), 3)
  logits = jax.random.normal(rngs[0], (keys,))
  value = jax.random.normal(rngs[1], (keys, DEPTH))
  layer = jax.random.normal(rngs[2], (DEPTH, CLASSES))

  def loss(weights):
    return -jax.nn.log_softmax(weights @ value @ layer / DEPTH**0.5)[0]

  return logits, loss


def measure(
  estimator: estimators.Estimator, keys: int, draws: int
) -> dict[str, float]:
  """The figures of one row."""
  found = []
  for seed in range(PROBLEMS):
    logits, loss = problem(seed, keys)
    rng = jax.random.key(100 + seed)
    found.append(
      estimators.quality(estimator, rng, logits, loss, draws=draws)._asdict()
    )
  return {key: statistics.fmean(one[key] for one in found) for key in found[0]}


def show(measured: dict[str, dict[str, float]]) -> table.Table:
  """The figures as a table."""
  grid = table.Table()
  grid.add_column('estimator', no_wrap=True)
  for head in ('bias', '95 %', 'variance', 'cosine', 'time'):
    grid.add_column(head, justify='right')
  for name, of in measured.items():
    grid.add_row(
      name,
      f'{of["bias"]:.2f}',
      f'{of["low"]:.2f}–{of["high"]:.2f}',
      f'{of["variance"]:.3g}',
      f'{of["cosine"]:.2f}',
      f'{of["seconds"] * 1e6:.1f} µs',
    )
  return grid


def main(arguments: Sequence[str] | None = None) -> int:
  """Measures all rows, prints the table and writes the JSON."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument(
    '--out', type=pathlib.Path, default=ROOT / 'results' / 'benchmarks'
  )
  parser.add_argument('--keys', type=functools.partial(_above, 1), default=16)
  parser.add_argument(
    '--draws', type=functools.partial(_above, 1), default=4000
  )
  given = parser.parse_args(arguments)
  measured = {
    name: measure(estimator, given.keys, given.draws)
    for name, estimator in rows().items()
  }
  console.Console().print(show(measured))
  given.out.mkdir(parents=True, exist_ok=True)
  path = given.out / 'gradient_estimators.json'
  text = json.dumps(entry(measured, given.keys, given.draws), indent=2)
  path.write_text(text + '\n', encoding='utf-8')
  print(path)
  return 0


def entry(
  measured: dict[str, dict[str, float]], keys: int, draws: int
) -> dict[str, Any]:
  """What is written: the figures, and how they came about."""
  from attnlab.report import results

  return {
    'name': 'gradient_estimators',
    'label': f'Gradients through a choice among {keys} keys',
    'command': (
      f'python benchmarks/gradient_estimators.py --keys={keys} --draws={draws}'
    ),
    'seeds': list(range(PROBLEMS)),
    'figures': {
      f'{name}/{key}': float(value)
      for name, of in measured.items()
      for key, value in of.items()
    },
    **results.here('jax'),
    'config': {'depth': DEPTH, 'classes': CLASSES},
  }


def _above(least: int, text: str) -> int:
  value = int(text)
  if value <= least:
    raise argparse.ArgumentTypeError(f'{value} is not above {least}')
  return value


if __name__ == '__main__':
  sys.exit(main())
