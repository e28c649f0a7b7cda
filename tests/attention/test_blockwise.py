"""By blocks of queries, by prefix sums or at once: the same numbers."""

import functools
import itertools

import hypothesis
from hypothesis import strategies
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_laws import MECHANISMS, build, equal, params_of

from attnlab import attention
from attnlab.attention import blockwise, engine, masks, pairs, statistics
from attnlab.layers import attend as layer

LEAD, T, S, D = (2,), 7, 8, 4
# As in the laws: compiled as a whole, and not for speed.
quick = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)
# One of every kind; the laws hold for all of them.
SEVERAL = [
  'scaled_dot-softmax',
  'additive-softmax',
  'mlp-softmax',
  'location-softmax',
  'keys_only-hardmax',
  'dot-softmax-alibi',
  'scaled_dot-softmax-local_m',
  'multi_head-bilinear-softmax-alibi',
]


@pytest.fixture
def small(monkeypatch):
  """Blocks of 8 queries are one of 2 or 3, and keys are split as well."""
  monkeypatch.setattr(blockwise, '_ROWS', 1)
  monkeypatch.setattr(blockwise, '_FLOATS', 36)
  monkeypatch.setattr(pairs, '_WIDE', 24)
  monkeypatch.setattr(attention.scores, '_SMALL', 0)


def arrays(seed=0, lead=LEAD, length=T, size=S):
  rng = np.random.default_rng(seed)
  shapes = [(length, D), (size, D), (size, D)]
  return [
    jnp.asarray(rng.normal(size=(*lead, *s)), jnp.float32) for s in shapes
  ]


def seen(kind, lead=LEAD, length=T, size=S):
  rng = np.random.default_rng(1)
  return {
    'none': None,
    'padding': masks.padding(jnp.arange(lead[0]) * (size // 2)),
    'causal': masks.causal(),
    'window': masks.window(left=1, right=2)
    & masks.padding(jnp.array(size - 1)),
    'either': masks.causal() | masks.window(left=0, right=4),
    'not': ~masks.causal(),
    'rows': rng.random((*lead, length, size)) < 0.4,
    'keys': rng.random((lead[0], 1, size)) < 0.4,
  }[kind]


KINDS = ('none', 'padding', 'causal', 'window', 'either', 'not', 'rows', 'keys')


def both(name, inputs, mask, bias=None, **kwargs):
  """Output and gradients of a mechanism, {implementation: them}."""
  mechanism, params = build(name), params_of(name)
  names = [n for n in statistics.NAMES if n != 'logsumexp' or mechanism.scores]

  def function(implementation, params, query, key, value, bias):
    out = attention.attend(
      mechanism,
      params,
      query,
      key,
      value,
      mask=mask,
      bias=bias,
      implementation=implementation,
      statistics=names,
      **kwargs,
    )
    total = jnp.sum(jnp.sin(out.context + 1))
    return total + jnp.sum(out.aux['entropy']), (out.context, dict(out.aux))

  found = {}
  for way in ('dense', 'blockwise'):
    slopes = jax.value_and_grad(
      functools.partial(function, way), argnums=(0, 1, 2, 3), has_aux=True
    )
    (_, out), slope = quick(slopes)(params, *inputs, bias)
    found[way] = out, slope
  return found['dense'], found['blockwise']


@pytest.mark.parametrize(
  ('name', 'kind'),
  list(zip(SEVERAL, itertools.cycle(KINDS[::3]), strict=False)),
)
def test_blocks_equal_the_whole_forwards_and_backwards(small, name, kind):
  equal(*both(name, arrays(), seen(kind)), 1e-5)


@pytest.mark.parametrize('kind', ['padding', 'either', 'not', 'keys'])
def test_any_mask(small, kind):
  inputs = arrays(lead=(2, 3))
  mask = seen(kind)
  if kind == 'keys':
    mask = mask[:, None]
  bias = jnp.asarray(np.random.default_rng(2).normal(size=(3, T, 1)), 'f4')
  found = both('dot-softmax-alibi', inputs, mask, bias, query_start=2)
  equal(*found, 1e-5)


@hypothesis.given(
  name=strategies.sampled_from(SEVERAL[:3]),
  kind=strategies.sampled_from(KINDS),
  length=strategies.sampled_from([1, 3, 8]),
  size=strategies.sampled_from([1, 5, 8]),
  rows=strategies.sampled_from([1, 3]),
)
@hypothesis.settings(max_examples=4, deadline=None)
def test_any_lengths(name, kind, length, size, rows):
  mechanism, params = build(name), params_of(name)
  query, key, value = (x[0] for x in arrays(3, LEAD, length, size))
  mask = seen(kind, LEAD, length, size)
  if kind in ('rows', 'keys'):
    mask = mask[0]
  memory = mechanism.prepare(params, key, value)
  out = [
    any_.apply(params, query, memory, mask=mask)
    for any_ in (mechanism, attention.in_blocks(mechanism, rows=rows))
  ]
  equal(out[0], out[1], 1e-5)


@pytest.mark.parametrize('name', MECHANISMS)
def test_every_mechanism_in_blocks(name):
  mechanism = build(name)
  params = jax.tree.map(jnp.asarray, params_of(name))
  query, key, value = (x[0] for x in arrays(size=5, length=3))
  memory = mechanism.prepare(params, key, value)
  state = mechanism.init_state(5)
  apply = lambda m: m.apply(
    params, query, memory, mask=masks.causal(), state=state
  )
  whole, parts = apply(mechanism), apply(attention.in_blocks(mechanism, rows=2))
  equal(whole, parts, 1e-5)


def test_heads_outside_and_inside():
  inner = build('additive-softmax')
  heads = functools.partial(
    attention.heads.multi_head, num_heads=2, head_dim=2, out_dim=D
  )
  query, key, value = (x[0] for x in arrays())
  params = heads(inner).init(
    jax.random.key(0), query_dim=D, key_dim=D, value_dim=D
  )
  found = []
  for mechanism in (
    heads(inner),
    heads(attention.in_blocks(inner, rows=2)),
    attention.in_blocks(heads(inner), rows=2),
  ):
    memory = mechanism.prepare(params, key, value)
    found.append(mechanism.apply(params, query, memory, mask=seen('rows')[0]))
  equal(found[0], found[1])
  equal(found[0], found[2])


def test_weights_are_not_made_and_statistics_are():
  inputs = arrays()
  name = 'scaled_dot-softmax'
  dense = attention.attend(build(name), {}, *inputs, mask=seen('rows'))
  out = attention.attend(
    build(name),
    {},
    *inputs,
    mask=seen('rows'),
    implementation='blockwise',
    statistics=statistics.NAMES,
  )
  assert out.weights is None
  weights = np.asarray(dense.weights, np.float64)
  scores = np.einsum('btd,bsd->bts', *map(np.asarray, inputs[:2])) / D**0.5
  with np.errstate(divide='ignore'):
    logs = np.log(np.where(weights > 0, weights, 1))
    powers = np.where(seen('rows'), np.exp(scores), 0)
    expected = {
      'logsumexp': np.log(powers.sum(axis=-1)),
      'entropy': -(weights * logs).sum(axis=-1),
      'maximum': weights.max(axis=-1),
      'argmax': weights.argmax(axis=-1),
      'expected_position': weights @ np.arange(S),
      'column_mass': weights.sum(axis=-2),
    }
  equal(dict(out.aux), expected, 1e-5)


def test_keys_that_no_query_of_a_block_sees_are_not_computed(monkeypatch):
  widths = []
  plain = attention.scores.dot()

  def apply(params, query, key):
    widths.append((query.shape[0], key.shape[0]))
    return plain.apply(params, query, key)

  mechanism = attention.compose(
    score=plain._replace(apply=apply),
    normalizer=attention.normalizers.softmax(),
  )
  monkeypatch.setattr(blockwise, '_ROWS', 1)
  monkeypatch.setattr(blockwise, '_FLOATS', 2 * 64)
  inputs = arrays(lead=(), length=64, size=64)
  run = functools.partial(attention.attend, mechanism, {}, *inputs)
  for mask, most in (
    (masks.causal(), 0.6),
    (masks.window(left=2, right=1), 0.1),
    (masks.window(left=2, right=1) & masks.causal(), 0.1),
  ):
    widths.clear()
    out = run(mask=mask, implementation='blockwise')
    # Traced once a part, and once more for its shape; 32 blocks of 2 in all.
    keys = {k for q, k in widths if q == 2}
    assert max(keys) <= 64
    assert sum(keys) / len(keys) <= most * 64
    equal(run(mask=mask, implementation='dense').context, out.context)
  widths.clear()
  run(mask=~masks.causal(), implementation='blockwise')
  assert {k for _, k in widths} == {64}


def temporary(function, *shapes):
  """Bytes of a compiled function beside its arguments and results."""
  inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  found = jax.jit(function).lower(*inputs).compile().memory_analysis()
  return found.temp_size_in_bytes


@pytest.mark.parametrize(
  'name', ['scaled_dot-softmax', 'additive-softmax', 'mlp-softmax']
)
def test_memory_grows_with_the_length_and_not_its_square(name):
  mechanism, params = build(name), params_of(name)

  def loss(query, key, value):
    out = attention.attend(
      mechanism, params, query, key, value, implementation='blockwise'
    )
    return jnp.sum(jnp.sin(out.context))

  slopes = jax.grad(loss, argnums=(0, 1, 2))
  size = lambda n: temporary(slopes, (n, D), (n, D), (n, D))
  small, large = size(2**13), size(2**15)
  assert large < 5 * small
  assert large < 2**30 / 8  # the weights alone would be 4 GB


def test_weights_that_nobody_reads_are_not_made_under_jit():
  mechanism = attention.in_blocks(build('scaled_dot-softmax'))
  n = 2**14

  def context(query, key, value):
    memory = mechanism.prepare({}, key, value)
    return mechanism.apply({}, query, memory).context

  assert temporary(context, (n, D), (n, D), (n, D)) < 2**26  # not 2^30


@pytest.mark.parametrize('name', ['additive-softmax', 'location_aware-softmax'])
def test_layers_take_blocks_where_weights_are_large(small, monkeypatch, name):
  mechanism, params = build(name), params_of(name)
  query, key, value = arrays()
  memory = jax.vmap(lambda k, v: mechanism.prepare(params, k, v))(key, value)
  state = jax.tree.map(
    lambda x: jnp.broadcast_to(x, (2, *x.shape)), mechanism.init_state(S)
  )
  run = functools.partial(
    layer.apply,
    mechanism,
    params,
    query,
    memory,
    mask=jnp.asarray(seen('rows')),
    state=state,
  )
  whole = run()
  monkeypatch.setattr(engine, '_DENSE', 1)
  equal(whole, run(), 1e-5)


@pytest.mark.parametrize('spread', [1, 30, 100])
def test_tanh_sum_is_a_sum_of_tanh(spread):
  rng = np.random.default_rng(0)
  query, key, out = (
    rng.normal(size=shape).astype(np.float32)
    for shape in [(5, 19), (18, 19), (19,)]
  )
  query, key = spread * query, spread * key
  plain = lambda a, b, u: jnp.tanh(a[:, None, :] + b[None, :, :]) @ u
  slope = rng.normal(size=(5, 18)).astype(np.float32)

  @functools.partial(quick, static_argnums=0)
  def both_ways(function, *inputs):
    scores, pull = jax.vjp(function, *inputs)
    return scores, pull(slope)

  found = [both_ways(f, query, key, out) for f in (plain, pairs.tanh_sum)]
  equal(*found, 2e-5)
  mapped = quick(jax.vmap(pairs.tanh_sum, in_axes=(0, 0, None)))
  several = mapped(np.stack([query, -query]), np.stack([key, key]), out)
  equal(several[1], plain(-query, key, out), 2e-5)


def test_tanh_sum_of_huge_numbers_that_cancel():
  query = np.float32([[50, 1e30, -1e30]])
  key = np.float32([[-49, -1e30, -1e30], [1, 1, 1]])
  out = np.float32([1, 2, 4])
  expected = np.tanh(query[:, None].astype(np.float64) + key[None]) @ out
  equal(pairs.tanh_sum(query, key, out), expected)


@pytest.mark.parametrize(
  ('kind', 'start', 'length'),
  [
    ('none', 0, T),
    ('padding', 0, T),
    ('causal', 0, 300),
    ('causal', 3, T),
    ('keys', 0, T),
    ('causal', 4, 1),
  ],
)
def test_linear_attention_is_the_kernel_matrix(kind, start, length):
  mechanism = attention.compose(
    score=attention.scores.kernel(),
    normalizer=attention.normalizers.proportional(),
  )
  size = max(length, S)
  inputs = arrays(length=length, size=size)
  mask = seen(kind, LEAD, length, size)
  found = {}
  for way in ('dense', 'linear'):

    def loss(inputs, way=way):
      out = attention.attend(
        mechanism, {}, *inputs, mask=mask, implementation=way, query_start=start
      )
      return jnp.sum(jnp.sin(out.context)), out.context

    found[way] = quick(jax.value_and_grad(loss, has_aux=True))(inputs)
  equal(found['dense'], found['linear'], 1e-5)


def test_what_linear_attention_refuses():
  kernel = attention.compose(
    score=attention.scores.kernel(),
    normalizer=attention.normalizers.proportional(),
  )
  run = functools.partial(
    attention.attend, kernel, {}, *arrays(), implementation='linear'
  )
  with pytest.raises(ValueError, match='padding, causal, both'):
    run(mask=masks.window(left=1, right=1))
  with pytest.raises(ValueError, match='padding, causal, both'):
    run(mask=seen('rows'))
  with pytest.raises(ValueError, match='a bias is of weights'):
    run(bias=jnp.zeros(S))
  with pytest.raises(ValueError, match='score=kernel'):
    attention.attend(
      build('dot-softmax'), {}, *arrays(), implementation='linear'
    )


@pytest.mark.parametrize(
  ('kind', 'lead'), [('none', ()), ('causal', (2,)), ('rows', (2, 3))]
)
def test_fused_is_the_same(kind, lead):
  mask = seen(kind)
  if kind == 'rows':
    mask = mask[0]
    mask[1] = False  # jax.nn gives the mean there
  run = functools.partial(
    attention.attend, build('scaled_dot-softmax'), {}, mask=mask
  )
  found = {}
  for way in ('dense', 'fused'):

    def loss(inputs, way=way):
      context = run(*inputs, implementation=way).context
      return jnp.sum(jnp.sin(context)), context

    found[way] = quick(jax.value_and_grad(loss, has_aux=True))(
      arrays(lead=lead)
    )
  equal(found['dense'], found['fused'], 1e-5)


def test_auto_takes_what_suits_the_size(monkeypatch):
  taken = []
  monkeypatch.setattr(engine, '_DENSE', T * S)
  kernel = attention.compose(
    score=attention.scores.kernel(),
    normalizer=attention.normalizers.proportional(),
  )
  dot = build('dot-softmax')
  for mechanism, lead in ((dot, ()), (dot, (2,)), (kernel, (2,))):
    out = attention.attend(mechanism, {}, *arrays(lead=lead))
    taken.append(out.weights is None)
  assert taken == [False, True, True]
  name = 'coverage_aware-softmax'
  out = attention.attend(build(name), params_of(name), *arrays())
  assert out.weights is not None


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (
      {'implementation': 'blocks'},
      "it must be one of .*nearest is 'blockwise'",
    ),
    ({'statistics': ['entropi']}, "must be one of .*nearest is 'entropy'"),
    (
      {'implementation': 'fused', 'statistics': ['entropy']},
      "implementation='blockwise'",
    ),
  ],
)
def test_unknown_ways_and_statistics_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    attention.attend(build('dot-softmax'), {}, *arrays(), **settings)


@pytest.mark.parametrize(
  ('name', 'settings', 'message'),
  [
    (
      'additive-softmax',
      {'implementation': 'fused'},
      'softmax of dot products',
    ),
    (
      'coverage_aware-softmax',
      {'implementation': 'blockwise'},
      "nearest is implementation='dense'",
    ),
    (
      'multi_head-additive-softmax',
      {'statistics': ['logsumexp']},
      "nearest is 'entropy'",
    ),
  ],
)
def test_what_a_mechanism_has_not_is_refused(name, settings, message):
  with pytest.raises(ValueError, match=message):
    attention.attend(build(name), params_of(name), *arrays(), **settings)
