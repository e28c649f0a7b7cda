"""One mechanism: score -> normalise -> read, under a mask.

The mathematics is written for one example: query [T, Q], key [S, K], value
[S, V]. `attend` maps it over any leading batch and head axes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from attnlab.attention import masks
from attnlab.attention import normalizers as normalizers_lib
from attnlab.attention import scores as scores_lib

Array = jax.Array
PyTree = Any


class Memory(NamedTuple):
  """What a source offers, computed once and read at every step.

  Attributes:
    key: what the score made of the keys, a pytree.
    value: what is summed, a pytree ([S, V] for most mechanisms).

  Every leaf has the source as its last axis but one, [..., S, D], and row s
  depends on source position s alone: a memory can be grown a position at a
  time, which is how a decoder caches its own past.
  """

  key: PyTree
  value: PyTree


class AttentionOutput(NamedTuple):
  """What a mechanism returns.

  Attributes:
    context: [T, V], in the dtype of the values.
    weights: [T, S] or [H, T, S], float32 (float64 for inputs of float64); jit
      prunes them where nobody asks.
    state: the alignment that the next step needs; () for most mechanisms.
    aux: what else a plot or a loss may want, by name.
  """

  context: Array
  weights: Array
  state: PyTree
  aux: Mapping[str, Array]


class Attention(NamedTuple):
  """One mechanism as pure functions.

  Attributes:
    init: (rng, *, query_dim, key_dim, value_dim) -> params.
    prepare: (params, key [S, K], value [S, V]) -> Memory, once per source.
    init_state: (source_length) -> state; () for most.
    apply: (params, query [T, Q], memory, *, mask, bias, state, rng) ->
      AttentionOutput. The mask is boolean and broadcasts to [T, S], True = may
      attend, or None; the bias is added to the scores.
    depends_on_query: False where any query gets the same weights, so that a
      pool needs none.
  """

  init: Callable[..., PyTree]
  prepare: Callable[..., Memory]
  init_state: Callable[[int], PyTree]
  apply: Callable[..., AttentionOutput]
  depends_on_query: bool = True


def compose(
  *,
  score: scores_lib.Score,
  normalizer: normalizers_lib.Normalizer,
) -> Attention:
  """Composes any score with any normaliser: e = score, p = normalise, c = p v.

  Args:
    score: how similar each query is to each key, from `attention.scores`.
    normalizer: scores to weights, from `attention.normalizers`.

  Returns:
    The mechanism.
  """

  def init(rng, *, query_dim: int, key_dim: int, value_dim: int) -> PyTree:
    del value_dim  # The values are read as they are.
    return score.init(rng, query_dim, key_dim)

  def prepare(params: PyTree, key: Array, value: Array) -> Memory:
    chex.assert_rank([key, value], 2)
    return Memory(score.prepare(params, key), value)

  def apply(
    params: PyTree,
    query: Array,
    memory: Memory,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    state: PyTree = (),
    rng: Array | None = None,
  ) -> AttentionOutput:
    chex.assert_rank(query, 2)
    scores = score.apply(params, query, memory.key)
    if bias is not None:
      scores = scores + bias
    if mask is not None:
      mask = jnp.broadcast_to(mask, scores.shape)
    weights, aux = normalizer.apply(scores, mask, rng)
    return AttentionOutput(read(weights, memory.value), weights, state, aux)

  return Attention(
    init, prepare, lambda source_length: (), apply, score.depends_on_query
  )


def read(weights: Array, value: Array) -> Array:
  """Sums the values by weight: [T, S], [S, V] -> [T, V], in value's dtype."""
  context = jnp.matmul(
    weights.astype(value.dtype),
    value,
    preferred_element_type=scores_lib.wide(value.dtype),
  )
  return context.astype(value.dtype)


def attend(
  mechanism: Attention,
  params: PyTree,
  query: Array,
  key: Array,
  value: Array,
  *,
  mask: 'masks.Mask | Array | None' = None,
  bias: Array | None = None,
  state: PyTree = None,
  rng: Array | None = None,
  query_start: int = 0,
) -> AttentionOutput:
  """Applies a mechanism to whole sequences, with any leading axes.

  Args:
    mechanism: from `compose` or another function of this package.
    params: of `mechanism.init`, shared by all leading axes.
    query: [..., T, Q].
    key: [..., S, K], with the leading axes of the query.
    value: [..., S, V], likewise.
    mask: a function of positions from `attention.masks`, or booleans that
      broadcast to [..., T, S]; True = may attend. None: everything is seen.
    bias: added to the scores, broadcasts to [..., T, S].
    state: the alignment that the step before left; None starts anew.
    rng: for mechanisms that draw.
    query_start: the position of the first query, for a mask that compares
      positions: step t of a decoder is `query[..., t:t+1, :]` at
      `query_start=t`.

  Returns:
    AttentionOutput with the same leading axes.

  Raises:
    ValueError: shapes do not fit; the message names the argument.
  """
  query, key, value = (jnp.asarray(array) for array in (query, key, value))
  lead, length, size = _check(query, key, value)
  if mask is not None:
    mask = masks.dense(mask, lead, length, size, query_start)
  if bias is not None:
    bias = _broadcast('bias', bias, (*lead, length, size))
  if rng is not None:
    rng = jax.random.split(rng, lead) if lead else rng
  if state is None:
    state = jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf, (*lead, *jnp.shape(leaf))),
      mechanism.init_state(size),
    )

  def one(query, key, value, mask, bias, state, rng):
    memory = mechanism.prepare(params, key, value)
    return mechanism.apply(
      params, query, memory, mask=mask, bias=bias, state=state, rng=rng
    )

  mapped: Callable = one
  for _ in lead:
    mapped = jax.vmap(mapped)
  return mapped(query, key, value, mask, bias, state, rng)


def _check(query: Array, key: Array, value: Array):
  """Returns the leading axes, T and S, or raises naming what does not fit."""
  for name, array in (('query', query), ('key', key), ('value', value)):
    if jnp.ndim(array) < 2:
      raise ValueError(
        f'{name} has shape {jnp.shape(array)}: [..., length, '
        'depth] was expected'
      )
  for name, array in (('key', key), ('value', value)):
    if array.shape[:-2] != query.shape[:-2]:
      raise ValueError(
        f'{name} has leading axes {array.shape[:-2]} and query has '
        f'{query.shape[:-2]}: they must be equal'
      )
  if key.shape[-2] != value.shape[-2]:
    raise ValueError(
      f'key has {key.shape[-2]} positions and value has {value.shape[-2]}: '
      'they must be equal'
    )
  return query.shape[:-2], query.shape[-2], key.shape[-2]


def _broadcast(name: str, array: Array, shape: tuple[int, ...]) -> Array:
  try:
    return jnp.broadcast_to(array, shape)
  except ValueError:
    raise ValueError(
      f'{name} has shape {jnp.shape(array)}, which does not broadcast to '
      f'{shape}'
    ) from None
