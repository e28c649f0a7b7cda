"""The laws of translation models, over every function of `attnlab.models`.

Each model is compiled three times in all: its loss with gradients, the same on
a wider batch, and its steps in a scan. Everything else is traced only.
"""

import functools
from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import attention, configs, errors, models
from attnlab.models import seq2seq

V = 7  # both vocabularies
SOURCE = np.array([[4, 5, 6, 2], [3, 2, 0, 0], [6, 2, 0, 0]])
TARGET = np.array([[5, 4, 2], [6, 2, 0], [3, 3, 2]])
BATCH = {'source': SOURCE, 'target': TARGET}


class Row(NamedTuple):
  """A model at a size that compiles in a second."""

  function: str
  settings: dict
  attends: bool = True
  heads: int = 1


small = {'embedding': 4, 'hidden': 4}
MODELS = {
  'fixed': Row('fixed', {**small, 'context': 'all'}, attends=False),
  'bahdanau': Row('bahdanau', small),
  'luong': Row('luong', {**small, 'layers': 2, 'tie': True}),
  'transformer': Row(
    'transformer',
    {'depth': 4, 'hidden': 6, 'layers': 2, 'norm': 'pre'},
    heads=2,
  ),
}
every = pytest.mark.parametrize('name', MODELS)


def mechanism(score='additive', normalizer='softmax', heads=1):
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


def construct(function, settings, inner=None, dtype=jnp.float32, size=V):
  inner = mechanism() if inner is None else inner
  return getattr(models, function)(
    V, size, inner, nnx.Rngs(0), dtype, **settings
  )


def abstract(function, settings, inner=None, dtype=jnp.float32, size=V):
  """A model's graph and shapes, without drawing its parameters."""
  return nnx.split(
    nnx.eval_shape(lambda: construct(function, settings, inner, dtype, size))
  )


def forward(graph, state, batch, rng=None):
  """Loss over target words, its gradients, logits and weights."""

  def loss(state):
    logits, out = nnx.merge(graph, state)(batch, rng)
    target = batch['target']
    chosen = jnp.take_along_axis(
      jax.nn.log_softmax(logits), target[..., None], axis=-1
    )[..., 0]
    total = -jnp.sum(jnp.where(target != 0, chosen, 0))
    return total, (logits, out['weights'], out['features'])

  (total, outputs), slopes = jax.value_and_grad(loss, has_aux=True)(state)
  return total, slopes, *outputs


def by_steps(graph, state, source, target):
  """Logits and weights of the reference, read one word at a time."""
  model = nnx.merge(graph, state)
  memory = model.encode(source)
  length = target.shape[1]

  def step(carry, x):
    token, position = x
    logits, carry, weights = model.step(memory, carry, token, position)
    return carry, (logits, weights)

  words = seq2seq.shift(target).T
  _, ys = jax.lax.scan(
    step, model.init_carry(memory, length), (words, jnp.arange(length))
  )
  return jax.tree.map(lambda y: jnp.swapaxes(y, 0, 1), ys)


# Compiling is what these tests wait for, not running.
quick = functools.partial(
  jax.jit,
  static_argnums=0,
  compiler_options={'xla_backend_optimization_level': 0},
)
jit_forward = quick(forward)
jit_steps = quick(by_steps)
jit_logits = quick(
  lambda graph, state, batch: nnx.merge(graph, state)(batch, None)
)


@functools.cache
def build(name):
  """Graph and parameters; every parameter moved off its first value."""
  row = MODELS[name]
  return drawn(row.function, row.settings, mechanism(heads=row.heads))


def drawn(function, settings, inner=None):
  graph, state = abstract(function, settings, inner)
  rng = np.random.default_rng(0)
  draw = lambda leaf: jnp.array(rng.normal(size=leaf.shape), leaf.dtype) * 0.7
  return graph, jax.tree.map(draw, state)


def run(name, batch=None):
  batch = jax.tree.map(jnp.array, batch or BATCH)
  return jit_forward(*build(name), batch)


def close(a, b, tolerance=5e-6):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      x, y, rtol=tolerance, atol=tolerance
    ),
    a,
    b,
  )


def test_every_public_model_has_a_row():
  assert {row.function for row in MODELS.values()} == set(
    configs.choices('model')
  )


@every
def test_step_by_step_equals_teacher_forcing(name):
  _, _, logits, weights, _ = run(name)
  found = jit_steps(*build(name), jnp.array(SOURCE), jnp.array(TARGET))
  close(found, (logits, weights))
  assert logits.dtype == weights.dtype == np.float32
  sums = np.asarray(weights).sum(axis=-1)
  close(sums, np.full(sums.shape, float(MODELS[name].attends)))


@every
def test_padding_the_source_changes_nothing(name):
  *_, logits, weights, _ = run(name)
  wide = {**BATCH, 'source': np.pad(SOURCE, ((0, 0), (0, 2)))}
  found, out = jit_logits(*build(name), jax.tree.map(jnp.array, wide))
  size = SOURCE.shape[1]
  close((found, out['weights'][..., :size]), (logits, weights))
  assert not np.asarray(out['weights'][..., size:]).any()


@every
def test_rows_of_a_batch_are_independent(name):
  *_, logits, weights, features = run(name)
  other = jax.tree.map(np.copy, BATCH)
  other['source'][0], other['target'][0] = [3, 3, 2, 0], [6, 6, 6]
  other = {side: rows[[0, 2, 1]] for side, rows in other.items()}
  found = run(name, other)[2:]
  for x, y in zip((logits, weights, features), found, strict=True):
    close(np.asarray(x)[[2, 1]], y[1:])


@every
def test_a_target_word_does_not_see_those_after_it(name):
  logits = run(name)[2]
  later = jax.tree.map(np.copy, BATCH)
  later['target'][:, -1] = 1
  close(run(name, later)[2], logits)
  later['target'][:, 1] = 1
  found = run(name, later)[2]
  close(found[:, :2], logits[:, :2])
  assert not np.allclose(found[:, 2], logits[:, 2], atol=1e-4)


@every
def test_every_parameter_receives_a_finite_gradient(name):
  slopes = nnx.to_pure_dict(run(name)[1])
  for path, slope in jax.tree.leaves_with_path(slopes):
    assert np.isfinite(slope).all(), path
    assert np.asarray(slope).any(), path


@every
def test_an_empty_source_is_finite(name):
  empty = {**BATCH, 'source': np.zeros_like(SOURCE)}
  for leaf in jax.tree.leaves(run(name, empty)):
    assert np.isfinite(leaf).all()


@every
def test_memory_and_carry_have_the_batch_first(name):
  row = MODELS[name]
  inner = mechanism(heads=row.heads)
  graph, state = abstract(row.function, row.settings, inner)

  def start(state):
    model = nnx.merge(graph, state)
    memory = model.encode(jnp.array(SOURCE))
    return memory, model.init_carry(memory, 5)

  for leaf in jax.tree.leaves(jax.eval_shape(start, state)):
    assert leaf.shape[0] == len(SOURCE)


@every
def test_bfloat16_keeps_parameters_logits_and_weights_in_float32(name):
  row = MODELS[name]
  inner = mechanism(heads=row.heads)
  graph, state = abstract(row.function, row.settings, inner, jnp.bfloat16)
  batch = jax.tree.map(jnp.array, BATCH)
  # With dropout: it must not widen what it drops from.
  run = lambda state: forward(graph, state, batch, jax.random.key(0))
  _, slopes, logits, weights, features = jax.eval_shape(run, state)
  for leaf in (*jax.tree.leaves((state, slopes)), logits, weights):
    assert leaf.dtype == np.float32
  assert features.dtype == jnp.bfloat16


PAIRS = [
  (score, 'softmax')
  for score in configs.choices('attention.score')
  if score != 'concat_linear'  # which no softmax may follow
]
PAIRS += [
  ('kernel' if normalizer == 'proportional' else 'additive', normalizer)
  for normalizer in configs.choices('attention.normalizer')
  if normalizer != 'softmax'
]


@pytest.mark.parametrize(
  'name', [name for name, row in MODELS.items() if row.attends]
)
def test_every_mechanism_runs_in_every_model(name):
  # Traced, not compiled: the numbers are those of the laws of attention.
  row = MODELS[name]
  settings = {**row.settings, 'layers': 1, 'tie': False}
  if row.function == 'transformer':
    del settings['tie']
  if row.function in ('bahdanau', 'luong'):
    settings['bidirectional'] = False  # dot products need equal depths
  batch = jax.tree.map(jnp.array, BATCH)
  for score, normalizer in PAIRS:
    graph, state = abstract(
      row.function, settings, mechanism(score, normalizer, row.heads)
    )
    run = functools.partial(forward, graph, batch=batch)
    _, slopes, logits, weights, _ = jax.eval_shape(run, state)
    assert logits.shape == (*TARGET.shape, V)
    assert weights.shape == (*TARGET.shape, SOURCE.shape[1])
    assert jax.tree.structure(slopes) == jax.tree.structure(state)


@pytest.mark.parametrize('function', ['bahdanau', 'luong'])
def test_heads_run_in_recurrent_models(function):
  heads = attention.heads.multi_head(
    mechanism(), num_heads=2, head_dim=3, out_dim=5
  )
  graph, state = abstract(function, small, heads)
  batch = jax.tree.map(jnp.array, BATCH)
  run = functools.partial(forward, graph, batch=batch)
  weights = jax.eval_shape(run, state)[3]
  assert weights.shape == (*TARGET.shape, SOURCE.shape[1])


@pytest.mark.parametrize(
  ('use', 'cell'), [('init', 'lstm'), ('every_step', 'rnn')]
)
@pytest.mark.parametrize('context', seq2seq.CONTEXTS)
def test_fixed_contexts(context, use, cell):
  bidirectional = (context, use) != ('last', 'init')
  settings = {
    **small,
    'context': context,
    'use': use,
    'cell': cell,
    'layers': 2,
    'bidirectional': bidirectional,
  }
  graph, state = abstract('fixed', settings)
  assert ('extra' in state['decoder']) == (use == 'every_step')
  # s_0 = h_S takes no weights.
  assert ('start' in state['decoder']) == bidirectional
  run = functools.partial(forward, graph, batch=BATCH)
  logits = jax.eval_shape(run, state)[2]
  assert logits.shape == (*TARGET.shape, V)


def test_last_state_as_start_is_the_last_state_itself():
  settings = {
    **small,
    'context': 'last',
    'use': 'init',
    'cell': 'lstm',
    'bidirectional': False,
    'dropout': 0.5,
  }

  @quick
  def start(graph, state, source, rng):
    model = nnx.merge(graph, state)
    states, mask, last = model.encoder(source, rng)
    memory = model.decoder.memory(states, mask, last)
    return states, last, model.init_carry(memory, 3)

  start = functools.partial(start, *drawn('fixed', settings), jnp.array(SOURCE))
  states, last, carry = start(None)
  lengths = (SOURCE != 0).sum(axis=1)
  close(last, states[np.arange(len(SOURCE)), lengths - 1])
  ((h, c),) = carry['cells']
  close(h, last)
  assert not np.asarray(c).any()
  # With a key there is dropout, and another key is another draw.
  first, again, other = (start(jax.random.key(k)) for k in (0, 0, 1))
  np.testing.assert_array_equal(first[1], again[1])
  assert (first[1] != other[1]).any()


def count(function, settings, inner=None, size=V):
  _, state = abstract(function, settings, inner, size=size)
  return sum(leaf.size for leaf in jax.tree.leaves(state))


def test_parameter_counts_by_hand():
  source, target, e, h, a = V, 9, 5, 4, 3
  d = 2 * h  # both directions
  cell = lambda gates, inputs: gates * (inputs * h + h * h + 2 * h)
  settings = {'embedding': e, 'hidden': h}
  scores = h * a + d * a + a + a  # W_q, W_k, b, u
  encoder = source * e + 2 * cell(3, e)
  words = target * e
  # Context h_S projected to h, read at every step; one start, one combine.
  fixed = encoder + words + cell(3, e) + h * 3 * h + (h * h + h)
  fixed += (d * h + h) + ((h + e + h) * e + e) + (e * target + target)
  assert count('fixed', settings, size=target) == fixed
  bahdanau = encoder + words + cell(3, e) + d * 3 * h + (d * h + h) + scores
  bahdanau += ((h + e + d) * e + e) + (e * target + target)
  assert count('bahdanau', settings, size=target) == bahdanau
  # LSTM: four gates and two states; the output layer sees h~ of depth h.
  luong = source * e + 2 * cell(4, e) + words + cell(4, e) + h * 4 * h
  luong += (d * 2 * h + 2 * h) + scores + ((d + h) * h + h)
  luong += h * target + target
  assert count('luong', settings, size=target) == luong

  depth, hidden, layers = 8, 10, 3
  settings = {'depth': depth, 'hidden': hidden, 'layers': layers}
  heads = 4 * depth * depth
  feed = 2 * depth * hidden + hidden + depth
  norm = 2 * depth
  each = (heads + feed + 2 * norm) + (2 * heads + feed + 3 * norm)
  total = (source + target) * depth + target + layers * each
  inner = mechanism('scaled_dot', heads=2)
  assert count('transformer', settings, inner, target) == total
  settings['norm'] = 'pre'  # and a last norm in both stacks
  assert count('transformer', settings, inner, target) == total + 2 * norm
  settings['share'] = True  # one table; the output layer is tied anyway
  shared = layers * each + 2 * norm + V * depth + V
  assert count('transformer', settings, inner) == shared


def test_a_tied_output_layer_has_no_weights_of_its_own():
  tied = count('bahdanau', {**small, 'tie': True})
  assert count('bahdanau', small) - tied == 4 * V


@pytest.mark.parametrize(
  ('function', 'settings', 'message'),
  [
    ('bahdanau', {'cell': 'gur'}, "model.cell='gur'.* 'gru'"),
    ('fixed', {'context': 'project'}, "model.context=.* 'projected'"),
    ('fixed', {'use': 'each_step'}, "model.use=.* 'every_step'"),
    (
      'fixed',
      {'context': 'last', 'use': 'init'},
      "model.context='projected' or model.bidirectional=False",
    ),
    ('transformer', {'norm': 'past'}, "model.norm='past'.* 'post'"),
    ('transformer', {'depth': 5}, 'model.depth=5 is odd: .* 6'),
    ('luong', {'layers': 0}, 'model.layers=0 must be at least 1'),
    ('luong', {**small, 'hidden': 0}, 'model.hidden=0 must be at least 1'),
    ('luong', {'tie': True, 'hidden': 5, 'embedding': 4}, 'model.tie=True'),
  ],
)
def test_mistakes_are_refused_with_the_nearest_right_choice(
  function, settings, message
):
  with pytest.raises(errors.UserError, match=message) as caught:
    abstract(function, settings)
  assert '\n' not in str(caught.value)


def test_a_score_that_does_not_fit_the_depths_is_refused():
  # h_S reads both ways, so that keys are twice as deep as queries.
  with pytest.raises(
    errors.UserError, match=r'query_dim=4 and key_dim=8: .*bil'
  ):
    abstract('bahdanau', small, mechanism('dot'))


def test_a_shared_table_needs_one_vocabulary():
  with pytest.raises(errors.UserError, match='share_vocabulary'):
    abstract('transformer', {'share': True}, size=V + 1)
