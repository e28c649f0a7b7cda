"""Linear, embedding, norm, dropout, and the seam to the mechanisms."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import attention, layers
from attnlab.layers import basic
from attnlab.models import seq2seq


def rngs():
  return nnx.Rngs(0)


def test_linear_by_hand():
  linear = layers.Linear(2, 2, rngs=rngs())
  linear.weight = nnx.Param(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
  linear.bias = nnx.Param(jnp.array([10.0, 20.0]))
  found = linear(jnp.array([[[1.0, -1.0]]]))
  np.testing.assert_array_equal(found, [[[8, 18]]])


def test_linear_without_bias_maps_zero_to_zero():
  linear = layers.Linear(3, 2, bias=False, rngs=rngs())
  assert len(jax.tree.leaves(nnx.state(linear))) == 1
  assert not np.asarray(linear(jnp.zeros((2, 3)))).any()


def test_embedding_looks_rows_up():
  embed = layers.Embedding(5, 3, rngs=rngs())
  tokens = jnp.array([[4, 0], [4, 1]])
  found = embed(tokens)
  np.testing.assert_array_equal(found, np.asarray(embed.table[...])[tokens])


def test_embedding_starts_with_variance_one_over_depth():
  table = layers.Embedding(500, 16, rngs=rngs()).table[...]
  np.testing.assert_allclose(np.var(table), 1 / 16, rtol=0.05)


def test_layer_norm_by_hand():
  # Mean 2, deviation 1: (1 - 2, 3 - 2), then scale and bias.
  norm = layers.LayerNorm(2)
  norm.scale = nnx.Param(jnp.array([2.0, 3.0]))
  norm.bias = nnx.Param(jnp.array([0.5, 0.0]))
  found = norm(jnp.array([[1.0, 3.0]]))
  np.testing.assert_allclose(found, [[-1.5, 3]], rtol=1e-5)


def test_layer_norm_is_computed_in_float32():
  # In bfloat16, 1000 + .5 is 1000: the differences would be lost.
  norm = layers.LayerNorm(2)
  x = jnp.array([[1000, 1008]], jnp.bfloat16)
  found = norm(x)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(found.astype(np.float32), [[-1, 1]], rtol=1e-2)
  same = norm(jnp.full((1, 2), 7.0))
  assert not np.asarray(same).any()


def test_dropout_without_rng_is_the_identity():
  x = jnp.ones((3, 4))
  assert layers.dropout(x, 0.5, None) is x
  assert layers.dropout(x, 0.0, jax.random.key(0)) is x


@pytest.mark.parametrize('rate', [0.001, 0.1, 0.3, 0.5, 0.9])
def test_dropout_keeps_the_mean(rate):
  count = 40_000
  found = np.asarray(layers.dropout(jnp.ones(count), rate, jax.random.key(0)))
  kept = found[found != 0]
  assert (kept == kept[0]).all()
  # What is kept is scaled by exactly the share that is drawn, a multiple of
  # 1/256, so that the mean is 1: within five standard errors here.
  share = 1 / kept[0]
  np.testing.assert_allclose(share * 256, round(share * 256), rtol=1e-5)
  assert abs(share - (1 - rate)) <= 1 / 256
  error = (share * (1 - share) / count) ** 0.5 / share
  assert abs(found.mean() - 1) < 5 * error


def test_dropout_of_a_gradient_is_that_of_the_value():
  x, rng = jnp.ones(100), jax.random.key(1)
  value = layers.dropout(x, 0.4, rng)
  slope = jax.grad(lambda x: jnp.sum(layers.dropout(x, 0.4, rng)))(x)
  np.testing.assert_array_equal(value, slope)


def test_dropout_differs_from_example_to_example_under_vmap():
  draw = jax.vmap(lambda x, rng: layers.dropout(x, 0.5, rng))
  found = draw(jnp.ones((2, 64)), jax.random.split(jax.random.key(0)))
  assert (found[0] != found[1]).any()


def test_split_of_no_rng_is_as_many_nones():
  assert basic.split(None, 3) == [None] * 3
  assert len(basic.split(jax.random.key(0), 3)) == 3


@pytest.mark.parametrize('tied', [False, True])
def test_output_layer(tied):
  embed = layers.Embedding(4, 3, rngs=rngs())
  output = seq2seq.Output(
    3, 4, embed if tied else None, rngs=rngs(), dtype=jnp.float32
  )
  output.bias = nnx.Param(jnp.arange(4.0))
  x = jnp.array([[1.0, 2.0, 3.0]])
  kernel = np.asarray(embed.table[...]).T if tied else output.weight[...]
  np.testing.assert_allclose(
    output(x), x @ kernel + np.arange(4.0)[None], rtol=1e-6
  )
  assert output.kernel().shape == (3, 4)


def test_a_tied_table_learns_from_both_ends():
  class Net(nnx.Module):
    def __init__(self):
      self.embed = layers.Embedding(4, 3, rngs=rngs())
      self.output = seq2seq.Output(
        3, 4, self.embed, rngs=rngs(), dtype=jnp.float32
      )

  graph, state = nnx.split(Net())
  assert len(jax.tree.leaves(state)) == 2  # the table once, and the bias

  def loss(state):
    net = nnx.merge(graph, state)
    return net.output(net.embed(jnp.array([1])))[0, 2]

  (slope,) = jax.tree.leaves(jax.grad(loss)(state)['embed'])
  # logit_2 = e_1 . e_2: each row's gradient is the other row.
  (table,) = jax.tree.leaves(state['embed'])
  expected = np.zeros((4, 3), np.float32)
  expected[1], expected[2] = table[2], table[1]
  np.testing.assert_allclose(slope, expected, rtol=1e-6)


def attend(heads):
  mechanism = attention.compose(
    score=attention.scores.additive(hidden=3),
    normalizer=attention.normalizers.softmax(),
  )
  if heads:
    mechanism = attention.heads.multi_head(
      mechanism, num_heads=2, head_dim=3, out_dim=7
    )
  return layers.Attend(
    mechanism, query_dim=4, key_dim=5, value_dim=6, rngs=rngs()
  )


@pytest.mark.parametrize('heads', [False, True])
def test_attend_is_the_mechanism_over_a_batch(heads):
  layer = attend(heads)
  assert layer.context_dim == (7 if heads else 6)
  rng = np.random.default_rng(0)
  query, key, value = (
    rng.normal(size=(2, *shape)).astype(np.float32)
    for shape in [(3, 4), (4, 5), (4, 6)]
  )
  lengths = np.array([4, 2])
  mask = np.arange(4) < lengths[:, None, None]
  out = layer(query, layer.prepare(key, value), mask=mask)
  expected = attention.attend(
    layer.mechanism,
    layer.arrays(),
    query,
    key,
    value,
    mask=attention.masks.padding(jnp.array(lengths)),
  )
  np.testing.assert_allclose(out.context, expected.context, atol=1e-6)
  np.testing.assert_allclose(out.weights, expected.weights, atol=1e-6)


def test_attend_in_bfloat16_keeps_parameters_and_softmax_in_float32():
  layer = attend(False)
  for leaf in jax.tree.leaves(layer.arrays()):
    assert leaf.dtype == np.float32
  half = lambda *shape: jnp.ones(shape, jnp.bfloat16)
  memory = layer.prepare(half(1, 4, 5), half(1, 4, 6))
  out = layer(half(1, 3, 4), memory)
  assert out.context.dtype == jnp.bfloat16
  assert out.weights.dtype == np.float32
