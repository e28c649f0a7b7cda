"""Any composition, on any mask: drawn at random and held against the oracle."""

import hypothesis
from hypothesis import strategies
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from table import HEADS, HOPS, LOCALITIES, NORMALIZERS, POSITIONS, SCORES, D
from test_laws import build, equal, excused, formulas, parts

from attnlab import attention

# Few shapes: every operation is compiled once a shape.
LENGTHS, SIZES = (1, 3), (1, 5)


@strategies.composite
def compositions(draw):
  """A name such as 'multi_head-dot-softmax-local_m'; not all of them fit."""
  names = [
    draw(strategies.sampled_from([*table, *optional]))
    for table, optional in (
      (HOPS, [''] * 5),
      (HEADS, [''] * 3),
      (SCORES, []),
      (NORMALIZERS, []),
      (LOCALITIES, [''] * 3),
      (POSITIONS, [''] * 3),
    )
  ]
  return '-'.join(filter(None, names))


def refused(name):
  """Whether `compose` refuses a composition, as it should then."""
  found = parts(name)
  score = getattr(attention.scores, found['score'])
  score = score(**SCORES[found['score']].settings)
  normalizer = getattr(attention.normalizers, found['normalizer'])
  normalizer = normalizer(**NORMALIZERS[found['normalizer']].settings)
  bad = (score.query_shifts and normalizer.shift_invariant) or (
    normalizer.nonnegative
    and not (score.nonnegative and 'position' not in found)
  )
  # A local window asks for a query though the score does not.
  asks = score.depends_on_query or 'locality' in found
  bad = bad or ('hops' in found and not asks)
  if bad:
    with pytest.raises(ValueError, match='the nearest'):
      build(name)
  return bad


@hypothesis.given(
  name=compositions(),
  length=strategies.sampled_from(LENGTHS),
  size=strategies.sampled_from(SIZES),
  seed=strategies.integers(0, 2**16),
)
@hypothesis.settings(max_examples=30)
def test_any_composition_is_what_its_parts_say(name, length, size, seed):
  if refused(name):
    return
  rng = np.random.default_rng(seed)
  query, key, value = (
    rng.normal(size=(n, D)).astype(np.float32) for n in (length, size, size)
  )
  mask = rng.random((length, size)) < rng.choice([0.2, 0.8])
  params = build(name).init(
    jax.random.key(seed), query_dim=D, key_dim=D, value_dim=D
  )
  params = jax.tree.map(
    lambda x: np.asarray(x + 0.3 * rng.normal(size=x.shape), np.float32), params
  )

  def run(query, mask, **more):
    return attention.attend(
      build(name), params, query, key, value, mask=mask, **more
    )

  out = run(query, mask)
  if not excused(name, 'oracle'):
    expected = oracle.attend(formulas(name), params, query, key, value, mask)
    found = [np.asarray(x, np.float64) for x in (out.context, out.weights)]
    equal(found, list(expected), 2e-5)
  assert not np.asarray(out.weights)[..., ~mask].any()
  state = None
  for t in range(length):
    row = slice(t, t + 1)
    one = run(query[row], mask[row], state=state, query_start=t)
    state = one.state
    equal(out.weights[..., row, :], one.weights)

  def loss(query, key, value):
    out = attention.attend(build(name), params, query, key, value, mask=mask)
    return jnp.sum(jnp.sin(out.context + 1))

  slopes = jax.grad(loss, argnums=(0, 1, 2))(query, key, value)
  assert all(np.isfinite(x).all() for x in slopes)
  for slope in slopes[1:]:
    assert not np.asarray(slope)[~mask.any(axis=0)].any()
