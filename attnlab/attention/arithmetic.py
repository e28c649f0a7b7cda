"""Arithmetic that scores share: products, safe roots, functions by name."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def products(query: Array, key: Array, precision: Any = None) -> Array:
  """All dot products [T, S], accumulated in float32 at least."""
  if query.shape[-1] != key.shape[-1]:
    raise ValueError(
      f'query has depth {query.shape[-1]} and key {key.shape[-1]}: a dot '
      'product needs equal depths (bilinear does not)'
    )
  return jnp.matmul(
    query,
    key.T,
    precision=precision,
    preferred_element_type=wide(query.dtype),
  )


def squares(inputs: Array) -> Array:
  """||x||^2 of each row: [N, D] -> [N, 1], in float32 at least."""
  inputs = inputs.astype(wide(inputs.dtype))
  return jnp.sum(inputs * inputs, axis=-1, keepdims=True)


def root(squares: Array) -> Array:
  """The square root, with gradient 0 at 0 where it would be infinite."""
  positive = squares > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


def _elu_plus_one(x: Array) -> Array:
  # exp itself: expm1(x) + 1 would be 0 from x = -17 on.
  return jnp.where(x > 0, x + 1, jnp.exp(jnp.where(x > 0, 0, x)))


def project(name: str, inputs: Array, weight: Array) -> Array:
  """x W in the dtype of x: [N, D], [D, A] -> [N, A].

  Args:
    name: what x is called in the message, such as 'query'.
    inputs: x.
    weight: W.

  Raises:
    ValueError: x has another depth than W; the message names x.
  """
  _check_depth(name, inputs, weight)
  return inputs @ weight.astype(inputs.dtype)


def project_wide(name: str, inputs: Array, weight: Array) -> Array:
  """x W that is a score already: [N, D], [D, A] -> [N, A], float32 at least."""
  _check_depth(name, inputs, weight)
  return jnp.matmul(
    inputs,
    weight.astype(inputs.dtype),
    preferred_element_type=wide(inputs.dtype),
  )


def _check_depth(name: str, inputs: Array, weight: Array):
  if inputs.shape[-1] != weight.shape[0]:
    raise ValueError(
      f'{name} has depth {inputs.shape[-1]}, but the parameters were made '
      f'for {weight.shape[0]}'
    )


def wide(dtype: jnp.dtype) -> jnp.dtype:
  """What sums of a dtype are kept in: float32 at least."""
  return jnp.float64 if dtype == jnp.float64 else jnp.float32


# What a config may call them. phi of `kernel`, none below zero:
FEATURES: Mapping[str, Callable[[Array], Array]] = {
  'elu': _elu_plus_one,
  'relu': jax.nn.relu,
  'softplus': jax.nn.softplus,
}
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
  'tanh': jnp.tanh,
  'relu': jax.nn.relu,
  # The approximate one cubes its input, which overflows.
  'gelu': functools.partial(jax.nn.gelu, approximate=False),
  'silu': jax.nn.silu,
}
