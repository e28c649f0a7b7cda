"""Recurrent encoder-decoders, with any attention mechanism or with none.

Every translation model answers the same four calls, whatever its decoder:

    model(batch, rng)                       -> (logits [B, T, V], out)
    model.encode(source)                    -> memory
    model.init_carry(memory, length)        -> carry
    model.step(memory, carry, token, t)     -> (logits [B, V], carry, weights)

Every leaf of memory and carry has the batch first, so that a beam can copy and
reorder them. Row t of the weights belongs to the prediction of target word t.
"""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from attnlab import errors
from attnlab.layers import attend as attend_lib
from attnlab.layers import basic, recurrent

Array = jax.Array
PyTree = Any
CONTEXTS = ('last', 'projected', 'all')
USES = ('init', 'every_step')
BOS = 1


def shift(target: Array) -> Array:
  """Targets [B, T] moved right by one, with BOS first: what a decoder reads."""
  return jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)


class Encoder(nnx.Module):
  """Embedding and recurrent layers: [B, S] ids -> states [B, S, D]."""

  def __init__(
    self,
    size: int,
    *,
    cell: str,
    embedding: int,
    hidden: int,
    layers: int,
    bidirectional: bool,
    dropout: float,
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
  ):
    self.embed = basic.Embedding(size, embedding, rngs=rngs, dtype=dtype)
    self.recurrent = recurrent.Recurrent(
      cell,
      embedding,
      hidden,
      layers=layers,
      bidirectional=bidirectional,
      rngs=rngs,
      dtype=dtype,
    )
    self.dropout = dropout
    self.output_dim = self.recurrent.output_dim

  def __call__(self, source: Array, rng: Array | None = None):
    """Returns the states [B, S, D], the mask [B, S] and h_S [B, D]."""
    mask = source != 0
    rngs = basic.split(rng, 2)
    embedded = basic.dropout(self.embed(source), self.dropout, rngs[0])
    states, carries = self.recurrent(embedded, mask)
    states = basic.dropout(states, self.dropout, rngs[1])
    last = jnp.concatenate([carry[0] for carry in carries[-1]], axis=-1)
    return states, mask, last


class Decoder(nnx.Module):
  """What the recurrent decoders share: embedding, cells, output layer.

  A subclass says what its cell reads besides the word before, when it attends
  and what the output layer sees: `memory`, `advance` and `features`.
  """

  def __init__(
    self,
    size: int,
    *,
    cell: str,
    embedding: int,
    hidden: int,
    layers: int,
    extra: int,
    features: int,
    source_dim: int | None,
    dropout: float,
    tie: bool,
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
  ):
    if tie and features != embedding:
      raise errors.UserError(
        f'model.tie=True needs an output of the depth of the embedding: '
        f'{features} is not model.embedding={embedding}'
      )
    self.embed = basic.Embedding(size, embedding, rngs=rngs, dtype=dtype)
    depths = [embedding] + [hidden] * (layers - 1)
    self.cells = nnx.List(
      [
        recurrent.CellParams(cell, depth, hidden, rngs=rngs, dtype=dtype)
        for depth in depths
      ]
    )
    gates = self.cells[0].cell.gates
    # [E y; extra] W as two products: the words' is computed outside the loop.
    self.extra: Any = (
      basic.Linear(extra, gates * hidden, bias=False, rngs=rngs, dtype=dtype)
      if extra
      else None
    )
    states = layers * self.cells[0].cell.states
    self.start = (
      basic.Linear(source_dim, states * hidden, rngs=rngs, dtype=dtype)
      if source_dim
      else None
    )
    self.output = Output(
      features, size, self.embed if tie else None, rngs=rngs, dtype=dtype
    )
    self.hidden = hidden
    self.dropout = dropout

  def memory(self, states: Array, mask: Array, last: Array) -> PyTree:
    """What every step reads: states [B, S, D], mask [B, S], h_S [B, D]."""
    raise NotImplementedError

  def carry(self, memory: PyTree) -> PyTree:
    """The state before the first word."""
    raise NotImplementedError

  def advance(
    self,
    memory: PyTree,
    carry: PyTree,
    x: Array,
    t: Array,
    rng: Array | None = None,
  ):
    """Step t: x is the projected word [B, gates*H]; returns carry, record.

    The record holds 'state' [B, H], 'context' [B, V] and 'weights' [B, S].
    """
    raise NotImplementedError

  def features(self, y: dict[str, Array], embedded: Array) -> Array:
    """What the output layer sees, from records and words [..., E]."""
    raise NotImplementedError

  def start_cells(self, summary: Array) -> list[recurrent.Carry]:
    """s_0 = tanh(W summary + b), for every layer and state."""
    assert self.start is not None
    parts = jnp.split(
      jnp.tanh(self.start(summary)),
      len(self.cells) * self.cells[0].cell.states,
      axis=-1,
    )
    states = self.cells[0].cell.states
    return [
      tuple(parts[i * states : (i + 1) * states])
      for i in range(len(self.cells))
    ]

  def advance_cells(
    self, carries: list[recurrent.Carry], x: Array, extra: Array | None
  ) -> list[recurrent.Carry]:
    """One step of all layers; x is projected, extra [B, D] is not yet."""
    if self.extra is not None:
      x = x + self.extra(extra)
    new = []
    for index, (params, carry) in enumerate(
      zip(self.cells, carries, strict=True)
    ):
      if index:
        x = params.project(new[-1][0])
      new.append(params.cell.step(carry, x, params.recur()(carry[0])))
    return new

  def unroll(self, memory, carry, target: Array, rng: Array | None):
    """Reads the reference: target [B, T] -> features [B, T, F] and records."""
    rngs = basic.split(rng, 2)
    embedded = self.embed(shift(target))
    embedded = basic.dropout(embedded, self.dropout, rngs[0])
    xs = jnp.swapaxes(self.cells[0].project(embedded), 0, 1)

    def step(carry, row):
      t, x = row
      # For mechanisms that draw; where none does, jit prunes it.
      drawn = None if rng is None else jax.random.fold_in(rng, t)
      return self.advance(memory, carry, x, t, drawn)

    carry, ys = jax.lax.scan(step, carry, (jnp.arange(len(xs)), xs))
    ys = jax.tree.map(lambda y: jnp.swapaxes(y, 0, 1), ys)
    features = self.features(ys, embedded)
    features = basic.dropout(features, self.dropout, rngs[1])
    return features, {**ys, 'carry': carry}

  def step(self, memory, carry, token: Array, position: Array):
    """token [B] -> features [B, F], carry and weights [B, S]."""
    embedded = self.embed(token)
    x = self.cells[0].project(embedded)
    carry, y = self.advance(memory, carry, x, position)
    return self.features(y, embedded), carry, y['weights']


class Output(nnx.Module):
  """The output layer, features -> logits; tied, it reads the embedding."""

  def __init__(
    self,
    features: int,
    size: int,
    embed: basic.Embedding | None,
    *,
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
  ):
    self.embed: Any = embed
    init = jax.nn.initializers.glorot_uniform()
    self.weight = (
      None if embed else nnx.Param(init(rngs.params(), (features, size)))
    )
    self.bias = nnx.Param(jnp.zeros((size,)))
    self.dtype = dtype

  def kernel(self) -> Array:
    """[F, V], in the compute dtype."""
    if self.weight is None:
      return self.embed.table[...].T.astype(self.dtype)
    return self.weight[...].astype(self.dtype)

  def __call__(self, features: Array) -> Array:
    """[..., F] -> logits [..., V], float32."""
    logits = jnp.matmul(
      features, self.kernel(), preferred_element_type=jnp.float32
    )
    return logits + jnp.broadcast_to(self.bias[...], logits.shape)


class FixedDecoder(Decoder):
  """No attention: one vector c for the whole source (Cho 2014, Sutskever 2014).

  c = h_S ('last'), tanh(W h_S) ('projected') or tanh(W mean(h_1..h_S)) ('all');
  used as s_0 ('init') or read at every step as well ('every_step').
  """

  def __init__(self, size, encoder, *, context, use, **settings):
    if context not in CONTEXTS:
      raise errors.unknown('model.context', context, CONTEXTS)
    if use not in USES:
      raise errors.unknown('model.use', use, USES)
    hidden = settings['hidden']
    source_dim = encoder.output_dim
    if context == 'last' and use == 'init' and source_dim != hidden:
      raise errors.UserError(
        f"model.context='last' starts the decoder at h_S itself, but h_S has "
        f'{source_dim} units and the decoder {hidden}: choose '
        "model.context='projected' or model.bidirectional=False"
      )
    depth = source_dim if context == 'last' else hidden
    every = use == 'every_step'
    # With 'last' and 'init', s_0 is the context itself: nothing to project.
    as_is = context == 'last' and not every
    super().__init__(
      size,
      extra=depth if every else 0,
      features=settings['embedding'],
      source_dim=None if as_is else depth,
      **settings,
    )
    rngs, dtype = settings['rngs'], settings['dtype']
    self.project: Any = (
      None
      if context == 'last'
      else basic.Linear(source_dim, depth, rngs=rngs, dtype=dtype)
    )
    seen = hidden + settings['embedding'] + (depth if every else 0)
    self.combine = basic.Linear(
      seen, settings['embedding'], rngs=rngs, dtype=dtype
    )
    self.context = context
    self.every = every

  def memory(self, states, mask, last):
    if self.context == 'all':
      count = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
      summed = jnp.sum(jnp.where(mask[..., None], states, 0), axis=1)
      last = summed / count.astype(summed.dtype)
    context = jnp.tanh(self.project(last)) if self.project else last
    return {'context': context, 'mask': mask}

  def carry(self, memory):
    context = memory['context']
    if self.start is None:
      # s_0 = c itself; an LSTM's cell state starts at zero.
      cells = [
        (context, *(jnp.zeros_like(context),) * (p.cell.states - 1))
        for p in self.cells
      ]
    else:
      cells = self.start_cells(context)
    return {'cells': cells}

  def advance(self, memory, carry, x, t, rng=None):
    context = memory['context']
    cells = self.advance_cells(
      carry['cells'], x, context if self.every else None
    )
    # There are no weights; the records keep their shape all the same.
    weights = jnp.zeros(memory['mask'].shape, jnp.float32)
    y = {'state': cells[-1][0], 'context': context, 'weights': weights}
    return {'cells': cells}, y

  def features(self, y, embedded):
    seen = [y['state'], embedded] + ([y['context']] if self.every else [])
    return jnp.tanh(self.combine(jnp.concatenate(seen, axis=-1)))


class AttentionDecoder(Decoder):
  """What both orders of attention share: the mechanism and its memory."""

  def __init__(self, size, encoder, mechanism, *, extra=None, **settings):
    self.attend = attend_lib.Attend(
      mechanism,
      query_dim=settings['hidden'],
      key_dim=encoder.output_dim,
      value_dim=encoder.output_dim,
      rngs=settings['rngs'],
    )
    super().__init__(
      size,
      source_dim=encoder.output_dim,
      extra=self.attend.context_dim if extra is None else extra,
      **settings,
    )

  def memory(self, states, mask, last):
    return {
      'source': self.attend.prepare(states, states),
      'mask': mask,
      'last': last,
    }

  def carry(self, memory):
    batch, length = memory['mask'].shape
    return {
      'cells': self.start_cells(memory['last']),
      'alignment': self.attend.init_state(batch, length),
    }

  def read(self, memory, query, alignment, t, rng):
    """query [B, H] -> context [B, V], weights [B, S], the next alignment."""
    out = self.attend(
      query[:, None],
      memory['source'],
      mask=memory['mask'][:, None],
      state=alignment,
      rng=rng,
      query_start=t,
    )
    # Several heads and hops are recorded as their mean.
    weights = attend_lib.rows(out.weights)
    return out.context[:, 0], weights[:, 0], out.state


class BahdanauDecoder(AttentionDecoder):
  """Attends with the state before: s_t = f(s_{t-1}, [E y_{t-1}; c_t]).

  Bahdanau et al. 2014: e_ti = score(s_{t-1}, h_i); the output layer sees
  tanh(W [s_t; E y_{t-1}; c_t]); s_0 = tanh(W h_S).
  """

  def __init__(self, size, encoder, mechanism, **settings):
    embedding, hidden = settings['embedding'], settings['hidden']
    super().__init__(size, encoder, mechanism, features=embedding, **settings)
    self.combine = basic.Linear(
      hidden + embedding + self.attend.context_dim,
      embedding,
      rngs=settings['rngs'],
      dtype=settings['dtype'],
    )

  def advance(self, memory, carry, x, t, rng=None):
    query = carry['cells'][-1][0]
    context, weights, alignment = self.read(
      memory, query, carry['alignment'], t, rng
    )
    cells = self.advance_cells(carry['cells'], x, context)
    y = {'state': cells[-1][0], 'context': context, 'weights': weights}
    return {'cells': cells, 'alignment': alignment}, y

  def features(self, y, embedded):
    seen = jnp.concatenate([y['state'], embedded, y['context']], axis=-1)
    return jnp.tanh(self.combine(seen))


class LuongDecoder(AttentionDecoder):
  """Attends with the new state: h~_t = tanh(W_c [c_t; s_t]).

  Luong et al. 2015: s_t = f(s_{t-1}, [E y_{t-1}; h~_{t-1}]) (input feeding),
  e = score(s_t, h_i); the output layer sees h~_t.
  """

  def __init__(self, size, encoder, mechanism, **settings):
    hidden = settings['hidden']
    super().__init__(
      size, encoder, mechanism, extra=hidden, features=hidden, **settings
    )
    self.combine = basic.Linear(
      self.attend.context_dim + hidden,
      hidden,
      rngs=settings['rngs'],
      dtype=settings['dtype'],
    )

  def carry(self, memory):
    carry = super().carry(memory)
    return {**carry, 'feed': jnp.zeros_like(carry['cells'][0][0])}

  def advance(self, memory, carry, x, t, rng=None):
    cells = self.advance_cells(carry['cells'], x, carry['feed'])
    state = cells[-1][0]
    context, weights, alignment = self.read(
      memory, state, carry['alignment'], t, rng
    )
    feed = jnp.tanh(self.combine(jnp.concatenate([context, state], axis=-1)))
    y = {'state': feed, 'context': context, 'weights': weights}
    return {'cells': cells, 'alignment': alignment, 'feed': feed}, y

  def features(self, y, embedded):
    del embedded
    return y['state']


class Seq2Seq(nnx.Module):
  """An encoder and a decoder."""

  def __init__(self, encoder: Encoder, decoder: Decoder):
    self.encoder = encoder
    self.decoder = decoder

  @property
  def output(self) -> Output:
    return self.decoder.output

  def encode(self, source: Array, rng: Array | None = None) -> PyTree:
    """[B, S] ids -> what the decoder needs of the source."""
    return self.decoder.memory(*self.encoder(source, rng))

  def init_carry(self, memory: PyTree, length: int) -> PyTree:
    """The decoder before the first word; `length` bounds the target."""
    del length
    return self.decoder.carry(memory)

  def step(self, memory: PyTree, carry: PyTree, token: Array, position: Array):
    """One word: token [B] -> logits [B, V], carry, weights [B, S]."""
    features, carry, weights = self.decoder.step(memory, carry, token, position)
    return self.output(features), carry, weights

  def __call__(self, batch: dict[str, Array], rng: Array | None = None):
    """Teacher forcing: {'source' [B, S], 'target' [B, T]} -> logits, out.

    `out` holds 'features' [B, T, F] (what the output layer sees), 'weights'
    [B, T, S], 'context', 'state' and 'memory'. rng=None turns dropout off.
    """
    rngs = basic.split(rng, 2)
    memory = self.encode(batch['source'], rngs[0])
    carry = self.decoder.carry(memory)
    features, records = self.decoder.unroll(
      memory, carry, batch['target'], rngs[1]
    )
    out = {**records, 'features': features, 'memory': memory}
    return self.output(features), out
