"""Transformer encoder and decoder layers around any mechanism.

Vaswani et al. 2017: post-LN base; `norm='pre'` moves the norm before each
sub-layer (Xiong et al. 2020).
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from attnlab import attention, errors
from attnlab.layers import basic
from attnlab.layers.attend import Attend, check_depth

Array = jax.Array
# What an attention reads by: (inputs [B, T, D], rng or None) -> output.
Read = Callable[[Array, Array | None], attention.AttentionOutput]
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
    check_depth(self.self_attend, depth)
    self.feed_forward = FeedForward(depth, hidden, rngs=rngs, dtype=dtype)
    self.norms = nnx.List(
      [basic.LayerNorm(depth) for _ in range(3 if cross else 2)]
    )
    self.dropout = dropout
    self.norm = norm

  def __call__(
    self,
    inputs: Array,
    read_self: Read,
    read_source: Read | None = None,
    rng: Array | None = None,
  ) -> tuple[Array, dict[str, Array]]:
    """[B, T, D] -> [B, T, D] and the weights of both attentions."""
    *rngs, inner, rng_self, rng_source = basic.split(rng, 6)
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

    def attending(name, read, rng):
      def sublayer(inputs):
        out = read(inputs, rng)
        weights[name] = out.weights
        return out.context

      return sublayer

    x = around(attending('self', read_self, rng_self), inputs)
    if read_source is not None:
      x = around(attending('source', read_source, rng_source), x)
    x = around(lambda x: self.feed_forward(x, self.dropout, inner), x)
    return x, weights


class Past(NamedTuple):
  """What a decoder layer keeps of the positions before.

  Attributes:
    cache: the memory of its own positions, filled up to the last one.
    own: the alignment that the last position had to them.
    source: the alignment that it had to the source.
  """

  cache: attention.Memory
  own: Any
  source: Any


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

    def read_self(index, x, rng):
      layer = self.layers[index].self_attend
      return layer(x, layer.prepare(x, x), mask=mask, rng=rng)

    def read_source(index, x, rng):
      layer = self.layers[index].cross_attend
      return layer(x, memories[index], mask=source_mask, rng=rng)

    memories = source or []
    read = None if source is None else read_source
    return self._run(inputs, read_self, read, rng)

  def step(
    self,
    inputs: Array,
    past: list[Past],
    position: Array,
    source: list[attention.Memory],
    source_mask: Array,
  ) -> tuple[Array, list[Past], list[dict[str, Array]]]:
    """One position: [B, 1, D]; the caches grow by a row at `position`."""
    past = list(past)

    def read_self(index, x, rng):
      del rng  # A step takes what is most likely.
      layer = self.layers[index].self_attend
      cache = jax.tree.map(
        lambda cache, row: jax.lax.dynamic_update_slice_in_dim(
          cache, row.astype(cache.dtype), position, axis=-2
        ),
        past[index].cache,
        layer.prepare(x, x),
      )
      length = jax.tree.leaves(cache)[0].shape[-2]
      visible = jnp.arange(length) <= position
      mask = jnp.broadcast_to(visible, (x.shape[0], 1, length))
      out = layer(
        x, cache, mask=mask, state=past[index].own, query_start=position
      )
      past[index] = past[index]._replace(cache=cache, own=out.state)
      return out

    def read_source(index, x, rng):
      del rng
      out = self.layers[index].cross_attend(
        x,
        source[index],
        mask=source_mask,
        state=past[index].source,
        query_start=position,
      )
      past[index] = past[index]._replace(source=out.state)
      return out

    outputs, weights = self._run(inputs, read_self, read_source, None)
    return outputs, past, weights

  def empty_past(
    self,
    batch: int,
    length: int,
    source_length: int,
    depth: int,
    dtype: Any,
  ) -> list[Past]:
    """Room for `length` positions a layer, to be filled by `step`."""
    zeros = jnp.zeros((batch, length, depth), dtype)
    return [
      Past(
        jax.tree.map(jnp.zeros_like, layer.self_attend.prepare(zeros, zeros)),
        layer.self_attend.init_state(batch, length),
        layer.cross_attend.init_state(batch, source_length),
      )
      for layer in self.layers
    ]

  def _run(self, x, read_self, read_source, rng):
    rngs = basic.split(rng, len(self.layers))
    records = []
    for index, layer in enumerate(self.layers):
      x, weights = layer(
        x,
        functools.partial(read_self, index),
        read_source and functools.partial(read_source, index),
        rngs[index],
      )
      records.append(weights)
    if self.last_norm is not None:
      x = self.last_norm(x)
    return x, records
