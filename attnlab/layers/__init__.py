"""Flax NNX modules that own parameters."""

from attnlab.layers.attend import Attend
from attnlab.layers.basic import dropout
from attnlab.layers.basic import Embedding
from attnlab.layers.basic import LayerNorm
from attnlab.layers.basic import Linear
from attnlab.layers.recurrent import Recurrent

__all__ = [
    'Attend',
    'Embedding',
    'LayerNorm',
    'Linear',
    'Recurrent',
    'dropout',
]
