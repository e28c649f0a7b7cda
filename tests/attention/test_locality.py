"""Windows about a centre: by hand, in the limit, and drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import attention

locality, normalizers, scores = (
  attention.locality,
  attention.normalizers,
  attention.scores,
)
T, S, D = 3, 5, 4


def compose(window, normalizer=None, score=None):
  return attention.compose(
    score=score or scores.dot(),
    normalizer=normalizer or normalizers.softmax(),
    locality=window,
  )


def arrays(length=T, size=S):
  rng = np.random.default_rng(0)
  return [
    rng.normal(size=(n, D)).astype(np.float32) for n in (length, size, size)
  ]


def attend(window, *inputs, normalizer=None, params=None, **more):
  mechanism = compose(window, normalizer)
  if params is None:
    params = mechanism.init(
      jax.random.key(0), query_dim=D, key_dim=D, value_dim=D
    )
  return attention.attend(mechanism, params, *inputs, **more)


def test_the_monotonic_window_is_cut_at_both_ends():
  inputs = arrays(length=5, size=3)
  weights = attend(
    locality.local_m(half_width=1), *inputs, normalizer=normalizers.uniform()
  ).weights
  half, third = 1 / 2, 1 / 3
  expected = [
    [half, half, 0],
    [third, third, third],
    [0, half, half],
    [0, 0, 1],
    [0, 0, 0],  # more than D behind the end
  ]
  np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_the_monotonic_window_follows_the_position_of_a_step():
  query, key, value = arrays()
  window = locality.local_m(half_width=1)
  whole = attend(window, query, key, value)
  step = jax.jit(
    lambda row, t: attend(window, row, key, value, query_start=t).weights
  )
  for t in range(T):
    np.testing.assert_allclose(
      step(query[t : t + 1], t), whole.weights[t : t + 1], rtol=1e-6
    )


@pytest.mark.parametrize(
  # sigmoid(0) = 1/2; a half is rounded to the even neighbour.
  ('length', 'centre', 'near'),
  [(5, 2.5, [0, 1, 2, 3, 4]), (4, 2.0, [0, 1, 2, 3]), (1, 0.5, [0])],
)
def test_the_predicted_window_by_hand(length, centre, near):
  params = {'locality': {'query': np.ones((D, 1)), 'out': np.zeros(1)}}
  params = jax.tree.map(np.float32, params)
  out = attend(
    locality.local_p(half_width=2, hidden=1),
    *arrays(),
    normalizer=normalizers.uniform(),
    params=params,
    mask=attention.masks.padding(jnp.array(length)),
  )
  np.testing.assert_allclose(out.aux['centre'], [centre] * T)
  expected = np.zeros(S)
  for s in near:  # sigma = D / 2 = 1
    expected[s] = np.exp(-((s - centre) ** 2) / 2) / len(near)
  np.testing.assert_allclose(out.weights, [expected] * T, rtol=1e-6)


def test_the_predicted_window_has_an_edge():
  params = {'locality': {'query': np.ones((D, 1)), 'out': np.ones(1)}}
  params = jax.tree.map(np.float32, params)
  query, key, value = arrays(length=2)
  query = np.float32([[9] * D, [-9] * D])  # tanh is 1 and -1
  window = locality.local_p(half_width=1, hidden=1)
  out = attend(window, query, key, value, params=params)
  centres = S / (1 + np.exp([-1.0, 1.0]))  # 3.66 and 1.34
  np.testing.assert_allclose(out.aux['centre'], centres, rtol=1e-6)
  np.testing.assert_array_equal(
    np.asarray(out.weights) > 0,
    [[False, False, False, True, True], [True, True, True, False, False]],
  )


def test_a_gradient_reaches_the_centre_through_the_gaussian_alone():
  # d/dp exp(-(s - p)^2 / (2 sigma^2)) = that by (s - p) / sigma^2.
  query, key, value = arrays()
  window = locality.local_p(half_width=3, hidden=2)
  mechanism = compose(window, normalizers.uniform())
  params = mechanism.init(
    jax.random.key(0), query_dim=D, key_dim=D, value_dim=D
  )

  def run(out):
    inner = {'locality': {**params['locality'], 'out': out}}
    found = attention.attend(mechanism, inner, query, key, value)
    return found.weights, found.aux['centre']

  start = params['locality']['out']
  weights, centre = run(start)
  slope_weights, slope_centre = jax.jacobian(run)(start)
  away = np.arange(S)[None] - np.asarray(centre)[:, None]
  expected = (weights * away / 1.5**2)[..., None] * slope_centre[:, None]
  np.testing.assert_allclose(slope_weights, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  'make', [locality.local_m, locality.local_p, locality.local_hard]
)
def test_the_widest_window_is_global_attention(make):
  mask = attention.masks.causal() & attention.masks.padding(jnp.array(4))
  inputs = arrays()
  wide = attend(make(half_width=2**20), *inputs, mask=mask)
  whole = attend(None, *inputs, mask=mask)
  np.testing.assert_allclose(wide.weights, whole.weights, rtol=1e-6)
  np.testing.assert_allclose(wide.context, whole.context, rtol=1e-6)


def test_the_narrowest_drawn_window_is_hard_attention():
  inputs = arrays()
  narrow = attend(locality.local_hard(half_width=0), *inputs)
  hard = attend(None, *inputs, normalizer=normalizers.hardmax())
  np.testing.assert_allclose(narrow.weights, hard.weights)
  soft = attend(None, *inputs).weights
  centre = np.asarray(narrow.aux['centre'])
  np.testing.assert_array_equal(centre, np.argmax(soft, axis=1))
  chosen = np.asarray(soft)[np.arange(T), centre]
  np.testing.assert_allclose(
    narrow.aux['log_prob'], np.log(chosen), rtol=1e-5, atol=1e-6
  )


def test_centres_are_drawn_in_proportion():
  query, key, value = arrays(length=1)
  mask = np.array([[True, True, False, True, True]])
  window = locality.local_hard(half_width=1)
  count = 4_000
  draw = lambda rng: attend(window, query, key, value, mask=mask, rng=rng)
  out = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), count))
  soft = np.asarray(attend(None, query, key, value, mask=mask).weights)[0]
  centres = np.asarray(out.aux['centre'])[:, 0]
  shares = np.bincount(centres, minlength=S) / count
  assert shares[2] == 0
  # Four standard deviations.
  assert (abs(shares - soft) <= 4 * np.sqrt(soft * (1 - soft) / count)).all()
  logs = np.asarray(out.aux['log_prob'])[:, 0]
  np.testing.assert_allclose(logs, np.log(soft[centres]), rtol=1e-5, atol=1e-6)
  # Soft inside of the window, and nothing outside.
  weights = np.asarray(out.weights)[:, 0]
  for centre in set(centres):
    near = np.where(abs(np.arange(S) - centre) <= 1, soft, 0)
    found = weights[centres == centre]
    np.testing.assert_allclose(
      found, np.broadcast_to(near / near.sum(), found.shape), rtol=1e-4
    )


def test_log_prob_has_the_slope_of_a_score_function():
  # d log softmax(e)[j] / de = one_hot(j) - softmax(e); a blind row has none.
  query, key, value = arrays()
  mask = np.array([[True] * S, [False] * S, [True, True, False, True, False]])
  window = locality.local_hard(half_width=1)
  mechanism = compose(window)

  def logs(bias):
    out = attention.attend(
      mechanism, {}, query, key, value, mask=mask, bias=bias
    )
    return out.aux['log_prob'].sum(), out.aux

  bias = np.zeros((T, S), np.float32)
  slope, aux = jax.grad(logs, has_aux=True)(bias)
  soft = np.asarray(attend(None, query, key, value, mask=mask).weights)
  expected = np.eye(S)[np.asarray(aux['centre'])] - soft
  expected[1] = 0
  np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)
  assert not aux['centre'][1]
  assert not aux['log_prob'][1]


def test_two_choices_have_the_probability_of_both():
  inputs = arrays()
  window = locality.local_hard(half_width=1)
  rng = jax.random.key(3)
  out = attend(window, *inputs, normalizer=normalizers.sample(), rng=rng)
  soft = attend(window, *inputs, rng=rng)
  np.testing.assert_array_equal(out.aux['centre'], soft.aux['centre'])
  chosen = np.argmax(out.weights, axis=1)
  second = np.log(np.asarray(soft.weights)[np.arange(T), chosen])
  np.testing.assert_allclose(
    out.aux['log_prob'], soft.aux['log_prob'] + second, rtol=1e-5
  )


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: locality.local_m(half_width=0), r'local_m\(half_width=0\)'),
    (lambda: locality.local_p(half_width=0), r'local_p\(half_width=0\)'),
    (lambda: locality.local_p(hidden=0), r'local_p\(hidden=0\)'),
    (lambda: locality.local_hard(half_width=-1), r'hard\(half_width=-1\)'),
  ],
)
def test_wrong_settings_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
