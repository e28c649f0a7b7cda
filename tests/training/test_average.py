"""Parameters averaged over the steps, and over checkpoints."""

import numpy as np
import pytest
import toy_task

from attnlab import errors, training
from attnlab.training import checkpoints, logging, restoring

EMA = {'optimizer__ema': 0.8}


def fit(workdir, **changes):
  config = toy_task.config(**changes)
  task = toy_task.build(config)
  return training.fit(config, task, workdir)


def arrays(workdir, step):
  return checkpoints.restore(workdir / 'checkpoints', step).arrays


@pytest.fixture(scope='module')
def each(tmp_path_factory):
  """Six steps with a moving average, and a checkpoint of each."""
  workdir = tmp_path_factory.mktemp('each')
  fit(
    workdir,
    training__steps=6,
    training__keep=6,
    training__checkpoint_every=1,
    training__eval_every=6,
    **EMA,
  )
  return workdir


def test_the_moving_average_is_that_of_its_formula(each):
  config = toy_task.config()
  start = toy_task.build(config).model.out.kernel[...]
  expected = np.asarray(start, np.float64)
  for step in range(6):
    decay = min(0.8, (1 + step) / (10 + step))
    params = arrays(each, step + 1)['params.out.kernel']
    expected = decay * expected + (1 - decay) * params
  found = arrays(each, 6)['ema.out.kernel']
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert np.abs(found - arrays(each, 6)['params.out.kernel']).max() > 1e-3


def test_evaluation_uses_the_moving_average(each):
  task = toy_task.build(toy_task.config())
  assert training.restore(task, each) == 6
  kernel = np.asarray(task.model.out.kernel[...])
  np.testing.assert_array_equal(kernel, arrays(each, 6)['ema.out.kernel'])
  logged = logging.read(each / 'metrics.jsonl')[-1]['validation/error']
  value = training.evaluate(task)['validation/error']
  assert value == pytest.approx(logged, rel=1e-6)


def test_a_run_with_a_moving_average_goes_on_bit_for_bit(tmp_path):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  fit(whole, **EMA)
  fit(parts, training__steps=10, **EMA)
  fit(parts, **EMA)
  one, other = arrays(whole, 20), arrays(parts, 20)
  assert one.keys() == other.keys()
  assert 'ema.out.kernel' in one
  for name in one:
    assert one[name].tobytes() == other[name].tobytes(), name
  lines = [
    logging.without_timing(logging.read(run / 'metrics.jsonl'))
    for run in (whole, parts)
  ]
  assert lines[0] == lines[1]


def test_without_it_nothing_is_kept(tmp_path):
  fit(tmp_path, training__steps=1)
  assert not [n for n in arrays(tmp_path, 1) if n.startswith('ema')]


@pytest.mark.parametrize('ema', [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(tmp_path, ema):
  with pytest.raises(errors.UserError, match=rf'optimizer\.ema={ema} must be'):
    fit(tmp_path, optimizer__ema=ema)


def test_mean_of_checkpoints(each):
  task = toy_task.build(toy_task.config())
  assert training.restore(task, each, average=3, step=5) == 5
  kernels = [arrays(each, step)['ema.out.kernel'] for step in (3, 4, 5)]
  np.testing.assert_allclose(
    task.model.out.kernel[...], np.mean(kernels, axis=0), rtol=1e-6
  )
  # What is no parameter is that of the newest.
  assert int(task.model.seen[...]) == 5
  one = restoring.mean(each / 'checkpoints', 1)
  np.testing.assert_array_equal(
    one.arrays['params.out.kernel'], arrays(each, 6)['ema.out.kernel']
  )


def test_too_few_checkpoints(each):
  task = toy_task.build(toy_task.config())
  with pytest.raises(errors.UserError, match=r'average=9: .* 1, 2, 3, 4, 5, 6'):
    training.restore(task, each, average=9)
  with pytest.raises(errors.UserError, match='2 checkpoints up to step 2'):
    training.restore(task, each, average=3, step=2)


def test_a_setting_newer_than_the_run_is_no_other_run(tmp_path):
  fit(tmp_path, training__steps=5)
  # The toy's own config knows no ema: off is as good as not there.
  fit(tmp_path, training__steps=6, optimizer__ema=0.0)
  with pytest.raises(
    errors.UserError, match=r'optimizer\.ema=0\.5 \(there: 0\.0\)'
  ):
    fit(tmp_path, optimizer__ema=0.5)
