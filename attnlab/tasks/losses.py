"""Losses."""

import functools

import jax
import jax.numpy as jnp

Array = jax.Array

_ROWS = 128  # logits of so many rows stay in a core's cache


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def linear_cross_entropy(
  features: Array,
  kernel: Array,
  bias: Array,
  targets: Array,
  weights: Array,
  label_smoothing: float,
) -> tuple[Array, Array, Array]:
  """Output layer and cross-entropy in one, without the matrix of logits.

  A block of rows at a time goes through logits, loss and gradient while it is
  in cache, so that no [N, V] array is ever written.

  Args:
    features: [N, F], what the output layer sees.
    kernel: [F, V].
    bias: [V].
    targets: [N] ids.
    weights: [N], what each row counts; 0 for padding.
    label_smoothing: the share that is spread over all of V (Szegedy 2016).

  Returns:
    Weighted sums over rows: the smoothed loss, the negative log-likelihood
    (nats) and the number of right answers. Only the first has a gradient.
  """
  return _blocks(
    features, kernel, bias, targets, weights, label_smoothing, False
  )[0]


def _forward(features, kernel, bias, targets, weights, label_smoothing):
  return _blocks(
    features, kernel, bias, targets, weights, label_smoothing, True
  )


def _backward(label_smoothing, gradients, cotangents):
  del label_smoothing
  scaled = [(g * cotangents[0]).astype(g.dtype) for g in gradients]
  return *scaled, None, None


linear_cross_entropy.defvjp(_forward, _backward)


def _blocks(features, kernel, bias, targets, weights, smoothing, with_gradient):
  count, size = features.shape[0], kernel.shape[1]
  rows = min(_ROWS, count)
  pad = -count % rows

  def cut(array):
    padded = jnp.pad(array, [(0, pad)] + [(0, 0)] * (array.ndim - 1))
    return padded.reshape(-1, rows, *array.shape[1:])

  def block(carry, xs):
    sums, d_kernel, d_bias = carry
    x, target, weight = xs
    logits = jnp.matmul(x, kernel, preferred_element_type=jnp.float32) + bias
    top = jnp.max(logits, axis=-1, keepdims=True)
    powers = jnp.exp(logits - top)
    total = jnp.sum(powers, axis=-1, keepdims=True)
    normalizer = (top + jnp.log(total))[:, 0]
    hit = jnp.arange(size) == target[:, None]
    chosen = jnp.sum(jnp.where(hit, logits, 0), axis=-1)
    nll = normalizer - chosen
    even = normalizer - jnp.mean(logits, axis=-1)
    loss = (1 - smoothing) * nll + smoothing * even
    right = chosen >= top[:, 0]
    figures = jnp.stack([loss, nll, right.astype(jnp.float32)])
    sums = sums + figures @ weight
    if not with_gradient:
      return (sums, d_kernel, d_bias), None
    wanted = jnp.where(hit, 1 - smoothing, 0.0) + smoothing / size
    d_logits = (powers / total - wanted) * weight[:, None]
    d_bias = d_bias + jnp.sum(d_logits, axis=0)
    d_logits = d_logits.astype(x.dtype)
    d_kernel = d_kernel + jnp.matmul(
      x.T, d_logits, preferred_element_type=jnp.float32
    )
    return (sums, d_kernel, d_bias), d_logits @ kernel.T

  grown = with_gradient * size
  start = (
    jnp.zeros((3,), jnp.float32),
    jnp.zeros((kernel.shape[0], grown), jnp.float32),
    jnp.zeros((grown,), jnp.float32),
  )
  (sums, d_kernel, d_bias), d_features = jax.lax.scan(
    block, start, (cut(features), cut(targets), cut(weights))
  )
  if d_features is None:
    return tuple(sums), None
  d_features = d_features.reshape(-1, features.shape[1])[:count]
  return tuple(sums), (d_features, d_kernel.astype(kernel.dtype), d_bias)
