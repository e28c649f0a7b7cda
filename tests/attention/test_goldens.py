"""Numbers worked out by hand, with parameters set by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import attention

scores, normalizers = attention.scores, attention.normalizers


def table(score, params, query, key):
  """The scores [T, S]."""
  query, key = jnp.array(query, jnp.float32), jnp.array(key, jnp.float32)
  params = jax.tree.map(lambda x: jnp.array(x, jnp.float32), params)
  return score.apply(params, query, score.prepare(params, key))


def normalize(normalizer, row, mask=None):
  row = jnp.array(row, jnp.float32)
  return normalizer.apply(row, mask, None)[0]


# A list inside a dict would be a tree of its own.
def vector(*numbers):
  return np.array(numbers, np.float32)


@pytest.mark.parametrize(
  ('score', 'params', 'query', 'key', 'expected'),
  [
    # 1*3 + 2*4 = 11; 1*(-1) + 2*0 = -1.
    (scores.dot(), {}, [[1, 2]], [[3, 4], [-1, 0]], [[11, -1]]),
    # 4 numbers deep: the sums 10 and 4 over sqrt(4).
    (
      scores.scaled_dot(),
      {},
      [[1, 1, 1, 1]],
      [[1, 2, 3, 4], [4, 0, 0, 0]],
      [[5, 2]],
    ),
    # W = [[1, 2, 0], [0, 1, -1]]: q W = [1, 4, -2] for q = [1, 2].
    (
      scores.bilinear(),
      {'weight': np.array([[1, 2, 0], [0, 1, -1]])},
      [[1, 2]],
      [[1, 1, 1], [0, 1, 0]],
      [[3, 4]],
    ),
    # 2 tanh(q + k + .5) - 3 tanh(2 k): both tanh are of numbers set by hand.
    (
      scores.additive(hidden=2),
      {
        'query': np.array([[1.0, 0.0]]),
        'key': np.array([[1.0, 2.0]]),
        'bias': vector(0.5, 0),
        'out': vector(2, -3),
      },
      [[1]],
      [[-1.5], [0]],
      [[-3 * math.tanh(-3), 2 * math.tanh(1.5)]],
    ),
    # 5 tanh(2 k - 1), whatever the query.
    (
      scores.keys_only(hidden=1),
      {'key': np.array([[2.0]]), 'bias': vector(-1), 'out': vector(5)},
      [[7], [-7]],
      [[0.5], [1]],
      [[0, 5 * math.tanh(1)], [0, 5 * math.tanh(1)]],
    ),
  ],
  ids=['dot', 'scaled_dot', 'bilinear', 'additive', 'keys_only'],
)
def test_scores(score, params, query, key, expected):
  found = table(score, params, query, key)
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_softmax_of_4_and_1_is_not_what_tutorials_print():
  # 1 / (1 + e^-3) = 0.9526; several tutorials say (0.982, 0.018).
  found = normalize(normalizers.softmax(), [4, 1])
  np.testing.assert_allclose(found, [0.952574, 0.047426], atol=1e-6)


def test_temperature_divides_the_scores():
  found = normalize(normalizers.softmax(temperature=3), [4, 1])
  np.testing.assert_allclose(found, [0.731059, 0.268941], atol=1e-6)


@pytest.mark.parametrize('temperature', [0, -1, math.nan])
def test_temperature_must_be_positive(temperature):
  with pytest.raises(ValueError, match='temperature='):
    normalizers.softmax(temperature=temperature)


def test_softmax_of_huge_scores_does_not_overflow():
  np.testing.assert_allclose(
    normalize(normalizers.softmax(), [1e30, 1e30, -1e30]), [0.5, 0.5, 0]
  )


def test_a_visible_score_may_be_the_smallest_of_all():
  mask = np.array([True, False])
  for normalizer in (normalizers.softmax(), normalizers.hardmax()):
    found = normalize(normalizer, [-3e38, 5], mask)
    np.testing.assert_array_equal(found, [1, 0])


def test_uniform_counts_the_visible():
  mask = np.array([True, False, True, True])
  found = normalize(normalizers.uniform(), [9, 9, -9, 0], mask)
  np.testing.assert_allclose(found, [1 / 3, 0, 1 / 3, 1 / 3])


def test_hardmax_takes_the_first_of_equals():
  hardmax = normalizers.hardmax()
  np.testing.assert_array_equal(normalize(hardmax, [1, 2, 2]), [0, 1, 0])
  mask = np.array([True, False, True])
  found = normalize(hardmax, [1, 2, 1], mask)
  np.testing.assert_array_equal(found, [1, 0, 0])


def test_a_whole_mechanism():
  # Scores 4 and 1, then .952574 * 10 + .047426 * 20.
  mechanism = attention.compose(
    score=scores.dot(), normalizer=normalizers.softmax()
  )
  out = attention.attend(
    mechanism,
    {},
    jnp.array([[1.0, 1.0]]),
    jnp.array([[3.0, 1.0], [0.0, 1.0]]),
    jnp.array([[10.0], [20.0]]),
  )
  np.testing.assert_allclose(out.context, [[10.474259]], rtol=1e-6)


def test_concat_of_heads_through_the_output_is_the_sum_over_heads():
  # Catalogue's identity: [c_1 .. c_H] W_O = sum_h c_h W_O_h, with head 1 off.
  inner = attention.compose(
    score=scores.dot(), normalizer=normalizers.uniform()
  )
  mechanism = attention.heads.multi_head(
    inner, num_heads=2, head_dim=1, out_dim=1
  )
  eye = jnp.eye(2)
  params = {'query': eye, 'key': eye, 'value': eye, 'heads': {}}
  x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
  for out, expected in (([1, 0], 2), ([0, 1], 20), ([1, 1], 22)):
    params['out'] = jnp.array(out, jnp.float32)[:, None]
    found = attention.attend(mechanism, params, x, x, x).context
    np.testing.assert_allclose(found, [[expected]] * 2)
