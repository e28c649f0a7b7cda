"""The laws of attention, over every score x every normaliser, and heads.

Ordinary operations run eagerly: all mechanisms share their shapes, so that each
operation is compiled once and not once a mechanism.
"""

import functools
import inspect
import operator

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from table import (
  HEADS,
  HOPS,
  LOCALITIES,
  NORMALIZERS,
  POSITIONS,
  SCORES,
  D,
  S,
  T,
)

from attnlab import attention, configs

MASKS = {
  'padding': attention.masks.padding(jnp.array(S - 2)),
  'causal': attention.masks.causal(),
  'window': attention.masks.window(left=1, right=2),
  'dilated': attention.masks.dilated(window=1, step=2),
  'block': attention.masks.block(size=2),
  'prefix': attention.masks.prefix(2),
  'segment': attention.masks.segment(jnp.array([0, 0, 1, 1, 0])),
}
# A mechanism is a name such as 'multi_head-additive-softmax-local_m': parts of
# the six tables, with a hyphen between them.
MECHANISMS = [
  f'{name}-{"sigmoid" if name == "concat_linear" else "softmax"}'
  for name in SCORES
  if name != 'concat_linear' or 'sigmoid' in NORMALIZERS
]
MECHANISMS += [
  f'{"kernel" if name == "proportional" else "additive"}-{name}'
  for name in NORMALIZERS
  if name != 'softmax'
]
MECHANISMS += [f'scaled_dot-softmax-{name}' for name in LOCALITIES]
MECHANISMS += [f'dot-softmax-{name}' for name in POSITIONS]
MECHANISMS += [
  f'multi_head-{inner}'
  for inner in (
    'additive-softmax',
    'scaled_dot-uniform',
    'keys_only-hardmax',
    'bilinear-softmax-alibi',
    'location_aware-softmax',
    'coverage_aware-softmax',
  )
]
MECHANISMS += [
  'multi_head_weighted-scaled_dot-softmax',
  'multi_hop-additive-softmax',
  'multi_hop-multi_head-scaled_dot-softmax-local_p',
]
every = pytest.mark.parametrize('name', MECHANISMS)


def parts(name):
  """Returns {table: row name} for the parts of a mechanism's name."""
  tables = {
    'hops': HOPS,
    'heads': HEADS,
    'score': SCORES,
    'normalizer': NORMALIZERS,
    'locality': LOCALITIES,
    'position': POSITIONS,
  }
  return {
    kind: part
    for part in name.split('-')
    for kind, table in tables.items()
    if part in table
  }


def rows(name):
  """The rows of a mechanism's parts."""
  tables = (HOPS, HEADS, SCORES, NORMALIZERS, LOCALITIES, POSITIONS)
  return [t[part] for part in name.split('-') for t in tables if part in t]


def excused(name, law):
  return any(law in row.excuses for row in rows(name))


def lawful(law):
  """All mechanisms but those whose rows excuse them from a law."""
  names = [name for name in MECHANISMS if not excused(name, law)]
  return pytest.mark.parametrize('name', names)


@functools.cache
def build(name):
  """The mechanism of a name such as 'multi_head-additive-softmax'."""
  modules = {
    'score': (attention.scores, SCORES),
    'normalizer': (attention.normalizers, NORMALIZERS),
    'locality': (attention.locality, LOCALITIES),
    'position': (attention.positions, POSITIONS),
  }
  found = parts(name)
  hops, heads = found.pop('hops', None), found.pop('heads', None)
  mechanism = attention.compose(
    **{
      kind: getattr(modules[kind][0], part)(**modules[kind][1][part].settings)
      for kind, part in found.items()
    }
  )
  if heads:
    settings = HEADS[heads].settings
    mechanism = getattr(attention.heads, heads)(mechanism, **settings)
  if hops:
    settings = HOPS[hops].settings
    mechanism = getattr(attention.hops, hops)(mechanism, **settings)
  return mechanism


def declared(name):
  """The normaliser of a mechanism, with what it says of itself."""
  normalizer = parts(name)['normalizer']
  settings = NORMALIZERS[normalizer].settings
  return getattr(attention.normalizers, normalizer)(**settings)


@functools.cache
def params_of(name, dtype=np.float32):
  params = build(name).init(
    jax.random.key(1), query_dim=D, key_dim=D, value_dim=D
  )
  # Biases start at zero, which would hide a mistake with them.
  rng = np.random.default_rng(2)
  moved = lambda x: np.asarray(x + 0.3 * rng.normal(size=x.shape), dtype)
  return jax.tree.map(moved, params)


def arrays(seed=0, lead=(), size=S, dtype=np.float32):
  rng = np.random.default_rng(seed)
  shapes = [(T, D), (size, D), (size, D)]
  return [rng.normal(size=(*lead, *s)).astype(dtype) for s in shapes]


# Row 0 sees some keys, row 1 none, row 2 one; nobody sees key 3.
MASK = np.array(
  [
    [True, True, False, False, True],
    [False] * 5,
    [False, True, False, False, False],
  ]
)


def run(name, query, key, value, **kwargs):
  return attention.attend(
    build(name), params_of(name), query, key, value, **kwargs
  )


# The gradient alone is compiled as a whole, and not for speed.
quick = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


@functools.partial(quick, static_argnums=0)
def value_and_slopes(name, params, inputs, mask):
  def loss(params, query, key, value):
    out = attention.attend(build(name), params, query, key, value, mask=mask)
    # A number that depends on every output, and on the values' dtype.
    total = jnp.sum(jnp.sin(out.context + 1))
    return total + jnp.sum(jnp.cos(out.weights * 3))

  return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))(params, *inputs)


def gradients(name, inputs, mask):
  """With respect to params, query, key and value."""
  return value_and_slopes(name, params_of(name), inputs, mask)[1]


@functools.cache
def usual(name):
  """Output and gradients for the first arrays under MASK."""
  return run(name, *arrays(), mask=MASK), gradients(name, arrays(), MASK)


def equal(a, b, tolerance=2e-6):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      x, y, rtol=tolerance, atol=tolerance
    ),
    a,
    b,
  )


def public(module):
  return {
    name
    for name, function in vars(module).items()
    if inspect.isfunction(function)
    and not name.startswith('_')
    and function.__module__ == module.__name__
  }


def test_every_public_mechanism_has_a_row():
  assert set(SCORES) == set(configs.choices('attention.score'))
  assert set(NORMALIZERS) == set(configs.choices('attention.normalizer'))
  assert set(LOCALITIES) == set(configs.choices('attention.locality'))
  assert set(POSITIONS) == set(configs.choices('attention.position'))
  assert set(HEADS) == set(configs.choices('attention.heads'))
  assert set(HOPS) == set(configs.choices('attention.hops'))
  assert set(MASKS) == public(attention.masks) - {
    'at',
    'broadcasts',
    'check',
    'dense',
  }
  for table in (SCORES, NORMALIZERS, LOCALITIES, POSITIONS, HEADS, HOPS):
    assert all(all(row.excuses.values()) for row in table.values())


@every
def test_same_under_jit(name):
  inputs = arrays()
  jitted = jax.jit(
    lambda p, *x: attention.attend(build(name), p, *x, mask=MASK)
  )
  equal(usual(name)[0], jitted(params_of(name), *inputs))


@every
def test_values_and_gradients_are_finite(name):
  huge = [array * np.float32(1e10) for array in arrays()]  # products of 1e20
  found = run(name, *huge, mask=MASK), gradients(name, huge, MASK)
  for leaf in jax.tree.leaves((usual(name), found)):
    assert np.isfinite(leaf).all()


@every
def test_weights_are_a_distribution_over_visible_keys(name):
  weights = np.asarray(usual(name)[0].weights)
  assert weights.dtype == np.float32
  assert (weights >= 0).all()
  assert (weights[..., ~MASK] == 0).all()
  if declared(name).distribution:
    sums = weights.sum(axis=-1)
    whole = np.broadcast_to(MASK.any(axis=1), sums.shape)
    near = parts(name).get('locality')
    settings = LOCALITIES[near].settings if near else {}
    if near and not getattr(attention.locality, near)(**settings).distribution:
      assert (sums < whole + 1e-6).all()
    else:
      np.testing.assert_allclose(sums, whole, rtol=1e-6)


@every
def test_masked_keys_are_inert(name):
  # Large but finite: 0 x NaN is NaN in any sum, so a value that is NaN would
  # show, masked or not.
  query, key, value = arrays()
  before, slopes = usual(name)
  unseen = ~MASK.any(axis=0)
  assert unseen.any()
  key, value = key.copy(), value.copy()
  key[unseen] = value[unseen] = 1e30
  after = run(name, query, key, value, mask=MASK)
  equal((before.context, before.weights), (after.context, after.weights), 0)
  again = gradients(name, (query, key, value), MASK)
  equal(slopes, again)
  for slope in (*slopes[2:], *again[2:]):
    assert (np.asarray(slope)[unseen] == 0).all()


@every
def test_row_without_visible_keys_is_zero(name):
  blind = ~MASK.any(axis=1)
  out, slopes = usual(name)
  assert (np.asarray(out.context)[blind] == 0).all()
  assert (np.asarray(out.weights)[..., blind, :] == 0).all()
  assert (np.asarray(slopes[1])[blind] == 0).all()


@every
def test_empty_source_is_zero_with_zero_gradients(name):
  empty = attention.masks.padding(jnp.array(0))
  out = run(name, *arrays(), mask=empty)
  for leaf in (out.context, out.weights):
    assert not np.asarray(leaf).any()
  blind = np.zeros((T, S), bool)
  for leaf in jax.tree.leaves(gradients(name, arrays(), blind)):
    assert not np.asarray(leaf).any()


@lawful('permutation')
def test_permutation_of_keys_carries_over(name):
  query, key, value = arrays()
  order = np.array([3, 0, 4, 2, 1])
  before, _ = usual(name)
  after = run(name, query, key[order], value[order], mask=MASK[:, order])
  equal(before.context, after.context)
  equal(np.asarray(before.weights)[..., order], after.weights)


@every
def test_padding_the_source_changes_nothing(name):
  query, key, value = arrays()
  before = run(name, query, key, value)
  wide = lambda x: np.pad(x, ((0, 3), (0, 0)), constant_values=9)
  visible = attention.masks.padding(jnp.array(S))
  after = run(name, query, wide(key), wide(value), mask=visible)
  equal(before.context, after.context)
  equal(before.weights, after.weights[..., :S])
  assert not np.asarray(after.weights[..., S:]).any()


@every
def test_one_query_at_a_time_equals_the_whole(name):
  query, key, value = arrays()
  mask = MASKS['window'] & MASKS['padding'] | MASKS['causal']
  whole = run(name, query, key, value, mask=mask)
  state = None
  for t in range(T):
    out = run(
      name,
      query[t : t + 1],
      key,
      value,
      mask=mask,
      query_start=t,
      state=state,
    )
    state = out.state
    equal(whole.context[t : t + 1], out.context)
    equal(whole.weights[..., t : t + 1, :], out.weights)


@lawful('lead')
def test_leading_axes_equal_a_loop(name):
  inputs = arrays(lead=(2, 2))
  lengths = np.array([3, 5])
  mask = attention.masks.padding(lengths)
  whole = run(name, *inputs, mask=mask)
  for b, h in ((0, 1), (1, 0)):
    visible = attention.masks.padding(jnp.array(lengths[b]))
    one = run(name, *[array[b, h] for array in inputs], mask=visible)
    equal(jax.tree.map(operator.itemgetter((b, h)), whole), one)


@every
def test_shift_invariance_is_as_declared(name):
  bias = np.random.default_rng(5).normal(size=(T, S)).astype(np.float32)
  shifted = bias + np.float32([[3], [-2], [40]])
  if declared(name).nonnegative:
    with pytest.raises(ValueError, match='bias may be negative'):
      run(name, *arrays(), mask=MASK, bias=bias)
    return
  before = run(name, *arrays(), mask=MASK, bias=bias)
  after = run(name, *arrays(), mask=MASK, bias=shifted)
  same = np.allclose(before.weights, after.weights, atol=2e-5)
  assert same == declared(name).shift_invariant


@lawful('dependence')
def test_dependence_on_the_query_is_as_declared(name):
  score, normalizer = parts(name)['score'], parts(name)['normalizer']
  _, key, value = arrays()
  found = [
    run(name, 3 * arrays(seed)[0], key, value).weights for seed in range(6)
  ]
  same = all(np.allclose(found[0], weights, atol=1e-5) for weights in found)
  settings = SCORES[score].settings
  asks = getattr(attention.scores, score)(**settings).depends_on_query
  assert asks == ('query' not in SCORES[score].excuses)
  assert same == (not asks or normalizer == 'uniform')


@every
def test_gradient_reaches_the_scores_as_declared(name):
  params, query, key, _ = usual(name)[1]
  score, normalizer = parts(name)['score'], parts(name)['normalizer']
  assert declared(name).differentiable == (
    'gradient' not in NORMALIZERS[normalizer].excuses
  )
  if declared(name).differentiable:
    unread = 'key' in SCORES[score].excuses
    assert np.asarray(key).any() == (not unread)
    assert np.asarray(query if unread else key).any()
  elif 'multi_head' in name:  # there values and outputs still learn
    names = ('query', 'key', 'heads')
    silent = ([params.get(x, {}) for x in names], query, key)
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(silent))
  else:
    silent = jax.tree.leaves((params, query, key))
    assert not any(np.asarray(x).any() for x in silent)


@every
def test_memory_grows_a_position_at_a_time(name):
  mechanism, params = build(name), params_of(name)
  _, key, value = arrays()
  whole = mechanism.prepare(params, key, value)
  rows = [
    mechanism.prepare(params, key[s : s + 1], value[s : s + 1])
    for s in range(S)
  ]
  grown = jax.tree.map(lambda *x: jnp.concatenate(x, axis=-2), *rows)
  equal(whole, grown)


def formulas(name):
  """What oracle.attend reads: {kind: (formula, settings)}."""
  tables = {
    'score': SCORES,
    'normalizer': NORMALIZERS,
    'locality': LOCALITIES,
    'position': POSITIONS,
    'heads': HEADS,
    'hops': HOPS,
  }
  found = {}
  for kind, part in parts(name).items():
    row = tables[kind][part]
    formula = row.formula or getattr(oracle, part)
    # A score's widths are those of its parameters.
    known = inspect.signature(formula).parameters
    settings = {k: v for k, v in row.settings.items() if k in known}
    found[kind] = functools.partial(formula, **settings)
  return found


@pytest.mark.parametrize(
  ('dtype', 'tolerance'), [(np.float32, 2e-5), (jnp.bfloat16, 2e-2)]
)
@every
def test_agrees_with_float64_oracle(name, dtype, tolerance):
  inputs = [array.astype(dtype) for array in arrays(seed=3)]
  out = run(name, *inputs, mask=MASK)
  assert out.context.dtype == dtype
  assert out.weights.dtype == np.float32
  expected = oracle.attend(formulas(name), params_of(name), *inputs, MASK)
  found = [np.asarray(x, np.float64) for x in (out.context, out.weights)]
  equal(found, list(expected), tolerance)


@lawful('differences')
def test_finite_differences_agree(name):
  # Where no gradient reaches the scores, small differences are zero too.
  rng = np.random.default_rng(4)
  with jax.enable_x64(True):
    point = params_of(name, np.float64), arrays(seed=3, dtype=np.float64)
    function = lambda point: value_and_slopes(name, *point, MASK)
    value, (slope_params, *slope_inputs) = function(point)
    assert value.dtype == np.float64
    for _ in range(3):
      way = jax.tree.map(lambda x: rng.normal(size=x.shape), point)
      ahead, behind = (
        function(jax.tree.map(lambda x, d, step=step: x + step * d, point, way))
        for step in (1e-5, -1e-5)
      )
      slope = (ahead[0] - behind[0]) / 2e-5
      products = jax.tree.map(
        lambda g, d: float((g * d).sum()), (slope_params, slope_inputs), way
      )
      np.testing.assert_allclose(
        slope, sum(jax.tree.leaves(products)), rtol=1e-6, atol=1e-8
      )


def test_a_float64_path_stays_float64_and_a_float32_path_float32():
  with jax.enable_x64(True):
    out = run('dot-softmax', *arrays(dtype=np.float64))
    assert out.weights.dtype == np.float64
    out = run('dot-softmax', *arrays())
    assert out.weights.dtype == np.float32


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'query': (D,)}, 'query has shape'),
    ({'key': (D,)}, 'key has shape'),
    ({'value': (S,)}, 'value has shape'),
    ({'key': (2, S, D)}, 'key has leading axes'),
    ({'value': (2, S, D)}, 'value has leading axes'),
    ({'value': (S + 1, D)}, 'value has 6'),
    ({'mask': (T, S + 1)}, r'mask has shape \(3, 6\)'),
    ({'mask': (2, T, S)}, r'mask has shape \(2, 3, 5\)'),
    ({'bias': (T + 1, S)}, r'bias has shape \(4, 5\)'),
  ],
)
def test_bad_shapes_are_refused_by_name(change, message):
  named = dict(zip(('query', 'key', 'value'), arrays(), strict=True))
  for argument, shape in change.items():
    named[argument] = np.ones(shape, bool if argument == 'mask' else np.float32)
  query, key, value = (named.pop(x) for x in ('query', 'key', 'value'))
  with pytest.raises(ValueError, match=message):
    run('additive-softmax', query, key, value, **named)


@pytest.mark.parametrize(
  'name',
  [score for score in SCORES if score not in ('concat_linear', 'location')],
)
def test_bad_depths_are_refused_by_name(name):
  query, key, value = arrays()
  with pytest.raises(ValueError, match=r'key has depth 3|key 3'):
    run(f'{name}-softmax', query, key[:, :-1], value)
  if name != 'keys_only':
    with pytest.raises(ValueError, match='query has depth 3'):
      run(f'{name}-softmax', query[:, :-1], key, value)
  with pytest.raises(ValueError, match='value has depth 3'):
    run('multi_head-additive-softmax', query, key, value[:, :-1])


@pytest.mark.parametrize(
  'name',
  [
    'dot',
    'scaled_dot',
    'cosine',
    'euclidean',
    'inverse_euclidean',
    'kernel',
  ],
)
def test_dot_products_refuse_unequal_depths_from_the_start(name):
  with pytest.raises(ValueError, match='query_dim=2 and key_dim=3'):
    build(f'{name}-softmax').init(
      jax.random.key(0), query_dim=2, key_dim=3, value_dim=1
    )


@pytest.mark.parametrize('dtype', [np.float32, np.int32])
def test_masks_are_booleans(dtype):
  with pytest.raises(ValueError, match='mask has dtype'):
    run('dot-softmax', *arrays(), mask=MASK.astype(dtype))


@pytest.mark.parametrize(
  'name',
  [
    'bilinear',
    'additive',
    'keys_only',
    'concat',
    'mlp',
    'location',
    'location_aware',
    'coverage_aware',
  ],
)
def test_depths_of_query_key_and_value_may_differ(name):
  rng = np.random.default_rng(0)
  query, key, value = (
    rng.normal(size=shape).astype(np.float32)
    for shape in [(2, 3), (4, 5), (4, 6)]
  )
  mechanism = build(f'{name}-softmax')
  params = mechanism.init(
    jax.random.key(0), query_dim=3, key_dim=5, value_dim=6
  )
  out = attention.attend(mechanism, params, query, key, value)
  seen = np.ones((2, 4), bool)
  context, weights = oracle.attend(
    formulas(f'{name}-softmax'), params, query, key, value, seen
  )
  equal((out.context, out.weights), (context, weights), 2e-5)


def test_masks_and_biases_may_differ_from_head_to_head():
  name = 'multi_head-additive-softmax'
  mechanism, params = build(name), params_of(name)
  query, key, value = arrays()
  memory = mechanism.prepare(params, key, value)
  masks = np.stack([MASK, ~MASK])
  bias = np.random.default_rng(0).normal(size=masks.shape).astype(np.float32)
  both = mechanism.apply(params, query, memory, mask=masks, bias=bias)
  for h in range(2):
    one = mechanism.apply(params, query, memory, mask=masks[h], bias=bias[h])
    equal(both.weights[h], one.weights[h])
