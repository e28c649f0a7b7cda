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
  estimators,
  heads,
  hops,
  interventions,
  locality,
  masks,
  normalizers,
  papers,
  positions,
  scores,
)
from attnlab.attention.core import (
  Attention,
  AttentionOutput,
  Memory,
  Place,
  attend,
  compose,
)

__all__ = [
  'Attention',
  'AttentionOutput',
  'Memory',
  'Place',
  'attend',
  'compose',
  'estimators',
  'heads',
  'hops',
  'interventions',
  'locality',
  'masks',
  'normalizers',
  'papers',
  'positions',
  'scores',
]
