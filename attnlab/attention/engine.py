"""Applies a mechanism to whole sequences, by the way that suits their size."""

from collections.abc import Callable, Sequence
import difflib
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp

from attnlab.attention import blockwise, core, linear, masks, pairs
from attnlab.attention import statistics as statistics_lib

Array = jax.Array
PyTree = core.PyTree

WAYS = ('auto', 'dense', 'blockwise', 'linear', 'fused')
# Above so many weights, 'auto' does not make them all at once.
_DENSE = 2**23


def attend(
  mechanism: core.Attention,
  params: PyTree,
  query: Array,
  key: Array,
  value: Array,
  *,
  mask: 'masks.Mask | Array | None' = None,
  bias: Array | None = None,
  state: PyTree = None,
  rng: Array | None = None,
  query_start: int = 0,
  implementation: str = 'auto',
  statistics: Sequence[str] = (),
) -> core.AttentionOutput:
  """Applies a mechanism to whole sequences, with any leading axes.

  Args:
    mechanism: from `compose` or another function of this package.
    params: of `mechanism.init`, shared by all leading axes.
    query: [..., T, Q], of a floating dtype, as key and value.
    key: [..., S, K], with the leading axes of the query.
    value: [..., S, V], likewise.
    mask: a function of positions from `attention.masks`, or booleans that
      broadcast to [..., T, S]; True = may attend. None: everything is seen.
    bias: added to the scores, broadcasts to [..., T, S]; -inf hides a key.
    state: the alignment that the step before left, with the leading axes of
      the query; None starts anew.
    rng: for mechanisms that draw. By blocks, the draws are others.
    query_start: the position of the first query, for whatever compares
      positions: step t of a decoder is `query[..., t:t+1, :]` at
      `query_start=t`.
    implementation: how it is computed, never what:
      'dense' makes the weights of all queries at once;
      'blockwise' those of a block of queries at a time, again in the backward
      pass, in memory that grows with T + S: the weights are None;
      'linear' none at all, where the mechanism has no need for them;
      'fused' leaves a softmax of dot products to `jax.nn`: to cuDNN on a GPU;
      'auto' is dense up to 2^23 weights, and beyond it the fastest of the
      others that is legal. A mechanism with a state is always dense.
    statistics: what to put into aux in place of the weights, by name:
      'logsumexp' of the scores, 'entropy' in nats, 'maximum', 'argmax',
      'expected_position' of each query [..., T], and 'column_mass' [..., S],
      the sum over the queries.

  Returns:
    AttentionOutput with the same leading axes. The weights are None where they
    were not made.

  Raises:
    ValueError: shapes do not fit, an implementation or a statistic is unknown
      or not to be had for this mechanism; the message names the argument.
  """
  query, key, value = (jnp.asarray(array) for array in (query, key, value))
  params = jax.tree.map(jnp.asarray, params)
  lead, length, size = _check(query, key, value)
  if mask is not None:
    mask = masks.check(mask, lead, length, size)
  if bias is not None:
    bias = _check_bias(bias, (*lead, length, size))
  _check_statistics(statistics, mechanism)
  query_start = _plain(query_start)
  weights = math.prod(lead) * length * size
  inputs = (query, key, value, mask, bias, query_start)
  way = _way(implementation, weights, mechanism, statistics, *inputs)
  if way == 'fused':
    context = _fused(mechanism, *inputs)
    return core.AttentionOutput(context, None, (), {})
  start = core.init_states(mechanism, lead, size)
  state = start if state is None else _check_state(state, start)
  if rng is not None and lead:
    rng = jax.random.split(rng, lead)
  heads = lead[1] if len(lead) > 1 else 1
  shared = (None, None)
  if way == 'dense':
    if isinstance(mask, masks.Mask):  # heads inside may see different keys
      shared, mask = (mask, None), None
    elif mask is not None:
      mask = masks.dense(mask, lead, length, size)
    if bias is not None:
      bias = jnp.broadcast_to(bias, (*lead, length, size))
  else:  # nothing of [T, S] is made that is not there
    shared, mask, bias = (mask, bias), None, None

  def one(query, key, value, mask, bias, state, rng, index):
    """One example; index is its place on the leading axes."""
    batch, head = (*index, 0, 0)[:2]
    place = core.Place(batch, head, heads, query_start)
    memory = mechanism.prepare(params, key, value)
    if way == 'dense':
      seen = shared[0] if mask is None else mask
      arguments = dict(mask=seen, bias=bias, rng=rng, place=place)
      out = mechanism.apply(params, query, memory, state=state, **arguments)
      found = {}
      if statistics:
        rate: Any = mechanism.scores
        scores = lambda: rate(params, query, memory, **arguments)
        found = statistics_lib.of(statistics, out.weights, scores)
      return out._replace(aux={**out.aux, **found})
    mask, bias = (_example(array, lead, index) for array in shared)
    if way == 'linear':
      context = linear.attend(mechanism, query, memory, mask=mask, place=place)
      return core.AttentionOutput(context, None, (), {})
    return blockwise.read(
      mechanism,
      params,
      query,
      memory,
      mask=mask,
      bias=bias,
      rng=rng,
      place=place,
      statistics=statistics,
    )

  arrays = (query, key, value, mask, bias, state, rng, tuple(jnp.indices(lead)))
  if way == 'blockwise' and pairs.one_by_one():
    return in_turn(one, lead, arrays)
  mapped: Callable = one
  for _ in lead:
    mapped = jax.vmap(mapped)
  return mapped(*arrays)


def context_dim(
  mechanism: core.Attention,
  params: PyTree,
  query_dim: int,
  key_dim: int,
  value_dim: int,
) -> int:
  """Depth of the context, for queries, keys and values of these depths."""
  out = jax.eval_shape(
    lambda: attend(
      mechanism,
      params,
      jnp.zeros((1, query_dim)),
      jnp.zeros((1, key_dim)),
      jnp.zeros((1, value_dim)),
      rng=jax.random.key(0),
    )
  )
  return out.context.shape[-1]


def is_large(weights: int) -> bool:
  """Whether so many weights had better not be made all at once."""
  return weights > _DENSE


def in_turn(function: Callable, lead: tuple[int, ...], arrays: PyTree):
  """Maps over leading axes, one example after the other."""
  if not lead:
    return function(*arrays)
  number, rank = math.prod(lead), len(lead)
  flat = jax.tree.map(lambda x: x.reshape(number, *x.shape[rank:]), arrays)
  out = jax.lax.map(lambda arrays: function(*arrays), flat)
  return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), out)


def _example(array, lead: tuple[int, ...], index: tuple[Array, ...]):
  """What an array [..., T or 1, S or 1] has for one example."""
  if array is None or isinstance(array, masks.Mask):
    return array
  array = array.reshape((1,) * (len(lead) + 2 - array.ndim) + array.shape)
  for axis, position in enumerate(index):
    shared = array.shape[0] == 1 and lead[axis] != 1
    array = array[0] if shared else jnp.take(array, position, axis=0)
  return array


def _way(
  implementation,
  weights,
  mechanism,
  statistics,
  query,
  key,
  value,
  mask,
  bias,
  query_start,
) -> str:
  """The implementation that is meant, or ValueError."""
  if implementation not in WAYS:
    raise ValueError(
      f'attend({implementation=}): it must be one of {", ".join(WAYS)}'
      + _nearest(implementation, WAYS)
    )
  if implementation == 'dense' or not weights:
    return 'dense'
  refused = {
    'blockwise': blockwise.refusal(mechanism),
    'linear': linear.refusal(mechanism, query, key, mask, bias, query_start),
    'fused': _fused_refusal(mechanism, query, key, value, bias),
  }
  if statistics:
    for way in ('linear', 'fused'):
      refused[way] = refused[way] or (
        f'it makes no weights, which {statistics[0]} is of; the nearest is '
        "implementation='blockwise'"
      )
  if implementation == 'auto':
    if not is_large(weights) or refused['blockwise']:
      return 'dense'
    if not refused['linear']:
      return 'linear'
    fused = _has_kernel(query, key) and not refused['fused']
    return 'fused' if fused else 'blockwise'
  if refused[implementation]:
    raise ValueError(f'attend({implementation=}): {refused[implementation]}')
  return implementation


def _fused_refusal(mechanism, query, key, value, bias) -> str:
  """Why `_fused` is not for a mechanism and its arrays; empty if it is."""
  parts = mechanism.parts
  if (
    parts is None
    or parts.score.scale is None
    or parts.normalizer.temperature is None
    or parts.locality is not None
    or parts.position is not None
  ):
    return (
      'a softmax of dot products alone has such a kernel, its heads on a '
      "leading axis; the nearest is implementation='blockwise'"
    )
  if query.ndim > 4:
    return (
      f'query has {query.ndim - 2} leading axes, and the kernel a batch and '
      "heads; the nearest is implementation='blockwise'"
    )
  if value.shape[-1] != query.shape[-1] or key.shape[-1] != query.shape[-1]:
    return (
      f'the kernel needs equal depths, and these are {query.shape[-1]}, '
      f'{key.shape[-1]} and {value.shape[-1]} of query, key and value; the '
      "nearest is implementation='blockwise'"
    )
  kinds = [
    array.dtype for array in (query, key, value, bias) if array is not None
  ]
  if any(kind != query.dtype for kind in kinds):
    return (
      'the kernel needs query, key, value and bias of one dtype, and these are '
      f'{", ".join(map(str, kinds))}; '
      "the nearest is implementation='blockwise'"
    )
  return ''


def _has_kernel(query: Array, key: Array) -> bool:
  """Whether cuDNN has a kernel for such arrays, gradients included."""
  half = query.dtype in (jnp.bfloat16, jnp.float16)
  depth, lengths = query.shape[-1], (query.shape[-2], key.shape[-2])
  fits = depth % 8 == 0 and depth <= 128 and not any(n % 2 for n in lengths)
  return half and fits and jax.default_backend() == 'gpu'


def _fused(mechanism, query, key, value, mask, bias, query_start) -> Array:
  """`jax.nn.dot_product_attention`, with zeros where a query sees no key."""
  lead, length, size = query.shape[:-2], query.shape[-2], key.shape[-2]
  # There: [B, T, H, D], masks and biases [B, H, T, S].
  wrap = lambda x: x.reshape((1,) * (2 - len(lead)) + x.shape)
  if len(lead) == 1:
    wrap = lambda x: x[:, None]
  turn = lambda x: wrap(x).swapaxes(1, 2)
  depth = query.shape[-1]
  scale = mechanism.parts.score.scale(depth)
  scale /= mechanism.parts.normalizer.temperature
  seen = None
  if mask is not None:
    mask = masks.dense(mask, lead, length, size, query_start)
  if bias is not None:
    mask, bias = core.finite(mask, bias)
    mask = jnp.broadcast_to(mask, (*lead, length, size))
    bias = wrap(jnp.broadcast_to(bias, mask.shape))
  if mask is not None:
    seen = mask.any(axis=-1, keepdims=True)
    # A row without keys is given all of them, and is then left out.
    mask = wrap(mask | ~seen)
  context = jax.nn.dot_product_attention(
    *(turn(x) for x in (query, key, value)),
    bias=bias,
    mask=mask,
    scale=scale,
    implementation='cudnn' if _has_kernel(query, key) else 'xla',
  )
  context = context.swapaxes(1, 2).reshape(*lead, length, value.shape[-1])
  return context if seen is None else jnp.where(seen, context, 0)


def _check_statistics(names: Sequence[str], mechanism: core.Attention):
  for name in names:
    if name not in statistics_lib.NAMES:
      raise ValueError(
        f'attend(statistics={tuple(names)}): {name!r} must be one of '
        f'{", ".join(statistics_lib.NAMES)}'
        + _nearest(name, statistics_lib.NAMES)
      )
  if 'logsumexp' in names and mechanism.scores is None:
    raise ValueError(
      "attend(statistics): 'logsumexp' is of one row of scores, which this "
      "mechanism has not; the nearest is 'entropy'"
    )


def _nearest(name: str, names: Sequence[str]) -> str:
  found = difflib.get_close_matches(str(name), names, 1, 0)
  return f'; the nearest is {found[0]!r}' if found else ''


def _check(query: Array, key: Array, value: Array):
  """Returns the leading axes, T and S, or raises naming what does not fit."""
  for name, array in (('query', query), ('key', key), ('value', value)):
    if jnp.ndim(array) < 2:
      raise ValueError(
        f'{name} has shape {jnp.shape(array)}: [..., length, '
        'depth] was expected'
      )
    if not jnp.issubdtype(array.dtype, jnp.floating):
      raise ValueError(
        f'{name} has dtype {array.dtype}: a floating one was expected'
      )
  for name, array in (('key', key), ('value', value)):
    if array.shape[:-2] != query.shape[:-2]:
      raise ValueError(
        f'{name} has leading axes {array.shape[:-2]} and query has '
        f'{query.shape[:-2]}: they must be equal'
      )
  if key.shape[-2] != value.shape[-2]:
    raise ValueError(
      f'key has {key.shape[-2]} positions and value has {value.shape[-2]}: '
      'they must be equal'
    )
  return query.shape[:-2], query.shape[-2], key.shape[-2]


def _plain(start: Array | int) -> Array | int:
  """A whole number of any type as an int; traced ones stay as they are."""
  try:
    return operator.index(start)
  except (TypeError, jax.errors.JAXTypeError):
    return start


def _check_state(state: PyTree, start: PyTree) -> PyTree:
  shapes = lambda tree: [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
  if shapes(state) != shapes(start):
    raise ValueError(
      f'state has shapes {shapes(state)}, but those of this mechanism, with '
      f'the leading axes of the query and its keys, are {shapes(start)}'
    )
  return state


def _check_bias(bias: Array, shape: tuple[int, ...]) -> Array:
  bias = jnp.asarray(bias)
  if not masks.broadcasts(bias.shape, shape):
    raise ValueError(
      f'bias has shape {bias.shape}, which does not broadcast to {shape}'
    )
  return bias
