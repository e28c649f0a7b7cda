"""Arithmetic counted by hand; logs that can be compared."""

import io
import json

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab.training import environment, logging, summary
from attnlab.training import state as states


def count(function, *args):
  return summary.flops(jax.jit(function).trace(*args).jaxpr)


def test_a_product_counts_twice_its_volume():
  a, b = np.zeros((2, 3), np.float32), np.zeros((3, 5), np.float32)
  assert count(jnp.matmul, a, b) == 2 * 2 * 3 * 5


def test_a_scan_counts_as_often_as_it_turns():
  w = np.zeros((4, 4), np.float32)

  def loop(x):
    return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=7)[0]

  assert count(loop, np.zeros((1, 4), np.float32)) == 7 * 2 * 16


def test_a_convolution_by_hand():
  image, kernel = np.zeros((1, 1, 8, 8)), np.zeros((6, 1, 3, 3))
  image, kernel = image.astype(np.float32), kernel.astype(np.float32)
  found = count(lambda i, k: jax.lax.conv(i, k, (1, 1), 'SAME'), image, kernel)
  assert found == 2 * (6 * 8 * 8) * (1 * 3 * 3)


def test_table_lists_each_module():
  params = {
    'encoder.kernel': jnp.zeros((10, 100)),
    'encoder.bias': jnp.zeros(100),
    'decoder.kernel': jnp.zeros((9, 100)),
  }
  lines = summary.table(params, 3_500_000, 'x [2, 3]').splitlines()
  assert lines[1].split() == ['decoder', '900', '45.0%', 'float32']
  assert lines[2].split() == ['encoder', '1,100', '55.0%', 'float32']
  assert lines[4].split() == ['total', '2,000']
  assert lines[5] == 'a training step: 3.5 MFLOP for x [2, 3]'


def test_parts_of_a_module_have_dotted_names():
  class Two(nnx.Module):
    def __init__(self):
      rngs = nnx.Rngs(0)
      self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs) for _ in range(2)])
      self.norm = nnx.BatchNorm(3, rngs=rngs)

  module = Two()
  parts = states.take_apart(module)
  assert set(parts.params) == {
      'layers.0.kernel', 'layers.0.bias', 'layers.1.kernel', 'layers.1.bias',
      'norm.scale', 'norm.bias',
  }  # fmt: skip
  assert set(parts.rest) == {'norm.mean', 'norm.var'}
  changed = {k: v + 1 for k, v in parts.params.items()}
  again = parts.split(parts.merge(changed, parts.rest))[0]
  for name, array in changed.items():
    np.testing.assert_array_equal(again[name], array)
  parts.update(module, changed, parts.rest)
  np.testing.assert_array_equal(module.norm.scale[...], changed['norm.scale'])


def test_metrics_are_cut_where_the_checkpoint_knew_them(tmp_path):
  metrics = logging.Metrics(tmp_path)
  metrics.write(1, {'train/loss': 2.0, 'time': 0.1})
  position = metrics.position
  metrics.write(2, {'train/loss': 1.0, 'time': 0.2})
  metrics.close()
  metrics = logging.Metrics(tmp_path, position=position, step=1)
  metrics.write(2, {'time': 9.0, 'train/loss': 1.0})
  metrics.close()
  lines = logging.read(tmp_path / 'metrics.jsonl')
  assert lines == [
    {'step': 1, 'train/loss': 2.0, 'time': 0.1},
    {'step': 2, 'train/loss': 1.0, 'time': 9.0},
  ]
  assert list(lines[1]) == ['step', 'train/loss', 'time']
  assert logging.without_timing(lines)[0] == {'step': 1, 'train/loss': 2.0}


def test_a_torn_line_is_left_out(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(json.dumps({'step': 1}) + '\n{"step": 2, "tr')
  assert logging.read(path) == [{'step': 1}]


def test_progress_in_plain_lines():
  out = io.StringIO()
  progress = logging.Progress(20, stream=out)
  progress.at(1)
  progress.report(
    10, {'train/loss': 1.23456, 'train/tokens_per_second': 5120.4}, 3725
  )
  progress.close()
  assert out.getvalue() == (
    'step 10/20  loss 1.235  tokens/s 5,120  left 1:02:05\n'
  )


def test_progress_on_a_terminal():
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  out = Terminal()
  progress = logging.Progress(20, stream=out)
  progress.report(10, {'train/loss': 1.5}, 61)
  progress.say('a line [red] as it is')
  progress.close()
  assert '10/20' in out.getvalue()
  assert 'loss 1.5' in out.getvalue()
  assert 'a line [red] as it is' in out.getvalue()


@pytest.mark.parametrize(
  ('variables', 'expected'),
  [
    ({'ATTNLAB_CACHE': '/a'}, '/a'),
    ({'XDG_CACHE_HOME': '/b'}, '/b/attnlab'),
    ({'HOME': '/c'}, '/c/.cache/attnlab'),
  ],
)
def test_cache_directory(monkeypatch, variables, expected):
  for name in ('ATTNLAB_CACHE', 'XDG_CACHE_HOME'):
    monkeypatch.delenv(name, raising=False)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  assert str(environment.cache_directory()) == expected
