"""Sizes, values and types at the edge of what a mechanism may be given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import attention

scores, normalizers = attention.scores, attention.normalizers
NORMALIZERS = (
  'entmax gumbel gumbel_st hardmax monotonic monotonic_hard proportional '
  'sample sigmoid smooth softmax sparsemax straight_through topk uniform'
).split()
rng = jax.random.key(0)
QUERY, KEY, VALUE = (
  jax.random.normal(jax.random.fold_in(rng, n), (rows, 4))
  for n, rows in enumerate((3, 5, 5))
)


def mechanism(normalizer='softmax', **parts):
  score = scores.kernel() if normalizer == 'proportional' else scores.dot()
  made = getattr(normalizers, normalizer)()
  return attention.compose(score=score, normalizer=made, **parts)


def context(made, *arrays, params=None, **options):
  return attention.attend(
    made, params or {}, *arrays, rng=rng, **options
  ).context


@pytest.mark.parametrize('shift', [-23.0, -30.0, -40.0])
@pytest.mark.parametrize('way', ['dense', 'blockwise', 'linear'])
def test_a_small_sum_of_scores_has_a_gradient(shift, way):
  """phi(x) = e^x there, so that the weights know no shift."""

  def moved(query, key, shift):
    return jnp.sum(
      jnp.sin(
        context(
          mechanism('proportional'),
          *(0.1 * query + shift, 0.1 * key + shift, VALUE),
          implementation=way,
        )
      )
    )

  near = jax.grad(moved, (0, 1))(QUERY, KEY, -10.0)
  found = jax.grad(moved, (0, 1))(QUERY, KEY, shift)
  for one, other in zip(found, near, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('name', ['query', 'key', 'value'])
def test_whole_numbers_are_refused(name):
  arrays = {'query': QUERY, 'key': KEY, 'value': VALUE}
  arrays[name] = jnp.ones_like(arrays[name], int)
  with pytest.raises(ValueError, match=f'{name} has dtype int'):
    context(mechanism(), *arrays.values())


@pytest.mark.parametrize('way', ['dense', 'blockwise'])
def test_each_head_inside_asks_a_mask_for_itself(way):
  other = attention.masks.Mask(lambda b, h, i, j: (j + h + 0 * i) % 2 == 0)
  made = attention.heads.multi_head(mechanism(), num_heads=2, head_dim=2)
  params = made.init(rng, query_dim=4, key_dim=4, value_dim=4)
  seen = np.arange(5)[None, :] % 2 == np.arange(2)[:, None]
  memory = made.prepare(params, KEY, VALUE)
  array = jnp.broadcast_to(seen[:, None, :], (2, 3, 5))
  wanted = made.apply(params, QUERY, memory, mask=array)
  found = context(
    made, QUERY, KEY, VALUE, params=params, mask=other, implementation=way
  )
  np.testing.assert_allclose(found, wanted.context, rtol=1e-5, atol=1e-6)
  same = attention.interventions.replace(made, attention.interventions.own)
  out = same.apply(params, QUERY, memory, mask=other)
  np.testing.assert_allclose(out.weights, wanted.weights, rtol=1e-5)


@pytest.mark.parametrize(
  'name', [n for n in NORMALIZERS if n != 'proportional']
)
def test_a_bias_of_minus_infinity_hides(name):
  bias = np.zeros((3, 5), np.float32)
  bias[0] = bias[1, 2:] = -np.inf
  made = mechanism(name)

  def read(query, **how):
    return attention.attend(made, {}, query, KEY, VALUE, rng=rng, **how)

  out, wanted = read(QUERY, bias=bias), read(QUERY, mask=bias == 0)
  np.testing.assert_array_equal(out.weights, wanted.weights)
  assert not np.any(out.weights[0])
  slope = jax.grad(lambda query: jnp.sum(read(query, bias=bias).context))(QUERY)
  assert np.isfinite(slope).all() and not np.any(slope[0])


def test_fused_hides_what_a_bias_hides():
  bias = np.zeros((3, 5), np.float32)
  bias[0] = bias[1, 0] = -np.inf
  mask = np.ones((3, 5), bool)
  mask[1, 1:] = False
  dense, fused = (
    context(
      mechanism(), QUERY, KEY, VALUE, bias=bias, mask=mask, implementation=way
    )
    for way in ('dense', 'fused')
  )
  np.testing.assert_allclose(fused, dense, rtol=1e-5, atol=1e-6)
  assert not np.any(fused[:2])


@pytest.mark.parametrize(
  ('change', 'told'),
  [
    (
      lambda q, k, v: (q, k, v[:, :2]),
      'equal depths, and these are 4, 4 and 2',
    ),
    (lambda q, k, v: (q, k.astype(jnp.bfloat16), v), 'of one dtype'),
  ],
)
def test_fused_names_what_its_kernel_cannot_take(change, told):
  arrays = change(QUERY, KEY, VALUE)
  with pytest.raises(ValueError, match=told):
    context(mechanism(), *arrays, implementation='fused')


@pytest.mark.parametrize(
  ('shape', 'depth', 'kernel'),
  [
    ((64, 64), 64, True),
    ((64, 64), 128, True),
    ((65, 64), 64, False),
    ((64, 63), 64, False),
    ((64, 64), 20, False),
    ((64, 64), 256, False),
  ],
)
def test_auto_takes_the_kernel_of_a_gpu_where_there_is_one(
  monkeypatch, shape, depth, kernel
):
  engine = attention.engine
  monkeypatch.setattr(engine.jax, 'default_backend', lambda: 'gpu')
  query, key = (jnp.ones((n, depth), jnp.bfloat16) for n in shape)
  assert engine._has_kernel(query, key) == kernel
  assert not engine._has_kernel(query.astype(jnp.float32), key)


def test_a_bias_that_may_be_negative_is_refused_where_none_may_be():
  with pytest.raises(ValueError, match='bias may be negative'):
    context(
      mechanism('proportional'), QUERY, KEY, VALUE, bias=-jnp.ones((3, 5))
    )


@pytest.mark.parametrize(('rows', 'keys'), [(3, 0), (0, 5), (0, 0)])
@pytest.mark.parametrize('name', NORMALIZERS)
def test_nothing_to_ask_or_to_read(name, rows, keys):
  read = lambda query: context(
    mechanism(name), query, KEY[:keys], VALUE[:keys], implementation='dense'
  )
  np.testing.assert_array_equal(read(QUERY[:rows]), np.zeros((rows, 4)))
  slope = jax.grad(lambda query: jnp.sum(read(query)))(QUERY[:rows])
  np.testing.assert_array_equal(slope, np.zeros((rows, 4)))


@pytest.mark.parametrize('name', ['local_hard', 'local_m', 'local_p'])
def test_a_window_over_nothing(name):
  made = mechanism(locality=getattr(attention.locality, name)())
  params = made.init(rng, query_dim=4, key_dim=4, value_dim=4)
  none = context(made, QUERY, KEY[:0], VALUE[:0], params=params)
  np.testing.assert_array_equal(none, np.zeros((3, 4)))


@pytest.mark.parametrize(('rows', 'keys'), [(3, 0), (0, 5)])
def test_heads_and_blocks_of_nothing(rows, keys):
  for made in (
    attention.heads.multi_head(mechanism(), num_heads=2),
    attention.in_blocks(mechanism()),
  ):
    params = made.init(rng, query_dim=4, key_dim=4, value_dim=4)
    arrays = QUERY[:rows], KEY[:keys], VALUE[:keys]
    found = context(made, *arrays, params=params)
    np.testing.assert_array_equal(found, np.zeros((rows, 4)))


def test_what_is_out_of_range_is_named():
  masks = attention.masks
  for refused, told in (
    (lambda: masks.window(left=0, right=2**31 - 1), 'right=2147483647'),
    (lambda: masks.dilated(window=2**16, step=2**16), 'step=65536'),
    (lambda: masks.padding(np.array([[2], [3]])), r'padding has .* \(2, 1\)'),
    (lambda: masks.prefix(np.array([2.5])), 'prefix has float'),
    (lambda: attention.in_blocks(mechanism(), rows=-1), 'rows=-1'),
    (
      lambda: context(
        mechanism('monotonic'), QUERY, KEY, VALUE, state={'score': ()}
      ),
      'state has shapes',
    ),
    (
      lambda: context(
        mechanism('proportional'),
        *(QUERY[:, :2], KEY, VALUE),
        implementation='linear',
      ),
      'query has depth 2 and key 4',
    ),
  ):
    with pytest.raises(ValueError, match=told):
      refused()


def test_a_place_may_be_a_number_of_numpy():
  found, wanted = (
    context(
      mechanism('proportional'),
      *(QUERY, KEY, VALUE),
      mask=attention.masks.causal(),
      query_start=start,
      implementation='linear',
    )
    for start in (np.int64(1), 1)
  )
  np.testing.assert_array_equal(found, wanted)


def test_draws_of_few_digits_are_fair():
  """Of 256 equals, ties would make the first ones too likely."""
  logits = jnp.zeros((5_000, 256), jnp.bfloat16)
  chosen, _ = normalizers.draw(logits, None, rng)
  assert chosen.dtype == logits.dtype
  places = np.argmax(chosen, axis=-1)
  for quarter in (1, 2, 3):
    share = np.mean(places < 64 * quarter)
    assert share == pytest.approx(quarter / 4, abs=0.03)


def test_small_and_large_additive_scores_are_those_of_float32():
  made = scores.additive(hidden=8)
  params = made.init(rng, 4, 4)
  half = jnp.bfloat16
  query, key = (
    jax.random.normal(jax.random.fold_in(rng, n), (150, 4)).astype(half)
    for n in range(2)
  )
  prepared = made.prepare(params, key)
  large = made.apply(params, query, prepared)
  small = made.apply(params, query[:3], prepared)
  np.testing.assert_allclose(small, large[:3], rtol=1e-5, atol=1e-6)


def test_heads_are_permuted_each_in_its_own_way():
  change = attention.interventions.permuted(rng)
  made = attention.interventions.replace(mechanism(), change)
  query = jnp.broadcast_to(QUERY, (2, 3, 3, 4))
  key, value = (jnp.broadcast_to(x, (2, 3, 5, 4)) for x in (KEY, VALUE))
  weights = np.asarray(attention.attend(made, {}, query, key, value).weights)
  rows = {weights[b, h].tobytes() for b in range(2) for h in range(3)}
  assert len(rows) == 6


@pytest.mark.parametrize(('share', 'keys'), [(0.3, 100), (0.6, 50), (0.1, 30)])
def test_as_many_are_erased_as_were_meant(share, keys):
  change = attention.interventions.erased(share)
  weights = jnp.arange(1.0, keys + 1)[None] / keys
  left = change(weights, jnp.ones((1, keys), bool), attention.core.HERE)
  assert int(jnp.sum(left == 0)) == round(share * keys)


def test_a_learned_baseline_learns_beside_masked_keys():
  baseline = attention.estimators.learned()
  logits = jnp.array([0.1, 0.2, 0.3, jnp.finfo(jnp.float32).min])
  state = baseline.init(4)
  for _ in range(100):
    state = baseline.update(state, logits, jnp.array([5.0]))
  value = baseline.value(state, logits, jnp.zeros(1), None)
  np.testing.assert_allclose(value, 5.0, rtol=0.01)


def test_wide_layers_are_counted_wherever_they_are():
  """Of an mlp that widens, temporary memory is as of one that narrows."""
  found = []
  x = jnp.ones((256, 4))
  for widths in ((8, 512), (512, 8)):
    made = attention.compose(
      score=scores.mlp(widths=widths), normalizer=normalizers.softmax()
    )
    params = made.init(rng, query_dim=4, key_dim=4, value_dim=4)
    compiled = jax.jit(
      lambda params, made=made: attention.attend(made, params, x, x, x).context
    ).lower(params)
    stats = compiled.compile().memory_analysis()
    found.append(stats.temp_size_in_bytes)
  assert max(found) < 64 * 2**20
