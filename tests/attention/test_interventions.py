"""A mechanism that is read with other weights than its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import table

from attnlab import attention
from attnlab.attention import interventions
from attnlab.layers import attend


def inputs(rng):
  query, key, value = (
    jax.random.normal(r, (2, n, 4))
    for r, n in zip(jax.random.split(rng, 3), (3, 5, 5), strict=True)
  )
  mask = jnp.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0]], bool)[:, None]
  return query, key, value, mask


def read(mechanism, change=None):
  query, key, value, mask = inputs(jax.random.key(1))
  params = mechanism.init(
    jax.random.key(0), query_dim=4, key_dim=4, value_dim=4
  )
  if change is not None:
    mechanism = interventions.replace(mechanism, change)
  memory = jax.vmap(lambda k, v: mechanism.prepare(params, k, v))(key, value)
  state = jax.tree.map(
    lambda leaf: jnp.broadcast_to(leaf, (2, *leaf.shape)),
    mechanism.init_state(5),
  )
  out = attend.apply(mechanism, params, query, memory, mask=mask, state=state)
  return out, value, jnp.broadcast_to(mask, (2, 3, 5))


DOT = attention.compose(
  score=attention.scores.dot(), normalizer=attention.normalizers.softmax()
)
HEADS = attention.heads.multi_head(DOT, num_heads=2, head_dim=2, out_dim=4)


def composed():
  """Every score, normaliser, locality and position of the table, and heads."""
  parts = {
    'score': (attention.scores, table.SCORES),
    'normalizer': (attention.normalizers, table.NORMALIZERS),
    'locality': (attention.locality, table.LOCALITIES),
    'position': (attention.positions, table.POSITIONS),
  }
  for part, (module, rows) in parts.items():
    for name, row in rows.items():
      chosen = {
        'score': attention.scores.dot(),
        'normalizer': attention.normalizers.softmax(),
      }
      chosen[part] = getattr(module, name)(**row.settings)
      try:
        yield pytest.param(attention.compose(**chosen), id=name)
      except ValueError:  # the parts do not go together
        continue
  for name, row in table.HEADS.items():
    heads = getattr(attention.heads, name)(DOT, **row.settings)
    yield pytest.param(heads, id=name)


@pytest.mark.parametrize('mechanism', list(composed()))
def test_its_own_weights_change_nothing(mechanism):
  plain, *_ = read(mechanism)
  same, *_ = read(mechanism, interventions.own)
  np.testing.assert_array_equal(plain.context, same.context)
  np.testing.assert_array_equal(plain.weights, same.weights)


def test_even_weights_read_the_mean_of_what_is_visible():
  out, value, mask = read(DOT, interventions.even)
  expected = np.stack(
    [np.asarray(v)[np.asarray(m[0])].mean(0) for v, m in zip(value, mask)]  # noqa: B905
  )
  np.testing.assert_allclose(out.context[:, 0], expected, atol=1e-6)
  assert (np.asarray(out.weights)[~np.asarray(mask)] == 0).all()


@pytest.mark.parametrize('mechanism', [DOT, HEADS], ids=['one', 'heads'])
def test_permuted_weights_are_the_same_numbers(mechanism):
  plain, *_ = read(mechanism)
  out, _, mask = read(mechanism, interventions.permuted(jax.random.key(3)))
  np.testing.assert_array_equal(
    np.sort(out.weights, axis=-1), np.sort(plain.weights, axis=-1)
  )
  assert not np.array_equal(out.weights, plain.weights)
  hidden = ~np.asarray(mask if mechanism is DOT else mask[:, None])
  assert (np.asarray(out.weights)[np.broadcast_to(hidden, out.weights.shape)]
          == 0).all()  # fmt: skip


def test_erasing_by_hand():
  weights = jnp.array([[0.5, 0.2, 0.2, 0.1, 0.0]])
  visible = jnp.array([[True, True, True, True, False]])
  here = attention.Place()
  take = lambda share, *rng: np.asarray(
    interventions.erased(share, *rng)(weights, visible, here)
  )[0]
  np.testing.assert_allclose(take(0.0), [0, 0.4, 0.4, 0.2, 0], rtol=1e-6)
  np.testing.assert_allclose(take(0.5), [0, 0, 2 / 3, 1 / 3, 0], rtol=1e-6)
  np.testing.assert_array_equal(take(1.0), np.zeros(5))
  for seed in range(10):
    found = take(0.0, jax.random.key(seed))
    # Any but the largest, and one alone.
    assert found[0] > 0
    assert (found[:4] == 0).sum() == 1
    assert found.sum() == pytest.approx(1)


def test_tilting_by_hand():
  weights = jnp.array([[0.5, 0.25, 0.25]])
  slopes = jnp.log(jnp.array([[[1.0, 2.0, 2.0]]]))
  visible = jnp.ones((1, 3), bool)
  change = interventions.tilted(slopes)
  found = change(weights, visible, attention.Place())
  np.testing.assert_allclose(found, [[1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
  out, *_ = read(DOT, interventions.tilted(jnp.zeros((2, 3, 5))))
  plain, *_ = read(DOT)
  np.testing.assert_allclose(out.weights, plain.weights, atol=1e-5)


def test_a_mechanism_without_weights_to_read_is_refused():
  with pytest.raises(ValueError, match='no read'):
    interventions.replace(DOT._replace(read=None), interventions.own)
  blind = DOT._replace(read=None)
  heads = attention.heads.multi_head(blind, num_heads=1, head_dim=4, out_dim=4)
  assert heads.read is None
