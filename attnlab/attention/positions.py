"""Positions: what the distance of query and key adds to any score.

`attention.position.name=alibi` is `alibi()` inside every head, whatever the
score; None adds nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
PyTree = Any


class Position(NamedTuple):
  """One term of position as pure functions.

  Attributes:
    init: (rng) -> params.
    apply: (params, rows [T], columns [S], head, heads) -> [T, S] float32, for
      the positions of queries and keys, the index of the head and their number.
  """

  init: Callable[[Array], PyTree]
  apply: Callable[..., Array]


def relative_bias(*, distance: int = 16) -> Position:
  """A learned number a distance, b[clip(j - i)] (Shaw et al. 2018, sec. 3.2).

  The paper adds a vector to the key; this is the term that depends on the
  distance alone, one table in each head.

  Args:
    distance: beyond it, all distances share one number.
  """
  if not 1 <= distance <= 2**24:
    raise ValueError(
      f'relative_bias({distance=}): it must be from 1 to {2**24}'
    )

  def init(rng):
    del rng
    return {'bias': jnp.zeros((2 * distance + 1,))}

  def apply(params, rows, columns, head, heads):
    del head, heads
    steps = jnp.clip(columns[None, :] - rows[:, None], -distance, distance)
    return jnp.asarray(params['bias'])[steps + distance]

  return Position(init, apply)


def alibi() -> Position:
  """A penalty that grows with distance, -m_h |i - j| (Press et al. 2021).

  The slopes are 2^(-8/H), 2^(-16/H) .. 2^-8 for H heads, as for the powers of
  two in the paper; one head alone has 2^-8.
  """

  def apply(params, rows, columns, head, heads):
    del params
    slope = 2.0 ** (-8.0 * (jnp.asarray(head, jnp.float32) + 1) / heads)
    steps = jnp.abs(rows[:, None] - columns[None, :])
    return -slope * steps.astype(jnp.float32)

  return Position(lambda rng: {}, apply)
