"""Models of the classification task: a sentence or a document to one class.

Each function's keyword-only arguments are the settings that a config may give:
`model.name=hierarchical` is `hierarchical(..., **rest)`.
"""

from flax import nnx
import jax.numpy as jnp

from attnlab import attention, errors
from attnlab.layers import recurrent
from attnlab.models import classifier as classifier_lib


def classifier(
  size: int,
  classes: int,
  mechanism: attention.Attention,
  rngs: nnx.Rngs,
  dtype: jnp.dtype = jnp.float32,
  *,
  cell: str = 'lstm',
  embedding: int = 128,
  hidden: int = 128,
  layers: int = 1,
  bidirectional: bool = True,
  pool: str = 'attention',
  shortcut: bool = False,
  dropout: float = 0.3,
  word_dropout: float = 0.0,
) -> classifier_lib.Classifier:
  """Recurrent network, pool and output layer (Zhou et al. 2016).

  Args:
    size: of the vocabulary.
    classes: how many.
    mechanism: what the pools 'attention', 'self_attention' and 'set' do.
    rngs: of the initial parameters.
    dtype: of the computation; parameters are float32.
    cell: 'rnn', 'gru' or 'lstm'.
    embedding: depth of the word vectors.
    hidden: units of a cell, in each direction.
    layers: of cells.
    bidirectional: whether they read both ways.
    pool: 'attention', 'self_attention', 'set', 'gate', 'last', 'max' or 'mean'.
    shortcut: whether W x_t is added to the state of word t, so that weights
      point to the word that decides rather than to its neighbours.
    dropout: on word vectors, states and the output layer's input.
    word_dropout: share of the words that training hides, as unknown ones.
  """
  _check_cells(cell, embedding=embedding, hidden=hidden, layers=layers)
  _check_pool('pool', pool)
  _check_rates(dropout=dropout, word_dropout=word_dropout)
  return classifier_lib.Classifier(
    size,
    classes,
    mechanism,
    embedding=embedding,
    pool=pool,
    dropout=dropout,
    word_dropout=word_dropout,
    rngs=rngs,
    dtype=dtype,
    cell=cell,
    hidden=hidden,
    layers=layers,
    bidirectional=bidirectional,
    shortcut=shortcut,
  )


def hierarchical(
  size: int,
  classes: int,
  mechanism: attention.Attention,
  rngs: nnx.Rngs,
  dtype: jnp.dtype = jnp.float32,
  *,
  cell: str = 'gru',
  embedding: int = 128,
  hidden: int = 64,
  layers: int = 1,
  bidirectional: bool = True,
  word_pool: str = 'attention',
  sentence_pool: str = 'attention',
  shortcut: bool = False,
  dropout: float = 0.3,
  word_dropout: float = 0.0,
) -> classifier_lib.Hierarchical:
  """Words to sentences to the document (HAN, Yang et al. 2016).

  The settings are those of `classifier`, at both levels, but for:

  Args:
    size: of the vocabulary.
    classes: how many.
    mechanism: what the pool 'attention' does; each level has its own.
    rngs: of the initial parameters.
    dtype: of the computation; parameters are float32.
    cell: see `classifier`.
    embedding: see `classifier`.
    hidden: see `classifier`.
    layers: see `classifier`.
    bidirectional: see `classifier`.
    word_pool: words to a sentence, one of the pools of `classifier`.
    sentence_pool: sentences to the document, likewise.
    shortcut: see `classifier`; at both levels.
    dropout: on word vectors, both levels' states and the output's input.
    word_dropout: see `classifier`.
  """
  _check_cells(cell, embedding=embedding, hidden=hidden, layers=layers)
  _check_pool('word_pool', word_pool)
  _check_pool('sentence_pool', sentence_pool)
  _check_rates(dropout=dropout, word_dropout=word_dropout)
  return classifier_lib.Hierarchical(
    size,
    classes,
    mechanism,
    embedding=embedding,
    word_pool=word_pool,
    sentence_pool=sentence_pool,
    dropout=dropout,
    word_dropout=word_dropout,
    rngs=rngs,
    dtype=dtype,
    cell=cell,
    hidden=hidden,
    layers=layers,
    bidirectional=bidirectional,
    shortcut=shortcut,
  )


def _check_cells(cell: str, **settings: int):
  if cell not in recurrent.CELLS:
    raise errors.unknown('model.cell', cell, recurrent.CELLS)
  for name, value in settings.items():
    if value < 1:
      raise errors.UserError(f'model.{name}={value} must be at least 1')
    # Layers are written out one by one; of widths, the memory sets the limit.
    most = 100 if name == 'layers' else 2**24
    errors.check_number(f'model.{name}', value, 1, most)


def _check_pool(name: str, value: str):
  if value not in classifier_lib.POOLS:
    raise errors.unknown(f'model.{name}', value, classifier_lib.POOLS)


def _check_rates(**settings: float):
  for name, value in settings.items():
    if not 0 <= value < 1:
      raise errors.UserError(f'model.{name}={value} must be from 0 to below 1')
