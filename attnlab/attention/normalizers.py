"""Normalisers: from scores to weights, over the keys that may be seen.

A masked key has weight 0 and passes no gradient; a row without a visible key is
all zeros, with zero gradients.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
PyTree = Any


class Normalizer(NamedTuple):
  """One normaliser as a pure function.

  Attributes:
    apply: (scores [T, S] float32, mask boolean of the same shape or None,
      rng or None) -> (weights of that shape, aux by name with a row a query).
      A normaliser with a state takes one query, and the state last. Without
      rng, one that draws takes what is most likely, and adds no noise.
    differentiable: whether a gradient reaches the scores.
    shift_invariant: whether a constant added to a row changes nothing.
    distribution: whether a row with a visible key sums to one.
    nonnegative: whether the scores must not be negative.
    init_state: (source_length S) -> what a normaliser that reads the alignment
      of the step before starts from; None for all others.
    update: (state, weights [S]) -> the next state.
  """

  apply: Callable[..., tuple[Array, Mapping[str, Array]]]
  differentiable: bool = True
  shift_invariant: bool = True
  distribution: bool = True
  nonnegative: bool = False
  init_state: Callable[[int], PyTree] | None = None
  update: Callable[[PyTree, Array], PyTree] | None = None


def softmax(*, temperature: float = 1.0) -> Normalizer:
  """Softmax, exp(z/t) / sum exp(z/t).

  Args:
    temperature: t > 0; small is sharp.
  """
  if not temperature > 0:
    raise ValueError(f'softmax({temperature=}): it must be above 0')

  def apply(scores, mask, rng):
    del rng
    return _masked_softmax(scores / temperature, mask), {}

  return Normalizer(apply)


def uniform() -> Normalizer:
  """Uniform, 1/n: the baseline in which every key counts the same."""

  def apply(scores, mask, rng):
    del rng
    # The mask alone decides: the scores pass no gradient.
    return _masked_softmax(jnp.zeros_like(scores), mask), {}

  return Normalizer(apply, differentiable=False)


def hardmax() -> Normalizer:
  """Hardmax, one_hot(argmax z), ties to the lowest index: no gradient."""

  def apply(scores, mask, rng):
    del rng
    best = jnp.argmax(_fill(scores, mask), axis=-1)
    weights = jax.nn.one_hot(best, scores.shape[-1], dtype=scores.dtype)
    return (weights if mask is None else jnp.where(mask, weights, 0)), {}

  return Normalizer(apply, differentiable=False)


def _masked_softmax(scores: Array, mask: Array | None) -> Array:
  """Softmax over the last axis; masked entries, and rows without any, are 0."""
  shifted = _fill(scores, mask)
  top = jax.lax.stop_gradient(jnp.max(shifted, axis=-1, keepdims=True))
  powers = jnp.exp(shifted - top)
  if mask is not None:
    powers = jnp.where(mask, powers, 0)
  total = jnp.sum(powers, axis=-1, keepdims=True)
  return powers / jnp.where(total == 0, 1, total)


def _fill(scores: Array, mask: Array | None) -> Array:
  # The smallest finite number, not -inf: in a fully masked row the difference
  # to the maximum must be 0, not NaN.
  if mask is None:
    return scores
  return jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
