"""Faithfulness on models that are written down by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from attnlab.measures import faithfulness


def test_distances():
  one, two = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5])
  assert float(faithfulness.total_variation(one, two)) == 0.5
  # KL to (1/4, 1/2, 1/4) is ln(2)/2 on each side.
  found = float(faithfulness.jensen_shannon(one, two))
  assert found == pytest.approx(np.log(2) / 2)
  draw = np.random.default_rng(0).dirichlet(np.ones(6), (2, 5))
  own = distance.jensenshannon(*draw, axis=-1) ** 2
  np.testing.assert_allclose(
    faithfulness.jensen_shannon(*draw), own, rtol=1e-4, atol=1e-6
  )
  apart = faithfulness.jensen_shannon(np.eye(2)[0], np.eye(2)[1])
  assert float(apart) == pytest.approx(np.log(2))
  # A weight of 0 has a gradient.
  slope = jax.grad(faithfulness.jensen_shannon)(jnp.array(one), jnp.array(two))
  assert np.isfinite(slope).all()


def test_decisions_that_flip():
  own = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]])
  first = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]])
  second = np.array([[0.1, 0.9], [0.4, 0.6], [0.6, 0.4]])
  assert faithfulness.flips(own, first).tolist() == [False, True, False]
  until = faithfulness.share_until_flip(own, [first, second], [0.1, 0.5])
  assert until.tolist() == [0.5, 0.1, 1.0]


def test_a_rationale_is_a_share_of_what_is_visible():
  scores = np.array([[0.1, 0.5, 0.3, 0.9], [0.2, 0.2, 0.2, 0.2]])
  visible = np.array([[True, True, True, False], [True, True, True, True]])
  found = faithfulness.rationale(scores, visible, 0.5)
  assert found.tolist() == [
    [False, True, True, False],  # two of three, the largest is not visible
    [True, True, False, False],
  ]
  assert faithfulness.rationale(scores, visible, 0.01).sum(-1).tolist() == [
    1,
    1,
  ]
  nothing = np.zeros((2, 4), bool)
  assert not faithfulness.rationale(scores, nothing, 0.5).any()


def additive(visible):
  """Each visible position adds its number to the probability of class 1."""
  gain = np.array([[0.3, 0.1, 0.0, 0.05]]) + 0 * visible
  p = 0.5 + (gain * visible).sum(-1)
  return np.stack([1 - p, p], axis=-1)


def test_eraser_by_hand():
  visible = np.ones((1, 4), bool)
  scores = np.array([[0.7, 0.2, 0.06, 0.04]])
  found = faithfulness.eraser(additive, visible, scores, shares=(0.25, 0.5))
  # 0.95 before; without the first 0.65, without two 0.55; the first 0.8, two
  # 0.9.
  assert found['comprehensiveness'] == pytest.approx((0.3 + 0.4) / 2)
  assert found['sufficiency'] == pytest.approx((0.15 + 0.05) / 2)


def test_leaving_one_out_by_hand():
  visible = np.array([[True, False, True, True], [True, True, True, True]])
  found = faithfulness.leave_one_out(additive, visible)
  np.testing.assert_allclose(
    found, [[0.3, 0, 0, 0.05], [0.3, 0.1, 0, 0.05]], atol=1e-6
  )
  same = faithfulness.rank_correlation(found, found, visible)
  assert same == pytest.approx(1)
  assert faithfulness.rank_correlation(found, -found, visible) == -1
  flat = np.zeros_like(found)
  assert np.isnan(faithfulness.rank_correlation(found, flat, visible))


def search(values):
  """Best JSD where key k says values[k]; the model weighs key 0 alone."""
  values = jnp.asarray(values)

  def forward(logits):
    w = jax.nn.softmax(logits)
    p = w @ values
    return jnp.stack([p, 1 - p], axis=-1), w

  own = forward(jnp.array([[9.0, 0.0, 0.0]]))
  start = jax.random.normal(jax.random.key(0), (1, 3))
  best, moved = faithfulness.adversary(forward, start, *own, epsilon=0.05)
  assert float(moved[0]) <= 0.05
  return float(best[0])


def test_the_adversary_wins_where_weights_do_not_matter():
  assert search([0.8, 0.8, 0.8]) > 0.6
  assert search([1.0, 0.0, 0.0]) < 0.05


def test_a_probe_does_better_with_weights_that_point():
  draw = np.random.default_rng(0)
  tokens = draw.integers(3, 40, (400, 12)).astype(np.int32)
  places = draw.integers(0, 12, 400)
  rows = np.arange(400)
  labels = (tokens[rows, places] % 2).astype(np.int32)
  pointing = np.zeros(tokens.shape, np.float32)
  pointing[rows, places] = 1
  even = np.full(tokens.shape, 1 / 12, np.float32)
  found = []
  for weights in (pointing, even):
    data = {'tokens': tokens, 'weights': weights, 'labels': labels}
    halves = [{k: v[half] for k, v in data.items()} for half in (
      slice(0, 300), slice(300, 400)
    )]  # fmt: skip
    found.append(
      faithfulness.frozen_probe(*halves, words=40, classes=2, steps=150)
    )
  assert found[0] > 0.95
  assert found[1] < 0.8
