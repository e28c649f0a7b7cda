"""Schedules by hand, every optimiser, accumulation against one big batch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_task

from attnlab import configs, errors
from attnlab.training import optimizers
from attnlab.training import state as states


@pytest.mark.parametrize(
  ('name', 'step', 'expected'),
  [
    ('constant', 0, 0.2),  # 1 of 5 updates of the rise
    ('constant', 3, 0.8),
    ('constant', 4, 1.0),
    ('constant', 99, 1.0),
    ('linear', 4, 1.0),
    ('linear', 54, 0.55),  # half way down to 0.1
    ('linear', 104, 0.1),
    ('linear', 1000, 0.1),
    ('cosine', 4, 1.0),
    ('cosine', 29, 0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5))),
    ('cosine', 54, 0.55),
    ('cosine', 104, 0.1),
    ('inverse_sqrt', 3, 0.8),
    ('inverse_sqrt', 4, 1.0),
    ('inverse_sqrt', 16, 0.5),
    ('inverse_sqrt', 400, 0.1),
  ],
)
def test_schedule(name, step, expected):
  rate = optimizers.schedule(
    name, learning_rate=2.0, warmup_steps=4, steps=104, final=0.1
  )
  assert float(rate(step)) == pytest.approx(2.0 * expected, rel=1e-6)


def test_schedule_without_warmup_starts_at_the_top():
  for name in optimizers.SCHEDULES:
    rate = optimizers.schedule(name, learning_rate=0.5, steps=10)
    assert float(rate(0)) == 0.5


@pytest.mark.parametrize('name', sorted(configs.choices('optimizer')))
def test_every_optimizer_descends(name):
  optimizer = optimizers.from_config({'name': name, 'learning_rate': 0.05}, 99)
  params = {'w': jnp.array([3.0, -2.0])}

  def value(params):
    return (params['w'] ** 2).sum()

  @jax.jit
  def step(params, state):
    updates, state = optimizer.update(
      jax.grad(value)(params), jnp.float32(1.0), state, params
    )
    return optax.apply_updates(params, updates), state

  state = optimizer.init(params)
  start = value(params)
  for _ in range(10):
    params, state = step(params, state)
  assert value(params) < start


def test_choices_are_those_of_the_module():
  assert set(configs.choices('optimizer')) == set(optimizers._ALL)


def test_sgd_by_hand_with_clipping_and_decay():
  settings = {'name': 'sgd', 'learning_rate': 0.5, 'clip_norm': 1.0}
  params = {'w': jnp.array([[2.0], [0.0]]), 'b': jnp.array([4.0])}
  # The sum over two examples; its mean is (3, 0, 4), of norm 5.
  gradient = {'w': jnp.array([[6.0], [0.0]]), 'b': jnp.array([8.0])}
  optimizer = optimizers.from_config(settings, 10)
  updates, _ = optimizer.update(
    gradient, jnp.float32(2.0), optimizer.init(params), params
  )
  np.testing.assert_allclose(updates['w'], [[-0.3], [0.0]], rtol=1e-6)
  np.testing.assert_allclose(updates['b'], [-0.4], rtol=1e-6)
  optimizer = optimizers.from_config({**settings, 'weight_decay': 0.1}, 10)
  updates, _ = optimizer.update(
    gradient, jnp.float32(2.0), optimizer.init(params), params
  )
  # Matrices decay, biases do not.
  np.testing.assert_allclose(updates['w'], [[-0.4], [0.0]], rtol=1e-6)
  np.testing.assert_allclose(updates['b'], [-0.4], rtol=1e-6)


def test_adamw_decays_apart_from_the_gradient():
  params = {'w': jnp.full((2, 2), 10.0)}
  gradient = {'w': jnp.full((2, 2), 1e-3)}
  updates = {}
  for name in ('adam', 'adamw'):
    optimizer = optimizers.from_config(
      {'name': name, 'learning_rate': 0.1, 'weight_decay': 0.1}, 10
    )
    updates[name], _ = optimizer.update(
      gradient, jnp.float32(1.0), optimizer.init(params), params
    )
  # Adam's first update is the sign; decoupled decay adds 0.1 * 0.1 * 10.
  np.testing.assert_allclose(updates['adam']['w'], -0.1, rtol=1e-4)
  np.testing.assert_allclose(updates['adamw']['w'], -0.2, rtol=1e-4)


def test_accumulation_equals_the_big_batch():
  """Also where the batches have different weights."""
  config = toy_task.config(model__dropout=0.0)
  task = toy_task.build(config)
  batches = [next(toy_task.Numbers(0, n)) for n in (2, 6, 4)]
  big = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}

  def after(batches, **settings):
    optimizer = optimizers.from_config(
      {'name': 'adam', 'learning_rate': 0.1, 'clip_norm': 1.0, **settings}, 10
    )
    parts = states.take_apart(toy_task.Linear())
    step = states.make_step(task.loss, parts, optimizer, batches[0], 1)
    state = states.create(parts, optimizer, step, seed=0)
    for batch in batches:
      state, fault = step.run(state, batch)
      assert int(fault) == 0
    return state

  one, several = after([big]), after(batches, accumulate=3)
  for name, array in one.params.items():
    np.testing.assert_allclose(several.params[name], array, rtol=1e-5)
  two_of_three = after(batches[:2], accumulate=3)
  untouched = states.take_apart(toy_task.Linear()).params
  for name, array in untouched.items():
    np.testing.assert_array_equal(two_of_three.params[name], array)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'name': 'adm'}, "optimizer.name='adm' .* mean 'adam'"),
    ({'schedule': 'cosin'}, "optimizer.schedule='cosin' .* mean 'cosine'"),
    ({'momentum': 0.9}, 'momentum'),
    ({'accumulate': 0}, 'accumulate=0 must be 1 or more'),
    ({'clip_norm': -1.0}, 'clip_norm=-1.0 must be'),
    ({'learning_rate': float('nan')}, 'learning_rate=nan must be'),
  ],
)
def test_wrong_settings(settings, message):
  with pytest.raises(errors.UserError, match=message):
    optimizers.from_config(settings, 10)
