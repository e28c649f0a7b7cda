"""The Transformer around any mechanism (Vaswani et al. 2017).

It answers the calls of `models.seq2seq`; the memory is what every layer made of
the source, and the carry every layer's own past.
"""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from attnlab import attention
from attnlab.layers import attend, basic, transformer
from attnlab.models import seq2seq

Array = jax.Array
PyTree = Any


class Transformer(nnx.Module):
  """Encoder and decoder stacks; sinusoidal positions; tied output layer."""

  def __init__(
    self,
    source_size: int,
    target_size: int,
    mechanism: attention.Attention,
    *,
    depth: int,
    hidden: int,
    layers: int,
    dropout: float,
    norm: str,
    share: bool,
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
  ):
    settings = {
      'layers': layers,
      'dropout': dropout,
      'norm': norm,
      'rngs': rngs,
      'dtype': dtype,
    }
    embed = lambda size: basic.Embedding(size, depth, rngs=rngs, dtype=dtype)
    self.source_embed = embed(source_size)
    self.target_embed = self.source_embed if share else embed(target_size)
    self.encoder = transformer.Stack(
      mechanism, depth, hidden, cross=False, **settings
    )
    self.decoder = transformer.Stack(
      mechanism, depth, hidden, cross=True, **settings
    )
    self.output = seq2seq.Output(
      depth, target_size, self.target_embed, rngs=rngs, dtype=dtype
    )
    self.depth = depth
    self.dropout = dropout
    self.dtype = dtype

  def _embed(self, embed, tokens, positions, rng):
    vectors = embed(tokens) * self.depth**0.5
    places = transformer.sinusoidal_positions(positions, self.depth)
    vectors = vectors + places.astype(vectors.dtype)
    return basic.dropout(vectors, self.dropout, rng)

  def encode(self, source: Array, rng: Array | None = None) -> PyTree:
    """[B, S] ids -> every decoder layer's memory of the source."""
    rngs = basic.split(rng, 2)
    mask = (source != 0)[:, None]
    positions = jnp.arange(source.shape[1])[None]
    x = self._embed(self.source_embed, source, positions, rngs[0])
    states, records = self.encoder(x, mask, rng=rngs[1])
    return {
      'source': self.decoder.prepare_source(states),
      'mask': mask,
      'weights': [record['self'] for record in records],
    }

  def init_carry(self, memory: PyTree, length: int) -> PyTree:
    """Empty caches for `length` target positions, and no alignment yet."""
    batch, _, size = memory['mask'].shape
    return self.decoder.empty_past(batch, length, size, self.depth, self.dtype)

  def step(self, memory: PyTree, carry: PyTree, token: Array, position: Array):
    """One word: token [B] -> logits [B, V], carry, weights [B, S].

    The weights are the last layer's over the source, averaged over heads and
    hops.
    """
    positions = jnp.broadcast_to(position, (1, 1))
    x = self._embed(self.target_embed, token[:, None], positions, None)
    x, carry, records = self.decoder.step(
      x, carry, position, memory['source'], memory['mask']
    )
    weights = attend.rows(records[-1]['source'])
    return self.output(x[:, 0]), carry, weights[:, 0]

  def __call__(self, batch: dict[str, Array], rng: Array | None = None):
    """Teacher forcing, as `Seq2Seq.__call__`.

    `out` holds 'features', 'weights' [B, T, S] (last layer, mean over heads and
    hops), 'memory', and 'self_weights' and 'source_weights', a list over layers
    of [B, T, S], [B, H, T, S] with heads, [B, N, H, T, S] with hops as well.
    """
    rngs = basic.split(rng, 3)
    memory = self.encode(batch['source'], rngs[0])
    tokens = seq2seq.shift(batch['target'])
    rows, length = tokens.shape
    positions = jnp.arange(length)
    x = self._embed(self.target_embed, tokens, positions[None], rngs[1])
    causal = attention.masks.dense(
      attention.masks.causal(), (rows,), length, length
    )
    features, records = self.decoder(
      x, causal, memory['source'], memory['mask'], rng=rngs[2]
    )
    out = {
      'features': features,
      'weights': attend.rows(records[-1]['source']),
      'self_weights': [record['self'] for record in records],
      'source_weights': [record['source'] for record in records],
      'memory': memory,
    }
    return self.output(features), out
