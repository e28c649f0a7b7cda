"""Models: networks around a mechanism that they never ask the name of.

Each function's keyword-only arguments are the settings that a config may give:
`model.name=luong` is `luong(..., **rest)`.
"""

from flax import nnx
import jax.numpy as jnp

from attnlab import attention, errors
from attnlab.layers import recurrent
from attnlab.models import seq2seq
from attnlab.models import transformer as transformer_lib


def fixed(
  source_size: int,
  target_size: int,
  mechanism: attention.Attention | None,
  rngs: nnx.Rngs,
  dtype: jnp.dtype = jnp.float32,
  *,
  context: str = 'projected',
  use: str = 'every_step',
  cell: str = 'gru',
  embedding: int = 256,
  hidden: int = 256,
  layers: int = 1,
  bidirectional: bool = True,
  dropout: float = 0.2,
  tie: bool = False,
) -> seq2seq.Seq2Seq:
  """Encoder-decoder without attention (Cho et al. 2014; Sutskever 2014).

  Args:
    source_size: source vocabulary.
    target_size: target vocabulary.
    mechanism: unused; a model without attention holds none.
    rngs: of the initial parameters.
    dtype: of the computation; parameters are float32.
    context: 'last' (h_S), 'projected' (tanh W h_S) or 'all' (tanh W mean h).
    use: 'init' (s_0 alone) or 'every_step'.
    cell: 'rnn', 'gru' or 'lstm'.
    embedding: depth of the word vectors.
    hidden: units of a cell, in each direction.
    layers: of the encoder and of the decoder.
    bidirectional: whether the encoder reads both ways.
    dropout: on word vectors, source states and the output layer's input.
    tie: whether the output layer is the target's embedding.
  """
  del mechanism
  settings = _cells(cell, embedding, hidden, layers, dropout, rngs, dtype)
  encoder = seq2seq.Encoder(
    source_size, bidirectional=bidirectional, **settings
  )
  decoder = seq2seq.FixedDecoder(
    target_size, encoder, context=context, use=use, tie=tie, **settings
  )
  return seq2seq.Seq2Seq(encoder, decoder)


def bahdanau(
  source_size: int,
  target_size: int,
  mechanism: attention.Attention,
  rngs: nnx.Rngs,
  dtype: jnp.dtype = jnp.float32,
  *,
  cell: str = 'gru',
  embedding: int = 256,
  hidden: int = 256,
  layers: int = 1,
  bidirectional: bool = True,
  dropout: float = 0.2,
  tie: bool = False,
) -> seq2seq.Seq2Seq:
  """Attends before the step, with s_{t-1} (Bahdanau et al. 2014).

  The settings are those of `fixed`.
  """
  settings = _cells(cell, embedding, hidden, layers, dropout, rngs, dtype)
  encoder = seq2seq.Encoder(
    source_size, bidirectional=bidirectional, **settings
  )
  decoder = seq2seq.BahdanauDecoder(
    target_size, encoder, mechanism, tie=tie, **settings
  )
  return seq2seq.Seq2Seq(encoder, decoder)


def luong(
  source_size: int,
  target_size: int,
  mechanism: attention.Attention,
  rngs: nnx.Rngs,
  dtype: jnp.dtype = jnp.float32,
  *,
  cell: str = 'lstm',
  embedding: int = 256,
  hidden: int = 256,
  layers: int = 1,
  bidirectional: bool = True,
  dropout: float = 0.2,
  tie: bool = False,
) -> seq2seq.Seq2Seq:
  """Attends after the step, with s_t, and feeds h~_t on (Luong et al. 2015).

  The settings are those of `fixed`.
  """
  settings = _cells(cell, embedding, hidden, layers, dropout, rngs, dtype)
  encoder = seq2seq.Encoder(
    source_size, bidirectional=bidirectional, **settings
  )
  decoder = seq2seq.LuongDecoder(
    target_size, encoder, mechanism, tie=tie, **settings
  )
  return seq2seq.Seq2Seq(encoder, decoder)


def transformer(
  source_size: int,
  target_size: int,
  mechanism: attention.Attention,
  rngs: nnx.Rngs,
  dtype: jnp.dtype = jnp.float32,
  *,
  depth: int = 128,
  hidden: int = 256,
  layers: int = 4,
  dropout: float = 0.3,
  norm: str = 'post',
  share: bool = False,
) -> transformer_lib.Transformer:
  """Transformer encoder and decoder (Vaswani et al. 2017).

  The defaults are Transformer-Tiny (Wu et al. 2021).

  Args:
    source_size: source vocabulary.
    target_size: target vocabulary.
    mechanism: of every attention; the paper's has several heads.
    rngs: of the initial parameters.
    dtype: of the computation; parameters are float32.
    depth: of the residual stream.
    hidden: of the feed-forward layers.
    layers: of the encoder and of the decoder.
    dropout: on word vectors and every sub-layer's output.
    norm: 'post' (the paper) or 'pre'.
    share: one table for source and target words, where the vocabulary is one.
  """
  _at_least_one(depth=depth, hidden=hidden, layers=layers)
  _check_rate(dropout)
  if depth % 2:
    raise errors.UserError(
      f'model.depth={depth} is odd: positions are pairs of sine and cosine; '
      f'{depth + 1} is the nearest that is even'
    )
  if share and source_size != target_size:
    raise errors.UserError(
      f'model.share=True needs one vocabulary: the source has {source_size} '
      f'entries and the target {target_size} (data.share_vocabulary=True)'
    )
  return transformer_lib.Transformer(
    source_size,
    target_size,
    mechanism,
    depth=depth,
    hidden=hidden,
    layers=layers,
    dropout=dropout,
    norm=norm,
    share=share,
    rngs=rngs,
    dtype=dtype,
  )


def _cells(cell, embedding, hidden, layers, dropout, rngs, dtype):
  """What an encoder and its decoder share."""
  if cell not in recurrent.CELLS:
    raise errors.unknown('model.cell', cell, recurrent.CELLS)
  _at_least_one(embedding=embedding, hidden=hidden, layers=layers)
  _check_rate(dropout)
  return {
    'cell': cell,
    'embedding': embedding,
    'hidden': hidden,
    'layers': layers,
    'dropout': dropout,
    'rngs': rngs,
    'dtype': dtype,
  }


def _at_least_one(**settings: int):
  for name, value in settings.items():
    if value < 1:
      raise errors.UserError(f'model.{name}={value} must be at least 1')
    # Layers are written out one by one; of widths, the memory sets the limit.
    most = 100 if name == 'layers' else 2**24
    errors.check_number(f'model.{name}', value, 1, most)


def _check_rate(dropout: float):
  if not 0 <= dropout < 1:
    raise errors.UserError(f'model.dropout={dropout} must be from 0 to below 1')
