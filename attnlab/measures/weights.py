"""What attention weights look like: how sharp, where, and in which order.

Weights are [..., T, S], a mask of visible keys broadcasts to them, and what is
measured is [..., T]. A weight on a masked key counts for nothing. The weights
of a row are taken as shares of their sum, so that what sums to less than one is
measured by its shape; a row without any weight is blind, and 0 in each measure.
"""

from collections.abc import Mapping

import numpy as np


def entropy(weights: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
  """Entropy of each row, H = -sum_s p_s ln p_s, in nats."""
  p, _ = _shares(weights, mask)
  return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1) + 0.0


def effective_support(
  weights: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
  """How many keys a row reads, exp(H): 1 for one, S where all are equal."""
  _, seen = _shares(weights, mask)
  return np.where(seen, np.exp(entropy(weights, mask)), 0.0)


def maximum(weights: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
  """The largest share of each row."""
  return _shares(weights, mask)[0].max(axis=-1, initial=0.0)


def expected_position(
  weights: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
  """The mean position of what a row reads, sum_s p_s s, from 0."""
  p, _ = _shares(weights, mask)
  return p @ np.arange(p.shape[-1], dtype=np.float64)


def monotonicity(
  weights: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
  """Share of the steps from row to row that do not go back: -> [...].

  A step compares the expected positions of a row and of the next row that is
  not blind. Fewer than two such rows are 0.
  """
  places = expected_position(weights, mask)
  seen = _shares(weights, mask)[1]
  found = np.zeros(places.shape[:-1])
  for index in np.ndindex(found.shape):
    steps = np.diff(places[index][seen[index]])
    # Rounding is no step back.
    found[index] = np.mean(steps >= -1e-9) if len(steps) else 0.0
  return found


def coverage(weights: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
  """Share of the visible keys that were read: [..., T, S] -> [...].

  mean_s min(1, sum_t p_ts), after the penalty of Wu et al. 2016, eq. 14: 1
  where each key has been read once in sum. Of several rows of mask a key is
  visible if it is in one.
  """
  p, _ = _shares(weights, mask)
  read = np.minimum(p.sum(axis=-2), 1.0)
  if mask is None:
    visible = np.ones(read.shape, bool)
  else:
    visible = np.broadcast_to(mask, p.shape).any(axis=-2)
  return read.sum(axis=-1) / np.maximum(visible.sum(axis=-1), 1)


# By row, and by sentence: what `means` averages.
ROWS = {
  'entropy': entropy,
  'effective_support': effective_support,
  'maximum': maximum,
  'expected_position': expected_position,
}
SENTENCES = {'monotonicity': monotonicity, 'coverage': coverage}
SIGNATURES = {
  'entropy': 'nats, mean over rows that are not blind',
  'effective_support': 'exp(entropy) in keys, mean over rows',
  'maximum': 'largest weight, mean over rows',
  'expected_position': 'mean key position from 0, mean over rows',
  'monotonicity': 'share of steps of the expected position that do not go '
  'back, mean over sentences',
  'coverage': 'mean over keys of min(1, sum over rows), mean over sentences',
}


def sums(
  weights: np.ndarray, mask: np.ndarray | None = None
) -> dict[str, tuple[float, int]]:
  """Each measure of one sentence as (sum, how many), to be added up.

  Args:
    weights: [T, S]; a single row has no order and no coverage.
    mask: of the keys.
  """
  seen = _shares(weights, mask)[1]
  count = int(seen.sum())
  found = {
    name: (float(measure(weights, mask).sum()), count)
    for name, measure in ROWS.items()
  }
  if count > 1:
    found |= {
      name: (float(measure(weights, mask)), 1)
      for name, measure in SENTENCES.items()
    }
  return found


def means(sentences) -> Mapping[str, float]:
  """The mean of each measure over an iterable of what `sums` returned."""
  total: dict[str, tuple[float, int]] = {}
  for found in sentences:
    for name, (value, count) in found.items():
      before = total.get(name, (0.0, 0))
      total[name] = before[0] + value, before[1] + count
  return {name: value / n for name, (value, n) in total.items() if n}


def _shares(
  weights: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
  """Rows that sum to one, float64, and which of them are not blind."""
  weights = np.asarray(weights, np.float64)
  if np.any(weights < 0):
    raise ValueError('weights: one is negative, and no share of a sum')
  if mask is not None:
    weights = np.where(np.broadcast_to(mask, weights.shape), weights, 0.0)
  total = weights.sum(axis=-1, keepdims=True)
  return weights / np.where(total > 0, total, 1.0), total[..., 0] > 0
