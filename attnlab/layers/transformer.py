"""Transformer encoder and decoder layers around any mechanism.

Vaswani et al. 2017: post-LN base; `norm='pre'` moves the norm before each
sub-layer (Xiong et al. 2020).
"""

from collections.abc import Callable
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from attnlab import attention, errors
from attnlab.layers import basic
from attnlab.layers.attend import Attend

Array = jax.Array
NORMS = ('post', 'pre')


def sinusoidal_positions(positions: Array, depth: int) -> Array:
  """Sine and cosine position vectors (Vaswani et al. 2017, section 3.5).

  Args:
    positions: [...] integers.
    depth: D, even.

  Returns:
    [..., D] float32: sines in the first half, cosines in the second.
  """
  if depth % 2:
    raise ValueError(f'{depth=} is odd: sinusoidal positions need pairs')
  rates = 10000.0 ** (-jnp.arange(0, depth, 2, dtype=jnp.float32) / depth)
  places = positions[..., None].astype(jnp.float32)
  angles = places * rates.reshape((1,) * positions.ndim + (-1,))
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class FeedForward(nnx.Module):
  """relu(x W_1 + b_1) W_2 + b_2."""

  def __init__(
    self,
    depth: int,
    hidden: int,
    *,
    rngs: nnx.Rngs,
    dtype: jnp.dtype = jnp.float32,
  ):
    self.inner = basic.Linear(depth, hidden, rngs=rngs, dtype=dtype)
    self.outer = basic.Linear(hidden, depth, rngs=rngs, dtype=dtype)

  def __call__(self, inputs: Array, rate: float, rng: Array | None) -> Array:
    hidden = basic.dropout(jax.nn.relu(self.inner(inputs)), rate, rng)
    return self.outer(hidden)


class Layer(nnx.Module):
  """One layer: self-attention, attention over a source if there is one, FFN."""

  def __init__(
    self,
    mechanism: attention.Attention,
    depth: int,
    hidden: int,
    *,
    cross: bool,
    dropout: float,
    norm: str,
    rngs: nnx.Rngs,
    dtype: jnp.dtype = jnp.float32,
  ):
    if norm not in NORMS:
      raise errors.unknown('model.norm', norm, NORMS)
    new = lambda: Attend(
      mechanism, query_dim=depth, key_dim=depth, value_dim=depth, rngs=rngs
    )
    self.self_attend = new()
    self.cross_attend: Any = new() if cross else None
    self.feed_forward = FeedForward(depth, hidden, rngs=rngs, dtype=dtype)
    self.norms = nnx.List(
      [basic.LayerNorm(depth) for _ in range(3 if cross else 2)]
    )
    self.dropout = dropout
    self.norm = norm

  def __call__(
    self,
    inputs: Array,
    read_self: Callable[[Array], attention.AttentionOutput],
    read_source: Callable[[Array], attention.AttentionOutput] | None = None,
    rng: Array | None = None,
  ) -> tuple[Array, dict[str, Array]]:
    """[B, T, D] -> [B, T, D] and the weights of both attentions."""
    *rngs, inner = basic.split(rng, 4)
    rngs = iter(rngs)
    norms = iter(self.norms)
    weights = {}

    def around(sublayer, inputs):
      norm = next(norms)
      if self.norm == 'pre':
        outputs = sublayer(norm(inputs))
        return inputs + basic.dropout(outputs, self.dropout, next(rngs))
      outputs = basic.dropout(sublayer(inputs), self.dropout, next(rngs))
      return norm(inputs + outputs)

    def attending(name, read):
      def sublayer(inputs):
        out = read(inputs)
        weights[name] = out.weights
        return out.context

      return sublayer

    x = around(attending('self', read_self), inputs)
    if read_source is not None:
      x = around(attending('source', read_source), x)
    x = around(lambda x: self.feed_forward(x, self.dropout, inner), x)
    return x, weights


class Stack(nnx.Module):
  """Layers one upon the other, with a last norm where the norm comes first."""

  def __init__(
    self,
    mechanism: attention.Attention,
    depth: int,
    hidden: int,
    *,
    layers: int,
    cross: bool,
    dropout: float,
    norm: str,
    rngs: nnx.Rngs,
    dtype: jnp.dtype = jnp.float32,
  ):
    self.layers = nnx.List(
      [
        Layer(
          mechanism,
          depth,
          hidden,
          cross=cross,
          dropout=dropout,
          norm=norm,
          rngs=rngs,
          dtype=dtype,
        )
        for _ in range(layers)
      ]
    )
    self.last_norm: Any = basic.LayerNorm(depth) if norm == 'pre' else None

  def prepare_source(self, states: Array) -> list[attention.Memory]:
    """What each layer makes of the source [B, S, D], once."""
    return [layer.cross_attend.prepare(states, states) for layer in self.layers]

  def __call__(
    self,
    inputs: Array,
    mask: Array,
    source: list[attention.Memory] | None = None,
    source_mask: Array | None = None,
    rng: Array | None = None,
  ) -> tuple[Array, list[dict[str, Array]]]:
    """Whole sequences: [B, T, D] under mask [B, 1 or T, T]."""

    def read_self(layer, x):
      return layer.self_attend(x, layer.self_attend.prepare(x, x), mask=mask)

    return self._run(inputs, read_self, source, source_mask, rng)

  def step(
    self,
    inputs: Array,
    caches: list[attention.Memory],
    position: Array,
    source: list[attention.Memory],
    source_mask: Array,
  ) -> tuple[Array, list[attention.Memory], list[dict[str, Array]]]:
    """One position: [B, 1, D]; the caches grow by a row at `position`."""
    grown = []

    def read_self(layer, x):
      row = layer.self_attend.prepare(x, x)
      cache = jax.tree.map(
        lambda cache, row: jax.lax.dynamic_update_slice_in_dim(
          cache, row.astype(cache.dtype), position, axis=-2
        ),
        caches[len(grown)],
        row,
      )
      grown.append(cache)
      length = jax.tree.leaves(cache)[0].shape[-2]
      visible = jnp.arange(length) <= position
      mask = jnp.broadcast_to(visible, (x.shape[0], 1, length))
      return layer.self_attend(x, cache, mask=mask)

    outputs, weights = self._run(inputs, read_self, source, source_mask, None)
    return outputs, grown, weights

  def empty_caches(
    self, batch: int, length: int, depth: int, dtype: Any
  ) -> list[attention.Memory]:
    """A cache of `length` positions a layer, to be filled by `step`."""
    zeros = jnp.zeros((batch, length, depth), dtype)
    return [
      jax.tree.map(jnp.zeros_like, layer.self_attend.prepare(zeros, zeros))
      for layer in self.layers
    ]

  def _run(self, x, read_self, source, source_mask, rng):
    rngs = basic.split(rng, len(self.layers))
    records = []
    for index, layer in enumerate(self.layers):
      read_source = None
      if source is not None:
        read_source = lambda x, layer=layer, index=index: layer.cross_attend(
          x, source[index], mask=source_mask
        )
      x, weights = layer(
        x,
        lambda x, layer=layer: read_self(layer, x),
        read_source,
        rngs[index],
      )
      records.append(weights)
    if self.last_norm is not None:
      x = self.last_norm(x)
    return x, records
