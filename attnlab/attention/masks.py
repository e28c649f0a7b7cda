"""Masks: what may be seen, as functions of positions.

A mask is a function of (batch, head, query position, key position), so that it
can be evaluated on any block without the whole matrix; `&`, `|` and `~` combine
masks. True = may attend, everywhere in attnlab.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array

# Positions are int32; nothing is as long as this.
_MOST = 2**24


@dataclasses.dataclass(frozen=True)
class Mask:
  """A boolean function of positions.

  Attributes:
    visible: (b, h, i, j) -> boolean, for integer arrays that broadcast: the
      batch index, the head, the query's and the key's position.
    span: (first, last) -> (start, stop), outside of which queries first .. last
      see no key, so that nothing is computed there; None where it may be any.
    keys: (b, h, j) -> boolean, where a key is seen by all queries or by none,
      but for `causal`; None for all others.
    causal: whether, besides, no key after the query is seen.
  """

  visible: Callable[[Array, Array, Array, Array], Array]
  span: Callable[[int, int], tuple[float, float]] | None = None
  keys: Callable[[Array, Array, Array], Array] | None = None
  causal: bool = False

  def __and__(self, other: 'Mask') -> 'Mask':
    def span(first, last):
      ours, theirs = (_span(mask, first, last) for mask in (self, other))
      return max(ours[0], theirs[0]), min(ours[1], theirs[1])

    keys = None
    if self.keys is not None and other.keys is not None:
      ours, theirs = self.keys, other.keys
      keys = lambda *p: ours(*p) & theirs(*p)
    return Mask(
      lambda *p: self.visible(*p) & other.visible(*p),
      span,
      keys,
      self.causal or other.causal,
    )

  def __or__(self, other: 'Mask') -> 'Mask':
    def span(first, last):
      ours, theirs = (_span(mask, first, last) for mask in (self, other))
      return min(ours[0], theirs[0]), max(ours[1], theirs[1])

    return Mask(lambda *p: self.visible(*p) | other.visible(*p), span)

  def __invert__(self) -> 'Mask':
    return Mask(lambda *p: ~self.visible(*p))


def _span(mask: Mask, first: int, last: int) -> tuple[float, float]:
  return (0, math.inf) if mask.span is None else mask.span(first, last)


def padding(lengths: Array) -> Mask:
  """Keys before the end of their own source: j < lengths[b].

  Args:
    lengths: [B] integers, or a scalar where all sources are equally long.

  Raises:
    ValueError: where the mask is used, if the batch has not B rows.
  """
  return _first('padding', jnp.asarray(lengths))


def causal() -> Mask:
  """Keys up to the query's own position: j <= i."""
  return Mask(
    lambda b, h, i, j: j <= i,
    span=lambda first, last: (0, last + 1),
    keys=lambda b, h, j: jnp.ones_like(j, bool),
    causal=True,
  )


def window(*, left: int, right: int) -> Mask:
  """Keys from `left` before to `right` after the query: i-left <= j <= i+right.

  Luong et al. 2015, section 3.2 (local-m) with left = right = D.
  """
  if not (0 <= left <= _MOST and 0 <= right <= _MOST):
    raise ValueError(
      f'window({left=}, {right=}): neither may be negative, nor above {_MOST}'
    )
  return Mask(
    lambda b, h, i, j: (j >= i - left) & (j <= i + right),
    span=lambda first, last: (first - left, last + right + 1),
  )


def dilated(*, window: int, step: int) -> Mask:
  """Every step-th key: j = i + n step, |n| <= window (Beltagy et al. 2020).

  Section 3.1 of the paper ("dilated sliding window"); with step = 1 it is
  `window(left=window, right=window)`.

  Args:
    window: how many keys on either side.
    step: the distance from one to the next, the paper's dilation d.
  """
  if window < 0 or step < 1 or window * step > _MOST:
    raise ValueError(
      f'dilated({window=}, {step=}): window must be 0 or more, step 1 or more, '
      f'and their product at most {_MOST}'
    )

  def visible(b, h, i, j):
    del b, h
    return ((j - i) % step == 0) & (jnp.abs(j - i) <= window * step)

  reach = window * step
  return Mask(
    visible, span=lambda first, last: (first - reach, last + reach + 1)
  )


def block(*, size: int) -> Mask:
  """Keys of the query's own block: i // size == j // size (Qiu et al. 2020).

  The identity permutation of the paper's blockwise attention (section 3.1):
  positions are cut into blocks of `size`, the last of which may be shorter.
  """
  if size < 1:
    raise ValueError(f'block({size=}): it must be 1 or more')
  return Mask(
    lambda b, h, i, j: i // size == j // size,
    span=lambda first, last: (first // size * size, (last // size + 1) * size),
  )


def prefix(n: Array | int) -> Mask:
  """The first n keys, from everywhere: j < n (Raffel et al. 2020, sec. 3.2.1).

  `causal() | prefix(n)` is the paper's "causal with prefix".

  Args:
    n: a number, or [B] integers.

  Raises:
    ValueError: n is negative; or, where the mask is used, the batch has not B
      rows.
  """
  if isinstance(n, int) and n < 0:
    raise ValueError(f'prefix({n=}): it must be 0 or more')
  return _first('prefix', jnp.asarray(n))


def segment(ids: Array, query_ids: Array | None = None) -> Mask:
  """Keys of the query's own segment: ids[b, j] == query_ids[b, i].

  Several texts in one row do not see each other.

  Args:
    ids: of the keys, [B, S] or [S] integers.
    query_ids: of the queries, [B, T] or [T]; None for those of the keys. A
      query whose position lies beyond the last id, which a step of a decoder
      can reach, sees nothing.

  Raises:
    ValueError: the ids have another rank; or, where the mask is used, there
      are more positions than ids, or the batch has not B rows.
  """
  sides = {
    'keys': jnp.asarray(ids),
    'queries': jnp.asarray(ids if query_ids is None else query_ids),
  }
  for name, side in sides.items():
    if side.ndim not in (1, 2):
      raise ValueError(
        f'segment: the ids of the {name} have shape {side.shape}: [B, length] '
        'or [length] was expected'
      )

  def of(name, b, positions):
    side = sides[name]
    if jnp.size(positions) > side.shape[-1]:
      raise ValueError(
        f'segment has ids of {side.shape[-1]} {name}, but there are '
        f'{jnp.size(positions)}'
      )
    if side.ndim == 1:
      return side[positions]
    _check_batch('segment', 'rows of ids', len(side), b)
    return side[b, positions]

  def visible(b, h, i, j):
    del h
    inside = i < sides['queries'].shape[-1]
    return (of('queries', b, i) == of('keys', b, j)) & inside

  return Mask(visible)


def _first(name: str, counts: Array) -> Mask:
  """Keys before a count, one for all or one a row of the batch."""
  whole = jnp.issubdtype(counts.dtype, jnp.integer)
  if counts.ndim > 1 or not whole:
    raise ValueError(
      f'{name} has {counts.dtype} of shape {counts.shape}: whole numbers of '
      'shape [B] or () were expected'
    )

  def visible(b, h, i, j):
    del h, i
    if counts.ndim:
      _check_batch(name, 'lengths', counts.size, b)
    return j < (counts[b] if counts.ndim else counts)

  return Mask(visible, keys=lambda b, h, j: visible(b, h, None, j))


def _check_batch(name: str, what: str, count: int, batch: Any):
  # An index beyond the end would quietly read the last row.
  if jnp.ndim(batch) and batch.size != count:
    raise ValueError(
      f'{name} has {count} {what}, but the batch has {batch.size} rows'
    )


def at(mask: Mask | Array | None, length: int, size: int, place: Any):
  """Evaluates a mask on one block of queries.

  Args:
    mask: a Mask; anything else is returned as it is.
    length: T, how many queries.
    size: S, how many keys.
    place: a `core.Place`, where the first query and the first key stand.

  Returns:
    Booleans [T, S], or what was given.
  """
  if not isinstance(mask, Mask):
    return mask
  rows = (place.query + jnp.arange(length))[:, None]
  columns = (place.key + jnp.arange(size))[None, :]
  visible = mask.visible(place.batch, place.head, rows, columns)
  return jnp.broadcast_to(visible, (length, size))


def dense(
  mask: Mask | Array,
  lead: tuple[int, ...],
  length: int,
  size: int,
  query_start: int | Array = 0,
) -> Array:
  """Evaluates a mask on the whole [..., T, S] grid.

  Args:
    mask: a Mask, or booleans that broadcast to [*lead, T, S].
    lead: leading axes: (), (B,) or (B, H). More axes are an error for a Mask.
    length: T.
    size: S.
    query_start: the position of the first query.

  Returns:
    Booleans [*lead, T, S].

  Raises:
    ValueError: an array of another dtype, or a shape that does not broadcast.
  """
  shape = (*lead, length, size)
  if not isinstance(mask, Mask):
    return jnp.broadcast_to(check(mask, lead, length, size), shape)
  if len(lead) > 2:
    raise ValueError(
      f'a mask of positions knows a batch and a head axis; got {lead}'
    )
  # All of one rank: positions never broadcast by accident.
  batch = jnp.arange(lead[0] if lead else 1)[:, None, None, None]
  head = jnp.arange(lead[1] if len(lead) == 2 else 1)[None, :, None, None]
  rows = (query_start + jnp.arange(length))[None, None, :, None]
  columns = jnp.arange(size)[None, None, None, :]
  visible = mask.visible(batch, head, rows, columns)
  grid = jnp.broadcast_to(visible, (batch.size, head.size, length, size))
  return grid.reshape(shape)


def check(
  mask: Mask | Array, lead: tuple[int, ...], length: int, size: int
) -> Mask | Array:
  """Refuses what `dense` refuses, without making the grid.

  Raises:
    ValueError: as `dense`.
  """
  if isinstance(mask, Mask):
    jax.eval_shape(lambda: dense(mask, lead, length, size))
    return mask
  mask, shape = jnp.asarray(mask), (*lead, length, size)
  if mask.dtype != jnp.bool_:
    raise ValueError(
      f'mask has dtype {mask.dtype}: booleans were expected, True = may attend'
    )
  if not broadcasts(mask.shape, shape):
    raise ValueError(
      f'mask has shape {mask.shape}, which does not broadcast to {shape}'
    )
  return mask


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
  """Whether an array of a shape broadcasts to another shape."""
  ends = zip(reversed(shape), reversed(to), strict=False)
  return len(shape) <= len(to) and all(n in (1, m) for n, m in ends)
