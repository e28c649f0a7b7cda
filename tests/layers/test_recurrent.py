"""Recurrent layers: numbers by hand, torch with the same weights, masks."""

import math

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import layers
from attnlab.layers import recurrent

B, T, D, H = 3, 4, 5, 2
CELLS = sorted(recurrent.CELLS)
LENGTHS = np.array([4, 2, 3])
MASK = np.arange(T) < LENGTHS[:, None]


def inputs(seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(B, T, D)).astype(np.float32)


def build(cell, **settings):
  return layers.Recurrent(cell, D, H, rngs=nnx.Rngs(0), **settings)


def call(layer):
  """The layer as a compiled function of inputs and mask."""
  return jax.jit(lambda inputs, mask=None: layer(inputs, mask))


def close(a, b, tolerance=2e-6):
  np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def row(*numbers):
  return jnp.array([numbers], jnp.float32)


def test_a_step_of_each_cell_by_hand():
  sigmoid = lambda x: 1 / (1 + math.exp(-x))
  (h,) = recurrent.rnn().step((row(9),), row(0.25), row(0.5))
  close(h, [[math.tanh(0.75)]])
  # r = sigmoid(1), z = sigmoid(-1), n = tanh(.5 + r * 2), h before = .4.
  (h,) = recurrent.gru().step((row(0.4),), row(1, -3, 0.5), row(0, 2, 2))
  r, z = sigmoid(1), sigmoid(-1)
  close(h, [[(1 - z) * math.tanh(0.5 + r * 2) + z * 0.4]])
  # i, f, g, o = 1, 2, -1, .5, c before = 3.
  carry = recurrent.lstm().step(
    (row(7), row(3)), row(1, 1, -1, 0), row(0, 1, 0, 0.5)
  )
  c = sigmoid(2) * 3 + sigmoid(1) * math.tanh(-1)
  close(carry, [[[sigmoid(0.5) * math.tanh(c)]], [[c]]])


def test_recurrent_weights_start_orthogonal_and_the_forget_gate_open():
  params = recurrent.CellParams('lstm', D, H, rngs=nnx.Rngs(0))
  for gate in jnp.split(params.recurrent[...], 4, axis=-1):
    close(gate @ gate.T, np.eye(H))
  close(params.bias[...], [0, 0, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize('cell', CELLS)
def test_torch_with_the_same_weights(cell):
  torch = pytest.importorskip('torch', reason='differential test')
  torch.manual_seed(0)
  peer = getattr(torch.nn, cell.upper())(
    D, H, num_layers=2, bidirectional=True, batch_first=True
  )
  layer = build(cell, layers=2)
  for index in range(2):
    for stack, suffix in ((layer.forward, ''), (layer.backward, '_reverse')):
      for ours, theirs, turn in (
        ('weight', 'weight_ih', True),
        ('recurrent', 'weight_hh', True),
        ('bias', 'bias_ih', False),
        ('recurrent_bias', 'bias_hh', False),
      ):
        array = getattr(peer, f'{theirs}_l{index}{suffix}').detach().numpy()
        array = jnp.array(array.T if turn else array)
        assert getattr(stack[index], ours).shape == array.shape
        setattr(stack[index], ours, nnx.Param(array))
  x = inputs()
  packed = torch.nn.utils.rnn.pack_padded_sequence(
    torch.from_numpy(x),
    torch.from_numpy(LENGTHS),
    batch_first=True,
    enforce_sorted=False,
  )
  with torch.no_grad():
    outputs, last = peer(packed)
    outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(
      outputs, batch_first=True
    )
  ours, carries = call(layer)(x, MASK)
  close(ours, outputs)
  # torch: [layers * directions, B, H], h alone or (h, c).
  last = last if cell == 'lstm' else (last,)
  for index in range(2):
    for direction in range(2):
      for carry, theirs in zip(carries[index][direction], last, strict=True):
        close(carry, theirs[2 * index + direction])


@pytest.mark.parametrize('cell', CELLS)
def test_padding_changes_nothing_in_either_direction(cell):
  layer = build(cell)
  run = call(layer)
  x = inputs()
  dirty = np.where(MASK[..., None], x, np.float32(50))
  outputs, carries = run(x, MASK)
  close((outputs, carries[0][1][0])[0], run(dirty, MASK)[0], 0)
  assert not np.asarray(outputs)[~MASK].any()
  # The rows on their own, without any padding.
  for b in range(B):
    alone, last = run(x[b : b + 1, : LENGTHS[b]])
    close(outputs[b, : LENGTHS[b]], alone[0])
    for carry, one in zip(
      jax.tree.leaves(carries), jax.tree.leaves(last), strict=True
    ):
      close(carry[b], one[0])


@pytest.mark.parametrize('cell', CELLS)
def test_an_empty_row_is_zero_with_finite_gradients(cell):
  graph, state = nnx.split(build(cell))
  mask = MASK.copy()
  mask[1] = False

  @jax.jit
  def value_and_grad(state, x):
    def loss(state, x):
      outputs, carries = nnx.merge(graph, state)(x, mask)
      total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(carries))
      return total + jnp.sum(jnp.square(outputs)), (outputs, carries)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(state, x)

  (_, (outputs, carries)), slopes = value_and_grad(state, inputs())
  assert not np.asarray(outputs)[1].any()
  for leaf in jax.tree.leaves(carries):
    assert not np.asarray(leaf)[1].any()
  for leaf in jax.tree.leaves(slopes):
    assert np.isfinite(leaf).all()
  assert not np.asarray(slopes[1])[~mask].any()


def test_output_dim_and_the_shapes_of_one_direction():
  layer = build('lstm', layers=2, bidirectional=False)
  outputs, carries = jax.eval_shape(layer, inputs(), MASK)
  assert outputs.shape == (B, T, layer.output_dim) == (B, T, H)
  assert [len(directions) for directions in carries] == [1, 1]
  assert [len(carry) for (carry,) in carries] == [2, 2]


def test_a_run_may_be_continued():
  params = recurrent.CellParams('gru', D, H, rngs=nnx.Rngs(0))
  x = inputs()
  last, whole = recurrent.run(params, x)
  middle, first = recurrent.run(params, x[:, :2])
  end, second = recurrent.run(params, x[:, 2:], carry=middle)
  close(whole, np.concatenate([first, second], axis=1))
  close(last, end)


@pytest.mark.parametrize('cell', CELLS)
def test_bfloat16_computes_with_float32_parameters(cell):
  layer = build(cell, dtype=jnp.bfloat16)
  for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)):
    assert leaf.dtype == np.float32
  outputs, carries = jax.eval_shape(layer, inputs(), MASK)
  for leaf in jax.tree.leaves((outputs, carries)):
    assert leaf.dtype == jnp.bfloat16


def test_bfloat16_is_near_float32():
  wide, narrow = build('gru'), build('gru', dtype=jnp.bfloat16)
  outputs = call(narrow)(inputs(), MASK)[0].astype(jnp.float32)
  close(outputs, call(wide)(inputs(), MASK)[0], 2e-2)
