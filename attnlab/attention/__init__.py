"""Attention mechanisms as pure functions: score -> normalise -> read.

from attnlab import attention
mechanism = attention.compose(score=attention.scores.additive(hidden=128),
                              normalizer=attention.normalizers.softmax())
params = mechanism.init(rng, query_dim=64, key_dim=64, value_dim=64)
out = attention.attend(mechanism, params, query, key, value,
                       mask=attention.masks.causal())
out.context, out.weights
"""

from attnlab.attention import (
  blockwise,
  engine,
  estimators,
  heads,
  hops,
  interventions,
  locality,
  masks,
  normalizers,
  pairs,
  papers,
  positions,
  scores,
)
from attnlab.attention.blockwise import in_blocks
from attnlab.attention.core import (
  Attention,
  AttentionOutput,
  Memory,
  Parts,
  Place,
  compose,
)
from attnlab.attention.engine import attend

__all__ = [
  'Attention',
  'AttentionOutput',
  'Memory',
  'Parts',
  'Place',
  'attend',
  'blockwise',
  'compose',
  'engine',
  'estimators',
  'heads',
  'hops',
  'in_blocks',
  'interventions',
  'locality',
  'masks',
  'normalizers',
  'pairs',
  'papers',
  'positions',
  'scores',
]
