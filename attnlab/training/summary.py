"""What a model holds and what a step costs, before the first step."""

from collections.abc import Mapping
import math
from typing import Any


def table(params: Mapping[str, Any], flops: int, sizes: str) -> str:
  """Returns the parameters of each top-level module, and a step's arithmetic.

  Args:
    params: arrays by dotted name.
    flops: of one training step, see `flops`.
    sizes: what that step was given, in words.
  """
  modules: dict[str, list[Any]] = {}
  for name, array in params.items():
    modules.setdefault(name.split('.')[0], []).append(array)
  total = sum(array.size for array in params.values())
  rows = [('module', 'parameters', 'share', 'dtype')]
  for name, arrays in sorted(modules.items()):
    size = sum(array.size for array in arrays)
    dtypes = ', '.join(sorted({str(array.dtype) for array in arrays}))
    rows.append((name, f'{size:,}', f'{size / max(total, 1):.1%}', dtypes))
  rows.append(('total', f'{total:,}', '', ''))
  widths = [max(len(row[i]) for row in rows) for i in range(4)]
  lines = [
    f'{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}'.rstrip()
    for a, b, c, d in rows
  ]
  lines.insert(-1, '-' * max(map(len, lines)))
  lines.append(f'a training step: {_scaled(flops)}FLOP for {sizes}')
  return '\n'.join(lines)


def flops(jaxpr: Any) -> int:
  """Returns the additions and multiplications of a jaxpr.

  XLA's own analysis counts the body of a loop once, which is wrong by the
  length of the sentence for a recurrent network; here a scan counts as often as
  it turns. Products and convolutions count exactly, other arithmetic as one
  operation for each element of the result, a while loop as one turn.
  """
  jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
  total = 0
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    inner = [
      found
      for value in equation.params.values()
      for found in (value if isinstance(value, (tuple, list)) else (value,))
      if hasattr(found, 'eqns') or hasattr(found, 'jaxpr')
    ]
    size = sum(math.prod(_shape(out)) for out in equation.outvars)
    if name == 'scan':
      total += equation.params['length'] * flops(equation.params['jaxpr'])
    elif name == 'cond':
      total += max(flops(branch) for branch in equation.params['branches'])
    elif inner:
      total += sum(flops(each) for each in inner)
    elif name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      left = _shape(equation.invars[0])
      total += 2 * size * math.prod(left[axis] for axis in contracted)
    elif name == 'conv_general_dilated':
      numbers = equation.params['dimension_numbers']
      kernel = _shape(equation.invars[1])
      features = kernel[numbers.rhs_spec[0]]
      total += 2 * size * math.prod(kernel) // features
    elif name not in _MOVES:
      total += size
  return total


# Primitives that move, compare or make numbers, and compute none.
_MOVES = frozenset({
    'and', 'bitcast_convert_type', 'broadcast_in_dim', 'concatenate',
    'convert_element_type', 'copy', 'copy_p', 'device_put',
    'dynamic_slice', 'dynamic_update_slice', 'eq', 'gather', 'ge', 'gt', 'iota',
    'is_finite', 'le', 'lt', 'ne', 'not', 'or', 'pad', 'random_bits',
    'random_fold_in', 'random_split', 'random_unwrap', 'random_wrap', 'reshape',
    'rev', 'select_n', 'shift_left', 'shift_right_logical', 'slice', 'sort',
    'split', 'squeeze', 'stop_gradient', 'threefry2x32', 'transpose', 'xor',
})  # fmt: skip


def _shape(variable: Any) -> tuple[int, ...]:
  return getattr(variable.aval, 'shape', ())


def _scaled(number: float) -> str:
  power = min(int(math.log10(max(number, 1))) // 3, 5)
  return f'{number / 1000**power:.3g} {" kMGTP"[power].strip()}'
