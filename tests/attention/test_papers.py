"""The named compositions: each runs, and is what its paper says."""

import inspect

import jax
import numpy as np
import pytest

from attnlab import attention
from attnlab.attention import papers

T, S, D = 3, 5, 8
PAPERS = {
  name: function
  for name, function in vars(papers).items()
  if inspect.isfunction(function)
  and function.__module__ == papers.__name__
  and not name.startswith('_')
}


def arrays():
  rng = np.random.default_rng(0)
  return [rng.normal(size=(n, D)).astype(np.float32) for n in (T, S, S)]


def run(mechanism, rng=None):
  params = mechanism.init(
    jax.random.key(0), query_dim=D, key_dim=D, value_dim=D
  )
  return attention.attend(mechanism, params, *arrays(), rng=rng)


@pytest.mark.parametrize('name', PAPERS)
def test_every_paper_runs(name):
  # Its settings have defaults, and no function is left without its paper.
  out = run(PAPERS[name](), jax.random.key(1))
  assert out.context.shape == (T, D)
  assert np.isfinite(out.context).all()
  assert (np.asarray(out.weights) >= 0).all()
  assert out.weights.shape[-2:] == (T, S)
  first = (PAPERS[name].__doc__ or '').partition('\n')[0]
  assert first.endswith(').')
  assert name.partition('_')[0].title() in first


def test_names_stand_for_their_parts():
  whole = run(papers.luong_general()).weights
  np.testing.assert_allclose(
    run(papers.luong_local_m(half_width=S)).weights, whole, rtol=1e-6
  )
  np.testing.assert_array_equal(
    np.asarray(run(papers.luong_local_m(half_width=1)).weights) > 0,
    abs(np.arange(T)[:, None] - np.arange(S)) <= 1,
  )
  assert run(papers.sukhbaatar(num_hops=4)).weights.shape == (4, T, S)
  for make in (papers.vaswani, papers.ahmed, papers.shaw, papers.press):
    assert run(make(num_heads=2)).weights.shape == (2, T, S)
  hard = np.asarray(run(papers.xu_hard(), jax.random.key(0)).weights)
  np.testing.assert_array_equal(np.sort(hard), [[0, 0, 0, 0, 1]] * T)
  assert not papers.yang().depends_on_query
