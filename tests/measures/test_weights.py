"""What weights look like: by hand, and by properties."""

import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
import numpy as np
import pytest

from attnlab.measures import lengths, weights

ROWS = np.array([[0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
some = st_numpy.arrays(
  np.float64, (3, 5), elements=st.floats(0, 1).map(lambda x: round(x, 3))
)


def test_rows_by_hand():
  np.testing.assert_allclose(weights.entropy(ROWS), [np.log(2), 0, 0])
  np.testing.assert_allclose(weights.effective_support(ROWS), [2, 1, 0])
  np.testing.assert_allclose(weights.maximum(ROWS), [0.5, 1, 0])
  np.testing.assert_allclose(weights.expected_position(ROWS), [0.5, 2, 0])


def test_a_mask_hides_keys_and_the_rest_are_shares():
  mask = np.array([True, False, True, True])
  np.testing.assert_allclose(weights.entropy(ROWS, mask), [0, 0, 0])
  np.testing.assert_allclose(weights.maximum(ROWS, mask), [1, 1, 0])
  # Less than one in sum: measured by its shape.
  np.testing.assert_allclose(weights.effective_support(ROWS / 4), [2, 1, 0])
  blind = weights.sums(ROWS, np.zeros(4, bool))
  assert blind['entropy'] == (0.0, 0)
  assert weights.means([blind]) == {}


def test_order_and_coverage_by_hand():
  forth = np.eye(4)
  assert weights.monotonicity(forth) == 1
  assert weights.monotonicity(forth[::-1]) == 0
  # 0, 2, (blind), 1: one step forth, one back.
  rows = np.array([forth[0], forth[2], np.zeros(4), forth[1]])
  assert weights.monotonicity(rows) == 0.5
  assert weights.monotonicity(rows[:1]) == 0
  assert weights.coverage(forth) == 1
  assert weights.coverage(forth[[0, 0]]) == 0.25
  assert weights.coverage(np.full((2, 4), 0.25)) == 0.5
  assert weights.coverage(forth[:2], np.array([True, True, False, False])) == 1
  assert weights.coverage(np.zeros((2, 4)), np.zeros(4, bool)) == 0
  assert weights.monotonicity(np.stack([forth, forth[::-1]])).tolist() == [1, 0]


@hypothesis.given(some)
def test_ranges(array):
  seen = array.sum(-1) > 0
  support = weights.effective_support(array)
  assert (support[seen] >= 1 - 1e-9).all()
  assert (support <= (array > 0).sum(-1) + 1e-9).all()
  assert (support[~seen] == 0).all()
  assert (weights.maximum(array)[seen] >= 1 / 5).all()
  assert 0 <= weights.coverage(array) <= 1
  assert 0 <= weights.monotonicity(array) <= 1


@hypothesis.given(some, st.permutations(range(5)), st.floats(0, 1))
def test_masked_keys_are_inert_and_order_does_not_matter(array, order, other):
  for measure in (weights.entropy, weights.maximum, weights.coverage):
    moved = measure(array[:, list(order)])
    np.testing.assert_allclose(moved, measure(array), atol=1e-12)
  mask = np.arange(5) < 3
  changed = np.where(mask, array, other)
  for measure in (*weights.ROWS.values(), *weights.SENTENCES.values()):
    np.testing.assert_array_equal(measure(array, mask), measure(changed, mask))
    shown = measure(array[:, :3])
    np.testing.assert_allclose(measure(array, mask), shown, atol=1e-12)


def test_means_are_over_rows_and_over_sentences():
  found = weights.means(
    [weights.sums(ROWS), weights.sums(np.eye(4)[:1]), weights.sums(np.eye(4))]
  )
  assert found['entropy'] == pytest.approx(np.log(2) / 7)
  assert found['monotonicity'] == 1
  assert found['coverage'] == pytest.approx((0.5 + 1) / 2)


def test_a_negative_weight_is_refused():
  with pytest.raises(ValueError, match='negative'):
    weights.entropy(np.array([[-0.1, 1.1]]))


def test_figures_by_length():
  sizes = [3] * 20 + [7] * 20
  found = lengths.by_length(sizes, lambda rows: float(rows.min()), 'first')
  assert found == {'first_of_1_to_5_words': 0, 'first_of_6_to_10_words': 20}
  assert lengths.by_length([], len, 'x') == {}
  # A long text has no more than ten bins.
  assert len(lengths.bins(range(1, 1_001))) == 10
