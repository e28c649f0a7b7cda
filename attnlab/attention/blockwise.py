"""The same results a block of queries at a time, in memory linear in T + S.

A query is independent of the others, unless the mechanism has a state. So the
scores of a few queries are made, against all the keys that they may see, then
their weights, whatever the normaliser, then their contexts; the backward pass
makes them again.
"""

from collections.abc import Callable, Sequence
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from attnlab.attention import core, masks
from attnlab.attention import statistics as statistics_lib

Array = jax.Array
PyTree = core.PyTree

# Scores in a block: more do not stay in the cache, fewer make small products.
_FLOATS = 2**20
# Fewer queries than these make small products, however many keys there are.
_ROWS = 32
# Parts of the queries that may each see keys of their own; every one is
# compiled.
_PARTS = 8


class Block(NamedTuple):
  """Where a block lies.

  Attributes:
    key: position of its first key among the keys that were given.
    size: how many keys there are in all.
    real: [rows], False for rows that only fill the last block.
  """

  key: Array | int
  size: int
  real: Array


def in_blocks(mechanism: core.Attention, *, rows: int = 0) -> core.Attention:
  """The same mechanism, evaluated a block of queries at a time.

  Nothing of [T, S] is made under jit where nobody asks for the weights, and
  what a block makes is made again in the backward pass. Keys that a mask hides
  from a whole block, as far as its `span` tells, are left out. Draws differ
  from the dense ones, since each block has its own. A mechanism with a state
  takes the queries in order anyway and is returned as it is.

  Cost: the operations of the mechanism, and in the backward pass once more;
  memory T + S rows, and for a block 2^20 weights, or one row.

  Args:
    mechanism: any.
    rows: how many queries a block has; 0 chooses.

  Raises:
    ValueError: rows is negative.
  """
  if rows < 0:
    raise ValueError(f'in_blocks({rows=}): it must be 0 or more')
  if refusal(mechanism):
    return mechanism

  def apply(params, query, memory, *, state=(), **arguments):
    if not (query.shape[0] and jax.tree.leaves(memory.value)[0].shape[-2]):
      return mechanism.apply(params, query, memory, state=state, **arguments)
    del state

    def pick(out, scores, block):
      del scores
      weights = _widen(out.weights, block, axis=-1)
      return (out.context, weights, out.aux), ()

    (context, weights, aux), _ = _over(
      mechanism, params, query, memory, pick, rows, **arguments
    )
    return core.AttentionOutput(context, weights, (), aux)

  return mechanism._replace(apply=apply)


def read(
  mechanism: core.Attention,
  params: PyTree,
  query: Array,
  memory: core.Memory,
  *,
  statistics: Sequence[str] = (),
  **arguments,
) -> core.AttentionOutput:
  """`mechanism.apply` by blocks, with statistics for the weights: None."""

  def pick(out, scores, block):
    real = jnp.broadcast_to(block.real[:, None], out.weights.shape[-2:])
    real = jnp.broadcast_to(
      real.reshape((1,) * (out.weights.ndim - 2) + real.shape),
      out.weights.shape,
    )
    weights = jnp.where(real, out.weights, 0)
    found = statistics_lib.of(statistics, weights, scores, block.key)
    found, added = dict(found), {}
    if 'column_mass' in found:
      added['column_mass'] = _widen(found.pop('column_mass'), block, axis=-1)
    return (out.context, {**out.aux, **found}), added

  (context, aux), added = _over(
    mechanism, params, query, memory, pick, 0, **arguments
  )
  return core.AttentionOutput(context, None, (), {**aux, **added})


def refusal(mechanism: core.Attention) -> str:
  """Why queries cannot be taken by themselves; empty if they can."""
  if jax.tree.leaves(mechanism.init_state(1)):
    return (
      'this mechanism reads the alignment of the query before; the nearest is '
      "implementation='dense', which takes the queries one after the other"
    )
  return ''


def _over(
  mechanism: core.Attention,
  params: PyTree,
  query: Array,
  memory: core.Memory,
  pick: Callable,
  rows: int,
  *,
  mask: masks.Mask | Array | None = None,
  bias: Array | None = None,
  rng: Array | None = None,
  place: core.Place = core.HERE,
):
  """Joins what `pick` takes from the output of every block.

  Args:
    mechanism: without a state.
    params: of the mechanism.
    query: [T, Q].
    memory: of S keys.
    pick: (output, () -> scores, Block) -> (what has a row a query, what is
      summed over the blocks).
    rows: how many queries a block has; 0 chooses.
    mask: as for the mechanism.
    bias: likewise.
    rng: likewise.
    place: likewise.

  Returns:
    Both, the first with T rows.
  """
  length = query.shape[0]
  values = jax.tree.leaves(memory.value)[0]
  size = values.shape[-2]
  heads = math.prod(values.shape[:-2])
  rows = min(length, rows or max(_ROWS, _FLOATS // max(1, heads * size)))
  number = -(-length // rows)
  rows = -(-length // number)
  # Rows of arrays go with the queries; what all queries share stays whole.
  mask, mask_rows = _split_rows(mask, length, rows, number)
  bias, bias_rows = _split_rows(bias, length, rows, number)
  queries = _blocks(query, rows, number, axis=-2)

  def part(first, stop, start, width):
    """Blocks first .. stop - 1, against `width` keys from start[n] on."""

    @jax.checkpoint
    def one(n, start, query, mask_row, bias_row):
      seen = mask if mask_row is None else mask_row
      added = bias if bias_row is None else bias_row
      near = memory
      if width < size:
        cut = lambda x, axis: jax.lax.dynamic_slice_in_dim(
          x, start, width, axis % x.ndim
        )
        near = jax.tree.map(lambda x: cut(x, -2), memory)
        if added is not None and added.shape[-1] == size:
          added = cut(added, -1)
      arguments = dict(
        mask=seen,
        bias=added,
        rng=None if rng is None else jax.random.fold_in(rng, n),
        place=place._replace(
          query=place.query + n * rows, key=place.key + start
        ),
      )
      out = mechanism.apply(params, query, near, **arguments)
      rate: Any = mechanism.scores
      scores = lambda: rate(params, query, near, **arguments)
      real = n * rows + jnp.arange(rows) < length
      return pick(out, scores, Block(start, size, real))

    def step(total, block):
      found, added = one(*block)
      return jax.tree.map(jnp.add, total, added), found

    inputs = (
      jnp.arange(first, stop),
      jnp.array(start),
      *jax.tree.map(lambda x: x[first:stop], (queries, mask_rows, bias_rows)),
    )
    if stop - first == 1:  # Without a loop, for the compiler's sake.
      found, added = one(*jax.tree.map(lambda x: x[0], inputs))
      return jax.tree.map(lambda x: x[None], found), added
    shapes = jax.eval_shape(one, *jax.tree.map(lambda x: x[0], inputs))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[1])
    added, found = jax.lax.scan(step, zeros, inputs)
    return found, added

  parts = _parts(mechanism, mask, place, length, size, rows, number)
  results = [part(*arguments) for arguments in parts]
  added = jax.tree.map(lambda *x: sum(x[1:], x[0]), *[r[1] for r in results])
  found = jax.tree.map(
    lambda *x: jnp.concatenate(x) if len(x) > 1 else x[0],
    *[r[0] for r in results],
  )
  # Weights and all that goes with them may have heads before the queries.
  context, *others = found
  shape = jax.eval_shape(
    lambda: (
      mechanism.apply(
        params,
        query[:1],
        memory,
        mask=None if mask is None or mask_rows is not None else mask,
        rng=rng,
        place=place,
      ).weights
    )
  ).shape
  axis = len(shape) - 2
  join = lambda x, axis: _join(x, axis, length)
  return (
    join(context, 0),
    *jax.tree.map(lambda x: join(x, axis), tuple(others)),
  ), added


def _parts(mechanism, mask, place, length, size, rows, number):
  """Splits the blocks by the keys that they may see: (first, stop, start, n).

  Block first + m sees at most n keys from start[m] on.
  """
  parts = mechanism.parts
  spans = None if not isinstance(mask, masks.Mask) else mask.span
  # A window or a place in the source is about all of its keys.
  slides = parts and parts.locality is None and not parts.score.absolute
  known = all(isinstance(x, int) for x in (place.query, place.key))
  if spans is None or not slides or not known:
    return [(0, number, [0] * number, size)]
  bounds = []
  for n in range(number):
    first = place.query + n * rows
    low, high = spans(first, min(first + rows, place.query + length) - 1)
    low = min(max(low - place.key, 0), size)
    bounds.append((int(low), int(min(max(high - place.key, low), size))))
  each = -(-number // _PARTS)
  groups = [range(n, min(n + each, number)) for n in range(0, number, each)]
  widths = [max(1, *(b - a for a, b in (bounds[n] for n in g))) for g in groups]
  found = []
  for width, same in itertools.groupby(
    zip(widths, groups, strict=True), lambda pair: pair[0]
  ):
    blocks = [n for _, group in same for n in group]
    start = [min(bounds[n][0], size - width) for n in blocks]
    found.append((blocks[0], blocks[-1] + 1, start, width))
  return found


def _split_rows(array, length: int, rows: int, number: int):
  """An array [..., T or 1, S] as (what all blocks share, a row for each)."""
  if array is None or isinstance(array, masks.Mask):
    return array, None
  if array.ndim < 2 or array.shape[-2] != length or length == 1:
    return array, None
  return None, _blocks(array, rows, number, axis=-2)


def _blocks(array: Array, rows: int, number: int, axis: int) -> Array:
  """[..., T, D] -> [number, ..., rows, D], filled up with zeros."""
  axis %= array.ndim
  padding = [(0, 0)] * array.ndim
  padding[axis] = (0, number * rows - array.shape[axis])
  shape = (*array.shape[:axis], number, rows, *array.shape[axis + 1 :])
  return jnp.moveaxis(jnp.pad(array, padding).reshape(shape), axis, 0)


def _join(array: Array, axis: int, length: int) -> Array:
  """[number, ..., rows, ...] -> [..., T, ...], the rows at `axis`."""
  array = jnp.moveaxis(array, 0, axis)
  shape = (*array.shape[:axis], -1, *array.shape[axis + 2 :])
  return jax.lax.slice_in_dim(array.reshape(shape), 0, length, axis=axis)


def _widen(array: Array, block: Block, axis: int) -> Array:
  """Puts what is of a block's keys in its place among all keys."""
  axis %= array.ndim
  if array.shape[axis] == block.size:
    return array
  shape = list(array.shape)
  shape[axis] = block.size
  whole = jnp.zeros(shape, array.dtype)
  return jax.lax.dynamic_update_slice_in_dim(whole, array, block.key, axis)
