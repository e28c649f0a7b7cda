"""Pools: a sequence of states to one vector, with each position's share.

A pool is called as pool(states [B, T, D], mask [B, T], rng) and returns the
vector [B, D] and weights [B, T] float32 that say from which positions it comes.
They sum to one, or to what the mechanism gives away, and are the mean over the
heads and hops of one that has several; a row without a visible position has a
vector and weights of 0.
"""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from attnlab import attention
from attnlab.layers import attend as attend_lib
from attnlab.layers import basic

Array = jax.Array


class Last(nnx.Module):
  """The state that has read everything: the last, backwards the first one.

  In both directions each of the two positions has half of the weight.
  """

  def __init__(self, directions: int):
    self.directions = directions

  def __call__(self, states: Array, mask: Array, rng: Array | None = None):
    del rng
    size = mask.shape[1]
    last = size - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    ends = [last, jnp.argmax(mask, axis=1)][: self.directions]
    parts = jnp.split(states, self.directions, axis=-1)
    vectors, weights = [], jnp.zeros(mask.shape, jnp.float32)
    for part, end in zip(parts, ends, strict=True):
      chosen = jax.nn.one_hot(end, size, dtype=jnp.float32)
      chosen = jnp.where(mask, chosen, 0)
      vectors.append(_sum(chosen, part))
      weights += chosen / self.directions
    return jnp.concatenate(vectors, axis=-1), weights


class Mean(nnx.Module):
  """The mean of the visible states."""

  def __call__(self, states: Array, mask: Array, rng: Array | None = None):
    del rng
    weights = _shares(mask.astype(jnp.float32))
    return _sum(weights, states), weights


class Max(nnx.Module):
  """The largest visible value of each unit; weights count the units won."""

  def __call__(self, states: Array, mask: Array, rng: Array | None = None):
    del rng
    low = jnp.finfo(states.dtype).min
    visible = jnp.where(mask[..., None], states, low)
    some = mask.any(axis=1, keepdims=True)
    vector = jnp.where(some, jnp.max(visible, axis=1), 0)
    winners = jnp.argmax(visible, axis=1)[:, None, :]
    places = jnp.arange(mask.shape[1])[None, :, None]
    won = jnp.mean(winners == places, axis=-1, dtype=jnp.float32)
    return vector, jnp.where(mask, won, 0)


class Gate(nnx.Module):
  """The mean of gated states, sigmoid(W x + b) * x; weights share the gates."""

  def __init__(self, depth: int, *, rngs: nnx.Rngs, dtype: jnp.dtype):
    self.gate = basic.Linear(depth, depth, rngs=rngs, dtype=dtype)

  def __call__(self, states: Array, mask: Array, rng: Array | None = None):
    del rng
    gates = jax.nn.sigmoid(self.gate(states))
    even = _shares(mask.astype(jnp.float32))
    opened = jnp.mean(gates, axis=-1, dtype=jnp.float32)
    weights = _shares(jnp.where(mask, opened, 0))
    return _sum(even, gates * states), weights


class Attention(nnx.Module):
  """Any mechanism, asked by one learned query (Yang et al. 2016).

  A mechanism that depends on no query gets none.
  """

  def __init__(
    self,
    mechanism: attention.Attention,
    depth: int,
    *,
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
  ):
    self.attend = _attend(mechanism, depth, rngs)
    self.query: Any = _seed(depth, rngs) if mechanism.depends_on_query else None
    self.dtype = dtype

  def __call__(self, states: Array, mask: Array, rng: Array | None = None):
    batch, _, depth = states.shape
    query = jnp.zeros((batch, 1, depth), self.dtype)
    if self.query is not None:
      query += self.query[...].astype(self.dtype)[None, None, :]
    vectors, weights = _read(self.attend, query, states, mask, rng)
    return vectors[:, 0], weights[:, 0]


class SelfAttention(nnx.Module):
  """The mean of what the states read from each other, with any mechanism.

  The weights are the mean over the visible queries.
  """

  def __init__(
    self, mechanism: attention.Attention, depth: int, *, rngs: nnx.Rngs
  ):
    self.attend = _attend(mechanism, depth, rngs)

  def __call__(self, states: Array, mask: Array, rng: Array | None = None):
    vectors, weights = _read(self.attend, states, states, mask, rng)
    even = _shares(mask.astype(jnp.float32))
    return _sum(even, vectors), _sum(even, weights)


class Set(nnx.Module):
  """Pooling by attention, PMA_1(Z) = MAB(s, rFF(Z)) (Lee et al. 2019, eq. 11).

  MAB(s, Y) = LN(H + rFF(H)) with H = LN(s + attend(s, Y, Y)) (eq. 6 and 7), s a
  learned vector that is also the query, rFF a linear map and a relu; any
  mechanism attends, in the paper several heads of scaled_dot. Nothing in it
  knows positions unless the mechanism does.
  """

  def __init__(
    self,
    mechanism: attention.Attention,
    depth: int,
    *,
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
  ):
    new = lambda: basic.Linear(depth, depth, rngs=rngs, dtype=dtype)
    self.attend = _attend(mechanism, depth, rngs)
    self.seed = _seed(depth, rngs)
    self.inner, self.outer = new(), new()
    self.norms = nnx.List([basic.LayerNorm(depth) for _ in range(2)])
    self.dtype = dtype

  def __call__(self, states: Array, mask: Array, rng: Array | None = None):
    batch, _, depth = states.shape
    seed = self.seed[...].astype(self.dtype)[None, None, :]
    seed = jnp.broadcast_to(seed, (batch, 1, depth))
    keys = jax.nn.relu(self.inner(states))
    found, weights = _read(self.attend, seed, keys, mask, rng)
    hidden = self.norms[0](seed + found)
    vectors = self.norms[1](hidden + jax.nn.relu(self.outer(hidden)))
    some = mask.any(axis=1, keepdims=True)
    return jnp.where(some, vectors[:, 0], 0), weights[:, 0]


def _attend(mechanism, depth: int, rngs: nnx.Rngs) -> attend_lib.Attend:
  """A mechanism that reads states of a depth and hands on as much."""
  attend = attend_lib.Attend(
    mechanism, query_dim=depth, key_dim=depth, value_dim=depth, rngs=rngs
  )
  attend_lib.check_depth(attend, depth)
  return attend


def _seed(depth: int, rngs: nnx.Rngs) -> nnx.Param:
  """A learned query."""
  init = jax.nn.initializers.normal(depth**-0.5)
  return nnx.Param(init(rngs.params(), (depth,)))


def _read(
  attend: attend_lib.Attend,
  query: Array,
  states: Array,
  mask: Array,
  rng: Array | None,
) -> tuple[Array, Array]:
  """[B, N, D] asks states [B, T, D]: vectors [B, N, D], weights [B, N, T]."""
  memory = attend.prepare(states, states)
  out = attend(query, memory, mask=mask[:, None, :], rng=rng)
  return out.context, attend_lib.rows(out.weights)


def _sum(weights: Array, states: Array) -> Array:
  """[B, T], [B, T, D] -> [B, D], summed in float32, in the states' dtype."""
  found = jnp.einsum(
    'bt,btd->bd',
    weights.astype(states.dtype),
    states,
    preferred_element_type=jnp.float32,
  )
  return found.astype(states.dtype)


def _shares(amounts: Array) -> Array:
  """Amounts [B, T] divided by their sum; 0 where there is none."""
  total = jnp.sum(amounts, axis=-1, keepdims=True)
  return amounts / jnp.where(total > 0, total, 1)
