"""Linear attention: a kernel's weights are never made, only their sums."""

from typing import Any

import jax
import jax.numpy as jnp

from attnlab.attention import core, masks
from attnlab.attention.arithmetic import wide

Array = jax.Array

# Positions that are taken at once where the mask is causal.
_BLOCK = 128


def attend(
  mechanism: core.Attention,
  query: Array,
  memory: core.Memory,
  *,
  mask: masks.Mask | Array | None = None,
  place: core.Place = core.HERE,
) -> Array:
  """Linear attention, phi(q)' sum phi(k) v' / phi(q)' sum phi(k).

  Katharopoulos et al. 2020, equations 5 and 6: the sums are the same for all
  queries; where the mask is causal, they are those of the keys so far (eq. 9
  and 10). A hidden key has phi(k) = 0.

  Cost: (T + S) Q V products and memory T + S rows; causal 128 rows of weights
  besides, and a matrix [Q, V] for every 128 positions.

  Args:
    mechanism: kernel and proportional, see `refusal`.
    query: [T, Q].
    memory: prepared by the mechanism.
    mask: None, padding, causal or both; booleans [1, S].
    place: where the queries stand.

  Returns:
    The context [T, V].
  """
  # In at least float32, as the sums of any other mechanism.
  dtype = wide(query.dtype)
  features: Any = mechanism.parts and mechanism.parts.score.features
  query = features(query).astype(dtype)
  key = memory.key.astype(dtype)
  size = key.shape[0]
  columns = place.key + jnp.arange(size)
  causal = isinstance(mask, masks.Mask) and mask.causal
  if isinstance(mask, masks.Mask):
    keys: Any = mask.keys
    visible = jnp.broadcast_to(
      keys(jnp.array(place.batch), jnp.array(place.head), columns), (size,)
    )
    if causal and query.shape[0] == 1:  # a step of a decoder
      visible, causal = visible & (columns <= place.query), False
    key = jnp.where(visible[:, None], key, 0)
  elif mask is not None:
    key = jnp.where(mask.reshape(-1, 1), key, 0)
  # A column of ones makes the divisor one more depth of the context.
  ones = jnp.ones((size, 1), dtype)
  value = jnp.concatenate([memory.value.astype(dtype), ones], axis=1)
  if causal:
    sums = _causal(query, key, value, place.query - place.key)
  else:
    sums = query @ (key.T @ value)
  # Twice: the square of a small sum would be 0, and the gradient infinite.
  some = lambda total: jnp.where(total == 0, 1, total)
  sums = sums / jax.lax.stop_gradient(some(sums[:, -1:]))
  context = sums[:, :-1] / some(sums[:, -1:])
  return context.astype(memory.value.dtype)


def _causal(query: Array, key: Array, value: Array, start: int) -> Array:
  """sum_{j <= i} (q_i . k_j) v_j, a block of positions at a time."""
  length = query.shape[0]
  # Both from position 0 on, to the same length: what is added is zero.
  blocks = -(-max(start + length, key.shape[0]) // _BLOCK)

  def split(array, before):
    after = blocks * _BLOCK - before - array.shape[0]
    padded = jnp.pad(array, ((before, after), (0, 0)))
    return padded.reshape(blocks, _BLOCK, array.shape[1])

  # Within a block, the products of every pair.
  lower = jnp.tri(_BLOCK, dtype=bool)

  @jax.checkpoint
  def step(past, block):
    query, key, value = block
    inside = jnp.where(lower, query @ key.T, 0) @ value
    return past + key.T @ value, query @ past + inside

  past = jnp.zeros((key.shape[1], value.shape[1]), value.dtype)
  arrays = split(query, start), split(key, 0), split(value, 0)
  sums = jax.lax.scan(step, past, arrays)[1]
  return sums.reshape(-1, value.shape[1])[start : start + length]


def refusal(
  mechanism: core.Attention,
  query: Array,
  key: Array,
  mask: masks.Mask | Array | None,
  bias: Array | None,
  query_start: Array | int,
) -> str:
  """Why the weights have to be made; empty if they need not."""
  parts = mechanism.parts
  if (
    parts is None
    or parts.score.features is None
    or not parts.normalizer.nonnegative
    or parts.locality is not None
    or parts.position is not None
  ):
    return (
      'only score=kernel with normalizer=proportional has sums in place of '
      'weights, its heads on a leading axis; the nearest for any other is '
      "implementation='blockwise'"
    )
  if query.shape[-1] != key.shape[-1]:
    return (
      f'query has depth {query.shape[-1]} and key {key.shape[-1]}: the kernel '
      'needs equal depths'
    )
  if bias is not None:
    return "a bias is of weights; the nearest is implementation='blockwise'"
  if isinstance(mask, masks.Mask):
    legal = mask.keys is not None
  else:
    legal = mask is None or mask.ndim < 2 or mask.shape[-2] == 1
  if not legal:
    return (
      'the mask may be padding, causal, both, or booleans [..., 1, S]; the '
      "nearest for any other is implementation='blockwise'"
    )
  known = isinstance(query_start, int) or query.shape[-2] == 1
  if isinstance(mask, masks.Mask) and mask.causal and not known:
    return (
      'under a causal mask, query_start must be a number for more than one '
      "query; the nearest is implementation='blockwise'"
    )
  return ''
