"""Recurrent classifiers of sentences and documents, around any pool.

Both are called as model(batch, rng) -> (logits [B, C], out). They read
batch['tokens'], padded with 0, of `rank` axes after the batch; out['weights']
has the shape of the tokens and says which of them the answer comes from.
"""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from attnlab import attention, errors
from attnlab.layers import basic, pool, recurrent
from attnlab.models import seq2seq

Array = jax.Array
POOLS = ('attention', 'self_attention', 'set', 'gate', 'last', 'max', 'mean')
UNK = 3


class Level(nnx.Module):
  """Recurrent layers and a pool: vectors of a sequence -> one vector.

  A shortcut adds W x_t to the state of each position. Without it a neighbour's
  state, which has read the word, does as well as the word's own, and weights
  are often off by one.
  """

  def __init__(
    self,
    inputs: int,
    mechanism: attention.Attention,
    *,
    cell: str,
    hidden: int,
    layers: int,
    bidirectional: bool,
    pool: str,
    shortcut: bool,
    dropout: float,
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
  ):
    self.recurrent = recurrent.Recurrent(
      cell,
      inputs,
      hidden,
      layers=layers,
      bidirectional=bidirectional,
      rngs=rngs,
      dtype=dtype,
    )
    self.output_dim = self.recurrent.output_dim
    self.shortcut: Any = (
      basic.Linear(inputs, self.output_dim, bias=False, rngs=rngs, dtype=dtype)
      if shortcut
      else None
    )
    self.pool = _pool(
      pool, mechanism, self.output_dim, 1 + bidirectional, rngs, dtype
    )
    self.dropout = dropout

  def __call__(
    self, inputs: Array, mask: Array, rng: Array | None
  ) -> tuple[Array, Array, Array]:
    """[B, T, I], [B, T] -> vector [B, D], weights [B, T], states [B, T, D]."""
    rngs = basic.split(rng, 2)
    states, _ = self.recurrent(inputs, mask)
    if self.shortcut is not None:
      states += jnp.where(mask[..., None], self.shortcut(inputs), 0)
    states = basic.dropout(states, self.dropout, rngs[0])
    vector, weights = self.pool(states, mask, rngs[1])
    return vector, weights, states


class Classifier(nnx.Module):
  """Words -> text: embedding, one level, output layer."""

  rank = 1

  def __init__(
    self,
    size: int,
    classes: int,
    mechanism: attention.Attention,
    *,
    embedding: int,
    pool: str,
    dropout: float,
    word_dropout: float,
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
    **cells,
  ):
    self.embed = basic.Embedding(size, embedding, rngs=rngs, dtype=dtype)
    self.words = Level(
      embedding,
      mechanism,
      pool=pool,
      dropout=dropout,
      rngs=rngs,
      dtype=dtype,
      **cells,
    )
    self.output = seq2seq.Output(
      self.words.output_dim, classes, None, rngs=rngs, dtype=dtype
    )
    self.dropout = dropout
    self.word_dropout = word_dropout

  def __call__(self, batch, rng: Array | None = None):
    """tokens [B, T] -> logits [B, C]; weights [B, T]."""
    tokens = batch['tokens']
    rngs = basic.split(rng, 3)
    embedded = _read(self, tokens, rngs[0])
    vector, weights, states = self.words(embedded, tokens != 0, rngs[1])
    features = basic.dropout(vector, self.dropout, rngs[2])
    out = {'weights': weights, 'states': states, 'features': features}
    return self.output(features), out


class Hierarchical(nnx.Module):
  """Words -> sentences -> document, two levels (Yang et al. 2016).

  An empty sentence is masked, wherever it stands.
  """

  rank = 2

  def __init__(
    self,
    size: int,
    classes: int,
    mechanism: attention.Attention,
    *,
    embedding: int,
    word_pool: str,
    sentence_pool: str,
    dropout: float,
    word_dropout: float,
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
    **cells,
  ):
    shared = {'dropout': dropout, 'rngs': rngs, 'dtype': dtype}
    self.embed = basic.Embedding(size, embedding, rngs=rngs, dtype=dtype)
    self.words = Level(embedding, mechanism, pool=word_pool, **shared, **cells)
    self.sentences = Level(
      self.words.output_dim, mechanism, pool=sentence_pool, **shared, **cells
    )
    self.output = seq2seq.Output(
      self.sentences.output_dim, classes, None, rngs=rngs, dtype=dtype
    )
    self.dropout = dropout
    self.word_dropout = word_dropout

  def __call__(self, batch, rng: Array | None = None):
    """tokens [B, N, W] -> logits [B, C]; weights [B, N, W].

    The weight of a word is its share of the sentence by the sentence's share
    of the document: 'sentence_weights' [B, N], 'word_weights' [B, N, W].
    """
    tokens = batch['tokens']
    documents, sentences, words = tokens.shape
    rngs = basic.split(rng, 4)
    flat = tokens.reshape(documents * sentences, words)
    embedded = _read(self, flat, rngs[0])
    vectors, inner, states = self.words(embedded, flat != 0, rngs[1])
    vectors = vectors.reshape(documents, sentences, -1)
    inner = inner.reshape(tokens.shape)
    mask = (tokens != 0).any(axis=-1)
    vector, outer, _ = self.sentences(vectors, mask, rngs[2])
    features = basic.dropout(vector, self.dropout, rngs[3])
    out = {
      'weights': outer[..., None] * inner,
      'sentence_weights': outer,
      'word_weights': inner,
      'states': states.reshape(*tokens.shape, -1),
      'features': features,
    }
    return self.output(features), out


def _read(model, tokens: Array, rng: Array | None) -> Array:
  """Word vectors [N, T, E]; in training some words are hidden or thinned."""
  rngs = basic.split(rng, 2)
  if rngs[0] is not None and model.word_dropout > 0:
    hidden = jax.random.bernoulli(rngs[0], model.word_dropout, tokens.shape)
    tokens = jnp.where(hidden & (tokens != 0), UNK, tokens)
  return basic.dropout(model.embed(tokens), model.dropout, rngs[1])


def _pool(name, mechanism, depth, directions, rngs, dtype) -> nnx.Module:
  if name == 'attention':
    return pool.Attention(mechanism, depth, rngs=rngs, dtype=dtype)
  if name == 'self_attention':
    return pool.SelfAttention(mechanism, depth, rngs=rngs)
  if name == 'set':
    return pool.Set(mechanism, depth, rngs=rngs, dtype=dtype)
  if name == 'gate':
    return pool.Gate(depth, rngs=rngs, dtype=dtype)
  if name == 'last':
    return pool.Last(directions)
  if name == 'max':
    return pool.Max()
  if name == 'mean':
    return pool.Mean()
  raise errors.unknown('model.pool', name, POOLS)
