"""Locality: a window over the keys that follows the query.

`attention.locality.name=local_m` is `local_m(**rest)`; None sees all keys.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from attnlab.attention import arithmetic, normalizers

Array = jax.Array
PyTree = Any


class Window(NamedTuple):
  """What a locality does to each query.

  Attributes:
    mask: booleans [T, S], inside of which the scores are normalised.
    factor: [T, S], by which the weights are then multiplied, or None.
    aux: by name, a row a query. 'log_prob' is of a choice that was drawn, and
      is added to that of a normaliser that draws as well.
  """

  mask: Array
  factor: Array | None
  aux: Mapping[str, Array]


class Locality(NamedTuple):
  """One locality as pure functions.

  Attributes:
    init: (rng, query_dim) -> params.
    apply: (params, query [T, Q], scores [T, S], mask [T, S] or None, rows [T],
      rng or None) -> Window. Rows are the positions of the queries; without
      rng, one that draws takes what is most likely.
    differentiable: whether a gradient reaches the centre of the window.
    distribution: whether the weights still sum to one.
  """

  init: Callable[[Array, int], PyTree]
  apply: Callable[..., Window]
  differentiable: bool = True
  distribution: bool = True


def local_m(*, half_width: int = 10) -> Locality:
  """Monotonic window, |s - t| <= D about the query (Luong et al. 2015, 3.2).

  Not differentiable: the centre is the query's position t. The window ends
  where the source does, and a query that is D or more beyond the end sees
  nothing.

  Cost: O(T S); the scores outside of the window are computed and left out.

  Args:
    half_width: D, in keys on either side.
  """
  _check('local_m', half_width=half_width)

  def apply(params, query, scores, mask, rows, rng):
    del params, query, mask, rng
    return Window(_near(rows, scores.shape[1], half_width), None, {})

  return Locality(_no_params, apply, differentiable=False)


def local_p(*, half_width: int = 10, hidden: int = 128) -> Locality:
  """Predictive window, p_t = S sigmoid(v' tanh(W q)) (Luong et al. 2015, 3.2).

  The scores are normalised over |s - round(p_t)| <= D, and the weights then
  multiplied by exp(-(s - p_t)^2 / (2 sigma^2)) with sigma = D / 2 (eq. 9 and
  10); they are not normalised again and sum to less than one. S is the true
  length of that source, one plus the last key that the query may see. Keys
  count from 0, and a half is rounded to the even neighbour. p_t is in
  aux['centre'] [T].

  Differentiable in p_t through the Gaussian only, not through the window.

  Cost: O(T Q A + T S), and memory O(T (A + S)).

  Args:
    half_width: D, in keys on either side.
    hidden: A, the width of the layer that predicts the centre.
  """
  _check('local_p', half_width=half_width, hidden=hidden)

  def init(rng, query_dim):
    rng_query, rng_out = jax.random.split(rng)
    glorot = jax.nn.initializers.glorot_uniform()
    return {
      'query': glorot(rng_query, (query_dim, hidden)),
      'out': glorot(rng_out, (hidden, 1))[:, 0],
    }

  def apply(params, query, scores, mask, rows, rng):
    del rows, rng
    length, size = scores.shape
    inner = jnp.tanh(arithmetic.project('query', query, params['query']))
    share = jnp.matmul(
      inner,
      params['out'].astype(inner.dtype),
      preferred_element_type=arithmetic.wide(inner.dtype),
    )
    true = _lengths(mask, length, size).astype(share.dtype)
    centre = true * jax.nn.sigmoid(share)
    places = jnp.arange(size).astype(centre.dtype)
    away = (places[None, :] - centre[:, None]) / (half_width / 2)
    middle = jnp.round(jax.lax.stop_gradient(centre))
    near = _near(middle, size, half_width)
    return Window(near, jnp.exp(-0.5 * away**2), {'centre': centre})

  return Locality(init, apply, distribution=False)


def local_hard(*, half_width: int = 10) -> Locality:
  """Drawn window, p_t ~ Categorical(softmax e_t), soft inside (Xu et al. 2015).

  A hard choice of the centre in the manner of the paper's section 4.1, from the
  scores themselves, so that any score and any length will do; then the scores
  are normalised over |s - p_t| <= D. With D = 0 and the softmax it is hard
  attention, with D >= S global attention. Without rng the centre is the argmax,
  ties to the lowest index.

  Not differentiable: no gradient passes through the choice of the centre.
  aux['log_prob'] [T] holds log softmax(e_t)[p_t], whose gradient a
  score-function estimator takes; aux['centre'] [T] holds p_t. Both are 0 for a
  query that sees nothing.

  Cost: O(T S); the scores outside of the window are computed and left out.

  Args:
    half_width: D, in keys on either side; 0 leaves the centre alone.
  """
  _check('local_hard', least=0, half_width=half_width)

  def apply(params, query, scores, mask, rows, rng):
    del params, query, rows
    chosen, log_prob = normalizers.draw(scores, mask, rng)
    places = jnp.arange(scores.shape[1])[None, :]
    centre = jnp.sum(jnp.where(chosen > 0, places, 0), axis=1)
    near = _near(centre, scores.shape[1], half_width)
    return Window(near, None, {'centre': centre, 'log_prob': log_prob})

  return Locality(_no_params, apply, differentiable=False)


def _no_params(rng: Array, query_dim: int) -> PyTree:
  del rng, query_dim
  return {}


def _near(centres: Array, size: int, half_width: int) -> Array:
  """Whether each key lies in each window: whole numbers [T] -> [T, S]."""
  places = jnp.arange(size, dtype=centres.dtype)
  return jnp.abs(places[None, :] - centres[:, None]) <= half_width


def _lengths(mask: Array | None, length: int, size: int) -> Array:
  """One plus the last visible key of each row: [T, S] or None -> [T]."""
  if mask is None:
    return jnp.full((length,), size)
  after = jnp.where(mask, jnp.arange(1, size + 1)[None, :], 0)
  return jnp.max(after, axis=1, initial=0)


def _check(name: str, least: int = 1, **settings: int):
  for key, value in settings.items():
    if not least <= value <= 2**24:
      raise ValueError(
        f'{name}({key}={value}): it must be from {least} to {2**24}'
      )
