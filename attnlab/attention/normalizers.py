"""Normalisers: from scores to weights, over the keys that may be seen.

A masked key has weight 0 and passes no gradient; a row without a visible key is
all zeros, with zero gradients. Costs are those of all T queries and S keys,
beside the scores.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from attnlab.attention import arithmetic

Array = jax.Array
PyTree = Any


class Normalizer(NamedTuple):
  """One normaliser as a pure function.

  Attributes:
    apply: (scores [T, S] float32, mask boolean of the same shape or None,
      rng or None) -> (weights of that shape, aux by name with a row a query).
      A normaliser with a state takes one query, and the state last. Without
      rng, one that draws takes what is most likely, and adds no noise.
    differentiable: whether a gradient reaches the scores.
    shift_invariant: whether a constant added to a row changes nothing.
    distribution: whether a row with a visible key sums to one.
    nonnegative: whether the scores must not be negative.
    temperature: t, where it is the softmax of scores / t, which kernels exist
      for; None for all others.
    init_state: (source_length S) -> what a normaliser that reads the alignment
      of the step before starts from; None for all others.
    update: (state, weights [S]) -> the next state.
  """

  apply: Callable[..., tuple[Array, Mapping[str, Array]]]
  differentiable: bool = True
  shift_invariant: bool = True
  distribution: bool = True
  nonnegative: bool = False
  init_state: Callable[[int], PyTree] | None = None
  update: Callable[[PyTree, Array], PyTree] | None = None
  temperature: float | None = None


def softmax(*, temperature: float = 1.0) -> Normalizer:
  """Softmax, exp(z/t) / sum exp(z/t).

  Cost: O(TS).

  Args:
    temperature: t > 0; small is sharp. The softmax(2 e) that some libraries
      take is t = .5.
  """
  _check_temperature('softmax', temperature)

  def apply(scores, mask, rng):
    del rng
    return _masked_softmax(scores / temperature, mask), {}

  return Normalizer(apply, temperature=temperature)


def uniform() -> Normalizer:
  """Uniform, 1/n: the baseline in which every key counts the same.

  Not differentiable: the weights depend on the mask alone. Cost: O(TS).
  """

  def apply(scores, mask, rng):
    del rng
    # The mask alone decides: the scores pass no gradient.
    return _masked_softmax(jnp.zeros_like(scores), mask), {}

  return Normalizer(apply, differentiable=False)


def sigmoid() -> Normalizer:
  """Sigmoid, 1 / (1 + exp(-z)): a gate a key, with no sum over the keys.

  The weights of a query sum to anything from 0 to S. Cost: O(TS).
  """

  def apply(scores, mask, rng):
    del rng
    return _hide(jax.nn.sigmoid(scores), mask), {}

  return Normalizer(apply, shift_invariant=False, distribution=False)


def smooth() -> Normalizer:
  """Smoothing, s(z) / sum s(z), s = sigmoid (Chorowski et al. 2015, sec. 2.3).

  Where many keys matter, none of them takes all. Cost: O(TS).
  """

  def apply(scores, mask, rng):
    del rng
    # s / sum s = softmax(log s), which has a sum even where all s underflow.
    return _masked_softmax(jax.nn.log_sigmoid(scores), mask), {}

  return Normalizer(apply, shift_invariant=False)


def proportional() -> Normalizer:
  """Proportion, e / sum e, of scores that are never negative.

  With the score `kernel` it is linear attention in its dense form
  (Katharopoulos et al. 2020, eq. 4). A row whose scores are all 0 gets zeros.
  Cost: O(TS).
  """

  def apply(scores, mask, rng):
    del rng
    scores = _hide(scores, mask)
    # In units of the largest: the square of a small sum would be 0, and the
    # gradient with it infinite.
    top = jax.lax.stop_gradient(
      jnp.max(scores, axis=-1, keepdims=True, initial=0)
    )
    scores = scores / jnp.where(top == 0, 1, top)
    total = jnp.sum(scores, axis=-1, keepdims=True)
    return scores / jnp.where(total == 0, 1, total), {}

  return Normalizer(apply, shift_invariant=False, nonnegative=True)


def sparsemax() -> Normalizer:
  """Sparsemax, argmin_p ||p - z||^2 on the simplex (Martins & Astudillo 2016).

  Many weights are exactly 0, and their scores get no gradient. It is entmax
  with alpha = 2. Cost: as `entmax`.
  """
  return entmax(alpha=2.0)


def entmax(*, alpha: float = 1.5) -> Normalizer:
  """Entmax, p = [(alpha-1) z - tau]_+^(1/(alpha-1)) (Peters et al. 2019).

  tau is such that the weights sum to one; alpha = 1 is softmax, 2 sparsemax.
  tau is found by Newton's method, from below, to the last bit that counts:
  neither sorted nor bisected. Backwards, J g = s g - s (s . g) / sum s with
  s = p^(2 - alpha) on the support, as in Correia et al. 2019; derivatives of
  any order, in reverse mode.

  Cost: O(TS) in each of some five to ten passes; memory of two arrays [T, S],
  and for the gradient the weights alone.

  Args:
    alpha: from 1 (dense) to 2 (sparse).
  """
  if not 1 <= alpha <= 2:
    raise ValueError(
      f'entmax({alpha=}): it must be from 1, which is softmax, to 2, which is '
      'sparsemax; above, gradients have no bound at the edge of the support'
    )

  def apply(scores, mask, rng):
    del rng
    if alpha == 1:
      return _masked_softmax(scores, mask), {}
    return _hide(_entmax(alpha, _fill(scores, mask)), mask), {}

  return Normalizer(apply)


def topk(*, k: int = 8) -> Normalizer:
  """Softmax over the k largest scores, ties to the lowest index; else 0.

  Where fewer than k keys are visible it is softmax. Cost: O(TS log k).

  Args:
    k: how many keys may have a weight.
  """
  if not 1 <= k <= 2**24:
    raise ValueError(f'topk({k=}): it must be from 1 to {2**24}')

  def apply(scores, mask, rng):
    del rng
    size = scores.shape[-1]
    filled = jax.lax.stop_gradient(_fill(scores, mask))
    filled = jnp.where(filled == 0, 0, filled)  # -0 ties with 0
    best, index = jax.lax.top_k(filled, min(k, size))
    # Equals come by index: of those at the threshold, up to the last that came.
    least, last = best[..., -1:], index[..., -1:]
    columns = jax.lax.broadcasted_iota(
      index.dtype, scores.shape, scores.ndim - 1
    )
    kept = (filled > least) | ((filled == least) & (columns <= last))
    mask = kept if mask is None else kept & mask
    return _masked_softmax(scores, mask), {}

  return Normalizer(apply)


def hardmax() -> Normalizer:
  """Hardmax, one_hot(argmax z), ties to the lowest index.

  Not differentiable: a step function. Cost: O(TS).
  """

  def apply(scores, mask, rng):
    del rng
    return _choose(_fill(scores, mask), mask), {}

  return Normalizer(apply, differentiable=False)


def straight_through(*, temperature: float = 1.0) -> Normalizer:
  """Hardmax forward, softmax(z/t) backward (Bengio et al. 2013).

  The gradient is that of another function: biased. Cost: O(TS).

  Args:
    temperature: t > 0, of the softmax.
  """
  _check_temperature('straight_through', temperature)

  def apply(scores, mask, rng):
    del rng
    hard = _choose(_fill(scores, mask), mask)
    return _borrow(hard, _masked_softmax(scores / temperature, mask)), {}

  return Normalizer(apply)


def gumbel(*, temperature: float = 1.0) -> Normalizer:
  """Gumbel-softmax, softmax((z + G)/t), G = -log(-log U) (Jang et al. 2016).

  Also the concrete distribution (Maddison et al. 2016). Without rng there is
  no noise: softmax(z/t). Cost: O(TS) and as many random numbers.

  Args:
    temperature: t > 0; towards 0 a draw from softmax(z).
  """
  _check_temperature('gumbel', temperature)

  def apply(scores, mask, rng):
    weights = _masked_softmax(_perturb(scores, rng) / temperature, mask)
    return weights.astype(scores.dtype), {}

  return Normalizer(apply)


def gumbel_st(*, temperature: float = 1.0) -> Normalizer:
  """One_hot forward, gumbel backward (Jang et al. 2016, sec. 2.2).

  Forward a draw from softmax(z), or without rng the most likely key; the
  gradient is that of another function: biased. Cost: O(TS) and as many random
  numbers.

  Args:
    temperature: t > 0, of the softmax.
  """
  _check_temperature('gumbel_st', temperature)

  def apply(scores, mask, rng):
    moved = _perturb(scores, rng)
    hard = _choose(_fill(moved, mask), mask)
    weights = _borrow(hard, _masked_softmax(moved / temperature, mask))
    return weights.astype(scores.dtype), {}

  return Normalizer(apply)


def sample() -> Normalizer:
  """One key, one_hot(j), j drawn from softmax(z) (Xu et al. 2015, sec. 4.1).

  Without rng the most likely key. aux: 'log_prob' [T], log softmax(z)_j, 0
  where no key is visible; it passes a gradient, for `estimators`.

  Not differentiable: a draw; the gradient is that of log_prob. Cost: O(TS) and
  as many random numbers.
  """

  def apply(scores, mask, rng):
    weights, log_prob = draw(scores, mask, rng)
    return weights, {'log_prob': log_prob}

  return Normalizer(apply, differentiable=False)


def draw(
  scores: Array, mask: Array | None, rng: Array | None
) -> tuple[Array, Array]:
  """Draws a key for every row: j from softmax(z) over the visible keys.

  Args:
    scores: z [..., S].
    mask: booleans of that shape, or None.
    rng: None takes the most likely key, ties to the lowest index.

  Returns:
    one_hot(j) [..., S] without a gradient, and log softmax(z)_j [...] with
    one; both are 0 in a row without a visible key.
  """
  chosen = _choose(_fill(_perturb(scores, rng), mask), mask)
  chosen = chosen.astype(scores.dtype)
  filled = _fill(scores, mask)
  total = jax.nn.logsumexp(filled, axis=-1)
  log_prob = jnp.sum(jnp.where(chosen > 0, filled, 0), axis=-1) - total
  seen = jnp.sum(chosen, axis=-1) > 0
  return chosen, jnp.where(seen, log_prob, 0)


def monotonic(*, noise: float = 1.0) -> Normalizer:
  """Monotonic alignment in expectation (Raffel et al. 2017, eq. 11-14).

  p_ij = sigmoid(e_ij + noise) is the probability that the key is taken by who
  comes to it, q_ij = (1 - p_i,j-1) q_i,j-1 + a_i-1,j that somebody does, and
  a_ij = p_ij q_ij; a_0 = one_hot(0). A masked key is passed by. The recurrence
  over j runs as an associative scan, in parallel: nothing is divided and
  nothing clipped, as the paper's cumulative product has to be, so that values
  and gradients are exact to rounding whatever the scores.

  The weights sum to at most one: what runs off the end reads nothing, and is
  lost to later queries too; a row of zeros is followed by zeros alone.

  Cost: O(TS), in O(log S) steps a query; queries one after the other.

  Args:
    noise: standard deviation of the Gaussian noise that pushes p to 0 or 1;
      added only where there is an rng.
  """
  if not 0 <= noise <= 1e30:
    raise ValueError(
      f'monotonic({noise=}): it must not be negative, nor above 1e30'
    )

  def apply(scores, mask, rng, state):
    if rng is not None and noise:
      drawn = jax.random.normal(rng, scores.shape, scores.dtype)
      scores = scores + noise * drawn
    taken = _hide(jax.nn.sigmoid(scores), mask)
    passed = jax.nn.sigmoid(-scores)  # 1 - p would round to 0 too early
    if mask is not None:
      passed = jnp.where(mask, passed, 1)
    onwards = jnp.concatenate(
      [jnp.zeros_like(passed[..., :1]), passed[..., :-1]], axis=-1
    )
    before = jnp.broadcast_to(state.astype(scores.dtype), scores.shape)
    _, reached = jax.lax.associative_scan(
      lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1]),
      (onwards, before),
      axis=-1,
    )
    return taken * reached, {}

  return _follow(apply)


def monotonic_hard() -> Normalizer:
  """Monotonic alignment at test time (Raffel et al. 2017, sec. 2.2).

  one_hot(j), where j is the first key with p = sigmoid(e) >= .5 from the key on
  that the query before took; the first query starts at key 0. Where there is
  none the row is zero, and so are all later ones, as in the expectation that
  `monotonic` computes: it is what that gives where each p is 0 or 1.

  Not differentiable: a step function. Cost: O(TS); queries one after the other.
  """

  def apply(scores, mask, rng, state):
    del rng
    state = jnp.broadcast_to(state, scores.shape)
    open_ = (jnp.cumsum(state, axis=-1) > 0) & (scores >= 0)
    if mask is not None:
      open_ = open_ & mask
    first = _choose(open_.astype(scores.dtype), None)
    return jnp.where(open_, first, 0), {}

  return _follow(apply)._replace(differentiable=False)


def _follow(apply: Callable) -> Normalizer:
  """A normaliser whose state is the row of weights before; first one_hot(0)."""
  return Normalizer(
    apply,
    shift_invariant=False,
    distribution=False,
    init_state=lambda size: jax.nn.one_hot(0, size),
    update=lambda state, weights: weights.astype(state.dtype),
  )


def _check_temperature(name: str, temperature: float):
  # Beyond these, float32 scores that are divided by it are none.
  if not 1e-30 <= temperature <= 1e30:
    raise ValueError(
      f'{name}({temperature=}): it must be above 0, from 1e-30 to 1e30'
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _entmax(alpha: float, scores: Array) -> Array:
  """Entmax over the last axis, 1 < alpha <= 2.

  p_j = u_j^r with r = 1/(alpha-1) and u_j = [(z_j - max z)/r - tau]_+, where
  tau = -1 gives the largest score alone a weight of one. The norm ||u||_r falls
  with tau, is convex and bends little, so Newton's method on ||u||_r = 1 from
  tau = -1 never goes beyond the solution, and is there in a few steps.
  """
  least = jnp.finfo(scores.dtype).min
  top = jnp.max(scores, axis=-1, keepdims=True, initial=least)
  scaled = (scores - top) * (alpha - 1)
  power = 1 / (alpha - 1)
  # Sharp: tau may be near 0, and is kept as it is. Towards softmax it is near
  # -1, and tau + 1 is kept: u^r nears exp without a loss of digits.
  sharp = alpha >= 1.5

  def powers(tau):
    """u^r, and its derivative over -r tau, u^(r-1)."""
    moved = scaled - tau
    base = jnp.maximum(moved, 0)
    if alpha == 2:
      return base, jnp.sign(base)
    if alpha == 1.5:
      return base * base, base
    log = jnp.log(base) if sharp else jnp.log1p(jnp.maximum(moved, -1))
    return jnp.exp(log * power), jnp.exp(log * (power - 1))

  def newton(tau):
    mass, slope = (jnp.sum(x, axis=-1, keepdims=True) for x in powers(tau))
    # mass - mass^(2-alpha): the norm is mass^(1/r).
    return tau - mass * jnp.expm1((1 - alpha) * jnp.log(mass)) / slope

  def step(carry):
    tau, _, count = carry
    ahead = jnp.maximum(newton(tau), tau)
    return ahead, jnp.any(ahead > tau), count + 1

  start = jnp.full_like(scaled[..., :1], -1 if sharp else 0)
  tau, _, _ = jax.lax.while_loop(
    lambda carry: carry[1] & (carry[2] < _STEPS), step, (start, True, 0)
  )
  # The first steps are long, and rounding may have led beyond.
  return powers(newton(tau))[0]


# Rounding could make a few last bits turn in a circle.
_STEPS = 64


def _entmax_forward(alpha, scores):
  weights = _entmax(alpha, scores)
  return weights, weights


def _entmax_backward(alpha, weights, slope):
  inside = weights > 0
  safe = jnp.where(inside, weights, 1)
  curve = jnp.where(inside, safe ** (2 - alpha), 0)
  share = curve * slope
  mean = jnp.sum(share, axis=-1, keepdims=True) / jnp.sum(
    curve, axis=-1, keepdims=True
  )
  return (share - curve * mean,)


_entmax.defvjp(_entmax_forward, _entmax_backward)


def _perturb(scores: Array, rng: Array | None) -> Array:
  """z + G: the argmax of it is a draw from softmax(z).

  In float32 at least: with fewer digits there are equals, and the first one of
  them would be drawn too often.
  """
  if rng is None:
    return scores
  scores = scores.astype(arithmetic.wide(scores.dtype))
  return scores + jax.random.gumbel(rng, scores.shape, scores.dtype)


def _choose(filled: Array, mask: Array | None) -> Array:
  """one_hot(argmax), without a gradient; 0 where nothing is visible."""
  if not filled.shape[-1]:
    return filled
  best = jnp.argmax(filled, axis=-1)
  return _hide(jax.nn.one_hot(best, filled.shape[-1], dtype=filled.dtype), mask)


def _borrow(value: Array, slope: Array) -> Array:
  """The first to the last bit, with the gradient of the second."""
  return value + (slope - jax.lax.stop_gradient(slope))


def _hide(weights: Array, mask: Array | None) -> Array:
  return weights if mask is None else jnp.where(mask, weights, 0)


def _masked_softmax(scores: Array, mask: Array | None) -> Array:
  """Softmax over the last axis; masked entries, and rows without any, are 0."""
  return _softmax(scores if mask is None else jnp.where(mask, scores, -jnp.inf))


@jax.custom_jvp
def _softmax(scores: Array) -> Array:
  """Softmax over the last axis; -inf is 0, and so is a row of nothing else."""
  least = jnp.finfo(scores.dtype).min
  top = jnp.max(scores, axis=-1, keepdims=True, initial=least)
  powers = jnp.exp(scores - top)
  total = jnp.sum(powers, axis=-1, keepdims=True)
  return powers / jnp.where(total == 0, 1, total)


@_softmax.defjvp
def _softmax_jvp(primals, tangents):
  # Of the weights alone, so that the gradient keeps nothing else; that of
  # jax.nn.softmax is the same, and its transpose reads them once more.
  weights = _softmax(*primals)
  slopes = weights * tangents[0]
  return weights, slopes - weights * jnp.sum(slopes, axis=-1, keepdims=True)


def _fill(scores: Array, mask: Array | None) -> Array:
  # The smallest finite number, not -inf: in a fully masked row the difference
  # to the maximum must be 0, not NaN.
  if mask is None:
    return scores
  return jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
