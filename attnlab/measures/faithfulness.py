"""Whether an answer comes from where the weights are.

Functions over arrays, and over a `predict` that is given: what it is given
weights or inputs for, and by which model, is the caller's affair. Rows are
answers: p [n, C] are probabilities of C classes or words, w [n, K] weights.
None of these says by itself that attention is, or is not, an explanation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # of ERASER


def total_variation(p: Array, q: Array) -> Array:
  """Total variation, sum |p - q| / 2: [..., C], [..., C] -> [...], 0 to 1."""
  return jnp.abs(jnp.asarray(p) - jnp.asarray(q)).sum(axis=-1) / 2


def jensen_shannon(p: Array, q: Array) -> Array:
  """Jensen-Shannon divergence in nats, 0 to ln 2: [..., K] x 2 -> [...].

  JSD = KL(p | m) / 2 + KL(q | m) / 2 with m = (p + q) / 2.
  """
  p, q = jnp.asarray(p), jnp.asarray(q)
  middle = (p + q) / 2

  def divergence(x):
    # Where x is 0 its term is 0, and so is the gradient.
    inside = jnp.where(x > 0, x, 1)
    return jnp.sum(
      jnp.where(x > 0, x * (jnp.log(inside) - _log(middle)), 0), axis=-1
    )

  return jnp.maximum(divergence(p) + divergence(q), 0) / 2


def _log(x: Array) -> Array:
  return jnp.log(jnp.where(x > 0, x, 1))


def flips(p: Array, q: Array) -> np.ndarray:
  """Whether the decision is another one: [n, C], [n, C] -> bool [n]."""
  return np.asarray(p).argmax(axis=-1) != np.asarray(q).argmax(axis=-1)


def share_until_flip(
  p: Array, erased: Sequence[Array], shares: Sequence[float]
) -> np.ndarray:
  """The share of the weights to erase until the decision flips, by row.

  Serrano & Smith 2019, section 4.2: few where the weights say what matters. A
  decision that never flips counts as 1.

  Args:
    p: [n, C], without erasing.
    erased: [n, C] for each share, ascending.
    shares: erased in each.
  """
  found = np.ones(len(p))
  for share, q in reversed(list(zip(shares, erased, strict=True))):
    found = np.where(flips(p, q), share, found)
  return found


def rationale(
  scores: np.ndarray, visible: np.ndarray, share: float
) -> np.ndarray:
  """The highest `share` of the visible positions, at least one.

  Args:
    scores: [n, K]; of equal ones the first.
    visible: booleans of that shape.
    share: of the visible positions, rounded up.
  """
  order = np.argsort(np.where(visible, -scores, np.inf), axis=-1, kind='stable')
  rank = np.argsort(order, axis=-1, kind='stable')
  count = np.ceil(share * visible.sum(axis=-1) - 1e-9).clip(1)
  return visible & (rank < count[:, None])


def eraser(
  predict: Callable[[np.ndarray], np.ndarray],
  visible: np.ndarray,
  scores: np.ndarray,
  shares: Sequence[float] = SHARES,
) -> dict[str, float]:
  """Comprehensiveness and sufficiency (ERASER, DeYoung et al. 2020, sec. 4.2).

  comprehensiveness = m(x)_j - m(x without r)_j (large: r was needed),
  sufficiency = m(x)_j - m(r)_j (small: r is enough), with j the prediction for
  x and r the positions with the highest scores; the mean over `shares`.

  Args:
    predict: (booleans [n, K] of what may be read) -> probabilities [n, C].
    visible: [n, K], all that there is.
    scores: [n, K], by which positions are ranked.
    shares: sizes of r.
  """
  full = predict(visible)
  rows, chosen = np.arange(len(full)), full.argmax(axis=-1)
  without, alone = [], []
  for share in shares:
    best = rationale(scores, visible, share)
    before = full[rows, chosen]
    without.append(before - predict(visible & ~best)[rows, chosen])
    alone.append(before - predict(best)[rows, chosen])
  return {
    'comprehensiveness': float(np.mean(without)),
    'sufficiency': float(np.mean(alone)),
  }


def leave_one_out(
  predict: Callable[[np.ndarray], np.ndarray], visible: np.ndarray
) -> np.ndarray:
  """How much the answer moves without each position: [n, K], 0 to 1.

  The total variation between predictions with it and without (Jain & Wallace
  2019, section 4.1).

  Args:
    predict: as in `eraser`.
    visible: [n, K].
  """
  full = predict(visible)
  found = np.zeros(visible.shape)
  places = np.argsort(~visible, axis=-1, kind='stable')
  rows = np.arange(len(visible))
  for j in range(int(visible.sum(axis=-1).max(initial=0))):
    # The j-th visible position of each row, wherever it is.
    place, some = places[:, j], visible.sum(axis=-1) > j
    left = visible.copy()
    left[rows[some], place[some]] = False
    moved = np.asarray(total_variation(full, predict(left)))
    found[rows[some], place[some]] = moved[some]
  return found


def rank_correlation(
  one: np.ndarray, two: np.ndarray, visible: np.ndarray
) -> float:
  """Kendall's tau-b over the visible positions, the mean over rows.

  For the record (Jain & Wallace 2019): two right rankings may disagree about
  words that do not matter, so a low figure means little. Rows without two
  different values in both are left out; NaN where there are no others.
  """
  from scipy import stats

  found = []
  for a, b, seen in zip(one, two, visible, strict=True):
    a, b = a[seen], b[seen]
    if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0:
      found.append(stats.kendalltau(a, b).statistic)
  return float(np.mean(found)) if found else float('nan')


def adversary(
  forward: Callable[[Any], tuple[Array, Array]],
  start: Any,
  p: Array,
  w: Array,
  *,
  epsilon: float = 0.05,
  steps: int = 60,
  rate: float = 0.3,
  penalty: float = 20.0,
) -> tuple[Array, Array]:
  """Other weights, the same answer (Jain & Wallace 2019, sec. 4.2.2).

  maximises JSD(w, w') subject to TV(p, p') <= epsilon, by Adam on
  -JSD + penalty * max(0, TV - epsilon), each row for itself. Large: the answer
  does not tell where the weights were. The adversary sees one answer at a time,
  which Wiegreffe & Pinter 2019, section 4 call too free.

  Args:
    forward: pytree -> probabilities [n, C], weights [n, K]; differentiable.
    start: the pytree to start from.
    p: [n, C], of the model as it is.
    w: [n, K], likewise.
    epsilon: how far an answer may move.
    steps: of Adam.
    rate: its learning rate.
    penalty: of moving further.

  Returns:
    The largest JSD [n] that was found within epsilon, 0 where there was none;
    and the total variation there.
  """
  import optax

  optimizer = optax.adam(rate)

  def loss(values):
    q, v = forward(values)
    distance, moved = jensen_shannon(w, v), total_variation(p, q)
    total = jnp.sum(penalty * jnp.maximum(moved - epsilon, 0) - distance)
    return total, (distance, moved)

  def step(carry, _):
    values, state, best, at = carry
    (_, (distance, moved)), slope = jax.value_and_grad(loss, has_aux=True)(
      values
    )
    better = (moved <= epsilon) & (distance > best)
    best = jnp.where(better, distance, best)
    at = jnp.where(better, moved, at)
    updates, state = optimizer.update(slope, state, values)
    return (optax.apply_updates(values, updates), state, best, at), None

  zeros = jnp.zeros(p.shape[:-1], jnp.float32)
  carry = start, optimizer.init(start), zeros, zeros
  (_, _, best, at), _ = jax.lax.scan(step, carry, None, length=steps)
  return best, at


def frozen_probe(
  train: Mapping[str, np.ndarray],
  test: Mapping[str, np.ndarray],
  *,
  words: int,
  classes: int,
  hidden: int = 64,
  steps: int = 400,
  batch_size: int = 64,
  seed: int = 0,
) -> float:
  """Frozen-weights probe (Wiegreffe & Pinter 2019, section 3.4): accuracy.

  A model that sees one word at a time, softmax(W sum_t w_t tanh(V E x_t + b)),
  is trained with weights w that are given and stay. Where those of a recurrent
  model do better than uniform ones, they point to words that matter without
  the states around them.

  Args:
    train: 'tokens' [n, T] ids with 0 as padding, 'weights' [n, T] and 'labels'
      [n].
    test: likewise, of the same width or another.
    words: how many ids there are.
    classes: C.
    hidden: depth of E and V.
    steps: of Adam at 1e-2.
    batch_size: drawn with replacement.
    seed: of parameters and batches.
  """
  rngs = jax.random.split(jax.random.key(seed), 4)
  glorot = jax.nn.initializers.glorot_uniform()
  params = {
    'embed': jax.random.normal(rngs[0], (words, hidden)) * 0.1,
    'inner': glorot(rngs[1], (hidden, hidden)),
    'bias': jnp.zeros((hidden,)),
    'outer': glorot(rngs[2], (hidden, classes)),
    'shift': jnp.zeros((classes,)),
  }
  draws = jax.random.randint(
    rngs[3], (steps, batch_size), 0, len(train['labels'])
  )
  params = _fit(params, dict(train), draws)
  logits = _probe(params, jnp.asarray(test['tokens']), test['weights'])
  return float(np.mean(np.asarray(logits).argmax(-1) == test['labels']))


@jax.jit
def _fit(params, data, draws):
  """Adam on the rows that `draws` [steps, batch] names."""
  import optax

  optimizer = optax.adam(1e-2)

  def loss(params, batch):
    logits = _probe(params, batch['tokens'], batch['weights'])
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, batch['labels']
    ).mean()

  def step(carry, rows):
    params, state = carry
    batch = {name: array[rows] for name, array in data.items()}
    slope = jax.grad(loss)(params, batch)
    updates, state = optimizer.update(slope, state, params)
    return (optax.apply_updates(params, updates), state), None

  start = params, optimizer.init(params)
  return jax.lax.scan(step, start, draws)[0][0]


@jax.jit
def _probe(params, tokens, weights):
  """ids [n, T], weights [n, T] -> logits [n, C]."""
  hidden = jnp.tanh(params['embed'][tokens] @ params['inner'] + params['bias'])
  pooled = jnp.einsum('nt,nth->nh', weights, hidden)
  return pooled @ params['outer'] + params['shift']
