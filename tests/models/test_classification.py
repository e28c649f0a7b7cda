"""The laws of classifiers, over every pool and both models."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import attention, configs, errors
from attnlab.layers import pool as pools
from attnlab.models import classification, classifier

V, C = 9, 3
TEXTS = np.array([[4, 5, 6, 7], [3, 8, 0, 0], [6, 0, 0, 0]])
# A document with an empty sentence in the middle, and a short one.
DOCUMENTS = np.array(
  [
    [[4, 5, 6], [0, 0, 0], [7, 3, 0]],
    [[8, 4, 0], [5, 0, 0], [0, 0, 0]],
    [[6, 0, 0], [0, 0, 0], [0, 0, 0]],
  ]
)
MODELS = {
  **{
    f'classifier-{pool}': ('classifier', {'pool': pool})
    for pool in classifier.POOLS
  },
  'classifier-heads': ('classifier', {'pool': 'self_attention', 'heads': 2}),
  'classifier-set-heads': ('classifier', {'pool': 'set', 'heads': 2}),
  'classifier-one-way': (
    'classifier',
    {'pool': 'last', 'bidirectional': False, 'cell': 'gru', 'layers': 2},
  ),
  'classifier-shortcut': ('classifier', {'shortcut': True}),
  'hierarchical': ('hierarchical', {}),
  'hierarchical-mixed': (
    'hierarchical',
    {'word_pool': 'max', 'sentence_pool': 'mean', 'shortcut': True},
  ),
}
every = pytest.mark.parametrize('name', MODELS)


def mechanism(score='keys_only', normalizer='softmax', heads=1):
  functions = (
    configs.choices('attention.score')[score],
    configs.choices('attention.normalizer')[normalizer],
  )
  settings = {'hidden': 3} if score in ('additive', 'keys_only') else {}
  inner = attention.compose(
    score=functions[0](**settings), normalizer=functions[1]()
  )
  if heads == 1:
    return inner
  return attention.heads.multi_head(inner, num_heads=heads)


def abstract(function, settings, inner=None, dtype=jnp.float32):
  settings = {'embedding': 4, 'hidden': 2, **settings}
  heads = settings.pop('heads', 1)  # of the mechanism
  # Self-attention without a query would give every state the same context.
  asks = settings.get('pool') in ('self_attention', 'set')
  score = 'scaled_dot' if asks else 'keys_only'
  inner = inner or mechanism(score, heads=heads)
  make = getattr(classification, function)
  return nnx.split(
    nnx.eval_shape(lambda: make(V, C, inner, nnx.Rngs(0), dtype, **settings))
  )


def forward(graph, state, tokens, rng=None):
  def loss(state):
    logits, out = nnx.merge(graph, state)({'tokens': tokens}, rng)
    return -jnp.sum(jax.nn.log_softmax(logits)[:, 0]), (logits, out['weights'])

  (total, outputs), slopes = jax.value_and_grad(loss, has_aux=True)(state)
  return total, slopes, *outputs


quick = functools.partial(
  jax.jit,
  static_argnums=0,
  compiler_options={'xla_backend_optimization_level': 0},
)
jit_forward = quick(forward)


@functools.cache
def build(name):
  graph, state = abstract(*MODELS[name])
  rng = np.random.default_rng(0)
  draw = lambda leaf: jnp.array(rng.normal(size=leaf.shape), leaf.dtype) * 0.7
  return graph, jax.tree.map(draw, state)


def tokens_of(name):
  return DOCUMENTS if name.startswith('hier') else TEXTS


def run(name, tokens=None):
  tokens = tokens_of(name) if tokens is None else tokens
  return jit_forward(*build(name), jnp.array(tokens))


def close(a, b):
  np.testing.assert_allclose(a, b, rtol=5e-6, atol=5e-6)


def test_every_public_model_has_a_row():
  assert {function for function, _ in MODELS.values()} == set(
    configs.choices('classification:model')
  )


@every
def test_weights_are_shares_of_what_is_visible(name):
  _, _, logits, weights = run(name)
  tokens = tokens_of(name)
  assert weights.shape == tokens.shape
  assert logits.dtype == weights.dtype == np.float32
  assert not np.asarray(weights)[tokens == 0].any()
  close(np.asarray(weights).reshape(len(tokens), -1).sum(-1), 1)


@every
def test_padding_changes_nothing(name):
  _, _, logits, weights = run(name)
  tokens = tokens_of(name)
  wide = np.pad(tokens, [(0, 0), *[(0, 2)] * (tokens.ndim - 1)])
  found = run(name, wide)
  close(found[2], logits)
  inside = tuple(slice(size) for size in tokens.shape)
  close(np.asarray(found[3])[inside], weights)


@every
def test_rows_of_a_batch_are_independent(name):
  logits = run(name)[2]
  close(run(name, tokens_of(name)[::-1])[2], np.asarray(logits)[::-1])


@every
def test_every_parameter_receives_a_finite_gradient(name):
  slopes = nnx.to_pure_dict(run(name)[1])
  for path, slope in jax.tree.leaves_with_path(slopes):
    assert np.isfinite(slope).all(), path
    assert np.asarray(slope).any(), path


@every
def test_an_empty_text_is_the_bias_alone(name):
  tokens = np.zeros_like(tokens_of(name))
  total, slopes, logits, weights = run(name, tokens)
  for leaf in jax.tree.leaves((total, slopes)):
    assert np.isfinite(leaf).all()
  assert not np.asarray(weights).any()
  graph, state = build(name)
  bias = nnx.merge(graph, state).output.bias[...]
  inner = MODELS[name][1]
  if inner.get('heads', 1) == 1:
    close(logits, np.broadcast_to(bias, logits.shape))


def test_an_empty_sentence_changes_nothing_wherever_it_stands():
  _, _, logits, weights = run('hierarchical')
  moved = DOCUMENTS[:, [0, 2, 1]]  # the empty one of the first document last
  found = run('hierarchical', moved)
  close(found[2][0], logits[0])
  close(found[3][0], np.asarray(weights)[0][[0, 2, 1]])


@every
def test_bfloat16_keeps_parameters_logits_and_weights_in_float32(name):
  graph, state = abstract(*MODELS[name], dtype=jnp.bfloat16)
  tokens = jnp.array(tokens_of(name))
  run = lambda state: forward(graph, state, tokens, jax.random.key(0))
  _, slopes, logits, weights = jax.eval_shape(run, state)
  for leaf in (*jax.tree.leaves((state, slopes)), logits, weights):
    assert leaf.dtype == np.float32


PAIRS = [
  (score, 'softmax')
  for score in configs.choices('attention.score')
  if score != 'concat_linear'  # which no softmax may follow
]
PAIRS += [
  ('kernel' if n == 'proportional' else 'additive', n)
  for n in configs.choices('attention.normalizer')
]


@pytest.mark.parametrize(
  ('function', 'settings'),
  [
    ('classifier', {'pool': 'attention'}),
    ('classifier', {'pool': 'self_attention', 'heads': 2}),
    ('classifier', {'pool': 'set', 'heads': 2}),
    ('hierarchical', {'heads': 2}),
    ('hierarchical', {}),
  ],
)
def test_every_mechanism_runs_in_every_attention_pool(function, settings):
  tokens = jnp.array(TEXTS if function == 'classifier' else DOCUMENTS)
  for score, normalizer in PAIRS:
    inner = mechanism(score, normalizer, settings.get('heads', 1))
    graph, state = abstract(function, settings, inner)
    run = functools.partial(forward, graph, tokens=tokens)
    _, slopes, logits, weights = jax.eval_shape(run, state)
    assert logits.shape == (3, C)
    assert weights.shape == tokens.shape
    assert jax.tree.structure(slopes) == jax.tree.structure(state)


def test_a_query_is_learned_only_where_it_is_asked():
  _, without = abstract('classifier', {}, mechanism('keys_only'))
  _, with_one = abstract('classifier', {}, mechanism('additive'))
  assert 'query' not in without['words']['pool']
  assert with_one['words']['pool']['query'].shape == (4,)


STATES = jnp.array([[[1.0, 5.0], [3.0, -1.0], [9.0, 9.0]]])
MASK = jnp.array([[True, True, False]])


@pytest.mark.parametrize(
  ('pool', 'vector', 'weights'),
  [
    (pools.Mean(), [2.0, 2.0], [0.5, 0.5, 0]),
    (pools.Max(), [3.0, 5.0], [0.5, 0.5, 0]),
    (pools.Last(1), [3.0, -1.0], [0, 1, 0]),
    # Forward the last visible, backward the first.
    (pools.Last(2), [3.0, 5.0], [0.5, 0.5, 0]),
  ],
)
def test_pools_by_hand(pool, vector, weights):
  found = pool(STATES, MASK)
  close(found[0], [vector])
  close(found[1], [weights])


def test_the_gate_by_hand():
  gate = pools.Gate(2, rngs=nnx.Rngs(0), dtype=jnp.float32)
  gate.gate.weight[...] = jnp.zeros((2, 2))
  vector, weights = gate(STATES, MASK)
  close(vector, [[1.0, 1.0]])  # half of the mean
  close(weights, [[0.5, 0.5, 0]])


def test_dropout_and_hidden_words_depend_on_the_key():
  settings = {'dropout': 0.0, 'word_dropout': 0.5}
  graph, state = abstract('classifier', settings)
  rng = np.random.default_rng(0)
  draw = lambda leaf: jnp.array(rng.normal(size=leaf.shape), leaf.dtype)
  state = jax.tree.map(draw, state)
  tokens = jnp.array(TEXTS)
  logits = lambda key: quick(forward)(graph, state, tokens, key)[2]
  one, same, other = (logits(jax.random.key(k)) for k in (0, 0, 1))
  np.testing.assert_array_equal(one, same)
  assert (one != other).any()
  unknown = jnp.where(tokens != 0, classifier.UNK, 0)
  assert np.isfinite(quick(forward)(graph, state, unknown)[0])


@pytest.mark.parametrize(
  ('function', 'settings', 'message'),
  [
    ('classifier', {'pool': 'atention'}, "model.pool='atention'.*'attention'"),
    ('classifier', {'cell': 'gur'}, "model.cell='gur'.* 'gru'"),
    ('classifier', {'hidden': 0}, 'model.hidden=0 must be at least 1'),
    (
      'classifier',
      {'heads': 3},
      r'attention: heads\(num_heads=3\) does not divide 4, .*: 2 is',
    ),
    ('classifier', {'dropout': 1.0}, 'model.dropout=1.0 must be'),
    ('hierarchical', {'word_pool': 'men'}, "model.word_pool='men'.*'mean'"),
    ('hierarchical', {'sentence_pool': 'x'}, "model.sentence_pool='x'"),
  ],
)
def test_mistakes_are_refused_with_the_nearest_right_choice(
  function, settings, message
):
  with pytest.raises(errors.UserError, match=message) as caught:
    abstract(function, settings)
  assert '\n' not in str(caught.value)
