"""Masks: what may be seen, as functions of positions.

A mask is a function of (batch, head, query position, key position), so that it
can be evaluated on any block without the whole matrix; `&`, `|` and `~` combine
masks. True = may attend, everywhere in attnlab.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Mask:
  """A boolean function of positions.

  Attributes:
    visible: (b, h, i, j) -> boolean, for integer arrays that broadcast: the
      batch index, the head, the query's and the key's position.
  """

  visible: Callable[[Array, Array, Array, Array], Array]

  def __and__(self, other: 'Mask') -> 'Mask':
    return Mask(lambda *p: self.visible(*p) & other.visible(*p))

  def __or__(self, other: 'Mask') -> 'Mask':
    return Mask(lambda *p: self.visible(*p) | other.visible(*p))

  def __invert__(self) -> 'Mask':
    return Mask(lambda *p: ~self.visible(*p))


def padding(lengths: Array) -> Mask:
  """Keys before the end of their own source: j < lengths[b].

  Args:
    lengths: [B] integers, or a scalar where all sources are equally long.

  Raises:
    ValueError: where the mask is used, if the batch has not B rows.
  """
  lengths = jnp.asarray(lengths)

  def visible(b, h, i, j):
    del h, i
    # An index beyond the end would quietly read the last length.
    if lengths.ndim and jnp.ndim(b) and b.size != lengths.size:
      raise ValueError(
        f'padding has {lengths.size} lengths, but the batch has {b.size} rows'
      )
    return j < (lengths[b] if lengths.ndim else lengths)

  return Mask(visible)


def causal() -> Mask:
  """Keys up to the query's own position: j <= i."""
  return Mask(lambda b, h, i, j: j <= i)


def window(*, left: int, right: int) -> Mask:
  """Keys from `left` before to `right` after the query: i-left <= j <= i+right.

  Luong et al. 2015, section 3.2 (local-m) with left = right = D.
  """
  if left < 0 or right < 0:
    raise ValueError(f'window({left=}, {right=}): neither may be negative')
  return Mask(lambda b, h, i, j: (j >= i - left) & (j <= i + right))


def at(mask: Mask | Array | None, length: int, size: int, place: Any):
  """Evaluates a mask on one block of queries.

  Args:
    mask: a Mask; anything else is returned as it is.
    length: T, how many queries.
    size: S, how many keys.
    place: a `core.Place`, where the first query stands.

  Returns:
    Booleans [T, S], or what was given.
  """
  if not isinstance(mask, Mask):
    return mask
  rows = (place.query + jnp.arange(length))[:, None]
  columns = jnp.arange(size)[None, :]
  batch, head = (jnp.full((1, 1), x) for x in (place.batch, place.head))
  visible = mask.visible(batch, head, rows, columns)
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
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
      raise ValueError(
        f'mask has dtype {mask.dtype}: booleans were expected, True = may '
        'attend'
      )
    try:
      return jnp.broadcast_to(mask, shape)
    except ValueError:
      raise ValueError(
        f'mask has shape {mask.shape}, which does not broadcast to {shape}'
      ) from None
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
