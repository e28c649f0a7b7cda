"""What is known of a row of weights without keeping it."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

Array = jax.Array

NAMES = (
  'logsumexp',
  'entropy',
  'maximum',
  'argmax',
  'expected_position',
  'column_mass',
)


def of(
  names: Sequence[str],
  weights: Array,
  rate: Callable[[], Array],
  start: Array | int = 0,
) -> Mapping[str, Array]:
  """Statistics of weights [..., T, S], by name.

  Args:
    names: which, of NAMES.
    weights: zero where nothing is seen.
    rate: returns the scores, -inf where hidden; called for logsumexp alone.
    start: the position of the first key.

  Returns:
    [..., T] each, but for column_mass [..., S]. A row that sees no key has
    logsumexp -inf, and 0 of everything else.
  """
  columns = start + jnp.arange(weights.shape[-1])
  formulas = {
    'logsumexp': lambda: jax.nn.logsumexp(rate(), axis=-1),
    # 0 log 0 = 0, and so is its gradient.
    'entropy': lambda: (
      -jnp.sum(weights * jnp.log(jnp.where(weights > 0, weights, 1)), axis=-1)
    ),
    'maximum': lambda: jnp.max(weights, axis=-1),
    'argmax': lambda: jnp.where(
      jnp.any(weights > 0, axis=-1), start + jnp.argmax(weights, axis=-1), 0
    ),
    'expected_position': lambda: weights @ columns.astype(weights.dtype),
    'column_mass': lambda: jnp.sum(weights, axis=-2),
  }
  return {name: formulas[name]() for name in names}
