"""The same numbers as torch and Flax give, where they mean the same."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import attention

B, H, T, S, D = 2, 2, 3, 4, 6
REASON = 'a differential test against torch; install .[bench]'

scaled_dot = attention.compose(
  score=attention.scores.scaled_dot(),
  normalizer=attention.normalizers.softmax(),
)


def arrays(*lead):
  rng = np.random.default_rng(0)
  return [
    rng.normal(size=(*lead, length, D)).astype(np.float32)
    for length in (T, S, S)
  ]


def close(a, b):
  np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize('causal', [False, True])
def test_torch_scaled_dot_product_attention(causal):
  torch = pytest.importorskip('torch', reason=REASON)
  query, key, value = arrays(B, H)
  mask = attention.masks.causal() if causal else None
  out = attention.attend(scaled_dot, {}, query, key, value, mask=mask)
  expected = torch.nn.functional.scaled_dot_product_attention(
    *map(torch.from_numpy, (query, key, value)), is_causal=causal
  )
  close(out.context, expected)


def test_torch_multihead_attention():
  torch = pytest.importorskip('torch', reason=REASON)
  torch.manual_seed(0)
  peer = torch.nn.MultiheadAttention(D, H, bias=False, batch_first=True)
  query, key, value = arrays(B)
  lengths = np.array([S, S - 2])
  ignored = torch.from_numpy(np.arange(S) >= lengths[:, None])
  with torch.no_grad():
    context, weights = peer(
      *map(torch.from_numpy, (query, key, value)),
      key_padding_mask=ignored,  # True = may not attend, there
      average_attn_weights=False,
    )
  turn = lambda weight: jnp.array(weight.detach().numpy().T)
  weights_in = [turn(weight) for weight in peer.in_proj_weight.chunk(3)]
  params = dict(zip(('query', 'key', 'value'), weights_in, strict=True))
  params |= {'out': turn(peer.out_proj.weight), 'heads': {}}
  mechanism = attention.heads.multi_head(
    scaled_dot, num_heads=H, head_dim=D // H, out_dim=D
  )
  mask = attention.masks.padding(jnp.array(lengths))
  out = attention.attend(mechanism, params, query, key, value, mask=mask)
  close(out.context, context)
  close(out.weights, weights)


def test_flax_dot_product_attention():
  query, key, value = arrays(B)
  mask = np.tri(T, S, dtype=bool)
  bias = np.random.default_rng(1).normal(size=(B, T, S)).astype(np.float32)
  out = attention.attend(
    scaled_dot, {}, query, key, value, mask=mask, bias=bias
  )
  # There: [B, length, heads, depth], masks and biases with an axis of heads.
  expected = nnx.dot_product_attention(
    *(jnp.array(x)[:, :, None] for x in (query, key, value)),
    mask=jnp.array(mask)[None, None],
    bias=jnp.array(bias)[:, None],
  )
  close(out.context, expected[:, :, 0])


def test_a_row_without_keys_is_where_flax_and_attnlab_part():
  query, key, value = arrays(B)
  blind = np.zeros((T, S), bool)
  ours = attention.attend(scaled_dot, {}, query, key, value, mask=blind)
  theirs = nnx.dot_product_attention(
    *(jnp.array(x)[:, :, None] for x in (query, key, value)),
    mask=jnp.array(blind)[None, None],
  )
  assert not np.asarray(ours.context).any()
  mean = np.broadcast_to(value.mean(axis=1, keepdims=True), (B, T, D))
  close(theirs[:, :, 0], mean)


def test_keras_concat_is_another_mechanism_than_additive():
  # Keras `Attention(score_mode='concat')` is w * sum tanh(scale (q + k)): it
  # is additive with both matrices and u set to multiples of the identity.
  query, key, _ = arrays()
  w, scale = 0.7, 1.3
  eye = jnp.eye(D) * scale
  params = {
    'query': eye,
    'key': eye,
    'bias': jnp.zeros(D),
    'out': jnp.full(D, w),
  }
  score = attention.scores.additive(hidden=D)
  found = score.apply(params, jnp.array(query), score.prepare(params, key))
  keras = w * np.tanh(scale * (query[:, None] + key[None])).sum(axis=-1)
  close(found, keras)


def test_luong_concat_is_additive_without_bias():
  rng = np.random.default_rng(2)
  weight, u = rng.normal(size=(3, 2 * D)), rng.normal(size=3)
  query, key, _ = arrays()
  pairs = np.concatenate(
    [
      np.broadcast_to(query[:, None], (T, S, D)),
      np.broadcast_to(key[None], (T, S, D)),
    ],
    axis=-1,
  )
  expected = np.tanh(pairs @ weight.T) @ u
  params = {
    'query': weight[:, :D].T,
    'key': weight[:, D:].T,
    'bias': np.zeros(3),
    'out': u,
  }
  params = jax.tree.map(lambda x: jnp.array(x, jnp.float32), params)
  score = attention.scores.additive(hidden=3)
  found = score.apply(params, jnp.array(query), score.prepare(params, key))
  close(found, expected)
