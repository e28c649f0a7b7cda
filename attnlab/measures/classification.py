"""Measures of classifiers: confusion, macro-F1, and whether weights point."""

from collections.abc import Sequence

import numpy as np


def confusion(
  labels: Sequence[int], predictions: Sequence[int], classes: int
) -> np.ndarray:
  """Counts [C, C]: row c, column d are examples of c taken for d."""
  places = np.asarray(labels, np.int64) * classes + np.asarray(predictions)
  counts = np.bincount(places.astype(np.int64), minlength=classes**2)
  return counts.reshape(classes, classes)


def macro_f1(counts: np.ndarray) -> float:
  """The mean of F1 over the classes that are labels or predictions.

  Args:
    counts: of `confusion`.
  """
  right = np.diag(counts)
  total = counts.sum(axis=0) + counts.sum(axis=1)
  seen = total > 0
  return float(np.mean(2 * right[seen] / total[seen])) if seen.any() else 0.0


def pointing(weights: np.ndarray, gold: Sequence[int]) -> tuple[bool, float]:
  """Whether the largest weight is on gold, and the share that is.

  Args:
    weights: [T], 0 or more. Of equal ones the first is the largest.
    gold: positions.
  """
  gold = np.asarray(gold, np.int64)
  if not np.any(weights):
    return False, 0.0
  hit = int(np.argmax(weights)) in gold
  return hit, float(weights[np.unique(gold)].sum())
