"""Normalisers beyond the laws: by hand, beside peers, and what they promise."""

import functools
import math

import hypothesis
from hypothesis import strategies
from hypothesis.extra import numpy as arrays
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from attnlab import attention

normalizers = attention.normalizers
REASON = 'a differential test against torch; install .[bench]'
ALPHAS = (1.0, 1.01, 1.25, 1.5, 1.8, 2.0)


def weigh(normalizer, row, mask=None, rng=None):
  row = jnp.array(row, jnp.float32)
  return normalizer.apply(row, mask, rng)[0]


@functools.partial(jax.jit, static_argnums=0)
def follow(normalizer, rows, mask=None, rng=None):
  """The weights of one row after the other: [T, S] -> [T, S]."""

  def step(state, row):
    scores, seen = row
    weights, _ = normalizer.apply(scores, seen, rng, state)
    return normalizer.update(state, weights[0]), weights[0]

  start = normalizer.init_state(rows.shape[-1])
  rows = (rows[:, None], None if mask is None else mask[:, None])
  return jax.lax.scan(step, start, rows)[1]


def slope(function, point, way):
  """The gradient of sum way * function(point)."""
  return jax.grad(lambda x: jnp.sum(way * function(x)))(point)


@pytest.mark.parametrize(
  ('normalizer', 'row', 'expected'),
  [
    (normalizers.sigmoid(), [0, math.log(3)], [0.5, 0.75]),
    # The two numbers above, over their sum of 1.25.
    (normalizers.smooth(), [0, math.log(3)], [0.4, 0.6]),
    (normalizers.smooth(), [-1e4, -1e4], [0.5, 0.5]),
    (normalizers.proportional(), [1, 0, 3], [0.25, 0, 0.75]),
    (normalizers.proportional(), [0, 0], [0, 0]),
    # tau = (1 + .5 - 1) / 2 = .25 for the two of the support.
    (normalizers.sparsemax(), [0.5, -1, 1], [0.25, 0, 0.75]),
    (normalizers.sparsemax(), [0, 3, 0], [0, 1, 0]),
    # sqrt p = z/2 - tau: .8 and .6 are .2 apart, and -1.2/2 is tau = -.6.
    (normalizers.entmax(alpha=1.5), [0, 0.4, -1.2], [0.36, 0.64, 0]),
    # p^(1/4) = z/4 - tau: 2/c and 1/c, with c^4 = 2^4 + 1^4.
    (
      normalizers.entmax(alpha=1.25),
      [4 / 17**0.25, 0, -9],
      [16 / 17, 1 / 17, 0],
    ),
    # exp(1) / (exp(1) + exp(0)); the second of the ones is not kept.
    (
      normalizers.topk(k=2),
      [0, 1, 2, 1, -1],
      [0, 1 / (1 + math.e), math.e / (1 + math.e), 0, 0],
    ),
    (normalizers.topk(k=1), [-0.0, 0.0], [1, 0]),
    (normalizers.topk(k=9), [0, math.log(3)], [0.25, 0.75]),
    (normalizers.straight_through(), [1, 2, 2], [0, 1, 0]),
    (normalizers.gumbel_st(), [1, 2, 2], [0, 1, 0]),
    (normalizers.sample(), [1, 2, 2], [0, 1, 0]),
    (normalizers.gumbel(temperature=0.5), [0, math.log(3)], [0.1, 0.9]),
  ],
)
def test_by_hand(normalizer, row, expected):
  np.testing.assert_allclose(
    weigh(normalizer, row), expected, rtol=1e-6, atol=1e-7
  )


@pytest.mark.parametrize('name', ['sparsemax', 'entmax', 'topk', 'smooth'])
def test_what_is_masked_is_as_if_it_were_not_there(name):
  normalizer = getattr(normalizers, name)()
  row = np.random.default_rng(0).normal(size=20).astype(np.float32)
  mask = np.arange(20) % 3 > 0
  found = np.asarray(weigh(normalizer, np.where(mask, row, 99), mask))
  expected = weigh(normalizer, row[mask])
  np.testing.assert_allclose(found[mask], expected, rtol=1e-6)
  assert not found[~mask].any()


def test_softmax_with_doubled_scores_is_a_temperature_of_one_half():
  # ESPnet's recurrent attentions take softmax(2 e) unless told otherwise; ours
  # do not: their numbers are those of temperature=0.5.
  row = np.array([0.3, -1, 2], np.float32)
  doubled = weigh(normalizers.softmax(temperature=0.5), row)
  powers = np.exp(2 * row)
  np.testing.assert_allclose(doubled, powers / powers.sum(), rtol=1e-6)
  ours = weigh(normalizers.softmax(), row)
  assert np.abs(np.asarray(ours) - np.asarray(doubled)).max() > 0.1


@pytest.mark.parametrize(
  ('name', 'settings'),
  [
    ('entmax', {'alpha': 0.99}),
    ('entmax', {'alpha': 2.01}),
    ('entmax', {'alpha': math.nan}),
    ('topk', {'k': 0}),
    ('straight_through', {'temperature': 0}),
    ('gumbel', {'temperature': -1}),
    ('gumbel_st', {'temperature': math.nan}),
    ('monotonic', {'noise': -1}),
    ('monotonic', {'noise': math.nan}),
  ],
)
def test_bad_settings_are_refused_by_name(name, settings):
  ((setting, value),) = settings.items()
  with pytest.raises(ValueError, match=rf'^{name}\({setting}={value}\)'):
    getattr(normalizers, name)(**settings)


# Entmax ----------------------------------------------------------------------


def rows_of_all_kinds(size):
  rng = np.random.default_rng(size)
  return np.stack(
    [
      rng.normal(size=size),
      100 + rng.normal(size=size),
      30 * rng.normal(size=size),
      0.01 * rng.normal(size=size),
      rng.standard_cauchy(size),
      rng.integers(0, 3, size),
      np.linspace(0, 1, size),
      np.ones(size),
      -rng.exponential(size=size),
    ]
  ).astype(np.float32)


@pytest.mark.parametrize('alpha', ALPHAS)
def test_entmax_is_what_bisection_finds(alpha):
  normalizer = normalizers.entmax(alpha=alpha)
  for size in (1, 2, 7, 300, 4096):
    rows = rows_of_all_kinds(size)
    found = jax.jit(lambda x: normalizer.apply(x, None, None)[0])(rows)
    for row, weights in zip(rows.astype(np.float64), found, strict=True):
      expected = (
        oracle.softmax(row) if alpha == 1 else oracle.entmax(row, alpha=alpha)
      )
      np.testing.assert_allclose(weights, expected, atol=3e-7)
    np.testing.assert_allclose(
      np.asarray(found, np.float64).sum(axis=-1), 1, atol=2e-6
    )


def test_entmax_between_softmax_and_sparsemax():
  row = np.random.default_rng(0).normal(size=30)
  by_alpha = {a: weigh(normalizers.entmax(alpha=a), row) for a in ALPHAS}
  softmax = weigh(normalizers.softmax(), row)
  np.testing.assert_array_equal(by_alpha[1.0], softmax)
  np.testing.assert_array_equal(
    by_alpha[2.0], weigh(normalizers.sparsemax(), row)
  )
  # As alpha nears 1 it nears softmax, without a loss of digits.
  near = weigh(normalizers.entmax(alpha=1 + 1e-6), row)
  np.testing.assert_allclose(near, softmax, rtol=3e-5)
  counts = [int((weights > 0).sum()) for weights in by_alpha.values()]
  assert counts == sorted(counts, reverse=True)
  assert counts[0] == 30
  assert counts[-1] < 10


@pytest.mark.parametrize('alpha', ALPHAS)
def test_gradient_of_entmax_against_differences_and_the_formula(alpha):
  rng = np.random.default_rng(3)
  apply = normalizers.entmax(alpha=alpha).apply
  mask = np.array([True] * 6 + [False])
  function = lambda x: apply(x, mask, None)[0]
  with jax.enable_x64(True):
    for scale in (0.3, 1, 3):
      point, way, move = scale * rng.normal(size=(3, 7))
      found = slope(function, point, way)
      ahead, behind = (function(point + h * move) for h in (1e-6, -1e-6))
      difference = way @ np.asarray(ahead - behind) / 2e-6
      np.testing.assert_allclose(found @ move, difference, rtol=1e-6, atol=1e-9)
      weights = np.asarray(function(point))
      s = np.where(weights > 0, np.maximum(weights, 1e-99) ** (2 - alpha), 0)
      jacobian = np.diag(s) - np.outer(s, s) / s.sum()
      np.testing.assert_allclose(found, jacobian @ way, atol=1e-12)
      assert (np.asarray(found)[weights == 0] == 0).all()


def test_second_derivative_of_entmax():
  rng = np.random.default_rng(5)
  point, way, move = rng.normal(size=(3, 6))
  apply = normalizers.entmax(alpha=1.5).apply
  with jax.enable_x64(True):
    first = lambda x: slope(lambda x: apply(x, None, None)[0], x, way)
    second = jax.grad(lambda x: jnp.sum(first(x) * move))(point)
    ahead, behind = (first(point + h * move) for h in (1e-6, -1e-6))
    np.testing.assert_allclose(second, (ahead - behind) / 2e-6, atol=1e-6)


@pytest.mark.parametrize('alpha', ALPHAS[1:])
def test_entmax_package_on_torch(alpha):
  torch = pytest.importorskip('torch', reason=REASON)
  peer = pytest.importorskip('entmax', reason=REASON)
  theirs = {
    1.5: lambda x: peer.entmax15(x, dim=-1),
    2.0: lambda x: peer.sparsemax(x, dim=-1),
  }.get(alpha, lambda x: peer.entmax_bisect(x, alpha, dim=-1, n_iter=60))
  rng = np.random.default_rng(1)
  apply = normalizers.entmax(alpha=alpha).apply
  function = lambda x: apply(x, None, None)[0]
  for size in (3, 4096):
    rows, way = rng.normal(size=(2, 3, size))
    with jax.enable_x64(True):
      found = function(rows), slope(function, rows, way)
    inputs = torch.tensor(rows, requires_grad=True)
    outputs = theirs(inputs)
    outputs.backward(torch.tensor(way))
    np.testing.assert_allclose(found[0], outputs.detach(), atol=1e-8)
    np.testing.assert_allclose(found[1], inputs.grad, atol=1e-6)


numbers = strategies.floats(-20, 20, width=32)
# Few shapes: every operation is compiled once a shape.
vectors = arrays.arrays(
  np.float32, strategies.sampled_from([1, 2, 9]), elements=numbers
)
alphas = strategies.sampled_from(ALPHAS[1:])


@hypothesis.given(row=vectors, alpha=alphas, shift=numbers)
def test_projections_onto_the_simplex(row, alpha, shift):
  normalizer = normalizers.entmax(alpha=alpha)
  weights = np.asarray(weigh(normalizer, row))
  assert (weights >= 0).all()
  np.testing.assert_allclose(weights.sum(), 1, atol=1e-6)
  # In order of the scores; equal scores have equal weights.
  order = np.argsort(row, kind='stable')
  assert (np.diff(weights[order]) >= 0).all()
  assert all(len(set(weights[row == score])) == 1 for score in row)
  # u^(1/(alpha-1)) = 0 from 1/(alpha-1) below the largest score on, at least.
  far = row < row.max() - 1 / (alpha - 1) - 1e-4
  assert not weights[far].any()
  np.testing.assert_allclose(weigh(normalizer, row + shift), weights, atol=2e-5)


@hypothesis.given(row=vectors)
def test_sparsemax_is_a_projection(row):
  once = weigh(normalizers.sparsemax(), row)
  np.testing.assert_allclose(
    weigh(normalizers.sparsemax(), once), once, atol=1e-6
  )
  # No corner of the simplex, and no centre, is nearer.
  size = len(row)
  others = [*np.eye(size), np.full(size, 1 / size)]
  far = [np.sum((other - row.astype(np.float64)) ** 2) for other in others]
  assert np.sum((np.asarray(once, np.float64) - row) ** 2) <= min(far) + 1e-3


# Draws -----------------------------------------------------------------------


SCORES = np.log(np.array([0.1, 0.2, 0.3, 0.4, 1.0], np.float32))
SEEN = np.array([True, True, True, True, False])
COUNT = 4000


def many(normalizer):
  """Weights of many independent rows of SCORES, the last one masked."""
  scores, mask = (np.tile(x, (COUNT, 1)) for x in (SCORES, SEEN))
  return normalizer.apply(scores, mask, jax.random.key(0))


@pytest.mark.parametrize('name', ['sample', 'gumbel_st'])
def test_draws_are_as_frequent_as_softmax_says(name):
  weights, _ = many(getattr(normalizers, name)())
  assert set(np.unique(weights)) == {0, 1}
  counts = np.asarray(weights).sum(axis=0)
  assert counts.sum() == COUNT
  assert counts[-1] == 0
  expected = COUNT * np.array([0.1, 0.2, 0.3, 0.4])
  # Chi-square with 3 degrees of freedom: 16.3 is the 0.1 % point.
  assert ((counts[:4] - expected) ** 2 / expected).sum() < 16.3


def test_log_prob_is_that_of_the_draw_and_passes_the_score_function():
  scores, mask = np.tile(SCORES, (2, 1)), np.stack([SEEN, ~SEEN & False])

  def log_prob(scores):
    weights, aux = normalizers.sample().apply(scores, mask, jax.random.key(1))
    return jnp.sum(aux['log_prob']), (weights, aux['log_prob'])

  slopes, (weights, found) = jax.grad(log_prob, has_aux=True)(scores)
  chance = np.array([0.1, 0.2, 0.3, 0.4, 0])
  np.testing.assert_allclose(found, [np.log(weights[0] @ chance), 0], rtol=1e-6)
  # The gradient of log softmax(z)_j is one_hot(j) - softmax(z).
  np.testing.assert_allclose(slopes[0], weights[0] - chance, atol=1e-6)
  assert not slopes[1].any()
  assert not weights[1].any()


def test_gumbel_nears_a_draw_as_it_cools():
  hard = many(normalizers.gumbel_st())[0]
  warm, cold = (
    many(normalizers.gumbel(temperature=t))[0] for t in (10.0, 0.01)
  )
  assert np.abs(np.asarray(cold - hard)).mean() < 1e-2  # the same draws
  assert np.asarray(warm)[:, :4].min() > 0.05
  for weights in (warm, cold):
    np.testing.assert_allclose(np.asarray(weights).sum(axis=1), 1, rtol=1e-5)
    assert not np.asarray(weights)[:, -1].any()


@pytest.mark.parametrize(
  ('name', 'soft'), [('straight_through', 'softmax'), ('gumbel_st', 'gumbel')]
)
def test_straight_through_has_the_gradient_of_the_soft_one(name, soft):
  rng, way = jax.random.key(2), np.arange(5, dtype=np.float32)
  found, expected = (
    slope(
      lambda x, part=part: getattr(normalizers, part)(temperature=0.7).apply(
        x, SEEN, rng
      )[0],
      SCORES,
      way,
    )
    for part in (name, soft)
  )
  np.testing.assert_array_equal(found, expected)
  assert found[:4].any()
  assert found[4] == 0


@pytest.mark.parametrize(
  'name', ['gumbel', 'gumbel_st', 'sample', 'straight_through', 'monotonic']
)
def test_rows_without_keys_are_zero_with_noise_too(name):
  normalizer = getattr(normalizers, name)()
  more = () if normalizer.init_state is None else (normalizer.init_state(5),)

  def total(scores):
    weights, aux = normalizer.apply(
      scores, np.zeros((1, 5), bool), jax.random.key(0), *more
    )
    leaves = [weights, *aux.values()]
    return sum(jnp.sum(jnp.cos(leaf)) for leaf in leaves), leaves

  slopes, leaves = jax.grad(total, has_aux=True)(SCORES[None])
  assert not np.asarray(slopes).any()
  assert not any(np.asarray(leaf).any() for leaf in leaves)


# Monotonic alignments --------------------------------------------------------


def test_monotonic_by_hand():
  # p = 1/2 everywhere. Then q of row two: .5, .5 * .5 + .25, .5 * .5 + .125.
  found = follow(normalizers.monotonic(), np.zeros((2, 3), np.float32))
  expected = [[0.5, 0.25, 0.125], [0.25, 0.25, 0.1875]]
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_monotonic_is_the_loop_of_the_paper():
  rng = np.random.default_rng(0)
  scores = rng.normal(size=(6, 40)) - 1
  mask = rng.random((6, 40)) < 0.9
  expected, before = [], np.eye(40)[0]
  for row, seen in zip(scores, mask, strict=True):  # eq. 11 to 14
    q = p = 0.0
    weights = np.zeros(40)
    for j in range(40):
      q = (1 - p) * q + before[j]
      p = oracle.sigmoid(row[j]) if seen[j] else 0.0
      weights[j] = p * q
    expected.append(before := weights)
  found = follow(normalizers.monotonic(), scores.astype(np.float32), mask)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
  # Appendix C's product and sum, which divides, where that is harmless.
  p = oracle.sigmoid(scores[0, :10])
  product = np.concatenate([[1], np.cumprod(1 - p)[:-1]])
  closed = p * product * np.cumsum(np.eye(10)[0] / product)
  found = follow(normalizers.monotonic(), scores[:1, :10].astype(np.float32))
  np.testing.assert_allclose(found[0], closed, rtol=1e-5)


def test_monotonic_is_exact_where_products_underflow():
  # All but surely everybody goes one key on, although the next product of
  # 1 - p, by which the paper's closed form divides, is 1e-17, and the last
  # one 1e-680.
  size, steps = 40, np.arange(5)
  rows = np.full((5, size), 40, np.float32)
  rows[steps, steps] = -40
  found = follow(normalizers.monotonic(), rows)
  np.testing.assert_allclose(found, np.eye(size)[steps + 1], atol=1e-6)

  def loss(rows):
    return jnp.sum(jnp.sin(follow(normalizers.monotonic(), rows)))

  for extreme in (rows, np.full_like(rows, -90), np.full_like(rows, 90)):
    assert np.isfinite(jax.grad(loss)(extreme)).all()


def test_monotonic_noise_needs_an_rng_and_only_then_moves_the_weights():
  rows = np.zeros((1, 6), np.float32)
  rng = jax.random.key(0)
  quiet = follow(normalizers.monotonic(noise=0.0), rows, rng=rng)
  for other in (
    follow(normalizers.monotonic(), rows),
    follow(normalizers.monotonic(noise=0.0), rows),
  ):
    np.testing.assert_array_equal(quiet, other)
  noisy = follow(normalizers.monotonic(), rows, rng=rng)
  assert not np.allclose(noisy, quiet, atol=1e-2)
  # Great noise leaves p of 0 or 1: somebody takes the key, or nobody.
  loud = follow(normalizers.monotonic(noise=1e4), rows, rng=rng)
  np.testing.assert_allclose(np.sort(loud[0])[:-1], 0, atol=1e-6)


def test_monotonic_hard_by_hand():
  rows = np.array(
    [
      [-1, 2, 3, -1],  # the first key with p >= .5
      [9, 0, 9, -1],  # p = .5 counts, and the key before may be taken again
      [9, -1, -1, 1],  # never back
      [9, 9, 9, -1],  # nobody left
      [9, 9, 9, 9],  # and nobody after that
    ],
    np.float32,
  )
  expected = np.zeros((5, 4))
  expected[[0, 1, 2], [1, 1, 3]] = 1
  hard = normalizers.monotonic_hard()
  np.testing.assert_array_equal(follow(hard, rows), expected)
  mask = np.ones((5, 4), bool)
  mask[0, 1] = False
  assert int(jnp.argmax(follow(hard, rows, mask)[0])) == 2


@pytest.mark.parametrize('seed', range(3))
def test_monotonic_hard_is_monotonic_where_all_is_certain(seed):
  rng = np.random.default_rng(seed)
  signs = rng.choice([-1, 1], size=(5, 12), p=[0.7, 0.3]).astype(np.float32)
  mask = rng.random((5, 12)) < 0.9
  hard = follow(normalizers.monotonic_hard(), signs, mask)
  soft = follow(normalizers.monotonic(), 200 * signs, mask)
  np.testing.assert_allclose(soft, hard, atol=1e-6)


def test_proportional_refuses_scores_that_may_be_negative():
  with pytest.raises(ValueError, match='smooth'):
    attention.compose(
      score=attention.scores.dot(), normalizer=normalizers.proportional()
    )


def test_proportional_is_linear_attention():
  # phi = elu + 1 of Katharopoulos et al. 2020, its eq. 5 without the matrix.
  rng = np.random.default_rng(0)
  query, key, value = rng.normal(size=(3, 6, 4)).astype(np.float32)
  phi = lambda x: jnp.where(x > 0, x + 1, jnp.exp(jnp.minimum(x, 0)))
  score = attention.scores.dot()._replace(
    apply=lambda params, query, key: phi(query) @ phi(key).T, nonnegative=True
  )
  mechanism = attention.compose(
    score=score, normalizer=normalizers.proportional()
  )
  out = attention.attend(mechanism, {}, query, key, value)
  sums = phi(key).T @ value, phi(key).sum(axis=0)
  expected = (phi(query) @ sums[0]) / (phi(query) @ sums[1])[:, None]
  np.testing.assert_allclose(out.context, expected, rtol=1e-5)
