"""The only tie between attention mechanisms and Flax."""

from collections.abc import Mapping
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from attnlab import attention, errors

Array = jax.Array
PyTree = Any


class Attend(nnx.Module):
  """A mechanism with parameters of its own, over a batch.

  Attributes:
    mechanism: any `attention.Attention`; the module never asks which.
    context_dim: depth of the context that it returns.
  """

  def __init__(
    self,
    mechanism: attention.Attention,
    *,
    query_dim: int,
    key_dim: int,
    value_dim: int,
    rngs: nnx.Rngs,
  ):
    self.mechanism = nnx.static(mechanism)
    try:
      params = mechanism.init(
        rngs.params(), query_dim=query_dim, key_dim=key_dim, value_dim=value_dim
      )
    except ValueError as error:  # depths that a config chose do not fit
      raise errors.UserError(f'attention: {error}') from error
    dims = (query_dim, key_dim, value_dim)
    self.context_dim = attention.engine.context_dim(mechanism, params, *dims)
    self.params = nnx.data(jax.tree.map(nnx.Param, params))

  def arrays(self) -> PyTree:
    """The mechanism's parameters as plain arrays."""
    return jax.tree.map(
      lambda leaf: leaf[...],
      self.params,
      is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
    )

  def prepare(self, key: Array, value: Array) -> attention.Memory:
    """What each source offers: key [B, S, K], value [B, S, V] -> Memory."""
    params = self.arrays()
    return jax.vmap(lambda k, v: self.mechanism.prepare(params, k, v))(
      key, value
    )

  def init_state(self, batch: int, source_length: int) -> PyTree:
    """The alignment before the first step, [B, ...] in every leaf."""
    return attention.core.init_states(self.mechanism, (batch,), source_length)

  def __call__(
    self,
    query: Array,
    memory: attention.Memory,
    *,
    mask: Array | None = None,
    state: PyTree = None,
    rng: Array | None = None,
    query_start: Array | int = 0,
  ) -> attention.AttentionOutput:
    """Reads a memory: query [B, T, Q], mask [B, 1 or T, S] -> [B, T, V].

    query_start is the position of the first query, and a state of None starts
    anew, both as in `attention.attend`.
    """
    if state is None:
      size = jax.tree.leaves(memory)[0].shape[-2]
      state = self.init_state(query.shape[0], size)
    return apply(
      self.mechanism,
      self.arrays(),
      query,
      memory,
      mask=mask,
      state=state,
      rng=rng,
      query_start=query_start,
    )


def check_depth(attend: Attend, depth: int) -> None:
  """Refuses a mechanism whose context does not fit where `depth` is needed.

  Raises:
    UserError: names the setting that decides.
  """
  if attend.context_dim != depth:
    raise errors.UserError(
      f'attention.heads.out_dim={attend.context_dim} does not fit: this model '
      f'adds or hands on what was read, so it must be {depth} (or 0, the depth '
      'of the queries)'
    )


def rows(weights: Array) -> Array:
  """[B, T, S], or the mean over heads and hops of [B, ..., T, S]."""
  batch, *_, length, size = weights.shape
  return weights.reshape(batch, -1, length, size).mean(axis=1)


def apply(
  mechanism: attention.Attention,
  params: PyTree,
  query: Array,
  memory: attention.Memory,
  *,
  mask: Array | None = None,
  state: PyTree = (),
  rng: Array | None = None,
  query_start: Array | int = 0,
) -> attention.AttentionOutput:
  """`mechanism.apply` over a batch, for a scan that carries no modules.

  Where all the weights would be large, they are made by blocks of queries, and
  are whole in memory only if somebody reads them.

  Raises:
    UserError: a source is longer than a setting of the mechanism lets it be.
  """
  batch, length = query.shape[:2]
  values = jax.tree.leaves(memory.value)[0]  # [B, S, V] or [B, H, S, V]
  large = attention.engine.is_large(math.prod(values.shape[:-1]) * length)
  large = large and not attention.blockwise.refusal(mechanism)
  if large:
    mechanism = attention.in_blocks(mechanism)
  rngs = None if rng is None else jax.random.split(rng, query.shape[0])

  def one(query, memory, mask, state, rng, example):
    return mechanism.apply(
      params,
      query,
      memory,
      mask=mask,
      state=state,
      rng=rng,
      place=attention.Place(batch=example, query=query_start),
    )

  arrays = (query, memory, mask, state, rngs, jnp.arange(batch))
  try:
    if large and attention.pairs.one_by_one():
      return attention.engine.in_turn(one, (batch,), arrays)
    return jax.vmap(one)(*arrays)
  except attention.scores.TooLong as error:  # known once there are sources
    raise errors.UserError(f'attention.score: {error}') from error


def names(model: nnx.Module) -> list[str]:
  """Where in a model there are mechanisms, by path: 'decoder/attend'."""
  return ['/'.join(map(str, path)) for path, _ in _all(model)]


def replaced(
  model: nnx.Module,
  changes: Mapping[str, attention.interventions.Change],
) -> nnx.Module:
  """A copy of a model that reads with other weights.

  Args:
    model: stays as it is.
    changes: of `names`, what becomes of the weights there.

  Raises:
    ValueError: there is no such name, or its weights cannot be replaced.
  """
  copy = nnx.merge(*nnx.split(model))
  found = {'/'.join(map(str, path)): module for path, module in _all(copy)}
  for name, change in changes.items():
    if name not in found:
      raise errors.unknown('changes', name, found)
    module = found[name]
    other = attention.interventions.replace(module.mechanism, change)
    module.mechanism = nnx.static(other)
  return copy


def _all(model: nnx.Module) -> list[tuple[tuple, Attend]]:
  return [
    (path, module)
    for path, module in nnx.iter_modules(model)
    if isinstance(module, Attend)
  ]
