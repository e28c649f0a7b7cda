"""One mechanism: score -> normalise -> read, under a mask.

The mathematics is written for one example: query [T, Q], key [S, K], value
[S, V]. `attend` maps it over any leading batch and head axes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from attnlab.attention import locality as locality_lib
from attnlab.attention import masks
from attnlab.attention import normalizers as normalizers_lib
from attnlab.attention import positions as positions_lib
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


class Place(NamedTuple):
  """Where a row of queries stands, for parts that compare positions.

  Attributes:
    batch: index of the example.
    head: index of the head.
    heads: how many heads there are.
    query: position of the first query; the keys start at 0.
  """

  batch: Array | int = 0
  head: Array | int = 0
  heads: int = 1
  query: Array | int = 0


HERE = Place()


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
    init_state: (source_length) -> state, the alignment before the first
      query; () for most.
    apply: (params, query [T, Q], memory, *, mask, bias, state, rng, place) ->
      AttentionOutput. The mask is boolean and broadcasts to [T, S], True = may
      attend, or a `masks.Mask`, or None; the bias is added to the scores.
    depends_on_query: False where any query gets the same weights, so that a
      pool needs none.
    read: (params, weights, memory) -> context: the third stage alone, for
      weights from elsewhere; None where the context is no sum by weight.
  """

  init: Callable[..., PyTree]
  prepare: Callable[..., Memory]
  init_state: Callable[[int], PyTree]
  apply: Callable[..., AttentionOutput]
  depends_on_query: bool = True
  read: Callable[..., Array] | None = None


def compose(
  *,
  score: scores_lib.Score,
  normalizer: normalizers_lib.Normalizer,
  locality: locality_lib.Locality | None = None,
  position: positions_lib.Position | None = None,
) -> Attention:
  """Composes any score with any normaliser: e = score, p = normalise, c = p v.

  A score or a normaliser that reads the alignment of the step before makes the
  whole sequential: the queries are then taken one after the other.

  Args:
    score: how similar each query is to each key, from `attention.scores`.
    normalizer: scores to weights, from `attention.normalizers`.
    locality: a window that follows the query, from `attention.locality`.
    position: what distance adds to the score, from `attention.positions`.

  Returns:
    The mechanism.

  Raises:
    ValueError: the parts do not fit; the message names the nearest that do.
  """
  check(score, normalizer, position)
  sequential = score.init_state or normalizer.init_state

  def init(rng, *, query_dim: int, key_dim: int, value_dim: int) -> PyTree:
    del value_dim  # The values are read as they are.
    params = {'score': score.init(rng, query_dim, key_dim)}
    # The score's numbers do not depend on what else there is.
    if locality is not None:
      rng = jax.random.fold_in(rng, 1)
      params['locality'] = locality.init(rng, query_dim)
    if position is not None:
      rng = jax.random.fold_in(rng, 2)
      params['position'] = position.init(rng)
    return params

  def prepare(params: PyTree, key: Array, value: Array) -> Memory:
    chex.assert_rank([key, value], 2)
    return Memory(score.prepare(_own(params, 'score'), key), value)

  def init_state(size: int) -> PyTree:
    if not sequential:
      return ()
    start = lambda part: part.init_state(size) if part.init_state else ()
    return {'score': start(score), 'normalizer': start(normalizer)}

  def weigh(params, query, prepared, mask, bias, state, rng, place):
    """Queries [T, Q] -> weights [T, S], aux, the next state."""
    before = () if score.init_state is None else (state['score'], mask)
    scores = score.apply(_own(params, 'score'), query, prepared, *before)
    rows = place.query + jnp.arange(scores.shape[0])
    if position is not None:
      columns = jnp.arange(scores.shape[1])
      scores = scores + position.apply(
        _own(params, 'position'), rows, columns, place.head, place.heads
      ).astype(scores.dtype)
    if bias is not None:
      scores = scores + bias
    rng_choice, rng_window = (None, None)
    if rng is not None:
      rng_choice, rng_window = rng, jax.random.fold_in(rng, 1)
    near, aux = None, {}
    if locality is not None:
      near = locality.apply(
        _own(params, 'locality'), query, scores, mask, rows, rng_window
      )
      mask = near.mask if mask is None else near.mask & mask
      aux = dict(near.aux)
    before = () if normalizer.init_state is None else (state['normalizer'],)
    weights, found = normalizer.apply(scores, mask, rng_choice, *before)
    after = weights
    if near is not None and near.factor is not None:
      weights = weights * near.factor.astype(weights.dtype)
    if sequential:
      update = lambda part, old, row: (
        part.update(old, row) if part.init_state else ()
      )
      state = {
        'score': update(score, state['score'], weights[0]),
        'normalizer': update(normalizer, state['normalizer'], after[0]),
      }
    found = dict(found)
    if 'log_prob' in aux and 'log_prob' in found:
      # Two choices, the second given the first.
      found['log_prob'] = found['log_prob'] + aux['log_prob']
    return weights, {**aux, **found}, state

  def apply(
    params: PyTree,
    query: Array,
    memory: Memory,
    *,
    mask: 'masks.Mask | Array | None' = None,
    bias: Array | None = None,
    state: PyTree = (),
    rng: Array | None = None,
    place: Place = HERE,
  ) -> AttentionOutput:
    chex.assert_rank(query, 2)
    length, size = query.shape[0], memory.value.shape[-2]
    mask = masks.at(mask, length, size, place)
    if mask is not None:
      mask = jnp.broadcast_to(mask, (length, size))
    if not sequential:
      weights, aux, state = weigh(
        params, query, memory.key, mask, bias, state, rng, place
      )
      return AttentionOutput(read(weights, memory.value), weights, state, aux)
    if bias is not None:
      bias = jnp.broadcast_to(bias, (length, size))

    def step(state, row):
      t, query, mask, bias = row
      weights, aux, state = weigh(
        params,
        query[None],
        memory.key,
        None if mask is None else mask[None],
        None if bias is None else bias[None],
        state,
        None if rng is None else jax.random.fold_in(rng, t),
        place._replace(query=place.query + t),
      )
      return state, (weights[0], jax.tree.map(lambda x: x[0], aux))

    rows = (jnp.arange(length), query, mask, bias)
    state, (weights, aux) = jax.lax.scan(step, state, rows)
    return AttentionOutput(read(weights, memory.value), weights, state, aux)

  asks = score.depends_on_query or locality is not None
  third = lambda params, weights, memory: read(weights, memory.value)
  return Attention(init, prepare, init_state, apply, asks, third)


def _own(params: PyTree, part: str) -> PyTree:
  """The parameters of a part; one that has none may be left out."""
  return params.get(part, {})


def check(
  score: scores_lib.Score,
  normalizer: normalizers_lib.Normalizer,
  position: positions_lib.Position | None = None,
) -> None:
  """Refuses parts that mean nothing together.

  Raises:
    ValueError: says why, and names the nearest composition that is one.
  """
  if score.query_shifts and normalizer.shift_invariant:
    raise ValueError(
      'this score adds the same number to every key of a query, which a '
      'shift-invariant normaliser takes away again: the weights would not '
      'depend on the query; the nearest that do are score=concat, or '
      'normalizer=sigmoid'
    )
  if normalizer.nonnegative and not (score.nonnegative and position is None):
    raise ValueError(
      'this normaliser divides by the sum of the scores, which must not be '
      'negative: the nearest are normalizer=smooth, or score=kernel without '
      'a position'
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
    query_start: the position of the first query, for whatever compares
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
  heads = lead[1] if len(lead) > 1 else 1
  batch, head = _indices(lead)
  if bias is not None:
    bias = _broadcast('bias', bias, (*lead, length, size))
  if rng is not None:
    rng = jax.random.split(rng, lead) if lead else rng
  if state is None:
    state = jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf, (*lead, *jnp.shape(leaf))),
      mechanism.init_state(size),
    )

  def one(query, key, value, mask, bias, state, rng, batch, head):
    memory = mechanism.prepare(params, key, value)
    place = Place(batch, head, heads, query_start)
    return mechanism.apply(
      params,
      query,
      memory,
      mask=mask,
      bias=bias,
      state=state,
      rng=rng,
      place=place,
    )

  mapped: Callable = one
  for _ in lead:
    mapped = jax.vmap(mapped)
  return mapped(query, key, value, mask, bias, state, rng, batch, head)


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


def _indices(lead: tuple[int, ...]) -> tuple[Array, Array]:
  """The batch index (first axis) and the head (second), each of shape lead."""
  grids = jnp.indices(lead) if lead else ()
  zero = jnp.zeros(lead, jnp.int32)
  return tuple(grids[n] if len(lead) > n else zero for n in range(2))


def _broadcast(name: str, array: Array, shape: tuple[int, ...]) -> Array:
  try:
    return jnp.broadcast_to(array, shape)
  except ValueError:
    raise ValueError(
      f'{name} has shape {jnp.shape(array)}, which does not broadcast to '
      f'{shape}'
    ) from None
