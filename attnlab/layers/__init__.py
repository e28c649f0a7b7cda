"""Flax NNX modules that own parameters."""

from attnlab.layers.attend import Attend
from attnlab.layers.basic import Embedding, LayerNorm, Linear, dropout
from attnlab.layers.recurrent import Recurrent

__all__ = [
  'Attend',
  'Embedding',
  'LayerNorm',
  'Linear',
  'Recurrent',
  'dropout',
]
