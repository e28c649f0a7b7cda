"""Mechanisms of every kind inside models: states, places, draws, heads, hops.

The whole and its steps are compiled together, once a model and mechanism.
"""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import attention, configs, errors, models
from attnlab.layers import pool as pools
from attnlab.models import seq2seq
from attnlab.tasks import base, decoding

V = 7
SOURCE = np.array([[4, 5, 6, 2], [3, 2, 0, 0], [6, 2, 0, 0]])
TARGET = np.array([[5, 4, 6, 2], [6, 2, 0, 0], [3, 3, 3, 2]])
MODELS = {
  'bahdanau': {'embedding': 4, 'hidden': 4},
  'luong': {'embedding': 4, 'hidden': 4, 'layers': 2},
  'transformer': {'depth': 4, 'hidden': 6, 'layers': 2, 'norm': 'pre'},
}
scores, normalizers = attention.scores, attention.normalizers
locality, positions = attention.locality, attention.positions
heads, hops = attention.heads, attention.hops


def compose(score, normalizer=None, **parts):
  normalizer = normalizer or normalizers.softmax()
  return attention.compose(score=score, normalizer=normalizer, **parts)


# Every kind that may go wrong between the whole and a step; some at once.
MECHANISMS = {
  'location_aware, alibi, heads': heads.multi_head_weighted(
    compose(
      scores.location_aware(hidden=3, filters=2, width=3),
      position=positions.alibi(),
    ),
    num_heads=2,
  ),
  'coverage_aware, monotonic, hops': hops.multi_hop(
    heads.multi_head(
      compose(scores.coverage_aware(hidden=3), normalizers.monotonic()),
      num_heads=1,
    )
  ),
  'location, local_m': heads.multi_head(
    compose(
      scores.location(max_length=5), locality=locality.local_m(half_width=1)
    ),
    num_heads=2,
  ),
  'local_p, relative_bias': heads.multi_head(
    compose(
      scores.additive(hidden=3),
      locality=locality.local_p(half_width=2, hidden=3),
      position=positions.relative_bias(distance=2),
    ),
    num_heads=2,
  ),
  'local_hard, hops, heads': hops.multi_hop(
    heads.multi_head(
      compose(
        scores.scaled_dot(),
        normalizers.sparsemax(),
        locality=locality.local_hard(half_width=1),
      ),
      num_heads=2,
    )
  ),
}
every = pytest.mark.parametrize('model', MODELS)
each = pytest.mark.parametrize('mechanism', MECHANISMS)
# Compiling is what these tests wait for, not running.
quick = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


def build(model, mechanism, **settings):
  """Graph and parameters; every parameter moved off its first value."""
  settings = {**MODELS[model], 'dropout': 0.0, **settings}
  make = getattr(models, model)
  graph, state = nnx.split(
    nnx.eval_shape(lambda: make(V, V, mechanism, nnx.Rngs(0), **settings))
  )
  rng = np.random.default_rng(0)
  draw = lambda leaf: jnp.array(rng.normal(size=leaf.shape), leaf.dtype) * 0.7
  return graph, jax.tree.map(draw, state)


def batch():
  return {'source': jnp.array(SOURCE), 'target': jnp.array(TARGET)}


def by_steps(model, source, target, length):
  """Logits and weights of the reference, with room for `length` words."""
  memory = model.encode(source)

  def step(carry, x):
    token, position = x
    logits, carry, weights = model.step(memory, carry, token, position)
    return carry, (logits, weights)

  words = seq2seq.shift(target).T
  carry = model.init_carry(memory, length)
  _, ys = jax.lax.scan(step, carry, (words, jnp.arange(len(words))))
  return jax.tree.map(lambda y: jnp.swapaxes(y, 0, 1), ys)


@every
@each
def test_step_by_step_equals_teacher_forcing(model, mechanism):
  graph, state = build(model, MECHANISMS[mechanism])

  @quick
  def run(state, batch):
    net = nnx.merge(graph, state)
    logits, out = net(batch)
    # A search leaves more room than the reference needs.
    room = batch['target'].shape[1] + 1
    found = by_steps(net, batch['source'], batch['target'], room)
    return (logits, out['weights']), found

  whole, found = run(state, batch())
  for x, y in zip(whole, found, strict=True):
    np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5)
    assert np.isfinite(x).all()


@every
def test_a_beam_takes_the_alignments_of_its_hypotheses_along(model):
  # What a search says of its words is what teacher forcing says of them.
  mechanism = MECHANISMS['location_aware, alibi, heads']
  graph, state = build(model, mechanism)
  holder = state if model == 'transformer' else state['decoder']
  bias = holder['output']['bias']
  bias[...] = bias[...].at[decoding.EOS].set(-1e10)  # all words are written
  length = 5

  @quick
  def search(state, source):
    net = nnx.merge(graph, state)
    memory = net.encode(source)
    found = decoding.beam(
      net.step,
      memory,
      net.init_carry(memory, length),
      batch=len(SOURCE),
      length=length,
      size=3,
      length_penalty=0.0,
    )
    logits, _ = net({'source': source, 'target': found.tokens})
    return found, logits

  found, logits = search(state, jnp.array(SOURCE))
  logits = np.where(np.arange(V) < decoding.EOS, -1e9, logits)
  logs = np.asarray(jax.nn.log_softmax(logits))
  tokens = np.asarray(found.tokens)
  chosen = np.take_along_axis(logs, tokens[..., None], axis=-1)[..., 0]
  np.testing.assert_allclose(found.score, chosen.sum(axis=1), rtol=1e-5)
  assert (tokens > decoding.EOS).all()


SAMPLED = heads.multi_head(
  compose(scores.scaled_dot(), normalizers.gumbel(temperature=5.0)), num_heads=2
)


@every
def test_training_draws_and_evaluation_does_not(model):
  graph, state = build(model, SAMPLED)

  @quick
  def run(state, batch, rng):
    _, out = nnx.merge(graph, state)(batch, rng)
    found = {'source': [out['weights']]}
    if model == 'transformer':
      found['source'] = out['source_weights']
      found['self'] = out['self_weights']
      found['encoder'] = out['memory']['weights']
    return found

  still, again = (run(state, batch(), None) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, still, again)
  one, same, other = (run(state, batch(), jax.random.key(k)) for k in (0, 0, 1))
  jax.tree.map(np.testing.assert_array_equal, one, same)
  # Every layer draws, and not what another one does.
  drawn = jax.tree.leaves(one)
  for leaves in zip(*map(jax.tree.leaves, (still, one, other)), strict=True):
    for x, y in ((0, 1), (0, 2), (1, 2)):
      assert (leaves[x] != leaves[y]).any()
  for n, x in enumerate(drawn):
    for y in drawn[:n]:
      assert x.shape != y.shape or (x != y).any()
  assert len(drawn) == (6 if model == 'transformer' else 1)


def test_every_step_of_a_decoder_draws_anew():
  mechanism = compose(scores.additive(hidden=3), normalizers.sample())
  graph, state = build('luong', mechanism)
  # Scores of zero: what differs from word to word is drawn.
  state['decoder']['attend']['params']['score']['out'][...] *= 0
  ones = {'source': jnp.full((1, 8), 3), 'target': jnp.full((1, 12), 4)}
  run = quick(lambda s, rng: nnx.merge(graph, s)(ones, rng)[1]['weights'])
  chosen = np.argmax(run(state, jax.random.key(0))[0], axis=1)
  assert len(set(chosen.tolist())) > 3


@pytest.mark.parametrize('pool', ['Attention', 'SelfAttention', 'Set'])
def test_a_pool_hands_the_key_on(pool):
  more = {} if pool == 'SelfAttention' else {'dtype': jnp.float32}
  module = getattr(pools, pool)(SAMPLED, 4, rngs=nnx.Rngs(0), **more)
  rng = np.random.default_rng(0)
  states = jnp.array(rng.normal(size=(2, 5, 4)), jnp.float32)
  mask = jnp.arange(5)[None] < jnp.array([5, 3])[:, None]
  run = lambda rng: module(states, mask, rng)[1]
  still, one, same, other = map(run, (None, *map(jax.random.key, (0, 0, 1))))
  np.testing.assert_array_equal(one, same)
  assert (still != one).any()
  assert (one != other).any()
  np.testing.assert_allclose(one.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize('pool', ['Attention', 'SelfAttention', 'Set'])
@each
def test_a_pool_holds_every_mechanism(pool, mechanism):
  # And what is padded counts for nothing, whatever the mechanism remembers.
  more = {} if pool == 'SelfAttention' else {'dtype': jnp.float32}
  module = getattr(pools, pool)(
    MECHANISMS[mechanism], 4, rngs=nnx.Rngs(0), **more
  )
  rng = np.random.default_rng(0)
  states = jnp.array(rng.normal(size=(2, 5, 4)), jnp.float32)
  mask = jnp.arange(5)[None] < jnp.array([3, 0])[:, None]
  vector, weights = module(states, mask)
  short = module(states[:, :3], mask[:, :3])
  np.testing.assert_allclose(vector, short[0], rtol=2e-5, atol=2e-6)
  np.testing.assert_allclose(weights[:, :3], short[1], rtol=2e-5, atol=2e-6)
  assert not np.asarray(weights[:, 3:]).any()
  assert not np.asarray(vector[1]).any()
  assert np.asarray(weights[0]).any()


def settings(**sections):
  config = configs.load('translation:luong,smoke')
  return configs.override(config, sections)['attention']


def test_heads_and_hops_are_reached_by_flag():
  mechanism = base.mechanism(
    settings(
      **{
        'attention.heads': 'multi_head_weighted',
        'attention.heads.num_heads': '2',
        'attention.hops': 'multi_hop',
        'attention.hops.hops': '3',
      }
    )
  )
  params = mechanism.init(
    jax.random.key(0), query_dim=4, key_dim=6, value_dim=6
  )
  assert set(params) == {'hop', 'query', 'context'}
  assert params['hop']['weight'].shape == (2,)
  x, source = jnp.ones((2, 4)), jnp.ones((5, 6))
  out = attention.attend(mechanism, params, x, source, source)
  assert out.weights.shape == (3, 2, 2, 5)


@pytest.mark.parametrize(
  ('sections', 'message'),
  [
    ({'attention.heads': 'multihead'}, "heads.name='multihead'.*'multi_head'"),
    ({'attention.hops': 'multihop'}, "hops.name='multihop'.*'multi_hop'"),
    (
      {'attention.hops': 'multi_hop', 'attention.score': 'keys_only'},
      'attention: .* asks for no query .* score=additive',
    ),
    (
      {'attention.heads': 'multi_head', 'attention.heads.num_heads': '0'},
      r'attention: heads\(num_heads=0\)',
    ),
  ],
)
def test_what_does_not_fit_is_refused(sections, message):
  with pytest.raises(errors.UserError, match=message) as caught:
    base.mechanism(settings(**sections))
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('model', ['bahdanau', 'luong', 'transformer'])
def test_a_number_of_heads_that_does_not_divide_is_refused(model):
  mechanism = heads.multi_head(compose(scores.additive(hidden=3)), num_heads=3)
  with pytest.raises(errors.UserError, match=r'num_heads=3\) does not divide'):
    build(model, mechanism)


def test_a_transformer_needs_a_context_of_its_own_depth():
  mechanism = heads.multi_head(
    compose(scores.scaled_dot()), num_heads=2, out_dim=5
  )
  with pytest.raises(
    errors.UserError, match=r'attention\.heads\.out_dim=5 .* must be 4'
  ):
    build('transformer', mechanism)
  build('luong', mechanism)  # which takes any
