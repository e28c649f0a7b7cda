"""Each score by hand, what it equals, and what else goes by its name."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table import SCORES
from test_laws import quick

from attnlab import attention

scores, normalizers = attention.scores, attention.normalizers
T, S, D, A = 3, 5, 4, 3
STATEFUL = ('location_aware', 'coverage_aware')


def arrays(seed=0, dtype=np.float32):
  rng = np.random.default_rng(seed)
  return [
    jnp.array(rng.normal(size=(length, D)), dtype) for length in (T, S, S)
  ]


def matrix(*shape, seed=1):
  rng = np.random.default_rng(seed)
  return jnp.array(rng.normal(size=shape), jnp.float32)


def table(score, params, query, key):
  """The scores [T, S] of a score without a state."""
  query, key = jnp.asarray(query), jnp.asarray(key)
  return score.apply(params, query, score.prepare(params, key))


def close(found, expected, tolerance=2e-6):
  np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def attend(score, params, *inputs, **more):
  mechanism = attention.compose(score=score, normalizer=normalizers.softmax())
  return attention.attend(mechanism, {'score': params}, *inputs, **more)


def row(name):
  return getattr(scores, name)(**SCORES[name].settings)


def vector(*numbers):
  return jnp.array(numbers, jnp.float32)


@pytest.mark.parametrize(
  ('score', 'params', 'query', 'key', 'expected'),
  [
    # (3*4 + 4*3) / (5*5) = 24/25; the other is at a right angle.
    (
      scores.cosine(beta=2.0, learned=False),
      {},
      [[3, 4]],
      [[4, 3], [8, -6], [0, 0]],
      [[2 * 24 / 25, 0, 0]],
    ),
    (scores.cosine(), {'beta': vector(3)[0]}, [[3, 4]], [[6, 8]], [[3]]),
    # 2 tanh(1 + 3 - 1) + tanh(2 - 1 + 0)
    (
      scores.concat(hidden=2),
      {
        'query': vector(1, 2)[None],
        'key': jnp.array([[3.0, -1.0], [-1.0, 0.0]]),
        'out': vector(2, 1),
      },
      [[1]],
      [[1, 1]],
      [[2 * math.tanh(3) + math.tanh(1)]],
    ),
    # 2 * 3 + (5 * 1 - 1 * 2)
    (
      scores.concat_linear(),
      {'query': vector(2), 'key': vector(5, -1)},
      [[3], [0]],
      [[1, 2], [0, 1]],
      [[9, 5], [3, -1]],
    ),
    # relu(3 - 1 + 1) = 3 and relu(-3 + 2) = 0; relu(2*3 - 5) = 1; times 7.
    (
      scores.mlp(widths=(2, 1), activation='relu'),
      {
        'query': vector(1, -1)[None],
        'key': vector(-1, 2)[None],
        'bias': vector(1, 0),
        'weight_2': vector(2, 9)[:, None],
        'bias_2': vector(-5),
        'out': vector(7),
      },
      [[3]],
      [[1]],
      [[7]],
    ),
    # 9 + 16 = 25, over 2 * 4.
    (
      scores.euclidean(sigma=2.0),
      {},
      [[1, 1]],
      [[4, 5], [1, 1]],
      [[-25 / 8, 0]],
    ),
    (
      scores.inverse_euclidean(),
      {},
      [[1, 1]],
      [[4, 5], [1, 1]],
      [[1 / 6, 1]],
    ),
    # Columns of W, whatever the keys.
    (
      scores.location(max_length=3),
      {'weight': jnp.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])},
      [[1, 0], [1, 1]],
      [[7], [8]],
      [[1, 2], [11, 22]],
    ),
    # elu + 1 of 2, -1, 0 is 3, 1/e, 1.
    (
      scores.kernel(),
      {},
      [[2, -1]],
      [[0, 0], [2, 0]],
      [[3 + 1 / math.e, 9 + 1 / math.e]],
    ),
    (scores.kernel(features='relu'), {}, [[2, -1]], [[4, 5]], [[8]]),
    (
      scores.kernel(features='softplus'),
      {},
      [[0]],
      [[0]],
      [[math.log(2) ** 2]],
    ),
  ],
)
def test_by_hand(score, params, query, key, expected):
  query, key = (jnp.array(x, jnp.float32) for x in (query, key))
  close(table(score, params, query, key), expected)


def test_cosine_is_blind_to_lengths():
  query, key, value = arrays()
  params = {'beta': jnp.array(2.0)}
  before = attend(scores.cosine(), params, query, key, value)
  stretch = jnp.array([[1e-3], [1.0], [7.0], [1e4], [1e10]])
  after = attend(scores.cosine(), params, 1e3 * query, stretch * key, value)
  close(before.weights, after.weights)


def test_cosine_with_beta_1_is_nearly_uniform():
  rng = np.random.default_rng(0)
  key = jnp.array(rng.normal(size=(200, D)), jnp.float32)
  for score, bound in ((scores.cosine(learned=False), 2), (None, 1)):
    found = attend(score or scores.inverse_euclidean(), {}, key[:1], key, key)
    spread = found.weights.max() / found.weights.min()
    assert 1 < spread < math.exp(bound)
    assert found.weights.max() < math.exp(bound) / 200


def test_only_a_learned_beta_is_a_parameter():
  rng = jax.random.key(0)
  assert scores.cosine(beta=5.0, learned=False).init(rng, D, D) == {}
  (beta,) = scores.cosine(beta=5.0).init(rng, D, D).values()
  assert beta.shape == ()
  assert beta == 5


def test_concat_is_additive_with_one_matrix_and_no_bias():
  query, key, _ = arrays()
  weight, out = matrix(2 * D, A), matrix(A)
  params = {'query': weight[:D], 'key': weight[D:], 'out': out}
  found = table(scores.concat(hidden=A), params, query, key)
  both = {**params, 'bias': jnp.zeros(A)}
  close(found, table(scores.additive(hidden=A), both, query, key), 0)
  pairs = [[jnp.concatenate([q, k]) for k in key] for q in query]
  close(found, jnp.tanh(jnp.array(pairs) @ weight) @ out)


def test_concat_draws_its_two_halves_as_one_matrix():
  params = scores.concat(hidden=500).init(jax.random.key(0), 30, 70)
  for name, depth in (('query', 30), ('key', 70)):
    assert params[name].shape == (depth, 500)
    # Glorot: uniform up to sqrt(6 / (in + out)), in = 100 for both halves.
    bound = (6 / (30 + 70 + 500)) ** 0.5
    assert 0.99 * bound < np.abs(params[name]).max() <= bound


def test_mlp_of_two_layers_with_tanh_is_concat_with_a_bias():
  query, key, _ = arrays()
  score = scores.mlp(widths=(A,), activation='tanh')
  params = score.init(jax.random.key(0), D, D)
  params['bias'] = matrix(A)
  additive = table(scores.additive(hidden=A), params, query, key)
  close(table(score, params, query, key), additive, 0)
  params['bias'] = jnp.zeros(A)
  plain = table(scores.concat(hidden=A), params, query, key)
  close(table(score, params, query, key), plain)


@pytest.mark.parametrize('activation', ['tanh', 'relu', 'gelu', 'silu'])
def test_mlp_has_a_layer_for_each_width(activation):
  score = scores.mlp(widths=(7, 5, 3), activation=activation)
  params = score.init(jax.random.key(0), D, 2 * D)
  assert {name: x.shape for name, x in params.items()} == {
    'query': (D, 7),
    'key': (2 * D, 7),
    'bias': (7,),
    'weight_2': (7, 5),
    'bias_2': (5,),
    'weight_3': (5, 3),
    'bias_3': (3,),
    'out': (3,),
  }
  query, key, _ = arrays()
  found = table(score, params, query, jnp.concatenate([key, key], axis=1))
  assert found.shape == (T, S)
  assert np.unique(np.asarray(found)).size == T * S


def test_bilinear_is_a_dot_product_with_a_folded_query():
  query, key, _ = arrays()
  weight = matrix(D, D)
  found = table(scores.bilinear(), {'weight': weight}, query, key)
  close(found, table(scores.dot(), {}, query @ weight, key))


def test_euclidean_is_a_dot_product_with_a_bias_a_key():
  query, key, value = arrays()
  sigma = 0.7
  squares = np.square(query[:, None] - key[None]).sum(axis=-1)
  close(
    table(scores.euclidean(sigma=sigma), {}, query, key),
    -squares / (2 * sigma**2),
    5e-6,
  )
  found = attend(scores.euclidean(sigma=sigma), {}, query, key, value)
  bias = -np.square(key).sum(axis=-1) / (2 * sigma**2)
  dot = attend(scores.dot(), {}, query / sigma**2, key, value, bias=bias[None])
  close(found.context, dot.context, 5e-6)


def test_euclidean_is_nadaraya_watson_regression():
  # A value is predicted by those near it.
  x = jnp.linspace(-3, 3, 61)[:, None]
  out = attend(scores.euclidean(sigma=0.1), {}, x[20:41], x, jnp.sin(x))
  close(out.context, jnp.sin(x[20:41]), 1e-2)


def test_inverse_euclidean_is_exact_at_small_distances():
  query = jnp.array([[1000.0, -1000.0]])
  key = query + jnp.array([[0.25, 0.0], [0.0, 0.0625]])
  found = table(scores.inverse_euclidean(), {}, query, key)
  close(found, [[1 / 1.25, 1 / 1.0625]], 1e-7)


@pytest.mark.parametrize('features', ['elu', 'relu', 'softplus'])
def test_kernel_over_its_sum_is_linear_attention(features):
  phi = {
    'elu': lambda x: np.where(x > 0, x + 1, np.exp(x)),
    'relu': lambda x: np.maximum(x, 0),
    'softplus': lambda x: np.log1p(np.exp(x)),
  }[features]
  query, key, value = arrays()
  found = table(scores.kernel(features=features), {}, query, key)
  assert (found >= 0).all()
  ours = found / found.sum(axis=1, keepdims=True) @ value
  # In the order that takes linear time: the sums over the keys come first.
  once, total = phi(key).T @ value, phi(key).sum(axis=0)
  linear = phi(query) @ once / (phi(query) @ total)[:, None]
  close(ours, linear)


def test_elu_plus_one_is_above_zero_far_below():
  key = jnp.array([[-30.0], [-80.0]])
  found = table(scores.kernel(), {}, jnp.array([[1.0]]), key)
  close(found / jnp.exp(key.T), [[2, 2]])


def test_what_keras_calls_concat_is_symmetric_and_ours_is_not():
  query, key, _ = arrays()
  w, scale = 0.7, 1.3
  keras = lambda q, k: w * np.tanh(scale * (q[:, None] + k[None])).sum(axis=-1)
  close(keras(query, key), keras(key, query).T)
  score = scores.concat(hidden=D)
  params = score.init(jax.random.key(0), D, D)
  swapped = table(score, params, key, query).T
  assert np.abs(table(score, params, query, key) - swapped).max() > 0.1
  # Keras's has one number to learn where ours has a matrix.
  eye = scale * jnp.eye(D)
  params = {'query': eye, 'key': eye, 'out': jnp.full(D, w)}
  close(table(score, params, query, key), keras(query, key))


def test_what_allennlp_calls_linear_attention_is_no_kernel():
  # w'[x; y; x*y]: concat_linear, and bilinear with a diagonal matrix.
  query, key, value = arrays()
  w = matrix(3 * D)
  pairs = [[jnp.concatenate([q, k, q * k]) for k in key] for q in query]
  theirs = jnp.array(pairs) @ w
  linear = {'query': w[:D], 'key': w[D : 2 * D]}
  ours = table(scores.concat_linear(), linear, query, key)
  diagonal = {'weight': jnp.diag(w[2 * D :])}
  ours += table(scores.bilinear(), diagonal, query, key)
  close(theirs, ours)
  # Its softmax has no sums over keys that all queries share.
  context = jax.nn.softmax(theirs) @ value
  found = table(scores.kernel(), {}, query, key)
  kernel = found / found.sum(axis=1, keepdims=True) @ value
  assert np.abs(context - kernel).max() > 0.1


@pytest.mark.parametrize('name', ['softmax', 'uniform', 'hardmax'])
def test_concat_linear_is_refused_where_the_query_would_not_count(name):
  with pytest.raises(ValueError, match='the nearest that do are score=conc'):
    attention.compose(
      score=scores.concat_linear(), normalizer=getattr(normalizers, name)()
    )


def test_concat_linear_counts_without_shift_invariance():
  gate = normalizers.Normalizer(
    lambda scores, mask, rng: (jax.nn.sigmoid(scores), {}),
    shift_invariant=False,
    distribution=False,
  )
  mechanism = attention.compose(score=scores.concat_linear(), normalizer=gate)
  query, key, value = arrays()
  params = mechanism.init(
    jax.random.key(0), query_dim=D, key_dim=D, value_dim=D
  )
  out = attention.attend(mechanism, params, query, key, value)
  shift = (query @ params['score']['query'])[:, None]
  linear = shift + (key @ params['score']['key'])[None, :]
  close(out.weights, jax.nn.sigmoid(linear))


def test_location_refuses_sources_that_are_too_long():
  query, key, value = arrays()
  score = scores.location(max_length=S - 1)
  params = score.init(jax.random.key(0), D, D)
  with pytest.raises(ValueError, match=r'max_length=4.*5 positions'):
    attend(score, params, query, key, value)
  close(
    attend(score, params, query, key[:-1], value[:-1]).weights,
    jax.nn.softmax(query @ params['weight']),
  )


def test_location_keeps_nothing_of_the_keys_in_several_heads():
  inner = attention.compose(
    score=scores.location(max_length=S), normalizer=normalizers.softmax()
  )
  heads = attention.heads.multi_head(inner, num_heads=2, head_dim=3, out_dim=D)
  params = heads.init(jax.random.key(0), query_dim=D, key_dim=D, value_dim=D)
  query, key, value = arrays()
  memory = heads.prepare(params, key, value)
  assert memory.key.shape == (2, S, 0)
  out = heads.apply(params, query, memory)
  inside = (query @ params['query']).reshape(T, 2, 3).swapaxes(0, 1)
  weight = params['heads']['score']['weight']
  close(out.weights, jax.nn.softmax(inside @ weight))


def test_coverage_by_hand_for_three_queries():
  # Scores 3 tanh(k - c), for keys 0 and 1 and coverage c; queries count 0.
  params = {
    'query': jnp.zeros((1, 1)),
    'key': jnp.ones((1, 1)),
    'bias': vector(0),
    'coverage': vector(-1),
    'out': vector(3),
  }
  key = jnp.array([[0.0], [1.0]])
  value = jnp.array([[10.0], [20.0]])
  out = attend(
    scores.coverage_aware(hidden=1), params, jnp.zeros((3, 1)), key, value
  )
  coverage, expected = np.zeros(2), []
  for _ in range(3):
    powers = np.exp(3 * np.tanh([0 - coverage[0], 1 - coverage[1]]))
    expected.append(powers / powers.sum())
    coverage = coverage + expected[-1]
  # By hand: e^0 and e^(3 tanh 1) = 9.8223; then c = (.0924, .9076).
  close(expected[0], [0.092402, 0.907598], 1e-5)
  close(out.weights, expected)
  close(out.context[:, 0], np.array(expected) @ [10, 20])
  close(out.state['score'], coverage)
  # What was read is read less.
  assert out.weights[1, 1] < out.weights[0, 1] - 0.2


@pytest.mark.parametrize('start', ['uniform', 'first', 'zeros'])
def test_location_aware_agrees_with_a_loop_in_float64(start):
  size, filters, width = 7, 2, 5
  rng = np.random.default_rng(3)
  mask = rng.random((T, size)) < 0.7
  mask[0, 0], mask[0, 2] = False, True
  query, key = rng.normal(size=(T, D)), rng.normal(size=(size, D))
  score = scores.location_aware(
    hidden=A, filters=filters, width=width, start=start
  )
  with jax.enable_x64(True):
    params = jax.tree.map(
      lambda x: rng.normal(size=x.shape), score.init(jax.random.key(0), D, D)
    )
    out = attend(score, params, query, key, key, mask=mask)
  seen = np.flatnonzero(mask[0])
  last = np.zeros(size)
  if start == 'uniform':
    last[seen] = 1 / len(seen)
  elif start == 'first':
    last[seen[0]] = 1
  for t in range(T):
    powers = np.zeros(size)
    for s in np.flatnonzero(mask[t]):
      features = np.zeros(filters)
      for d in range(-2, 3):
        if 0 <= s + d < size:
          features += params['filters'][d + 2] * last[s + d]
      inner = (
        query[t] @ params['query']
        + key[s] @ params['key']
        + features @ params['features']
        + params['bias']
      )
      powers[s] = np.exp(np.tanh(inner) @ params['out'])
    last = powers / powers.sum()
    close(out.weights[t], last, 1e-12)
  assert out.weights.dtype == np.float64
  close(out.state['score']['weights'], last, 1e-12)
  assert out.state['score']['queries'] == T


def test_where_location_aware_starts_matters_for_the_first_query_alone():
  inputs = arrays()
  found = {}
  for start in ('uniform', 'first', 'zeros'):
    score = scores.location_aware(hidden=A, filters=2, width=3, start=start)
    params = score.init(jax.random.key(0), D, D)
    params = {**params, 'filters': 5 * params['filters']}
    found[start] = attend(score, params, *inputs)
  first = {name: np.asarray(out.weights[0]) for name, out in found.items()}
  assert np.abs(first['uniform'] - first['zeros']).max() > 1e-2
  assert np.abs(first['first'] - first['zeros']).max() > 1e-2
  # A state that is handed on does not start again.
  score = scores.location_aware(hidden=A, filters=2, width=3, start='first')
  query, key, value = inputs
  one = attend(score, params, query[:1], key, value)
  two = attend(score, params, query[1:2], key, value, state=one.state)
  close(two.weights[0], attend(score, params, *inputs).weights[1])


@pytest.mark.parametrize(
  ('name', 'silent'),
  [('location_aware', 'features'), ('coverage_aware', 'coverage')],
)
def test_without_its_state_a_score_is_additive(name, silent):
  inputs = arrays()
  score = getattr(scores, name)(hidden=A)
  params = score.init(jax.random.key(0), D, D)
  params[silent] = jnp.zeros_like(params[silent])
  found = attend(score, params, *inputs)
  additive = attend(scores.additive(hidden=A), params, *inputs)
  close(found.weights, additive.weights)
  close(found.context, additive.context)


@pytest.mark.parametrize('name', STATEFUL)
def test_a_state_runs_under_jit_vmap_and_heads_at_once(name):
  inner = attention.compose(score=row(name), normalizer=normalizers.softmax())
  heads = attention.heads.multi_head(inner, num_heads=2, head_dim=3, out_dim=D)
  params = heads.init(jax.random.key(0), query_dim=D, key_dim=D, value_dim=D)
  query, key, value = (
    jnp.stack([x, y]) for x, y in zip(arrays(0), arrays(1), strict=True)
  )
  mask = attention.masks.padding(jnp.array([S, S - 2]))
  run = jax.jit(
    lambda q, state, t: attention.attend(
      heads, params, q, key, value, mask=mask, state=state, query_start=t
    )
  )
  whole, state = run(query, None, 0), None
  for t in range(T):
    out = run(query[:, t : t + 1], state, t)
    state = out.state
    close(out.weights[:, :, 0], whole.weights[:, :, t])
  jax.tree.map(close, state, whole.state)


@pytest.mark.parametrize('name', STATEFUL)
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float32, jnp.float64])
def test_a_state_is_as_wide_as_the_weights_or_wider(name, dtype):
  with jax.enable_x64(dtype == jnp.float64):
    score = row(name)
    params = score.init(jax.random.key(0), D, D)
    out = attend(score, params, *(x.astype(dtype) for x in arrays()))
    wide = np.float64 if dtype == jnp.float64 else np.float32
    assert out.weights.dtype == wide
    weights = [x for x in jax.tree.leaves(out.state) if x.ndim]
    assert [x.dtype for x in weights] == [wide]
  with jax.enable_x64(True):  # the state is of float64, the arrays are not
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    out = attend(score, params, *arrays(dtype=np.float32))
    assert out.weights.dtype == np.float32


def test_coverage_loss_by_hand():
  weights = jnp.array([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0], [0.6, 0.1, 0.3]])
  # c = 0, then (.5, .5, 0), then (.7, 1.3, 0).
  close(scores.coverage_loss(weights), [0, 0.2 + 0.5, 0.6 + 0.1])
  same = jnp.broadcast_to(weights, (2, 4, 3, 3))
  close(scores.coverage_loss(same), np.tile([0, 0.7, 0.7], (2, 4, 1)))


def test_coverage_loss_skips_queries_that_do_not_count():
  weights = jnp.array([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0], [0.6, 0.1, 0.3]])
  mask = jnp.array([[True, False, True], [True, True, False]])
  found = scores.coverage_loss(jnp.stack([weights, weights]), mask)
  close(found, [[0, 0, 0.5 + 0.1], [0, 0.7, 0]])
  found = scores.coverage_loss(jnp.stack([weights, weights]), mask[1:])
  close(found, [[0, 0.7, 0]] * 2)


def test_coverage_loss_of_what_is_read_once_is_0_and_twice_is_1():
  close(scores.coverage_loss(jnp.eye(3)), np.zeros(3))
  close(scores.coverage_loss(jnp.eye(3)[jnp.array([1, 1, 1])]), [0, 1, 1])


def test_coverage_loss_has_the_gradient_of_its_differences():
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    weights = jax.nn.softmax(jnp.array(rng.normal(size=(T, S))))
    way = jnp.array(rng.normal(size=(T, S)))
    loss = lambda w: jnp.sum(jnp.sin(scores.coverage_loss(w)))
    slope = jnp.vdot(jax.grad(loss)(weights), way)
    ahead, behind = (loss(weights + step * way) for step in (1e-6, -1e-6))
    close(slope, (ahead - behind) / 2e-6, 1e-7)


@functools.partial(quick, static_argnums=0)
def slopes_of(name, params, query, key, value):
  def loss(params, query, key):
    out = attend(row(name), params, query, key, value)
    return jnp.sum(jnp.sin(out.context))

  return jax.value_and_grad(loss, argnums=(0, 1, 2))(params, query, key)


@pytest.mark.parametrize(
  'name', [name for name in SCORES if name != 'concat_linear']
)
def test_vectors_of_length_zero_have_finite_gradients(name):
  params = row(name).init(jax.random.key(0), D, D)
  query, key, value = arrays()
  zero, half = jnp.zeros_like, lambda x: jnp.full_like(x, 0.5)
  for inputs in (
    (zero(query), key),
    (query, zero(key)),
    (zero(query), zero(key)),
    (half(query), half(key)),  # at no distance, but not at the origin
  ):
    for leaf in jax.tree.leaves(slopes_of(name, params, *inputs, value)):
      assert np.isfinite(leaf).all()
      assert np.abs(leaf).max() < 100


@pytest.mark.parametrize(
  ('name', 'at'), [('cosine', 0.0), ('inverse_euclidean', 0.5)]
)
def test_lengths_and_roots_have_gradient_zero_at_zero(name, at):
  score = row(name)
  params = score.init(jax.random.key(0), D, D)
  point = jnp.full((1, D), at)
  total, slopes = jax.value_and_grad(
    lambda q, k: table(score, params, q, k).sum(), argnums=(0, 1)
  )(point, point)
  assert total == (0 if name == 'cosine' else 1)
  assert not np.asarray(slopes).any()


@pytest.mark.parametrize(
  'name', [name for name in SCORES if name not in STATEFUL]
)
def test_wide_is_said_where_an_array_of_three_axes_is_made(name, monkeypatch):
  monkeypatch.setattr(attention.scores, '_SMALL', 0)  # nor for speed
  score = row(name)
  params = score.init(jax.random.key(0), D, D)
  query, key, _ = arrays()
  prepared = score.prepare(params, key)
  made = jax.make_jaxpr(score.apply)(params, query, prepared)
  shapes = [v.aval.shape for eqn in made.eqns for v in eqn.outvars]
  widths = [shape[-1] for shape in shapes if len(shape) > 2]
  assert bool(score.wide) == bool(widths)
  if score.wide:  # a block of keys has the scores that it has in the whole
    depths = [leaf.shape[-1] for leaf in jax.tree.leaves(prepared)]
    assert max(widths) <= max(score.wide, *depths)
    block = jax.tree.map(lambda x: x[1:3], prepared)
    whole = score.apply(params, query, prepared)
    close(score.apply(params, query, block), whole[:, 1:3])


@pytest.mark.parametrize('name', STATEFUL)
def test_scores_with_a_state_are_not_built_by_blocks(name):
  assert not row(name).wide
  assert row(name).init_state


@pytest.mark.parametrize('name', SCORES)
def test_nonnegative_is_said_where_no_score_is_below_zero(name):
  if name in STATEFUL:
    assert not row(name).nonnegative
    return
  score = row(name)
  params = score.init(jax.random.key(0), D, D)
  found = [table(score, params, *arrays(seed)[:2]) for seed in range(8)]
  assert score.nonnegative == (np.min(found) >= 0)


@pytest.mark.parametrize(
  ('name', 'settings', 'message'),
  [
    ('cosine', {'beta': 0.0}, r'cosine\(beta=0\.0\)'),
    ('cosine', {'beta': math.inf}, r'cosine\(beta=inf\)'),
    ('cosine', {'beta': math.nan}, r'cosine\(beta=nan\)'),
    ('concat', {'hidden': 0}, r'concat\(hidden=0\): it must be from 1'),
    ('mlp', {'widths': ()}, r'mlp\(widths=\(\)\): one hidden layer'),
    ('mlp', {'widths': (3, 0)}, r'mlp\(widths=0\): it must be from 1'),
    ('mlp', {'activation': 'tan'}, r"activation='tan'.*: the choices are tanh"),
    ('euclidean', {'sigma': 0.0}, r'euclidean\(sigma=0\.0\)'),
    ('euclidean', {'sigma': -1.0}, r'euclidean\(sigma=-1\.0\)'),
    ('euclidean', {'sigma': math.nan}, r'euclidean\(sigma=nan\)'),
    ('location', {'max_length': 0}, r'location\(max_length=0\)'),
    ('kernel', {'features': 'exp'}, r"'exp'\): the choices are elu, relu, sof"),
    ('location_aware', {'hidden': -1}, r'location_aware\(hidden=-1\)'),
    ('location_aware', {'filters': 0}, r'location_aware\(filters=0\)'),
    ('location_aware', {'width': 0}, r'location_aware\(width=0\)'),
    ('location_aware', {'width': 4}, r'width=4\): it must be an odd number'),
    ('location_aware', {'start': 'last'}, r"'last'\): the choices are uniform"),
    ('coverage_aware', {'hidden': 2**25}, r'coverage_aware\(hidden='),
  ],
)
def test_bad_settings_are_refused_by_name(name, settings, message):
  with pytest.raises(ValueError, match=message):
    getattr(scores, name)(**settings)
