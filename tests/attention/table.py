"""The table that the laws run over: a row for every public part.

A new score is one function and one row here; its formula, for one query and one
key in float64, is the function of the same name in oracle.py, or the row's own.
"""

from collections.abc import Callable, Mapping
import types
from typing import Any, NamedTuple

T, S, D = 3, 5, 4
POSITIONAL = 'positions count, not keys alone'
STEP = 'a step function of the scores'
BIASED = 'its gradient is that of another function, by definition'


class Row(NamedTuple):
  """A public function: its settings here, and the laws it is excused from.

  Attributes:
    settings: keyword arguments.
    excuses: {law: why it does not hold}.
    formula: the oracle; None for the function of the same name in oracle.py.
  """

  settings: Mapping[str, Any] = types.MappingProxyType({})
  excuses: Mapping[str, str] = types.MappingProxyType({})
  formula: Callable | None = None


SCORES = {
  'dot': Row(),
  'scaled_dot': Row(),
  'bilinear': Row(),
  'additive': Row({'hidden': 3}),
  'keys_only': Row(
    {'hidden': 3}, {'query': 'attention pooling: any query reads the same'}
  ),
  'cosine': Row({'beta': 2.0}),
  'concat': Row({'hidden': 3}),
  'concat_linear': Row(),
  'mlp': Row({'widths': (3, 2), 'activation': 'gelu'}),
  'euclidean': Row({'sigma': 1.5}),
  'inverse_euclidean': Row(),
  'location': Row(
    {'max_length': S + 3},
    {'permutation': POSITIONAL, 'key': 'a query looks at places, not at keys'},
  ),
  'kernel': Row({'features': 'elu'}),
  'location_aware': Row(
    {'hidden': 3, 'filters': 2, 'width': 3, 'start': 'uniform'},
    {'permutation': POSITIONAL},
  ),
  'coverage_aware': Row({'hidden': 3}),
}
NORMALIZERS = {
  'softmax': Row({'temperature': 0.7}),
  'uniform': Row({}, {'gradient': 'the mask alone decides, not the scores'}),
  'sigmoid': Row(),
  'smooth': Row(),
  'proportional': Row(),
  'sparsemax': Row(),
  'entmax': Row({'alpha': 1.3}),
  'topk': Row({'k': 2}),
  'hardmax': Row({}, {'gradient': STEP}),
  'straight_through': Row({'temperature': 0.7}, {'differences': BIASED}),
  'gumbel': Row({'temperature': 0.7}),
  'gumbel_st': Row({'temperature': 0.7}, {'differences': BIASED}),
  'sample': Row({}, {'gradient': 'a draw; without rng a step function'}),
  'monotonic': Row({}, {'permutation': POSITIONAL}),
  'monotonic_hard': Row({}, {'permutation': POSITIONAL, 'gradient': STEP}),
}
_local = {'permutation': POSITIONAL, 'dependence': POSITIONAL}
LOCALITIES = {
  'local_m': Row({'half_width': 1}, _local),
  'local_p': Row({'half_width': 2, 'hidden': 3}, _local),
  'local_hard': Row({'half_width': 1}, _local),
}
POSITIONS = {
  'relative_bias': Row(
    {'distance': 2}, {'permutation': POSITIONAL, 'dependence': POSITIONAL}
  ),
  'alibi': Row(
    {},
    {
      'permutation': POSITIONAL,
      'dependence': POSITIONAL,
      'lead': 'each head has a slope of its own',
    },
  ),
}
_heads = {'num_heads': 2, 'head_dim': 2, 'out_dim': D}
HEADS = {'multi_head': Row(_heads), 'multi_head_weighted': Row(_heads)}
HOPS = {'multi_hop': Row({'hops': 2})}
