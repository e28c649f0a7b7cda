"""Locality: a window over the keys that follows the query.

`attention.locality.name=local_m` is `local_m(**rest)`; None sees all keys.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
PyTree = Any


class Window(NamedTuple):
  """What a locality does to each query.

  Attributes:
    mask: booleans [T, S], inside of which the scores are normalised.
    factor: [T, S], by which the weights are then multiplied, or None.
    aux: by name, a row a query.
  """

  mask: Array
  factor: Array | None
  aux: Mapping[str, Array]


class Locality(NamedTuple):
  """One locality as pure functions.

  Attributes:
    init: (rng, query_dim) -> params.
    apply: (params, query [T, Q], mask [T, S] or None, rows [T], size S, rng or
      None) -> Window. Rows are the positions of the queries.
    differentiable: whether a gradient reaches the centre of the window.
    distribution: whether the weights still sum to one.
  """

  init: Callable[[Array, int], PyTree]
  apply: Callable[..., Window]
  differentiable: bool = True
  distribution: bool = True


def local_m(*, half_width: int = 10) -> Locality:
  """Monotonic window, |j - i| <= D about the query (Luong et al. 2015, 3.2).

  Args:
    half_width: D, in keys on either side.
  """
  _check('local_m', half_width)

  def apply(params, query, mask, rows, size, rng):
    del params, query, mask, rng
    columns = jnp.arange(size)[None, :]
    return Window(jnp.abs(columns - rows[:, None]) <= half_width, None, {})

  return Locality(lambda rng, query_dim: {}, apply, differentiable=False)


def _check(name: str, half_width: int):
  if not 1 <= half_width <= 2**24:
    raise ValueError(f'{name}({half_width=}): it must be from 1 to {2**24}')
