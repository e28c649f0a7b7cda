"""Scores of all pairs without [T, S, A]: a fast sum, and keys by blocks."""

from collections.abc import Callable
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
PyTree = Any

# Terms that are added to a total in one pass over it: fewer read and write the
# total too often, more take longer to compile.
_TERMS = 16


@jax.custom_vjp
def tanh_sum(query: Array, key: Array, out: Array) -> Array:
  """Additive scores, u' tanh(a_t + b_s): [T, A], [S, A], [A] -> [T, S].

  tanh(a + b) = 1 - 2 / (1 + e^2a e^2b): the powers are taken once a row, and
  what is left for a pair is a product, a sum and a division. Neither the scores
  nor their gradients keep an array of [T, S, A].

  Args:
    query: a, in float32 or float64, as all three.
    key: b.
    out: u.

  Returns:
    The scores.
  """
  return _forward(query, key, out)[0]


def _forward(query, key, out):
  scores = _either(_scores, query, key, out)
  return scores, (query, key, out)


def _backward(kept, slope):
  query, key, out = kept
  # d tanh(a + b) / da is the same as / db; rows and columns change places.
  by_query, by_out = _either(_slopes, query, key, out, slope)
  by_key = _either(_turned, query, key, out, slope)
  return by_query, by_key, by_out


tanh_sum.defvjp(_forward, _backward)


def _scores(rest, query, key, out):
  """sum_a u_a tanh; the total [T, S] takes a term from each unit."""
  term = lambda a, b, u: u * rest(a[:, None], b[None, :])
  total = jnp.zeros((query.shape[0], key.shape[0]), query.dtype)
  sums = _add(term, total, query.T, key.T, out)
  return jnp.sum(out) - 2 * sums


def _slopes(rest, query, key, out, slope):
  """For the queries [T, A] and u [A]; the total takes a term from each key."""
  total = jnp.zeros_like(query)
  steep = lambda b, g: g[:, None] * _steep(rest(query, b[None, :]))
  by_query = _add(steep, total, key, slope.T)
  term = lambda b, g: g[:, None] * rest(query, b[None, :])
  by_out = jnp.sum(_add(term, total, key, slope.T), axis=0)
  return 4 * out[None, :] * by_query, jnp.sum(slope) - 2 * by_out


def _turned(rest, query, key, out, slope):
  """For the keys [S, A]; the total takes a term from each query."""
  steep = lambda a, g: g[:, None] * _steep(rest(a[None, :], key))
  by_key = _add(steep, jnp.zeros_like(key), query, slope)
  return 4 * out[None, :] * by_key


def _steep(rest: Array) -> Array:
  return rest * (1 - rest)


def _either(function: Callable, query: Array, key: Array, *others: Array):
  """function(r, ...) for r = (1 - tanh(a + b)) / 2, the fast way if it may be.

  The fast r is of a and b as powers. With powers out of range it is right all
  the same, as r is then 0 or 1, unless a and b are both huge and cancel.
  """
  limit = 0.485 * math.log(jnp.finfo(query.dtype).max)

  def choose(query, key, *others):
    powers = lambda x: jnp.exp(2 * jnp.clip(x, -limit, limit))
    fast = lambda a, b: 1 / (1 + a * b)
    slow = lambda a, b: (1 - jnp.tanh(a + b)) / 2
    # One is beyond the limit, the other could bring the sum back from there.
    beyond = lambda x, y: (jnp.max(x) > limit) & (jnp.min(y) < 20 - limit)
    cancel = (
      beyond(query, key)
      | beyond(key, query)
      | beyond(-query, -key)
      | beyond(-key, -query)
    )
    found = function(fast, powers(query), powers(key), *others)
    # A loop of one turn or none: both sides of a mapped cond would run.
    return jax.lax.while_loop(
      lambda carry: carry[0],
      lambda carry: (
        jnp.zeros_like(carry[0]),
        function(slow, query, key, *others),
      ),
      (cancel, found),
    )[1]

  if one_by_one():
    choose = jax.custom_batching.sequential_vmap(choose)
  return choose(query, key, *others)


def one_by_one() -> bool:
  """Whether examples had better be taken in turn than all at once.

  XLA's code for the CPU is many times slower for a mapped sum. Examples that
  several devices share must not be taken in turn.
  """
  return jax.default_backend() == 'cpu' and jax.device_count() == 1


def _add(term: Callable, total: Array, *rows: Array) -> Array:
  """total + sum_n term(row n of each)."""
  number = rows[0].shape[0]
  step = min(_TERMS, number)
  turns = -(-number // step)
  # u or g is zero there, and with it the term.
  padded = [
    jnp.pad(x, [(0, turns * step - number)] + [(0, 0)] * (x.ndim - 1))
    for x in rows
  ]
  split = [x.reshape(turns, step, *x.shape[1:]) for x in padded]

  def turn(total, rows):
    # Rows that are cut out inside of the sum keep it from being vectorised.
    rows = jax.lax.optimization_barrier(rows)
    terms = [term(*(x[n] for x in rows)) for n in range(step)]
    return functools.reduce(jnp.add, terms, total), None

  return jax.lax.scan(turn, total, tuple(split))[0]


# The largest array [T, S, A] that `by_keys` makes.
_WIDE = 2**21


def by_keys(
  score: Any, params: PyTree, query: Array, prepared: PyTree, *state: PyTree
) -> Array:
  """`score.apply`, by blocks of keys where it is wide: [T, Q] -> [T, S].

  What a block makes is made again for the gradient. A score with a state is
  not wide.
  """
  leaves = jax.tree.leaves(prepared)
  size = leaves[0].shape[-2]
  widest = max(score.wide, *(leaf.shape[-1] for leaf in leaves))
  width = query.shape[0] * widest
  number = -(-size * width // _WIDE)
  if not score.wide or number < 2:
    return score.apply(params, query, prepared, *state)
  number = min(number, size)
  block = -(-size // number)
  number = -(-size // block)

  def split(leaf):
    padding = [(0, 0)] * leaf.ndim
    padding[-2] = (0, number * block - size)
    shape = (*leaf.shape[:-2], number, block, leaf.shape[-1])
    return jnp.moveaxis(jnp.pad(leaf, padding).reshape(shape), -3, 0)

  one = jax.checkpoint(
    lambda part: score.apply(params, query, part), prevent_cse=False
  )
  scores = jax.lax.map(one, jax.tree.map(split, prepared))
  scores = jnp.moveaxis(scores, 0, 1)
  return scores.reshape(query.shape[0], number * block)[:, :size]
