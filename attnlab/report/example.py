"""One example on which all mechanisms are drawn side by side.

A German translation of an English sentence, with another order of words and an
article that stands three times in the source: what is similar is not enough to
tell which of them is meant. A query is like the keys that it should read, and
the keys have different norms.
"""

from collections.abc import Callable, Mapping
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from attnlab import attention
from attnlab.report import parts

SOURCE = ('the', 'cat', 'saw', 'the', 'dog', 'in', 'the', 'park')
TARGET = ('im', 'Park', 'sah', 'die', 'Katze', 'den', 'Hund')
# (source, target): 'im' is 'in the'.
GOLD = ((5, 0), (6, 0), (7, 1), (2, 2), (0, 3), (1, 4), (3, 5), (4, 6))
DEPTH = 8
HEADS = 8
# What has no default, by the name of the argument.
REQUIRED: Mapping[str, Any] = {
  'lengths': 6,
  'left': 1,
  'right': 2,
  'window': 1,
  'step': 2,
  'size': 3,
  'n': 3,
  'ids': (0, 0, 0, 1, 1, 2, 2, 2),
  'num_heads': 2,
  'head_dim': DEPTH,
  'out_dim': DEPTH,
}
# Whose default is too large for eight words.
SMALLER: Mapping[str, Any] = {'half_width': 2, 'k': 3}
_STEPS = 400


def arrays() -> tuple[np.ndarray, np.ndarray]:
  """Query [T, DEPTH] and key [S, DEPTH], float32."""
  random = np.random.default_rng(7)
  words = sorted(set(SOURCE))
  vectors = np.linalg.qr(random.normal(size=(DEPTH, DEPTH)))[0]
  key = np.stack([vectors[words.index(word)] for word in SOURCE])
  query = np.zeros((len(TARGET), DEPTH))
  for s, t in GOLD:
    query[t] += key[s]
  query += random.normal(size=query.shape) * 0.12
  norms = np.where(np.arange(len(SOURCE)) % 3 == 1, 1.5, 1.0)
  return (
    (query * 2.0).astype(np.float32),
    (key * norms[:, None] * 2.0).astype(np.float32),
  )


def arguments(choice: parts.Choice) -> dict[str, Any] | None:
  """The arguments with which a choice is drawn, but for its defaults.

  Those that take a mechanism are not asked for it here.

  Returns:
    {name: value}, or None if one that is required is not known.
  """
  found = {}
  for name, default in choice.settings.items():
    if name in SMALLER:
      found[name] = SMALLER[name]
    elif default is parts.REQUIRED and name != 'mechanism':
      if name not in REQUIRED:
        return None
      found[name] = REQUIRED[name]
  return found


def build(
  choice: parts.Choice, mechanism: attention.Attention | None = None
) -> Any:
  """A part as it is drawn; None where it needs what is not known here.

  Args:
    choice: the part.
    mechanism: for those that are built around one.
  """
  found = arguments(choice)
  if found is None:
    return None
  if 'mechanism' not in inspect.signature(choice.make).parameters:
    return choice.make(**found)
  return mechanism and choice.make(mechanism, **found)


def weights(
  mechanism: attention.Attention, *, fit: bool = True
) -> tuple[np.ndarray, bool]:
  """What a mechanism makes of the example, as the first of eight heads.

  Args:
    mechanism: any; one that draws is given a key.
    fit: whether its parameters, if it has some through which a gradient comes,
      are fitted to the gold links; otherwise they are as `init` left them.

  Returns:
    [T, S], the mean over heads if it has several, and whether they were fitted.
  """
  query, key = map(jnp.asarray, arrays())
  params = mechanism.init(
    jax.random.key(1), query_dim=DEPTH, key_dim=DEPTH, value_dim=DEPTH
  )

  def run(params, rng):
    out = mechanism.apply(
      params,
      query,
      mechanism.prepare(params, key, key),
      state=mechanism.init_state(len(SOURCE)),
      rng=rng,
      place=attention.Place(heads=HEADS),
    )
    found = out.weights
    return found.mean(axis=0) if found.ndim == 3 else found

  rng = jax.random.key(0)
  fitted = False
  if fit and jax.tree.leaves(params):
    params, fitted = _fit(run, params)
  return np.asarray(jax.jit(run)(params, rng), np.float64), fitted


def _fit(run: Callable, params: Any) -> tuple[Any, bool]:
  """Adam on -log of the weight on the gold links."""
  gold = np.zeros((len(TARGET), len(SOURCE)), np.float32)
  gold[tuple(np.array(GOLD).T[::-1])] = 1.0

  def loss(params, rng):
    found = run(params, rng)
    mass = jnp.sum(found * gold, axis=-1)
    # Weights that need not sum to one would otherwise all grow.
    total = jnp.maximum(jnp.sum(found, axis=-1), 1.0)
    return -jnp.mean(jnp.log(mass / total + 1e-3))

  optimizer = optax.adam(0.01)

  def step(carry, rng):
    params, state = carry
    gradients = jax.grad(loss)(params, rng)
    updates, state = optimizer.update(gradients, state, params)
    largest = optax.tree.norm(gradients)
    return (optax.apply_updates(params, updates), state), largest

  rngs = jax.random.split(jax.random.key(2), _STEPS)
  # Near even weights at first: what is sparse passes no gradient to a zero.
  params = jax.tree.map(lambda leaf: 0.3 * leaf, params)
  (params, _), sizes = jax.jit(lambda carry: jax.lax.scan(step, carry, rngs))(
    (params, optimizer.init(params))
  )
  return params, bool(np.max(sizes) > 0)
