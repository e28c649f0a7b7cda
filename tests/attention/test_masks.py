"""Masks: every combination against loops over positions."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import attention
from attnlab.attention import masks

B, H, T, S = 2, 2, 3, 4

# A mask and, independently, what it should say of (b, i, j).
leaves = st.one_of(
  st.just((masks.causal(), lambda b, i, j: j <= i)),
  st.tuples(st.integers(0, 2), st.integers(0, 2)).map(
    lambda size: (
      masks.window(left=size[0], right=size[1]),
      lambda b, i, j: j in range(i - size[0], i + size[1] + 1),
    )
  ),
  st.tuples(st.integers(0, S), st.integers(0, S)).map(
    lambda lengths: (
      masks.padding(jnp.array(lengths)),
      lambda b, i, j: j in range(lengths[b]),
    )
  ),
)


def combined(children):
  pairs = st.tuples(children, children)
  return st.one_of(
    pairs.map(
      lambda p: (p[0][0] & p[1][0], lambda *x: p[0][1](*x) and p[1][1](*x))
    ),
    pairs.map(
      lambda p: (p[0][0] | p[1][0], lambda *x: p[0][1](*x) or p[1][1](*x))
    ),
    children.map(lambda c: (~c[0], lambda *x: not c[1](*x))),
  )


@hypothesis.given(
  st.recursive(leaves, combined, max_leaves=4), st.integers(0, 3)
)
def test_dense_agrees_with_loops(pair, start):
  mask, visible = pair
  grid = masks.dense(mask, (B, H), T, S, start)
  assert grid.shape == (B, H, T, S)
  assert grid.dtype == bool
  for b, h, i, j in np.ndindex(B, H, T, S):
    assert grid[b, h, i, j] == visible(b, start + i, j)


@pytest.mark.parametrize('lead', [(), (B,), (B, H)])
def test_leading_axes(lead):
  grid = masks.dense(masks.causal(), lead, T, S)
  expected = np.broadcast_to(np.tri(T, S, dtype=bool), (*lead, T, S))
  np.testing.assert_array_equal(grid, expected)


def test_the_start_may_be_traced():
  start = jax.jit(lambda t: masks.dense(masks.causal(), (), 1, S, t))
  np.testing.assert_array_equal(start(2), [[True, True, True, False]])


def test_more_leading_axes_than_batch_and_head_are_refused():
  with pytest.raises(ValueError, match='a batch and a head axis'):
    masks.dense(masks.causal(), (2, 2, 2), T, S)


def test_booleans_may_be_broadcast():
  row = np.array([True, False, True, True])
  grid = masks.dense(row, (B,), T, S)
  np.testing.assert_array_equal(grid, np.broadcast_to(row, (B, T, S)))


@pytest.mark.parametrize('rows', [1, 3])
def test_padding_refuses_another_batch(rows):
  # An index beyond the end would read the last length without a word.
  with pytest.raises(ValueError, match=f'2 lengths, but the batch has {rows}'):
    masks.dense(masks.padding(jnp.array([1, 2])), (rows,), T, S)


def test_padding_is_evaluated_inside_a_vmap():
  mask = masks.padding(jnp.array([1, 3]))
  zero = jnp.int32(0)
  one = lambda b: mask.visible(b, zero, zero, jnp.arange(S))
  with jax.numpy_rank_promotion('allow'):
    rows = jax.vmap(one)(jnp.arange(2))
  np.testing.assert_array_equal(rows.sum(axis=1), [1, 3])


@pytest.mark.parametrize('sides', [(-1, 0), (0, -1)])
def test_window_refuses_negative_sides(sides):
  with pytest.raises(ValueError, match='neither may be negative'):
    masks.window(left=sides[0], right=sides[1])


def test_combinations_are_seen_by_attend():
  mechanism = attention.compose(
    score=attention.scores.dot(), normalizer=attention.normalizers.uniform()
  )
  x = np.ones((B, T, 2), np.float32)
  mask = masks.causal() & masks.padding(jnp.array([2, 3]))
  weights = attention.attend(mechanism, {}, x, x, x, mask=mask).weights
  half, third = 1 / 2, 1 / 3
  np.testing.assert_allclose(
    weights,
    [
      [[1, 0, 0], [half, half, 0], [half, half, 0]],
      [[1, 0, 0], [half, half, 0], [third, third, third]],
    ],
  )
