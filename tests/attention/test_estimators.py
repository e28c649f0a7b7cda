"""Gradients through a hard choice: true on average, or said not to be."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab.attention import estimators

S = 5
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=S).astype(np.float32)
VALUE = RNG.normal(size=(S, 3)).astype(np.float32)
BASELINES = {
  'zero': (estimators.zero(), 1),
  'running_mean': (estimators.running_mean(), 1),
  'learned': (estimators.learned(), 1),
  'self_critical': (estimators.self_critical(), 1),
  'leave_one_out': (estimators.leave_one_out(), 4),
}
ESTIMATORS = {
  'exact': estimators.exact(),
  **{
    f'reinforce({name})': estimators.reinforce(baseline=b, samples=k)
    for name, (b, k) in BASELINES.items()
  },
  'straight_through': estimators.straight_through(),
  'gumbel': estimators.gumbel(),
  'gumbel_st': estimators.gumbel_st(),
}


def loss(weights):
  """Far from 0, and not linear in the weights."""
  return 3 + jnp.sum((weights @ VALUE - 1) ** 2)


def by_hand(logits):
  """The gradient of sum_j pi_j l_j: pi_j (l_j - sum_k pi_k l_k)."""
  costs = np.array([loss(row) for row in np.eye(S, dtype=np.float32)])
  chance = np.exp(logits) / np.exp(logits).sum()
  return chance * (costs - chance @ costs)


@pytest.fixture(scope='module')
def measured():
  return {
    name: estimators.quality(
      estimator, jax.random.key(1), LOGITS, loss, draws=4000
    )
    for name, estimator in ESTIMATORS.items()
  }


def test_every_public_estimator_and_baseline_is_measured_here():
  functions = {
    name: inspect.signature(function).return_annotation
    for name, function in vars(estimators).items()
    if inspect.isfunction(function) and not name.startswith('_')
  }
  of = lambda kind: {n for n, found in functions.items() if found is kind}
  assert of(estimators.Baseline) == set(BASELINES)
  assert of(estimators.Estimator) == {n.partition('(')[0] for n in ESTIMATORS}


@pytest.mark.parametrize('chunk', [1, 2, 64])
def test_exact_is_the_gradient_of_the_enumerated_expectation(chunk):
  def expected(logits, scale):
    costs = jax.vmap(lambda row: scale * loss(row))(jnp.eye(S))
    return jax.nn.softmax(logits) @ costs

  def found(logits, scale):
    surrogate = estimators.exact(chunk=chunk).surrogate
    return surrogate((), None, logits, lambda w: scale * loss(w))[0]

  point = jnp.array(LOGITS), jnp.float32(2)
  for one, other in zip(
    jax.value_and_grad(found, argnums=(0, 1))(*point),
    jax.value_and_grad(expected, argnums=(0, 1))(*point),
    strict=True,
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, other
    )
  slope, _ = estimators.gradient(
    estimators.exact(chunk=chunk), (), jax.random.key(0), LOGITS, loss
  )
  np.testing.assert_allclose(slope, by_hand(LOGITS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('name', ESTIMATORS)
def test_bias_is_as_declared(name, measured):
  found = measured[name]
  assert 0 <= found.low <= found.bias <= found.high
  assert (found.low == 0) == ESTIMATORS[name].unbiased
  if ESTIMATORS[name].unbiased:
    assert found.high < 0.5  # and it would be seen
  assert -1 <= found.cosine <= 1
  assert found.seconds > 0


def test_exact_has_no_variance(measured):
  found = measured['exact']
  assert found.bias == pytest.approx(0, abs=1e-5)
  assert found.variance == pytest.approx(0, abs=1e-9)
  assert found.cosine == pytest.approx(1, abs=1e-5)


def test_baselines_reduce_the_variance(measured):
  variance = {name: found.variance for name, found in measured.items()}
  zero = variance['reinforce(zero)']
  for name in ('running_mean', 'learned', 'self_critical'):
    assert variance[f'reinforce({name})'] < 0.7 * zero
  # Four draws alone would give a quarter.
  assert variance['reinforce(leave_one_out)'] < 0.2 * zero
  four = estimators.reinforce(samples=4)
  found = estimators.quality(
    four, jax.random.key(2), LOGITS, loss, draws=4000
  ).variance
  assert found == pytest.approx(zero / 4, rel=0.1)


def test_straight_through_is_exact_for_a_linear_loss_on_average():
  linear = lambda weights: jnp.sum(weights * np.arange(S, dtype=np.float32))
  for temperature, biased in ((1.0, False), (0.3, True)):
    found = estimators.quality(
      estimators.straight_through(temperature=temperature),
      jax.random.key(3),
      LOGITS,
      linear,
    )
    assert (found.low > 0) == biased


def test_gumbel_loses_bias_and_gains_variance_as_it_cools():
  warm, cold = (
    estimators.quality(
      estimators.gumbel(temperature=t), jax.random.key(4), LOGITS, loss
    )
    for t in (3.0, 0.3)
  )
  assert cold.high < warm.low
  assert cold.variance > 10 * warm.variance


@pytest.mark.parametrize('name', ESTIMATORS)
def test_the_gradient_reaches_what_the_loss_depends_on(name):
  # d/ds of s l(j) + s^2 is l(j) + 2 s, whatever the choice.
  estimator = ESTIMATORS[name]
  paid = []

  def surrogate(scale):
    constant = lambda weights: scale * 7 * jnp.sum(weights) + scale**2
    number, _ = estimator.surrogate(
      estimator.init(S), jax.random.key(0), jnp.array(LOGITS), constant
    )
    paid.append(number)
    return number

  slope = jax.grad(surrogate)(jnp.float32(2))
  np.testing.assert_allclose(slope, 11, rtol=1e-5)
  # And the number is the loss that was paid.
  np.testing.assert_allclose(surrogate(jnp.float32(2)), 18, rtol=1e-5)


@pytest.mark.parametrize('name', ['running_mean', 'learned'])
def test_baselines_with_a_state_learn_the_loss(name):
  baseline, _ = BASELINES[name]
  logits, losses = jnp.array(LOGITS), jnp.full(3, 5.0)
  state = baseline.init(S)
  for _ in range(80):
    state = baseline.update(state, logits, losses)
  np.testing.assert_allclose(
    baseline.value(state, logits, losses, loss), losses, rtol=1e-3
  )


def test_running_mean_by_hand():
  baseline = estimators.running_mean(decay=0.9)
  state = baseline.init(S)
  state = baseline.update(state, LOGITS, jnp.array([2.0, 4.0]))
  np.testing.assert_allclose(state, 0.3, rtol=1e-6)
  state = baseline.update(state, LOGITS, jnp.array([1.0]))
  np.testing.assert_allclose(state, 0.37, rtol=1e-6)


def test_leave_one_out_by_hand():
  value = estimators.leave_one_out().value
  found = value((), LOGITS, jnp.array([1.0, 2.0, 6.0]), loss)
  np.testing.assert_allclose(found, [4, 3.5, 1.5])


def test_a_single_estimate_of_the_score_function_by_hand():
  estimator = estimators.reinforce()
  slope, _ = estimators.gradient(
    estimator, (), jax.random.key(0), jnp.array(LOGITS), loss
  )
  chance = np.exp(LOGITS) / np.exp(LOGITS).sum()
  each = [
    float(loss(row)) * (row - chance) for row in np.eye(S, dtype=np.float32)
  ]
  assert any(np.allclose(slope, one, rtol=1e-4) for one in each)


def test_masked_keys_are_never_chosen_and_get_no_gradient():
  least = np.finfo(np.float32).min
  logits = np.where(np.arange(S) == 2, least, LOGITS).astype(np.float32)
  costly = lambda weights: loss(weights) + 1e6 * weights[2]
  for estimator in ESTIMATORS.values():
    slope, _ = jax.jit(estimators.gradient, static_argnums=(0, 4))(
      estimator, estimator.init(S), jax.random.key(0), logits, costly
    )
    assert np.isfinite(slope).all()
    assert slope[2] == 0


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: estimators.exact(chunk=0), r'exact\(chunk=0\)'),
    (
      lambda: estimators.reinforce(baseline=estimators.leave_one_out()),
      r'reinforce\(samples=1\).*at least 2',
    ),
    (lambda: estimators.reinforce(samples=0), r'reinforce\(samples=0\)'),
    (lambda: estimators.gumbel(samples=0), r'gumbel\(samples=0\)'),
    (lambda: estimators.gumbel_st(temperature=0), 'temperature=0'),
    (lambda: estimators.straight_through(temperature=math.nan), 'temperature'),
    (lambda: estimators.running_mean(decay=1), r'running_mean\(decay=1\)'),
    (lambda: estimators.learned(rate=0), r'learned\(rate=0\)'),
    (
      lambda: estimators.quality(
        ESTIMATORS['exact'], jax.random.key(0), LOGITS, loss, draws=1
      ),
      r'quality\(draws=1\)',
    ),
  ],
)
def test_bad_settings_are_refused_by_name(make, message):
  with pytest.raises(ValueError, match=message):
    make()
