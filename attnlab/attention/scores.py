"""Scores: how similar is a query to a key.

Each function returns a `Score`. Its keyword-only arguments are the settings
that a config may give: `attention.score.name=additive` is `additive(**rest)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
PyTree = Any

_glorot = jax.nn.initializers.glorot_uniform()


class Score(NamedTuple):
  """One score as pure functions.

  Attributes:
    init: (rng, query_dim, key_dim) -> params.
    prepare: (params, key [S, K]) -> what is computed once per source, a pytree
      of arrays [..., S, D] whose row s depends on key s alone.
    apply: (params, query [T, Q], prepared) -> scores [T, S], float32 (float64
      for queries and keys of float64). A score with a state takes one query,
      and after prepared the state and the mask ([1, S] or None).
    depends_on_query: False for attention pooling, which any query may ask.
    query_shifts: True where the query adds the same number to every key.
    nonnegative: True where no score is below zero.
    init_state: (source_length S) -> what a score that reads the alignments of
      earlier steps starts from; None for all others.
    update: (state, weights [S]) -> the next state.
    wide: True where apply makes an array of [T, S, A]: the engine then builds
      scores by blocks of keys, which needs every leaf of prepared to be
      row-wise in s and scores of a key to depend on that key alone.
  """

  init: Callable[[Array, int, int], PyTree]
  prepare: Callable[[PyTree, Array], PyTree]
  apply: Callable[[PyTree, Array, PyTree], Array]
  depends_on_query: bool = True
  query_shifts: bool = False
  nonnegative: bool = False
  init_state: Callable[[int], PyTree] | None = None
  update: Callable[[PyTree, Array], PyTree] | None = None
  wide: bool = False


def _no_params(rng: Array, query_dim: int, key_dim: int) -> PyTree:
  del rng
  if query_dim != key_dim:
    raise ValueError(
      f'query_dim={query_dim} and key_dim={key_dim}: a dot product needs '
      'equal depths (bilinear does not)'
    )
  return {}


def _as_is(params: PyTree, key: Array) -> Array:
  del params
  return key


def _products(query: Array, key: Array) -> Array:
  """All dot products [T, S], accumulated in float32 at least."""
  if query.shape[-1] != key.shape[-1]:
    raise ValueError(
      f'query has depth {query.shape[-1]} and key {key.shape[-1]}: a dot '
      'product needs equal depths (bilinear does not)'
    )
  return jnp.matmul(query, key.T, preferred_element_type=wide(query.dtype))


def dot() -> Score:
  """Dot product, q.k (Luong et al. 2015, "dot"). Equal depths."""
  return Score(_no_params, _as_is, lambda params, q, k: _products(q, k))


def scaled_dot() -> Score:
  """Scaled dot product, q.k / sqrt(d) (Vaswani et al. 2017). Equal depths."""

  def apply(params, query, key):
    del params
    return _products(query, key) / query.shape[-1] ** 0.5

  return Score(_no_params, _as_is, apply)


def bilinear() -> Score:
  """Bilinear form, q' W k (Luong et al. 2015, "general").

  W [Q, K] is folded into the query, and the rest runs as a dot product.
  """

  def init(rng, query_dim, key_dim):
    return {'weight': _glorot(rng, (query_dim, key_dim))}

  def apply(params, query, key):
    return _products(project('query', query, params['weight']), key)

  return Score(init, _as_is, apply)


def additive(*, hidden: int = 128) -> Score:
  """Additive score, u' tanh(W_q q + W_k k + b) (Bahdanau et al. 2014).

  W_k k + b is computed once per source.

  Args:
    hidden: A, the width of the hidden layer.
  """

  _check_width('additive', hidden)

  def init(rng, query_dim, key_dim):
    rng_query, rng_key, rng_out = jax.random.split(rng, 3)
    return {
      'query': _glorot(rng_query, (query_dim, hidden)),
      'key': _glorot(rng_key, (key_dim, hidden)),
      'bias': jnp.zeros((hidden,)),
      'out': _glorot(rng_out, (hidden, 1))[:, 0],
    }

  def apply(params, query, prepared):
    projected = project('query', query, params['query'])
    return _hidden_layer(params, projected[:, None, :] + prepared[None, :, :])

  return Score(init, _project_key, apply, wide=True)


def keys_only(*, hidden: int = 128) -> Score:
  """Attention pooling, u' tanh(W k + b): no query (Yang et al. 2016, eq. 5).

  Every query gets the same weights; u is the "context vector" of the paper.

  Args:
    hidden: A, the width of the hidden layer.
  """

  _check_width('keys_only', hidden)

  def init(rng, query_dim, key_dim):
    del query_dim
    rng_key, rng_out = jax.random.split(rng)
    return {
      'key': _glorot(rng_key, (key_dim, hidden)),
      'bias': jnp.zeros((hidden,)),
      'out': _glorot(rng_out, (hidden, 1))[:, 0],
    }

  def prepare(params, key):
    return _hidden_layer(params, _project_key(params, key))[:, None]

  def apply(params, query, prepared):
    del params
    row = prepared[:, 0]
    return jnp.broadcast_to(row, (query.shape[0], *row.shape))

  return Score(init, prepare, apply, depends_on_query=False)


def _check_width(name: str, hidden: int):
  if not 1 <= hidden <= 2**24:
    raise ValueError(f'{name}({hidden=}): it must be from 1 to {2**24}')


def _project_key(params: PyTree, key: Array) -> Array:
  """W_k k + b [S, A], in the keys' dtype."""
  bias = params['bias'].astype(key.dtype)
  return project('key', key, params['key']) + bias[None, :]


def _hidden_layer(params: PyTree, inputs: Array) -> Array:
  """u' tanh(inputs): [..., A] -> [...], summed in float32 at least."""
  out = params['out'].astype(inputs.dtype)
  return jnp.matmul(
    jnp.tanh(inputs), out, preferred_element_type=wide(inputs.dtype)
  )


def project(name: str, inputs: Array, weight: Array) -> Array:
  """x W in the dtype of x: [N, D], [D, A] -> [N, A].

  Args:
    name: what x is called in the message, such as 'query'.
    inputs: x.
    weight: W.

  Raises:
    ValueError: x has another depth than W; the message names x.
  """
  if inputs.shape[-1] != weight.shape[0]:
    raise ValueError(
      f'{name} has depth {inputs.shape[-1]}, but the parameters were made '
      f'for {weight.shape[0]}'
    )
  return inputs @ weight.astype(inputs.dtype)


def wide(dtype: jnp.dtype) -> jnp.dtype:
  """What sums of a dtype are kept in: float32 at least."""
  return jnp.float64 if dtype == jnp.float64 else jnp.float32
