"""Embedding, linear map, layer norm and dropout, with explicit randomness."""

from flax import nnx
import jax
import jax.numpy as jnp

Array = jax.Array


class Linear(nnx.Module):
  """x W + b, in the compute dtype; parameters are float32."""

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    bias: bool = True,
    rngs: nnx.Rngs,
    dtype: jnp.dtype = jnp.float32,
  ):
    init = jax.nn.initializers.glorot_uniform()
    self.weight = nnx.Param(init(rngs.params(), (inputs, outputs)))
    self.bias = nnx.Param(jnp.zeros((outputs,))) if bias else None
    self.dtype = dtype

  def __call__(self, inputs: Array) -> Array:
    bias = None if self.bias is None else self.bias[...]
    return affine(inputs, self.weight[...], bias, self.dtype)


class Embedding(nnx.Module):
  """Vectors for token ids; id 0 is padding.

  The vectors start with variance 1/depth, so that the same table can serve as
  output layer.
  """

  def __init__(
    self,
    size: int,
    depth: int,
    *,
    rngs: nnx.Rngs,
    dtype: jnp.dtype = jnp.float32,
  ):
    init = jax.nn.initializers.normal(depth**-0.5)
    self.table = nnx.Param(init(rngs.params(), (size, depth)))
    self.dtype = dtype

  def __call__(self, tokens: Array) -> Array:
    """[...] ids -> [..., D]."""
    return self.table[...].astype(self.dtype)[tokens]


class LayerNorm(nnx.Module):
  """Layer normalisation over the last axis, computed in float32 (Ba 2016)."""

  def __init__(self, depth: int, *, rngs: nnx.Rngs | None = None):
    del rngs
    self.scale = nnx.Param(jnp.ones((depth,)))
    self.bias = nnx.Param(jnp.zeros((depth,)))

  def __call__(self, inputs: Array) -> Array:
    x = inputs.astype(jnp.float32)
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
    x = (x - mean) * jax.lax.rsqrt(variance + 1e-6)
    scale, bias = self.scale[...], self.bias[...]
    x = x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)
    return x.astype(inputs.dtype)


def affine(
  inputs: Array, weight: Array, bias: Array | None, dtype: jnp.dtype
) -> Array:
  """x W + b, [..., I] -> [..., O], all three cast to the dtype."""
  outputs = inputs.astype(dtype) @ weight.astype(dtype)
  if bias is None:
    return outputs
  return outputs + jnp.broadcast_to(bias.astype(dtype), outputs.shape)


def dropout(inputs: Array, rate: float, rng: Array | None) -> Array:
  """Inverted dropout; `rng=None` is evaluation and changes nothing.

  The rate is rounded to a multiple of 1/256: drawing a byte a unit instead of
  a word makes a training step up to a tenth faster on a CPU.
  """
  if rng is None or rate == 0:
    return inputs
  dropped = min(max(round(rate * 256), 1), 255)
  keep = jax.random.bits(rng, inputs.shape, jnp.uint8) >= jnp.uint8(dropped)
  # Without the barrier XLA may draw the bits again in the backward pass.
  keep = jax.lax.optimization_barrier(keep)
  return jnp.where(keep, inputs * (256 / (256 - dropped)), 0)


def split(rng: Array | None, count: int) -> list[Array | None]:
  """`count` keys, or as many Nones."""
  return [None] * count if rng is None else list(jax.random.split(rng, count))
