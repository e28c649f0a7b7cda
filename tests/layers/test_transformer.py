"""Transformer layers: positions by hand, torch with the same weights, steps."""

import math

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import attention, errors
from attnlab.layers import basic, transformer

B, T, S, D, F, HEADS = 2, 3, 4, 4, 6, 2

MECHANISM = attention.heads.multi_head(
  attention.compose(
    score=attention.scores.scaled_dot(),
    normalizer=attention.normalizers.softmax(),
  ),
  num_heads=HEADS,
  head_dim=D // HEADS,
  out_dim=D,
)


def build(
  *,
  cross,
  norm,
  layers=1,
  dropout=0.0,
  dtype=jnp.float32,
  mechanism=MECHANISM,
):
  return transformer.Stack(
    mechanism,
    D,
    F,
    layers=layers,
    cross=cross,
    dropout=dropout,
    norm=norm,
    rngs=nnx.Rngs(0),
    dtype=dtype,
  )


def arrays(dtype=np.float32):
  rng = np.random.default_rng(0)
  return [
    jnp.array(rng.normal(size=(B, length, D)), dtype) for length in (T, S)
  ]


CAUSAL = np.broadcast_to(np.tri(T, dtype=bool), (B, T, T))
SOURCE_MASK = np.arange(S) < np.array([S, S - 2])[:, None, None]


def test_positions_by_hand():
  # D = 4: rates 1 and 1/100; sines first, then cosines.
  found = transformer.sinusoidal_positions(jnp.array([0, 1, 50]), 4)
  expected = [
    [math.sin(p), math.sin(p / 100), math.cos(p), math.cos(p / 100)]
    for p in (0, 1, 50)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_positions_come_in_pairs():
  with pytest.raises(ValueError, match='depth=5 is odd'):
    transformer.sinusoidal_positions(jnp.arange(2), 5)


def test_an_unknown_norm_is_refused_with_the_nearest():
  with pytest.raises(errors.UserError, match="did you mean 'post'"):
    build(cross=False, norm='pos')


def copy_from_torch(layer, peer):
  """Copies the weights of a torch layer; its attention has no biases here."""
  turn = lambda x: jnp.array(x.detach().numpy().T)

  def attend(ours, theirs):
    names = ('query', 'key', 'value')
    weights = map(turn, theirs.in_proj_weight.chunk(3))
    for name, weight in zip(names, weights, strict=True):
      ours.params[name] = nnx.Param(weight)
    ours.params['out'] = nnx.Param(turn(theirs.out_proj.weight))

  attend(layer.self_attend, peer.self_attn)
  norms = [peer.norm1, peer.norm2]
  if layer.cross_attend is not None:
    attend(layer.cross_attend, peer.multihead_attn)
    norms.append(peer.norm3)
  feed = layer.feed_forward
  for ours, theirs in ((feed.inner, peer.linear1), (feed.outer, peer.linear2)):
    ours.weight = nnx.Param(turn(theirs.weight))
    ours.bias = nnx.Param(turn(theirs.bias))
  for ours, theirs in zip(layer.norms, norms, strict=True):
    ours.scale = nnx.Param(turn(theirs.weight))
    ours.bias = nnx.Param(turn(theirs.bias))


@pytest.mark.filterwarnings('ignore::UserWarning:torch')
@pytest.mark.parametrize('norm', transformer.NORMS)
@pytest.mark.parametrize('cross', [False, True])
def test_torch_with_the_same_weights(cross, norm):
  torch = pytest.importorskip('torch', reason='differential test')
  torch.manual_seed(0)
  kind = 'TransformerDecoderLayer' if cross else 'TransformerEncoderLayer'
  peer = getattr(torch.nn, kind)(
    D,
    HEADS,
    F,
    dropout=0.0,
    layer_norm_eps=1e-6,
    batch_first=True,
    norm_first=norm == 'pre',
  )
  with torch.no_grad():  # norms start as the identity, which would hide them
    for module in peer.modules():
      if isinstance(module, torch.nn.LayerNorm):
        module.weight.normal_(1, 0.3)
        module.bias.normal_(0, 0.3)
  stack = build(cross=cross, norm=norm)
  copy_from_torch(stack.layers[0], peer)
  x, states = arrays()
  turn = lambda array: torch.from_numpy(np.array(array))
  hidden = turn(~CAUSAL[0])
  if cross:
    expected = peer(
      turn(x),
      turn(states),
      tgt_mask=hidden,
      memory_key_padding_mask=turn(~SOURCE_MASK[:, 0]),
    )
  else:
    expected = peer(turn(x), src_mask=hidden)
  if norm == 'pre':  # attnlab's stack ends in a norm there
    expected = torch.nn.functional.layer_norm(expected, (D,), eps=1e-6)
  source = stack.prepare_source(states) if cross else None
  found, records = stack(x, CAUSAL, source, SOURCE_MASK if cross else None)
  np.testing.assert_allclose(found, expected.detach(), rtol=2e-5, atol=2e-5)
  names = {'self', 'source'} if cross else {'self'}
  assert set(records[0]) == names


def with_heads(score, position=None):
  inner = attention.compose(
    score=score,
    normalizer=attention.normalizers.softmax(),
    position=position,
  )
  return attention.heads.multi_head(
    inner, num_heads=HEADS, head_dim=D // HEADS, out_dim=D
  )


@pytest.mark.parametrize(
  'mechanism',
  [
    MECHANISM,
    with_heads(attention.scores.dot(), attention.positions.alibi()),
    with_heads(attention.scores.location(max_length=S)),
    with_heads(attention.scores.location_aware(hidden=3, filters=2, width=3)),
    with_heads(attention.scores.coverage_aware(hidden=3)),
  ],
  ids=['scaled_dot', 'alibi', 'location', 'location_aware', 'coverage_aware'],
)
def test_a_step_with_a_cache_equals_the_whole(mechanism):
  stack = build(cross=True, norm='pre', layers=2, mechanism=mechanism)
  x, states = arrays()
  source = stack.prepare_source(states)
  whole, records = stack(x, CAUSAL, source, SOURCE_MASK)
  past = stack.empty_past(B, T, S, D, x.dtype)
  step = jax.jit(lambda x, past, t: stack.step(x, past, t, source, SOURCE_MASK))
  for t in range(T):
    out, past, weights = step(x[:, t : t + 1], past, t)
    np.testing.assert_allclose(out, whole[:, t : t + 1], atol=2e-6)
    for now, record in zip(weights, records, strict=True):
      np.testing.assert_allclose(
        now['source'][:, :, 0], record['source'][:, :, t], atol=2e-6
      )


def test_every_dropout_draws_with_a_key_of_its_own(monkeypatch):
  drawn = []

  def record(inputs, rate, rng):
    del rate
    drawn.append(tuple(np.asarray(jax.random.key_data(rng))))
    return inputs

  monkeypatch.setattr(basic, 'dropout', record)
  stack = build(cross=True, norm='post', layers=2, dropout=0.5)
  x, states = arrays()
  source = stack.prepare_source(states)
  stack(x, CAUSAL, source, SOURCE_MASK, jax.random.key(0))
  assert len(drawn) == 2 * 4
  assert len(set(drawn)) == len(drawn)


def test_dropout_is_off_without_rng_and_on_with_one():
  on, off = (build(cross=False, norm='post', dropout=d) for d in (0.5, 0.0))
  x, _ = arrays()
  still, _ = on(x, CAUSAL)
  np.testing.assert_array_equal(still, off(x, CAUSAL)[0])
  moved, _ = on(x, CAUSAL, rng=jax.random.key(0))
  assert (moved != still).any()


def test_bfloat16_computes_with_float32_parameters():
  stack = build(cross=True, norm='post', dtype=jnp.bfloat16)
  for leaf in jax.tree.leaves(nnx.state(stack, nnx.Param)):
    assert leaf.dtype == np.float32
  x, states = arrays(jnp.bfloat16)
  run = lambda x, states: stack(
    x, CAUSAL, stack.prepare_source(states), SOURCE_MASK
  )
  outputs, records = jax.eval_shape(run, x, states)
  assert outputs.dtype == jnp.bfloat16
  for leaf in jax.tree.leaves(records):
    assert leaf.dtype == np.float32
