"""Estimators: gradients through a hard choice of one key.

One key j is drawn from pi = softmax(z) and costs l(one_hot(j)); wanted is the
gradient of the expected loss, sum_j pi_j l(one_hot(j)). An estimator makes a
number out of the logits z, whose gradient by `jax.grad` is its estimate: over
z, and over whatever else the loss depends on, at once.

estimator = estimators.reinforce(baseline=estimators.running_mean())
state = estimator.init(logits.shape[-1])
slope, state = estimators.gradient(estimator, state, rng, logits, loss)
"""

from collections.abc import Callable, Mapping
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attnlab.attention import normalizers

Array = jax.Array
PyTree = Any
Loss = Callable[[Array], Array]


class Estimator(NamedTuple):
  """One estimator as pure functions.

  Attributes:
    init: (size S) -> state, what it learns from call to call; () for most.
    surrogate: (state, rng, logits [S], loss) -> (number, state). The loss maps
      weights [S] to a number. The number is the loss that was paid (of `exact`
      the expected one), and its gradient the estimate. Of masked keys the
      logits are the smallest finite number.
    unbiased: whether the mean of the estimates is the true gradient.
  """

  init: Callable[[int], PyTree]
  surrogate: Callable[[PyTree, Array, Array, Loss], tuple[Array, PyTree]]
  unbiased: bool


class Baseline(NamedTuple):
  """What `reinforce` takes off the loss: it must not depend on the draw.

  Attributes:
    init: (size S) -> state.
    value: (state, logits [S], losses [K] of the draws, loss) -> [K] numbers.
    update: (state, logits, losses) -> the next state.
    least: how many draws it needs.
  """

  init: Callable[[int], PyTree]
  value: Callable[[PyTree, Array, Array, Loss], Array]
  update: Callable[[PyTree, Array, Array], PyTree]
  least: int = 1


class Quality(NamedTuple):
  """How good an estimator is on one problem, beside the true gradient g*.

  Attributes:
    bias: ||mean g - g*|| / ||g*||; with few draws, noise adds to it.
    low: lower end of the 95 % interval of ||E g - g*|| / ||g*||.
    high: upper end.
    variance: E ||g - E g||^2 / ||g*||^2 of a single estimate.
    cosine: mean over the estimates of the cosine between g and g*.
    seconds: for one estimate, compiled, one after the other.
  """

  bias: float
  low: float
  high: float
  variance: float
  cosine: float
  seconds: float


def exact(*, chunk: int = 64) -> Estimator:
  """The true gradient, of sum_j pi_j l(one_hot(j)): every choice is tried.

  Cost: S evaluations of the loss, `chunk` of them at a time; the gradient
  computes them again rather than keep what they left.

  Args:
    chunk: how many choices are evaluated at once.
  """
  _check_count('exact', 'chunk', chunk, 1)

  def surrogate(state, rng, logits, loss):
    del rng
    size = logits.shape[-1]
    one = jax.checkpoint(
      lambda j: loss(jax.nn.one_hot(j, size, dtype=logits.dtype))
    )
    losses = jax.lax.map(one, jnp.arange(size), batch_size=min(chunk, size))
    return jnp.sum(jax.nn.softmax(logits) * losses), state

  return Estimator(_nothing, surrogate, unbiased=True)


def reinforce(
  *, baseline: Baseline | None = None, samples: int = 1
) -> Estimator:
  """Score function, (l - b) grad log pi_j + grad l (Williams 1992).

  Unbiased for every baseline b that does not depend on j. Cost: K evaluations
  of the loss, and those of the baseline.

  Args:
    baseline: b; None is `zero()`.
    samples: K draws, of which the mean is taken.
  """
  baseline = zero() if baseline is None else baseline
  if samples < baseline.least:
    raise ValueError(
      f'reinforce({samples=}): this baseline needs at least {baseline.least}; '
      'the nearest that needs one is running_mean'
    )

  def surrogate(state, rng, logits, loss):
    shape = samples, logits.shape[-1]
    chosen, log_prob = normalizers.draw(
      jnp.broadcast_to(logits, shape), None, rng
    )
    losses = jax.vmap(loss)(chosen)
    paid = jax.lax.stop_gradient(losses)
    fixed = jax.lax.stop_gradient(logits)
    value = baseline.value(state, fixed, paid, loss)
    advantage = jax.lax.stop_gradient(paid - value)
    # Worth the loss; its gradient is that of the docstring.
    moves = log_prob - jax.lax.stop_gradient(log_prob)
    state = baseline.update(state, fixed, paid)
    return jnp.mean(losses + advantage * moves), state

  return Estimator(baseline.init, surrogate, unbiased=True)


def straight_through(
  *, temperature: float = 1.0, samples: int = 1
) -> Estimator:
  """A draw forward, softmax(z/t) backward (Bengio et al. 2013): biased.

  `normalizers.straight_through` is the same for the most likely choice. Exact
  for t = 1 and a loss that is linear in the weights. Cost: K evaluations of the
  loss.

  Args:
    temperature: t > 0.
    samples: K draws, of which the mean is taken.
  """
  soft = normalizers.softmax(temperature=temperature)

  def weigh(rng, logits):
    hard, _ = normalizers.draw(logits, None, rng)
    smooth, _ = soft.apply(logits, None, None)
    return hard + (smooth - jax.lax.stop_gradient(smooth))

  return _through('straight_through', weigh, samples)


def gumbel(*, temperature: float = 1.0, samples: int = 1) -> Estimator:
  """Through softmax((z + G)/t), the loss at soft weights (Jang et al. 2016).

  Biased: it is the gradient of another loss, which nears the true one, and
  whose gradients grow, as t nears 0. Cost: K evaluations of the loss.

  Args:
    temperature: t > 0.
    samples: K draws, of which the mean is taken.
  """
  return _noisy('gumbel', normalizers.gumbel(temperature=temperature), samples)


def gumbel_st(*, temperature: float = 1.0, samples: int = 1) -> Estimator:
  """A draw forward, `gumbel` backward (Jang et al. 2016, sec. 2.2): biased.

  Cost: K evaluations of the loss.

  Args:
    temperature: t > 0.
    samples: K draws, of which the mean is taken.
  """
  part = normalizers.gumbel_st(temperature=temperature)
  return _noisy('gumbel_st', part, samples)


def zero() -> Baseline:
  """No baseline: b = 0."""
  return Baseline(
    _nothing,
    lambda state, logits, losses, loss: jnp.zeros_like(losses),
    lambda state, logits, losses: state,
  )


def running_mean(*, decay: float = 0.9) -> Baseline:
  """The mean of earlier losses, b <- d b + (1-d) l, from 0 (Xu et al. 2015).

  Args:
    decay: d, from 0 to below 1.
  """
  if not 0 <= decay < 1:
    raise ValueError(f'running_mean({decay=}): it must be from 0 to below 1')

  def update(mean, logits, losses):
    del logits
    new = decay * mean.astype(losses.dtype) + (1 - decay) * jnp.mean(losses)
    return new.astype(mean.dtype)

  return Baseline(
    lambda size: jnp.zeros(()),
    lambda mean, logits, losses, loss: jnp.full_like(losses, mean),
    update,
  )


def learned(*, rate: float = 0.1) -> Baseline:
  """A linear function of the logits, b = w . z + c, that follows the losses.

  z counts as 0 for masked keys. It learns by steps on (l - b)^2, each divided
  by ||z||^2 + 1 so that none is too long (Mnih et al. 2014 read it off the
  state of the network instead).

  Args:
    rate: from above 0 to 1, which would fit every loss at once.
  """
  if not 0 < rate <= 1:
    raise ValueError(f'learned({rate=}): it must be above 0, and at most 1')

  def features(logits, state):
    one = jnp.ones_like(logits[..., :1])
    logits = jnp.where(logits > jnp.finfo(logits.dtype).min, logits, 0)
    return jnp.concatenate([logits, one]).astype(state.dtype)

  def value(state, logits, losses, loss):
    del loss
    guess = features(logits, state) @ state
    return jnp.full_like(losses, guess)

  def update(state, logits, losses):
    seen = features(logits, state)
    error = jnp.mean(losses).astype(state.dtype) - seen @ state
    return state + rate * error / (seen @ seen) * seen

  return Baseline(lambda size: jnp.zeros(size + 1), value, update)


def self_critical() -> Baseline:
  """The loss of the most likely choice (Rennie et al. 2017, eq. 7).

  Cost: one more evaluation of the loss.
  """

  def value(state, logits, losses, loss):
    del state
    best, _ = normalizers.draw(logits, None, None)
    return jnp.full_like(losses, loss(best))

  return zero()._replace(value=value)


def leave_one_out() -> Baseline:
  """The mean loss of the other draws (Kool et al. 2019): two at least."""

  def value(state, logits, losses, loss):
    del state, logits, loss
    return (jnp.sum(losses) - losses) / (losses.size - 1)

  return zero()._replace(value=value, least=2)


def gradient(
  estimator: Estimator, state: PyTree, rng: Array, logits: Array, loss: Loss
) -> tuple[Array, PyTree]:
  """One estimate of the gradient over the logits.

  Args:
    estimator: any of this module.
    state: of `estimator.init(S)`, or what the call before returned.
    rng: of which the choice is drawn.
    logits: z [S].
    loss: weights [S] -> number.

  Returns:
    [S], and the next state.
  """

  def surrogate(logits):
    return estimator.surrogate(state, rng, logits, loss)

  return jax.grad(surrogate, has_aux=True)(logits)


def quality(
  estimator: Estimator,
  rng: Array,
  logits: Array,
  loss: Loss,
  *,
  draws: int = 2000,
) -> Quality:
  """Measures an estimator beside `exact`, on one problem.

  The interval of the bias has no less than its 95 %: ||mean g - g*|| is at most
  ||mean g - E g|| off, whose quantile is found by resampling. An estimator is
  shown to be biased where the lower end is above 0.

  Args:
    estimator: any of this module.
    rng: for everything that is drawn.
    logits: z [S].
    loss: weights [S] -> number.
    draws: how many estimates, in sequence, so that a state may follow; as many
      go before them, for the state to settle, and are left out.

  Returns:
    Figures, which are relative to ||g*||, or absolute where that is 0.
  """
  _check_count('quality', 'draws', draws, 2)
  size = logits.shape[-1]
  truth, _ = gradient(exact(), (), rng, logits, loss)

  @jax.jit
  def run(state, rngs):
    def step(state, rng):
      estimate, state = gradient(estimator, state, rng, logits, loss)
      return state, estimate

    return jax.lax.scan(step, state, rngs)

  first, second = (jax.random.split(x, draws) for x in jax.random.split(rng))
  # The first run compiles, too.
  state, _ = jax.block_until_ready(run(estimator.init(size), first))
  begun = time.perf_counter()
  _, estimates = jax.block_until_ready(run(state, second))
  seconds = (time.perf_counter() - begun) / draws
  true, found = (np.asarray(x, np.float64) for x in (truth, estimates))
  return Quality(**_compare(true, found), seconds=seconds)


def _compare(true: np.ndarray, found: np.ndarray) -> Mapping[str, float]:
  """The figures of `Quality` but the time: g* [S], estimates [N, S]."""
  count = len(found)
  scale = np.linalg.norm(true) or 1.0
  mean = found.mean(axis=0)
  centred = found - mean
  away = np.linalg.norm(mean - true)
  # Sums with random signs have the covariance of the mean.
  signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(1000, count))
  noise = np.linalg.norm(signs @ centred, axis=1) / count
  reach = np.quantile(noise, 0.95)
  # Below rounding nothing is shown.
  reach += 1e-6 * np.linalg.norm(found, axis=1).mean()
  lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(true)
  cosines = found @ true / np.where(lengths == 0, 1, lengths)
  return {
    'bias': away / scale,
    'low': max(away - reach, 0.0) / scale,
    'high': (away + reach) / scale,
    'variance': (centred**2).sum() / (count - 1) / scale**2,
    'cosine': cosines.mean(),
  }


def _noisy(name: str, part: normalizers.Normalizer, samples: int) -> Estimator:
  """The weights of a normaliser that draws noise and passes a gradient."""
  return _through(
    name, lambda rng, logits: part.apply(logits, None, rng)[0], samples
  )


def _through(
  name: str, weigh: Callable[[Array, Array], Array], samples: int
) -> Estimator:
  """The mean loss of K weights (rng, logits) -> [S] that pass a gradient."""
  _check_count(name, 'samples', samples, 1)

  def surrogate(state, rng, logits, loss):
    rngs = jax.random.split(rng, samples)
    losses = jax.vmap(lambda rng: loss(weigh(rng, logits)))(rngs)
    return jnp.mean(losses), state

  return Estimator(_nothing, surrogate, unbiased=False)


def _nothing(size: int) -> PyTree:
  del size
  return ()


def _check_count(name: str, setting: str, value: int, least: int):
  if value < least:
    raise ValueError(f'{name}({setting}={value}): it must be {least} or more')
