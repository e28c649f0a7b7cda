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
from attnlab.attention import masks, pairs
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
    query: position of the first query.
    key: position of the first key, in a part of a source.
  """

  batch: Array | int = 0
  head: Array | int = 0
  heads: int = 1
  query: Array | int = 0
  key: Array | int = 0


HERE = Place()
# Floats that steps one after the other may keep for the gradient.
_KEPT = 2**24


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


class Parts(NamedTuple):
  """What a mechanism is composed of."""

  score: scores_lib.Score
  normalizer: normalizers_lib.Normalizer
  locality: locality_lib.Locality | None = None
  position: positions_lib.Position | None = None


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
    scores: (params, query, memory, *, mask, bias, rng, place) -> [T, S] as the
      normaliser gets them, -inf where hidden; None where there is not one.
    parts: what `compose` put together, which may allow a faster way; None for
      other mechanisms.
    read: (params, weights, memory) -> context: the third stage alone, for
      weights from elsewhere; None where the context is no sum by weight.
  """

  init: Callable[..., PyTree]
  prepare: Callable[..., Memory]
  init_state: Callable[[int], PyTree]
  apply: Callable[..., AttentionOutput]
  depends_on_query: bool = True
  scores: Callable[..., Array] | None = None
  parts: Parts | None = None
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

  def rate(params, query, prepared, mask, bias, state, rng, place):
    """Queries [T, Q] -> scores [T, S], what may be seen, the window or None."""
    if bias is not None:
      if normalizer.nonnegative:
        raise ValueError(
          'bias may be negative, which this normaliser does not allow: the '
          'nearest is normalizer=smooth; a mask hides keys'
        )
      mask, bias = finite(mask, bias)
      mask = jnp.broadcast_to(mask, (query.shape[0], mask.shape[-1]))
    before = () if score.init_state is None else (state['score'], mask)
    scores = pairs.by_keys(
      score, _own(params, 'score'), query, prepared, *before
    )
    rows = place.query + jnp.arange(scores.shape[0])
    if position is not None:
      columns = place.key + jnp.arange(scores.shape[1])
      scores = scores + position.apply(
        _own(params, 'position'), rows, columns, place.head, place.heads
      ).astype(scores.dtype)
    if bias is not None:
      scores = scores + bias
    near = None
    if locality is not None:
      near = locality.apply(
        _own(params, 'locality'),
        query,
        scores,
        mask,
        rows,
        None if rng is None else jax.random.fold_in(rng, 1),
      )
      mask = near.mask if mask is None else near.mask & mask
    return scores, mask, near

  def weigh(params, query, prepared, mask, bias, state, rng, place):
    """Queries [T, Q] -> weights [T, S], aux, the next state."""
    scores, mask, near = rate(
      params, query, prepared, mask, bias, state, rng, place
    )
    aux = {} if near is None else near.aux
    before = () if normalizer.init_state is None else (state['normalizer'],)
    weights, found = normalizer.apply(scores, mask, rng, *before)
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

  def scores_of(
    params, query, memory, *, mask=None, bias=None, rng=None, place=HERE
  ):
    length, size = query.shape[0], memory.value.shape[-2]
    mask = masks.at(mask, length, size, place)
    if mask is not None:
      mask = jnp.broadcast_to(mask, (length, size))
    scores, mask, _ = rate(
      params, query, memory.key, mask, bias, (), rng, place
    )
    return scores if mask is None else jnp.where(mask, scores, -jnp.inf)

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
    # What a step makes, [S, A] at most, is kept for the gradient if it is
    # little, and made again if it is much.
    if length * sum(x.size for x in jax.tree.leaves(memory.key)) > _KEPT:
      step = jax.checkpoint(step, prevent_cse=False)
    state, (weights, aux) = jax.lax.scan(step, state, rows)
    return AttentionOutput(read(weights, memory.value), weights, state, aux)

  asks = score.depends_on_query or locality is not None
  return Attention(
    init,
    prepare,
    init_state,
    apply,
    asks,
    scores=None if sequential else scores_of,
    parts=Parts(score, normalizer, locality, position),
    read=lambda params, weights, memory: read(weights, memory.value),
  )


def finite(mask: Array | None, bias: Array) -> tuple[Array, Array]:
  """A bias of -inf hides a key: what may be seen, and the bias without it."""
  seen = bias > -jnp.inf
  return seen if mask is None else seen & mask, jnp.where(seen, bias, 0)


def _own(params: PyTree, part: str) -> PyTree:
  """The parameters of a part; one that has none may be left out."""
  return params.get(part, {})


def init_states(
  mechanism: Attention, lead: tuple[int, ...], source_length: int
) -> PyTree:
  """The state before the first query, for each place of leading axes."""
  return jax.tree.map(
    lambda leaf: jnp.broadcast_to(leaf, (*lead, *jnp.shape(leaf))),
    mechanism.init_state(source_length),
  )


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
