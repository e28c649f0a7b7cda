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
  st.tuples(st.integers(0, 2), st.integers(1, 3)).map(
    lambda size: (
      masks.dilated(window=size[0], step=size[1]),
      lambda b, i, j: any(
        j == i + n * size[1] for n in range(-size[0], size[0] + 1)
      ),
    )
  ),
  st.integers(1, 3).map(
    lambda size: (
      masks.block(size=size),
      lambda b, i, j: any(
        i in own and j in own
        for own in (range(n, n + size) for n in range(0, 9, size))
      ),
    )
  ),
  st.integers(0, S).map(
    lambda n: (masks.prefix(n), lambda b, i, j: j in range(n))
  ),
  st.lists(st.integers(0, S), min_size=B, max_size=B).map(
    lambda n: (
      masks.prefix(jnp.array(n)),
      lambda b, i, j: j in range(n[b]),
    )
  ),
  st.lists(st.integers(0, 1), min_size=S, max_size=S).map(
    lambda ids: (
      masks.segment(jnp.array(ids)),
      lambda b, i, j: i < S and ids[i] == ids[j],
    )
  ),
  st.tuples(
    st.lists(st.integers(0, 1), min_size=B * S, max_size=B * S),
    st.lists(st.integers(0, 1), min_size=B * T, max_size=B * T),
  ).map(
    lambda ids: (
      masks.segment(
        jnp.array(ids[0]).reshape(B, S), jnp.array(ids[1]).reshape(B, T)
      ),
      lambda b, i, j: i < T and ids[1][b * T + i] == ids[0][b * S + j],
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


def same(one, two):
  np.testing.assert_array_equal(
    *(masks.dense(mask, (B, H), T, S, 2) for mask in (one, two))
  )


_pairs = st.recursive(leaves, combined, max_leaves=2)


@hypothesis.given(_pairs, _pairs, _pairs)
def test_masks_are_a_boolean_algebra(a, b, c):
  a, b, c = a[0], b[0], c[0]
  same(~~a, a)
  same(a & b, b & a)
  same(a | b, b | a)
  same(~(a & b), ~a | ~b)
  same(~(a | b), ~a & ~b)
  same(a & (b | c), a & b | a & c)
  same(a | (b & c), (a | b) & (a | c))
  same(a & (a | b), a)
  same(a & ~a, masks.prefix(0))
  same(a | ~a, masks.prefix(S))


def test_one_mask_is_another_in_the_limit():
  same(masks.dilated(window=2, step=1), masks.window(left=2, right=2))
  same(masks.dilated(window=0, step=3), masks.block(size=1))
  same(masks.block(size=9), masks.prefix(S))
  same(masks.window(left=9, right=0), masks.causal())
  numbers = jnp.arange(9) // 2
  same(masks.segment(numbers), masks.block(size=2))
  lengths = jnp.array([1, 3])
  same(masks.prefix(lengths), masks.padding(lengths))


def test_a_causal_mask_with_a_prefix_by_hand():
  grid = masks.dense(masks.causal() | masks.prefix(2), (), T, S)
  expected = [
    [True, True, False, False],
    [True, True, False, False],
    [True, True, True, False],
  ]
  np.testing.assert_array_equal(grid, expected)


def test_a_mask_of_rows_is_evaluated_on_one_example():
  # As `apply` does for one example of a batch, at its place.
  ids = jnp.array([[0, 0, 1, 1], [0, 1, 1, 1]])
  for mask in (
    masks.padding(jnp.array([1, 3])),
    masks.prefix(jnp.array([0, 2])),
    masks.segment(ids),
  ):
    whole = masks.dense(mask, (2,), T, S)
    for b in range(2):
      place = attention.Place(batch=jnp.int32(b))
      np.testing.assert_array_equal(masks.at(mask, T, S, place), whole[b])


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: masks.dilated(window=-1, step=1), r'dilated\(window=-1, step=1\)'),
    (lambda: masks.dilated(window=1, step=0), r'dilated\(window=1, step=0\)'),
    (lambda: masks.block(size=0), r'block\(size=0\)'),
    (lambda: masks.prefix(-1), r'prefix\(n=-1\)'),
    (
      lambda: masks.segment(jnp.zeros((1, 1, 1), int)),
      r'keys have shape \(1, 1, 1\)',
    ),
    (
      lambda: masks.segment(jnp.zeros(2, int), jnp.zeros((), int)),
      r'queries have shape \(\)',
    ),
  ],
)
def test_wrong_settings_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


@pytest.mark.parametrize(
  ('ids', 'queries', 'message'),
  [
    (np.zeros(S - 1, int), None, 'ids of 3 keys, but there are 4'),
    (np.zeros(S, int), np.zeros(T - 1, int), 'ids of 2 queries, but .* 3'),
    (np.zeros((B + 1, S), int), None, '3 rows of ids, but the batch has 2'),
  ],
)
def test_segment_refuses_what_it_has_no_ids_for(ids, queries, message):
  with pytest.raises(ValueError, match=message):
    masks.dense(masks.segment(ids, queries), (B,), T, S)


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
