"""Recurrent layers: RNN, GRU and LSTM, in one or both directions, masked.

A cell is an element-wise function of two projections, of the input and of the
state before, so that the input's is computed for all steps at once.
"""

from collections.abc import Callable
from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from attnlab.layers import basic

Array = jax.Array
Carry = tuple[Array, ...]  # h first, each [B, H]


class Cell(NamedTuple):
  """One recurrent cell.

  Attributes:
    gates: how many vectors of H each projection holds.
    states: how many vectors of H the carry holds, h first.
    step: (carry, projected input [B, gates*H], projected h, likewise) -> carry.
  """

  gates: int
  states: int
  step: Callable[[Carry, Array, Array], Carry]


def rnn() -> Cell:
  """Vanilla RNN, h = tanh(W x + U h + b) (Elman 1990)."""

  def step(carry, x, r):
    del carry
    return (jnp.tanh(x + r),)

  return Cell(1, 1, step)


def gru() -> Cell:
  """GRU (Cho et al. 2014), reset after the product, as cuDNN and torch do.

  r, z = sigmoid(.), n = tanh(W_n x + r * (U_n h + b)), h = (1-z) n + z h.
  """

  def step(carry, x, r):
    (h,) = carry
    x_reset, x_update, x_new = jnp.split(x, 3, axis=-1)
    r_reset, r_update, r_new = jnp.split(r, 3, axis=-1)
    reset = jax.nn.sigmoid(x_reset + r_reset)
    update = jax.nn.sigmoid(x_update + r_update)
    new = jnp.tanh(x_new + reset * r_new)
    return (new + update * (h - new),)

  return Cell(3, 1, step)


def lstm() -> Cell:
  """LSTM with forget gate (Gers et al. 2000): i, f, g, o in this order."""

  def step(carry, x, r):
    _, c = carry
    i, f, g, o = jnp.split(x + r, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c

  return Cell(4, 2, step)


CELLS = {'rnn': rnn, 'gru': gru, 'lstm': lstm}


class CellParams(nnx.Module):
  """The weights of one cell: x W + b_x and h U + b_h.

  U starts orthogonal, gate by gate; the forget gate of an LSTM starts open.
  """

  def __init__(
    self,
    cell: str,
    inputs: int,
    hidden: int,
    *,
    rngs: nnx.Rngs,
    dtype: jnp.dtype = jnp.float32,
  ):
    self.cell = nnx.static(CELLS[cell]())
    self.hidden = hidden
    self.dtype = dtype
    gates = self.cell.gates
    orthogonal = jax.nn.initializers.orthogonal()
    self.weight = nnx.Param(
      jax.nn.initializers.glorot_uniform()(
        rngs.params(), (inputs, gates * hidden)
      )
    )
    self.recurrent = nnx.Param(
      jnp.concatenate(
        [orthogonal(rngs.params(), (hidden, hidden)) for _ in range(gates)],
        axis=-1,
      )
    )
    bias = jnp.zeros((gates * hidden,))
    if cell == 'lstm':
      bias = bias.at[hidden : 2 * hidden].set(1.0)
    self.bias = nnx.Param(bias)
    # Redundant but in a GRU, where the reset gate multiplies it.
    self.recurrent_bias = nnx.Param(jnp.zeros((gates * hidden,)))

  def project(self, inputs: Array) -> Array:
    """x W + b_x, [..., I] -> [..., gates*H], in the compute dtype."""
    return basic.affine(inputs, self.weight[...], self.bias[...], self.dtype)

  def recur(self) -> Callable[[Array], Array]:
    """The function h -> h U + b_h; its weights are read once, outside loops."""
    weight = self.recurrent[...].astype(self.dtype)
    bias = self.recurrent_bias[...].astype(self.dtype)
    return lambda h: basic.affine(h, weight, bias, self.dtype)

  def zeros(self, batch: int) -> Carry:
    """The carry before the first step."""
    return tuple(
      jnp.zeros((batch, self.hidden), self.dtype)
      for _ in range(self.cell.states)
    )


def run(
  params: CellParams,
  inputs: Array,
  mask: Array | None = None,
  carry: Carry | None = None,
  *,
  reverse: bool = False,
) -> tuple[Carry, Array]:
  """Runs one cell over a sequence.

  Args:
    params: the cell.
    inputs: [B, T, I].
    mask: booleans [B, T]; where False the state is carried through and the
      output is 0, so that padding changes nothing in either direction.
    carry: the state before the first step; None starts at zero.
    reverse: from the last position to the first.

  Returns:
    The last carry ([B, H] each) and the outputs [B, T, H].
  """
  batch = inputs.shape[0]
  if carry is None:
    carry = params.zeros(batch)
  xs = jnp.swapaxes(params.project(inputs), 0, 1)
  visible = None if mask is None else jnp.swapaxes(mask, 0, 1)[..., None]
  recur = params.recur()

  def step(carry, x):
    x, visible = x
    new = params.cell.step(carry, x, recur(carry[0]))
    if visible is None:
      return new, new[0]
    kept = tuple(
      jnp.where(visible, n, o) for n, o in zip(new, carry, strict=True)
    )
    return kept, jnp.where(visible, new[0], 0)

  carry, outputs = jax.lax.scan(step, carry, (xs, visible), reverse=reverse)
  return carry, jnp.swapaxes(outputs, 0, 1)


class Recurrent(nnx.Module):
  """Layers of recurrent cells, each in one or both directions.

  Attributes:
    output_dim: depth of the outputs: H, or 2 H in both directions.
  """

  def __init__(
    self,
    cell: str,
    inputs: int,
    hidden: int,
    *,
    layers: int = 1,
    bidirectional: bool = True,
    rngs: nnx.Rngs,
    dtype: jnp.dtype = jnp.float32,
  ):
    self.output_dim = hidden * (2 if bidirectional else 1)
    depths = [inputs] + [self.output_dim] * (layers - 1)
    new = lambda depth: CellParams(cell, depth, hidden, rngs=rngs, dtype=dtype)
    self.forward = nnx.List([new(depth) for depth in depths])
    self.backward = nnx.List(
      [new(depth) for depth in depths] if bidirectional else []
    )

  def __call__(
    self, inputs: Array, mask: Array | None = None
  ) -> tuple[Array, list[tuple[Carry, ...]]]:
    """[B, T, I], [B, T] -> outputs [B, T, D] and each layer's last carries.

    The carries are (forward,) or (forward, backward) a layer; the backward one
    has read the whole sequence down to its first position.
    """
    carries = []
    for index, forward in enumerate(self.forward):
      last, outputs = run(forward, inputs, mask)
      last = (last,)
      if self.backward:
        other, reverse = run(self.backward[index], inputs, mask, reverse=True)
        last = (*last, other)
        outputs = jnp.concatenate([outputs, reverse], axis=-1)
      carries.append(last)
      inputs = outputs
    return inputs, carries
