"""The same mechanism, read with other weights than its own.

`replace` gives back a mechanism, so that any model can hold it. What the
weights become is said by a change, called as change(weights, visible, place) ->
weights, with weights [..., T, S], booleans of that shape, and where the queries
stand.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from attnlab.attention import core, masks

Array = jax.Array
Change = Callable[[Array, Array, core.Place], Array]


def replace(mechanism: core.Attention, change: Change) -> core.Attention:
  """Reads c = change(p) v where the mechanism reads c = p v.

  The state that a sequential mechanism hands on, and what else it reports, stay
  those of its own weights.

  Args:
    mechanism: with the same parameters before and after.
    change: its weights to those that are read; masked keys stay at 0.

  Raises:
    ValueError: the mechanism cannot say what it reads by weights.
  """
  if mechanism.read is None:
    raise ValueError(
      'mechanism has no read: its weights cannot be replaced by others'
    )
  read = mechanism.read

  def apply(
    params,
    query,
    memory,
    *,
    mask=None,
    bias=None,
    state=(),
    rng=None,
    place=core.HERE,
  ):
    out = mechanism.apply(
      params,
      query,
      memory,
      mask=mask,
      bias=bias,
      state=state,
      rng=rng,
      place=place,
    )
    visible = _visible(mask, out.weights.shape, place)
    weights = change(out.weights, visible, place).astype(out.weights.dtype)
    weights = jnp.where(visible, weights, 0)
    context = read(params, weights, memory).astype(out.context.dtype)
    return out._replace(context=context, weights=weights)

  # Faster ways of the same parts would not know of the change.
  return mechanism._replace(apply=apply, parts=None)


def _visible(mask, shape: tuple[int, ...], place: core.Place) -> Array:
  """A mask on all weights, [T, S] or a row of heads before them."""
  if mask is None:
    return jnp.ones(shape, jnp.bool_)
  *heads, length, size = shape
  if heads and isinstance(mask, masks.Mask):
    of = lambda head: masks.at(
      mask, length, size, place._replace(head=head, heads=heads[0])
    )
    return jax.vmap(of)(jnp.arange(heads[0]))
  return jnp.broadcast_to(masks.at(mask, length, size, place), shape)


def own(weights: Array, visible: Array, place: core.Place) -> Array:
  """No change: what is read must then be what was read without."""
  del visible, place
  return weights


def even(weights: Array, visible: Array, place: core.Place) -> Array:
  """The same weight for each visible key (Jain & Wallace 2019)."""
  del place
  count = jnp.sum(visible, axis=-1, keepdims=True).astype(weights.dtype)
  return visible.astype(weights.dtype) / jnp.maximum(count, 1)


def permuted(rng: Array) -> Change:
  """The weights of a row in any other order (Jain & Wallace 2019, sec. 4.2.1).

  Args:
    rng: rows, heads and examples are permuted each in its own way.
  """

  def change(weights, visible, place):
    # The visible positions in a random order, and in their own: the weights go
    # from the first to the second.
    last = jnp.inf
    drawn = jnp.argsort(jnp.where(visible, _draw(rng, weights, place), last))
    index = jnp.broadcast_to(
      jnp.arange(weights.shape[-1], dtype=weights.dtype), weights.shape
    )
    places = jnp.argsort(jnp.where(visible, index, last), axis=-1)
    moved = jnp.take_along_axis(weights, drawn, axis=-1)
    return jnp.put_along_axis(
      jnp.zeros_like(weights), places, moved, axis=-1, inplace=False
    )

  return change


def erased(share: Array | float, rng: Array | None = None) -> Change:
  """Without the largest weights, the rest in proportion (Serrano & Smith 2019).

  Args:
    share: of the visible keys that are erased, at least one.
    rng: erase any instead; with a share of 0 any one but the largest.
  """

  def change(weights, visible, place):
    rank = weights
    if rng is not None:
      rank = _draw(rng, weights, place)
      first = weights == jnp.max(weights, axis=-1, keepdims=True)
      spared = first & (jnp.asarray(share) <= 0)
      rank = jnp.where(spared, -1.0, rank).astype(weights.dtype)
    rank = jnp.where(visible, rank, -2.0).astype(weights.dtype)
    order = jnp.argsort(jnp.argsort(-rank, axis=-1), axis=-1)
    seen = jnp.sum(visible, axis=-1, keepdims=True)
    # 0.3 of 100 is 30, whatever the last bits of their product.
    part = share * seen.astype(jnp.float32)
    count = jnp.maximum(jnp.ceil(part - 1e-6 * part), 1)
    left = jnp.where(order.astype(jnp.float32) < count, 0, weights)
    total = jnp.sum(left, axis=-1, keepdims=True)
    before = jnp.sum(weights, axis=-1, keepdims=True)
    return left * (before / jnp.where(total > 0, total, 1))

  return change


def tilted(slopes: Array) -> Change:
  """Weights whose logarithms are moved, normalised again: softmax(ln p + d).

  Args:
    slopes: d [B, T, S], by example, query and key; heads share them.
  """

  def change(weights, visible, place):
    rows = place.query + jnp.arange(weights.shape[-2])
    moved = slopes[place.batch][rows].astype(weights.dtype)
    moved = jnp.broadcast_to(moved, weights.shape)
    # What is 0 can be raised as well.
    logits = jnp.log(jnp.maximum(weights, 1e-6)) + moved
    logits = jnp.where(visible, logits, jnp.finfo(weights.dtype).min)
    found = jnp.where(visible, jax.nn.softmax(logits, axis=-1), 0)
    return found * jnp.sum(weights, axis=-1, keepdims=True)

  return change


def _draw(rng: Array, weights: Array, place: core.Place) -> Array:
  """Numbers from 0 to 1 of the weights' shape, others for each place."""
  rng = jax.random.fold_in(rng, place.batch)
  rng = jax.random.fold_in(rng, place.head)
  rng = jax.random.fold_in(rng, place.query)
  return jax.random.uniform(rng, weights.shape, weights.dtype)
