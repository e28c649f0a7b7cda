"""Time and memory of attention beside what else computes the same.

  python benchmarks/attention.py [--only=dot,additive] [--lengths=128,4096]
      [--quick] [--out=DIR]

Workloads, all float32 and random, B examples of H heads, T queries against S
keys of depth D:
  dot             softmax of scaled dot products, B 1, H 8, D 64, T = S = 128 ..
                  65,536: torch's scaled_dot_product_attention (SDPA), jax.nn,
                  Flax NNX, and attnlab with all weights at once
  dot_batch       the same, B 8, T = S = 128
  heads           with the projections: torch's nn.MultiheadAttention, Flax's
                  MultiHeadAttention; B 4, H 8, D 64, T = S = 512
  additive        B 8, T = S = 400, A 512 hidden units: additive attention as it
                  is written down, in torch and in JAX
  additive_batch  the same, B 32, T = S = 50, A 256
  additive_long   B 1, A 128, T = S = 128 .. 16,384
  sparsemax, entmax  (1.5) of scaled dot products, B 1, H 1, D 64, T = S =
                  512 .. 8,192: the entmax package on torch
  long            T 256 against S 65,536 of depth 64, every differentiable score
                  and normaliser: attnlab alone, for its memory

Each figure is of a process of its own, of all cores, and the sides take turns.
seconds: the median over the rounds of the median of the runs after the first.
memory: how much the resident memory of the process rose at most in the first
run, above what it was when the arguments were made and the function compiled
(Linux: VmHWM, set back just before). A length that needs more than --limit
seconds or more memory than there is ends the row of a side.

Hardware: 2 CPU cores. Time: an hour, --quick ten minutes. It needs the extra
bench. Expect the ratios of README: less time and memory than what is written
down in torch or JAX, jax.nn and the entmax package, and the time of SDPA.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
import ctypes
import json
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

from attnlab import allocator

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Workload(NamedTuple):
  """One problem and who solves it.

  Attributes:
    sides: who; attnlab is the first.
    lengths: T and S, or S alone for `long`.
    sizes: B, H, D and A.
    passes: 'forward', and 'both' for the gradients as well.
  """

  sides: tuple[str, ...]
  lengths: tuple[int, ...]
  sizes: Mapping[str, int]
  passes: tuple[str, ...] = ('forward', 'both')


def _powers(low: int, high: int) -> tuple[int, ...]:
  return tuple(2**n for n in range(low, high + 1))


_DOT = ('attnlab', 'attnlab_dense', 'torch', 'jax_nn', 'flax')
_PLAIN = ('attnlab', 'torch', 'jax')
_SCORES = (
  'dot scaled_dot cosine bilinear additive concat mlp euclidean '
  'inverse_euclidean keys_only location location_aware coverage_aware'
).split()
_NORMALIZERS = (
  'sigmoid smooth sparsemax entmax topk straight_through gumbel gumbel_st '
  'monotonic'
).split()
WORKLOADS = {
  'dot': Workload(_DOT, _powers(7, 16), {'B': 1, 'H': 8, 'D': 64}),
  'dot_batch': Workload(_DOT, (128,), {'B': 8, 'H': 8, 'D': 64}),
  'heads': Workload(
    ('attnlab', 'torch', 'flax'), (512,), {'B': 4, 'H': 8, 'D': 64}
  ),
  'additive': Workload(_PLAIN, (400,), {'B': 8, 'A': 512}),
  'additive_batch': Workload(_PLAIN, (50,), {'B': 32, 'A': 256}),
  'additive_long': Workload(_PLAIN, _powers(7, 14), {'B': 1, 'A': 128}),
  'sparsemax': Workload(
    ('attnlab', 'torch'), _powers(9, 13), {'B': 1, 'H': 1, 'D': 64}
  ),
  'entmax': Workload(
    ('attnlab', 'torch'), _powers(9, 13), {'B': 1, 'H': 1, 'D': 64}
  ),
  'long': Workload(
    tuple(
      [f'{score}-softmax' for score in _SCORES]
      + [f'additive-{normalizer}' for normalizer in _NORMALIZERS]
      + ['concat_linear-sigmoid', 'kernel-proportional']
    ),
    (65536,),
    {'B': 1, 'D': 64, 'T': 256},
    ('both',),
  ),
}
# In --quick.
_SHORT = 1024


def arrays(name: str, length: int) -> list[Any]:
  """Query, key, value, and the slope of the context, in NumPy."""
  import numpy as np

  sizes = WORKLOADS[name].sizes
  rng = np.random.default_rng(0)
  lead = tuple(sizes[axis] for axis in 'BH' if axis in sizes)
  depth = sizes.get('D') or sizes['A']
  if name == 'heads':
    lead, depth = lead[:1], sizes['H'] * depth
  queries = sizes.get('T', length)
  return [
    rng.normal(size=(*lead, rows, depth)).astype(np.float32)
    for rows in (queries, length, length, queries)
  ]


def vectors(name: str) -> list[Any]:
  """W_q, W_k and u of the additive score, in NumPy."""
  import numpy as np

  width = WORKLOADS[name].sizes['A']
  rng = np.random.default_rng(1)
  shapes = [(width, width), (width, width), (width,)]
  return [
    (rng.normal(size=shape) / width**0.5).astype(np.float32) for shape in shapes
  ]


def jax_run(name: str, side: str, length: int, both: bool) -> Callable:
  """Returns a compiled function without arguments."""
  import jax
  import jax.numpy as jnp

  query, key, value, slope = map(jnp.asarray, arrays(name, length))
  if side in ('jax_nn', 'flax', 'jax'):
    params, function = _jax_peer(name, side, query.shape[-1])
  else:
    params, function = _attnlab(name, side, length, query.shape[-1])
  inputs = (params, query, key, value)

  def gradients(slope, *inputs):
    context, pull = jax.vjp(function, *inputs)
    return context, pull(slope)

  if both:
    compiled = jax.jit(gradients).lower(slope, *inputs).compile()
    return lambda: jax.block_until_ready(compiled(slope, *inputs))
  compiled = jax.jit(function).lower(*inputs).compile()
  return lambda: jax.block_until_ready(compiled(*inputs))


def _attnlab(
  name: str, side: str, length: int, depth: int
) -> tuple[Any, Callable]:
  import jax
  import jax.numpy as jnp

  from attnlab import attention

  scores, normalizers = attention.scores, attention.normalizers
  sizes = WORKLOADS[name].sizes
  if name == 'long':
    score, normalizer = side.split('-')
    # Only this score has to know beforehand how many keys there may be.
    settings = {'max_length': length} if score == 'location' else {}
    mechanism = attention.compose(
      score=getattr(scores, score)(**settings),
      normalizer=getattr(normalizers, normalizer)(),
    )
  elif name.startswith('additive'):
    mechanism = attention.compose(
      score=scores.additive(hidden=sizes['A']), normalizer=normalizers.softmax()
    )
  else:
    kind = {'sparsemax': 'sparsemax', 'entmax': 'entmax'}.get(name, 'softmax')
    mechanism = attention.compose(
      score=scores.scaled_dot(), normalizer=getattr(normalizers, kind)()
    )
  if name == 'heads':
    mechanism = attention.heads.multi_head(
      mechanism, num_heads=sizes['H'], head_dim=sizes['D'], out_dim=depth
    )
  params = mechanism.init(
    jax.random.key(0), query_dim=depth, key_dim=depth, value_dim=depth
  )
  if name.startswith('additive'):
    query, key, out = map(jnp.asarray, vectors(name))
    params['score'] = {
      'query': query,
      'key': key,
      'out': out,
      'bias': jnp.zeros_like(out),
    }
  way = 'dense' if side == 'attnlab_dense' else 'auto'

  def function(params, query, key, value):
    rng = jax.random.key(0) if name == 'long' else None
    return attention.attend(
      mechanism, params, query, key, value, implementation=way, rng=rng
    ).context

  return params, function


def _jax_peer(name: str, side: str, depth: int) -> tuple[Any, Callable]:
  from flax import nnx
  import jax
  import jax.numpy as jnp

  sizes = WORKLOADS[name].sizes
  if name == 'heads':
    model = nnx.MultiHeadAttention(
      sizes['H'], depth, decode=False, use_bias=False, rngs=nnx.Rngs(0)
    )
    graph, state = nnx.split(model)
    return state, lambda state, *x: nnx.merge(graph, state)(*x)
  if name.startswith('additive'):

    def additive(params, query, key, value):
      left, right, out = params
      sums = (query @ left)[:, :, None] + (key @ right)[:, None]
      return jax.nn.softmax(jnp.tanh(sums) @ out) @ value

    return tuple(map(jnp.asarray, vectors(name))), additive
  peer = nnx if side == 'flax' else jax.nn

  def dot(params, *inputs):
    del params
    turned = (x.swapaxes(1, 2) for x in inputs)
    return peer.dot_product_attention(*turned).swapaxes(1, 2)

  return (), dot


def torch_run(name: str, side: str, length: int, both: bool) -> Callable:
  """Returns the same in PyTorch, written as its users write it."""
  del side
  import torch
  from torch import nn

  torch.manual_seed(0)
  inputs = [torch.from_numpy(x) for x in arrays(name, length)]
  *inputs, slope = inputs
  depth = inputs[0].shape[-1]
  if name.startswith('dot'):
    function = nn.functional.scaled_dot_product_attention
  elif name == 'heads':
    heads = nn.MultiheadAttention(
      depth, WORKLOADS[name].sizes['H'], bias=False, batch_first=True
    )
    function = lambda *x: heads(*x, need_weights=False)[0]
    inputs = [*inputs, *heads.parameters()]
    function = lambda q, k, v, *p: heads(q, k, v, need_weights=False)[0]
  elif name.startswith('additive'):
    inputs += [torch.from_numpy(x) for x in vectors(name)]

    def function(query, key, value, left, right, out):
      sums = (query @ left)[:, :, None] + (key @ right)[:, None]
      return (torch.tanh(sums) @ out).softmax(dim=-1) @ value

  else:
    import entmax

    normalize = entmax.sparsemax if name == 'sparsemax' else entmax.entmax15

    def function(query, key, value):
      scores = query @ key.transpose(-1, -2) / depth**0.5
      return normalize(scores, dim=-1) @ value

  for array in inputs:
    array.requires_grad_(both)

  def run():
    if not both:
      with torch.no_grad():
        function(*inputs)
      return
    for array in inputs:
      array.grad = None
    function(*inputs).backward(slope)

  # The first use of a library takes memory that is not the problem's.
  (torch.ones(64, 64) @ torch.ones(64, 64)).tanh().softmax(dim=-1)
  return run


def measure(name: str, side: str, length: int, both: bool, budget: float):
  """Returns (median seconds, peak bytes) in this process."""
  make = torch_run if side == 'torch' else jax_run
  run = make(name, side, length, both)
  ctypes.CDLL('libc.so.6').malloc_trim(0)
  pathlib.Path('/proc/self/clear_refs').write_text('5', encoding='ascii')
  before = _resident('VmRSS')
  start = time.perf_counter()
  run()
  first = time.perf_counter() - start
  peak = _resident('VmHWM') - before
  times = []
  while not times or (sum(times) < budget and len(times) < 100):
    if first > 10 * budget:  # once is enough
      times.append(first)
      break
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
  return statistics.median(times), peak


def _resident(name: str) -> int:
  return _bytes('/proc/self/status', name)


def _bytes(path: str, name: str) -> int:
  """What a file of /proc has under a name, in kB there."""
  text = pathlib.Path(path).read_text(encoding='ascii')
  return 1024 * int(text.split(f'{name}:')[1].split()[0])


def ask(name, side, length, both, budget, limit) -> tuple[float, float] | None:
  """`measure` in a process of its own; None if it takes too much."""
  question = json.dumps([name, side, length, both, budget])
  command = [sys.executable, __file__, f'--measure={question}']
  try:
    done = subprocess.run(command, capture_output=True, timeout=limit)
  except subprocess.TimeoutExpired:
    return None
  if done.returncode:
    error = done.stderr.decode(errors='replace')
    if re.search(r'(?i)memory|alloc', error) or done.returncode < 0:
      return None
    raise RuntimeError(f'{name}, {side}, {length}:\n{error}')
  return tuple(json.loads(done.stdout.splitlines()[-1]))


def race(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
  """Measures one workload: a row for each side, length and pass."""
  workload, rows = WORKLOADS[name], []
  ended = set()
  lengths = workload.lengths
  if given.lengths:
    chosen = [int(length) for length in given.lengths.split(',')]
    lengths = [length for length in lengths if length in chosen]
  if given.quick and len(lengths) > 1:
    lengths = [length for length in lengths if length <= _SHORT]
  for length in lengths:
    for both in (kind == 'both' for kind in workload.passes):
      found = {s: [] for s in workload.sides if (s, both) not in ended}
      for _ in range(1 if given.quick or name == 'long' else given.rounds):
        for side, taken in list(found.items()):
          once = ask(name, side, length, both, given.budget, given.limit)
          if once is None:
            ended.add((side, both))
            del found[side]
          else:
            taken.append(once)
      for side, taken in found.items():
        seconds, memory = (
          statistics.median(one[n] for one in taken) for n in range(2)
        )
        row = {
          'workload': name,
          'side': side,
          'length': length,
          'pass': 'both' if both else 'forward',
          'seconds': seconds,
          'memory': memory,
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
  return rows


def show(rows: Sequence[Mapping[str, Any]]) -> Any:
  """The table: each peer's time and memory, as multiples of attnlab's."""
  from rich import table

  found = table.Table(title='Attention: seconds, peak memory')
  for head in ('workload', 'length', 'pass', 'side'):
    found.add_column(head)
  for head in ('ms', 'MB', 'time / attnlab', 'memory / attnlab'):
    found.add_column(head, justify='right')
  ours = {_place(r): r for r in rows if r['side'] == 'attnlab'}
  for row in rows:
    base = ours.get(_place(row))
    ratio = lambda key, row=row, base=base: (
      f'{row[key] / base[key]:.2f}' if base and base[key] else ''
    )
    found.add_row(
      row['workload'],
      f'{row["length"]:,}',
      row['pass'],
      row['side'],
      f'{row["seconds"] * 1e3:,.1f}',
      f'{row["memory"] / 1e6:,.0f}',
      ratio('seconds'),
      ratio('memory'),
    )
  return found


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
  return row['workload'], row['length'], row['pass']


def draw(rows: Sequence[Mapping[str, Any]], folder: pathlib.Path) -> None:
  """Time and memory against length, for the workloads that have lengths."""
  from attnlab.report import figures

  labels = {
    'attnlab': 'attnlab',
    'attnlab_dense': 'attnlab, dense',
    'torch': 'PyTorch',
    'jax_nn': 'jax.nn',
    'flax': 'Flax NNX',
    'jax': 'JAX',
  }
  for name in ('dot', 'additive_long'):
    for key, scale, label in (
      ('seconds', 1, 'seconds, forwards and backwards'),
      ('memory', 1e-6, 'peak memory (MB)'),
    ):
      series = {}
      for row in rows:
        if row['workload'] == name and row['pass'] == 'both':
          points = series.setdefault(labels[row['side']], {})
          points[row['length']] = [max(row[key] * scale, 1e-6)]
      if series and len(next(iter(series.values()))) > 1:
        figure = figures.cost_by_length(series, label, xlabel='length')
        figures.save_png(figure, folder / f'attention_{name}_{key}')


def main(arguments: Sequence[str] | None = None) -> int:
  """Measures, prints the table, draws the plots and writes the JSON."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument(
    '--out', type=pathlib.Path, default=ROOT / 'results' / 'benchmarks'
  )
  parser.add_argument('--name', default='attention', help='of the JSON file')
  parser.add_argument('--images', type=pathlib.Path)
  parser.add_argument('--only', default=','.join(WORKLOADS))
  parser.add_argument('--quick', action='store_true')
  parser.add_argument('--lengths', help='only these, such as 128,4096')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--budget', type=float, default=1.0, help='seconds a run')
  parser.add_argument('--limit', type=float, default=600, help='seconds')
  parser.add_argument('--measure', help=argparse.SUPPRESS)
  given = parser.parse_args(arguments)
  if given.measure:
    # Out of memory is an error of this process, not the machine's end.
    most = int(0.8 * _bytes('/proc/meminfo', 'MemTotal'))
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    print(json.dumps(measure(*json.loads(given.measure))))
    return 0
  names = given.only.split(',')
  for name in names:
    if name not in WORKLOADS:
      parser.error(f'--only={name}: it must be of {", ".join(WORKLOADS)}')
  rows = [row for name in names for row in race(name, given)]

  from rich import console

  console.Console(width=110).print(show(rows))
  images = given.images or (given.out if given.quick else ROOT / 'docs/images')
  images.mkdir(parents=True, exist_ok=True)
  draw(rows, images)
  from attnlab.report import results

  print(results.write(entry(rows, given), given.out))
  return 0


def entry(
  rows: Sequence[Mapping[str, Any]], given: argparse.Namespace
) -> dict[str, Any]:
  """What is written: the figures, and how they came about."""
  from attnlab.report import results

  ours = {_place(r): r for r in rows if r['side'] == 'attnlab'}
  return {
    'name': given.name,
    'label': 'Time and memory of attention',
    'command': 'python benchmarks/attention.py '
    + ' '.join(
      f'--{key}={value}' if value is not True else f'--{key}'
      for key in ('only', 'lengths', 'quick', 'rounds', 'limit', 'name')
      if (value := getattr(given, key))
    ),
    'seeds': [0],
    # How many times the time, and the memory, of attnlab.
    'figures': {
      '/'.join(map(str, (*_place(row), row['side'], key))): row[key]
      / ours[_place(row)][key]
      for row in rows
      for key in ('seconds', 'memory')
      if row['side'] != 'attnlab'
      and _place(row) in ours
      and ours[_place(row)][key]
    },
    'rows': list(rows),
    **results.here('jax', 'flax', 'torch', 'entmax'),
    'config': {
      name: dict(WORKLOADS[name].sizes) for name in given.only.split(',')
    },
  }


if __name__ == '__main__':
  # As launch.py does; PyTorch, JAX and Flax start as their users start them.
  if any(x.startswith('--measure') and '"attnlab' in x for x in sys.argv):
    allocator.keep()
  sys.exit(main())
