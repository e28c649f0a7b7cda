"""Heads and hops against the same mechanism, run one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import attention

heads, hops, scores = attention.heads, attention.hops, attention.scores
T, S, D, V, H = 3, 5, 4, 6, 2


def compose(score=None, **parts):
  return attention.compose(
    score=score or scores.additive(hidden=3),
    normalizer=attention.normalizers.softmax(),
    **parts,
  )


def arrays():
  rng = np.random.default_rng(0)
  shapes = (T, D), (S, D), (S, V)
  return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def init(mechanism, **depths):
  depths = {'query_dim': D, 'key_dim': D, 'value_dim': V} | depths
  return mechanism.init(jax.random.key(1), **depths)


def contributions(inner, params):
  """c_h W_O_h of every head, each attending on its own."""
  query, key, value = arrays()
  found = []
  depth = params['out'].shape[0] // H
  for h in range(H):
    part = slice(h * depth, (h + 1) * depth)
    out = attention.attend(
      inner,
      jax.tree.map(lambda x, h=h: x[h], params['heads']),
      query @ params['query'][:, part],
      key @ params['key'][:, part],
      value @ params['value'][:, part],
      mask=attention.masks.causal(),
    )
    found.append(out.context @ params['out'][part])
  return np.stack(found)


def run(mechanism, params):
  return attention.attend(
    mechanism, params, *arrays(), mask=attention.masks.causal()
  ).context


@pytest.mark.parametrize(
  'inner',
  [
    compose(),
    compose(scores.scaled_dot()),
    compose(scores.coverage_aware(hidden=3)),
    compose(locality=attention.locality.local_p(half_width=1, hidden=2)),
  ],
  ids=['additive', 'scaled_dot', 'coverage_aware', 'local_p'],
)
def test_heads_are_the_sum_of_what_each_contributes(inner):
  both = heads.multi_head(inner, num_heads=H, head_dim=3, out_dim=5)
  params = init(both)
  each = contributions(inner, params)
  np.testing.assert_allclose(run(both, params), each.sum(0), atol=2e-6)
  weighted = heads.multi_head_weighted(
    inner, num_heads=H, head_dim=3, out_dim=5
  )
  again = init(weighted)
  assert again.keys() - params.keys() == {'weight'}
  # Equal at the start: the mean; then whatever softmax(w) says.
  np.testing.assert_allclose(run(weighted, again), each.mean(0), atol=2e-6)
  again['weight'] = jnp.log(jnp.array([1.0, 3.0]))
  expected = each[0] / 4 + each[1] * 3 / 4
  np.testing.assert_allclose(run(weighted, again), expected, atol=2e-6)


def test_heads_share_the_depth_of_the_queries_unless_told():
  shapes = jax.tree.map(jnp.shape, init(heads.multi_head(compose())))
  assert shapes['query'] == shapes['key'] == shapes['out'] == (D, D)
  assert shapes['value'] == (V, D)
  shapes = jax.tree.map(
    jnp.shape, init(heads.multi_head(compose(), num_heads=3, head_dim=2))
  )
  assert shapes['query'] == (D, 6)
  assert shapes['out'] == (6, D)


def test_heads_that_ask_for_no_query_have_no_parameters_for_one():
  mechanism = heads.multi_head(compose(scores.keys_only(hidden=3)))
  assert not mechanism.depends_on_query
  params = init(mechanism)
  assert 'query' not in params
  query, key, value = arrays()
  out = attention.attend(mechanism, params, query, key, value).context
  other = attention.attend(mechanism, params, -query, key, value).context
  np.testing.assert_array_equal(out, other)


def test_hops_by_hand():
  inner = compose()
  mechanism = hops.multi_hop(inner, hops=3)
  params = init(mechanism)
  np.testing.assert_array_equal(params['query'], np.eye(D))
  params['query'] = params['query'] * 0.5
  query, key, value = arrays()
  whole = attention.attend(mechanism, params, query, key, value)
  assert whole.weights.shape == (3, T, S)
  for n in range(3):
    out = attention.attend(inner, params['hop'], query, key, value)
    np.testing.assert_allclose(whole.weights[n], out.weights, atol=1e-6)
    query = query @ params['query'] + out.context @ params['context']
  np.testing.assert_allclose(whole.context, out.context, atol=1e-6)


def test_hops_around_heads_have_both_axes():
  inner = heads.multi_head_weighted(compose(), num_heads=H)
  mechanism = hops.multi_hop(inner, hops=3)
  params = init(mechanism)
  out = attention.attend(mechanism, params, *arrays())
  assert out.weights.shape == (3, H, T, S)
  assert out.context.shape == (T, D)


def test_every_hop_draws_anew():
  inner = attention.compose(
    score=scores.dot(), normalizer=attention.normalizers.sample()
  )
  mechanism = hops.multi_hop(inner, hops=2)
  params = init(mechanism)
  # C = 0 and H = 1: the hops differ by what they draw alone.
  params['context'] = jnp.zeros_like(params['context'])
  out = attention.attend(mechanism, params, *arrays(), rng=jax.random.key(0))
  assert (out.weights[0] != out.weights[1]).any()
  assert out.aux['log_prob'].shape == (2, T)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: heads.multi_head(compose(), num_heads=0), 'num_heads=0'),
    (lambda: heads.multi_head(compose(), num_heads=2000), 'num_heads=2000'),
    (lambda: heads.multi_head_weighted(compose(), head_dim=-1), 'head_dim=-1'),
    (lambda: heads.multi_head(compose(), out_dim=-1), 'out_dim=-1'),
    (
      lambda: init(heads.multi_head(compose(), num_heads=3)),
      r'num_heads=3\) does not divide 4, .*: [24] is',
    ),
    (lambda: hops.multi_hop(compose(), hops=1), r'hops=1\): it must be from 2'),
    (lambda: hops.multi_hop(compose(), hops=101), 'hops=101'),
    (
      lambda: hops.multi_hop(compose(scores.keys_only())),
      'asks for no query .* the nearest that does is score=additive',
    ),
  ],
)
def test_wrong_settings_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
