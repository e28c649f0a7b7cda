"""The fused output layer and cross-entropy against Optax's, and gradients."""

import functools
import operator

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import optax
import pytest

from attnlab.tasks import losses

F, V = 4, 6


def arrays(count, dtype=np.float32, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  weights = rng.uniform(size=count).astype(np.float32)
  weights[::3] = 0  # padding
  return (
    jnp.array(draw(count, F), dtype),
    jnp.array(draw(F, V), dtype),
    jnp.array(draw(V)),
    jnp.array(rng.integers(0, V, count), jnp.int32),
    jnp.array(weights),
  )


def peer(features, kernel, bias, targets, weights, smoothing):
  """Logits, smoothed labels and Optax."""
  logits = (features @ kernel).astype(jnp.float32) + bias
  labels = optax.smooth_labels(jax.nn.one_hot(targets, V), smoothing)
  nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
  return (
    jnp.sum(weights * optax.softmax_cross_entropy(logits, labels)),
    jnp.sum(weights * nll),
    jnp.sum(weights * (jnp.argmax(logits, axis=-1) == targets)),
  )


# Compiling is what these tests wait for, not running.
quick = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


def value_and_grad(function, smoothing, *inputs):
  def loss(features, kernel, bias):
    total, *others = function(features, kernel, bias, *inputs[3:], smoothing)
    return 1.7 * total, others

  return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(*inputs[:3])


slopes_of_ours = functools.partial(
  value_and_grad, losses.linear_cross_entropy, 0.1
)
quick_value_and_grad = quick(slopes_of_ours)


def close(a, b, tolerance=2e-5):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      np.asarray(x, np.float32),
      np.asarray(y, np.float32),
      rtol=tolerance,
      atol=tolerance,
    ),
    a,
    b,
  )


# One block, part of one, and one that is not full after others that are.
@pytest.mark.parametrize(
  ('count', 'smoothing'),
  [(losses._ROWS, 0.0), (5, 0.1), (2 * losses._ROWS + 3, 0.3)],
)
def test_value_and_gradient_are_those_of_optax(count, smoothing):
  inputs = arrays(count)

  @quick
  def both(*inputs):
    return [
      (value_and_grad(loss, smoothing, *inputs), loss(*inputs, smoothing))
      for loss in (losses.linear_cross_entropy, peer)
    ]

  close(*both(*inputs), 1e-4)


def test_by_hand():
  # Logits (0, ln 3): p = (1/4, 3/4); the second row does not count.
  total, nll, right = losses.linear_cross_entropy(
    jnp.array([[1.0], [9.0]]),
    jnp.array([[0.0, np.log(3.0)]]),
    jnp.zeros(2),
    jnp.array([0, 0]),
    jnp.array([2.0, 0.0]),
    0.2,
  )
  close(nll, 2 * np.log(4))
  # .8 on the right word and .1 on each: 2 (.9 ln 4 + .1 ln 4/3).
  close(total, 2 * (0.9 * np.log(4) + 0.1 * np.log(4 / 3)))
  close(right, 0)


def test_finite_differences():
  *inputs, targets, weights = arrays(5)

  def loss(*inputs):
    return losses.linear_cross_entropy(*inputs, targets, weights, 0.1)[0]

  check_grads(
    jax.jit(loss), inputs, 1, modes=['rev'], atol=1e-2, rtol=1e-2, eps=1e-2
  )


def test_bfloat16_is_summed_in_float32():
  inputs = arrays(5, jnp.bfloat16)
  ours, slopes = quick_value_and_grad(*inputs)
  assert ours[0].dtype == np.float32
  assert [g.dtype for g in slopes] == [jnp.bfloat16, jnp.bfloat16, np.float32]
  wide = [x.astype(jnp.float32) for x in inputs[:3]]
  expected = quick_value_and_grad(*wide, *inputs[3:])
  close((ours, slopes), expected, 2e-2)


def test_vmap_equals_a_loop():
  first, second = arrays(5), arrays(5, seed=1)
  both = jax.tree.map(lambda *x: jnp.stack(x), first, second)
  together = quick(jax.vmap(slopes_of_ours))(*both)
  for index, one in enumerate((first, second)):
    row = jax.tree.map(operator.itemgetter(index), together)
    close(row, quick_value_and_grad(*one))


def test_huge_logits_do_not_overflow():
  features, kernel, *rest = arrays(5)
  (total, _), slopes = quick_value_and_grad(features * 1e4, kernel * 1e4, *rest)
  for leaf in jax.tree.leaves((total, slopes)):
    assert np.isfinite(leaf).all()


def test_only_the_loss_has_a_gradient():
  *inputs, targets, weights = arrays(5)

  def others(*inputs):
    _, nll, right = losses.linear_cross_entropy(*inputs, targets, weights, 0.1)
    return nll + right

  for slope in jax.grad(others, argnums=(0, 1, 2))(*inputs):
    assert not np.asarray(slope).any()
