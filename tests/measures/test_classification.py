"""Measures of classifiers, by hand."""

import numpy as np
import pytest

from attnlab.measures import classification


def test_confusion_and_macro_f1():
  counts = classification.confusion([0, 0, 1, 1, 1], [0, 1, 1, 1, 0], 3)
  np.testing.assert_array_equal(counts, [[1, 1, 0], [1, 2, 0], [0, 0, 0]])
  # F1 of 2/4 and 4/6; a class that never occurs counts for nothing.
  assert classification.macro_f1(counts) == pytest.approx((1 / 2 + 2 / 3) / 2)
  assert classification.macro_f1(np.zeros((2, 2), int)) == 0


def test_pointing():
  weights = np.array([0.1, 0.6, 0.3])
  assert classification.pointing(weights, [1, 2]) == (True, pytest.approx(0.9))
  assert classification.pointing(weights, [0, 0]) == (False, 0.1)
  assert classification.pointing(np.zeros(3), [0]) == (False, 0.0)
  assert classification.pointing(np.zeros(0), []) == (False, 0.0)
