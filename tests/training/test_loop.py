"""The loop: a run goes on bit for bit, and what goes wrong is said."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import toy_task

from attnlab import errors, training
from attnlab.training import checkpoints, logging, signals

TOY = pathlib.Path(toy_task.__file__)


def fit(workdir, evaluations=None, model=None, **changes):
  config = toy_task.config(**changes)
  task = toy_task.build(config, evaluations, model)
  return training.fit(config, task, workdir)


def start(workdir, *words):
  """Starts the toy task as a process of its own."""
  return subprocess.Popen(
    [sys.executable, str(TOY), str(workdir), *words],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(TOY.parents[2])},
  )


def wait_for(condition, process, seconds=240):
  end = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < end
    time.sleep(0.01)


def lines(workdir):
  path = workdir / 'metrics.jsonl'
  return logging.read(path) if path.exists() else []


def arrays(workdir, step):
  return checkpoints.restore(workdir / 'checkpoints', step).arrays


def assert_same_run(one, other, step):
  a, b = arrays(one, step), arrays(other, step)
  assert a.keys() == b.keys()
  for name in a:
    assert a[name].tobytes() == b[name].tobytes(), name
  kept = [logging.without_timing(lines(run)) for run in (one, other)]
  assert kept[0] == kept[1]
  # Byte for byte, not only as numbers.
  assert json.dumps(kept[0]) == json.dumps(kept[1])


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run of 20 steps that nobody interrupted."""
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, fit(workdir)


def test_run_directory(whole):
  workdir, summary = whole
  assert json.loads((workdir / 'summary.json').read_text()) == summary
  assert summary['train/steps'] == 20
  assert summary['train/compilations'] == 1
  assert summary['test/full'] == 1.0
  assert summary['parameters'] == 4
  assert summary['signatures'] == {'error': 'mean square'}
  assert (workdir / 'assets').read_text() == 'toy'
  config = json.loads((workdir / 'config.json').read_text())
  assert config == toy_task.config().to_dict()
  environment = json.loads((workdir / 'environment.json').read_text())
  assert environment['versions']['jax']
  assert environment['seed'] == 0
  assert [line['step'] for line in lines(workdir)] == [5, 10, 10, 15, 20, 20]
  assert list((workdir / 'tensorboard').iterdir())
  assert checkpoints.steps(workdir / 'checkpoints') == [10, 20]


def test_training_learns(whole):
  logged = [line for line in lines(whole[0]) if 'validation/error' in line]
  assert logged[-1]['validation/error'] < logged[0]['validation/error']


def test_logged_loss_is_the_mean_over_examples(tmp_path):
  config = toy_task.config(
      training__steps=2, training__log_every=2, model__dropout=0.0,
      optimizer__learning_rate=1e-12,
  )  # fmt: skip
  task = toy_task.build(config)
  model = toy_task.Linear()
  training.fit(config, task, tmp_path)
  rows = [toy_task.rows_of(0, i) for i in range(8)]
  x, y = (np.stack(column) for column in zip(*rows, strict=True))
  expected = np.mean((np.asarray(model(x)) - y) ** 2)
  assert lines(tmp_path)[0]['train/loss'] == pytest.approx(expected, rel=1e-5)


def test_finished_run_says_so(whole, capsys):
  workdir, summary = whole
  assert fit(workdir) == summary
  assert 'is finished at step 20' in capsys.readouterr().out


def test_longer_run_goes_on(whole, tmp_path):
  fit(tmp_path, training__steps=10)
  fit(tmp_path, training__steps=20)
  assert_same_run(whole[0], tmp_path, 20)


def test_kill_and_go_on(whole, tmp_path):
  process = start(tmp_path, 'pause=0.05')
  # After the checkpoint of step 10 and some lines that will be cut off again.
  wait_for(lambda: any(x['step'] == 15 for x in lines(tmp_path)), process)
  process.kill()
  process.communicate()
  assert checkpoints.steps(tmp_path / 'checkpoints') == [10]
  fit(tmp_path)
  assert_same_run(whole[0], tmp_path, 20)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_leaves(whole, tmp_path, number):
  # So slow that the signal comes before step 10, where a save is due anyway.
  process = start(tmp_path, 'pause=0.3')
  wait_for((tmp_path / 'metrics.jsonl').exists, process)
  sent = time.monotonic()
  process.send_signal(number)
  out, err = process.communicate(timeout=20)
  assert time.monotonic() - sent < 10
  assert process.returncode == 128 + number, err
  (step,) = checkpoints.steps(tmp_path / 'checkpoints')
  assert f'stopped and saved at step {step}' in out
  assert 0 < step < 20
  fit(tmp_path)
  assert_same_run(whole[0], tmp_path, 20)


def test_signal_during_an_evaluation(whole, tmp_path):
  process = start(tmp_path, 'evaluation_pause=60', 'training.log_every=5')
  wait_for(lambda: any(x['step'] == 10 for x in lines(tmp_path)), process)
  time.sleep(0.3)
  process.terminate()
  process.communicate(timeout=10)
  assert process.returncode == 128 + signal.SIGTERM
  assert checkpoints.steps(tmp_path / 'checkpoints') == [10]
  fit(tmp_path)
  assert_same_run(whole[0], tmp_path, 20)


@pytest.mark.parametrize('becomes', [None, ValueError, SystemError])
def test_a_signal_that_a_library_hides_is_a_signal(becomes):
  # np.array of a JAX array makes "setting an array element" of any error.
  def library():
    try:
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(1)
    except signals.Stopped as error:
      if becomes:
        raise becomes('setting an array element') from error

  with signals.Signals().listening() as heard:
    with pytest.raises(signals.Stopped) as left, heard.interruptible():
      library()
    assert left.value.number == signal.SIGTERM
    assert heard.number == signal.SIGTERM


def test_an_error_without_a_signal_stays_what_it_is():
  with (
    signals.Signals().listening() as heard,
    pytest.raises(ValueError, match='itself'),
    heard.interruptible(),
  ):
    raise ValueError('itself')


def test_two_processes_in_one_directory(tmp_path):
  process = start(tmp_path, 'pause=0.5')
  wait_for((tmp_path / 'config.json').exists, process)
  with pytest.raises(errors.UserError, match=f'in use by .* {process.pid}$'):
    fit(tmp_path)
  process.kill()
  process.communicate()


def test_not_a_number_names_step_metric_and_batch(tmp_path):
  with pytest.raises(
    training.Diverged,
    match=r'step 8: absolute is not finite .* rows 28, 29, 30, 31;',
  ):
    fit(tmp_path, data__broken=7)
  assert checkpoints.steps(tmp_path / 'checkpoints') == []


def test_exploding_learning_rate(tmp_path):
  with pytest.raises(training.Diverged, match='not finite'):
    fit(
      tmp_path,
      optimizer__name='sgd',
      optimizer__learning_rate=1e30,
      training__steps=100,
    )


def test_early_stopping_and_best_checkpoint(tmp_path):
  changes = {
    'training__steps': 100,
    'training__eval_every': 5,
    'training__patience': 3,
    'training__checkpoint_every': 5,
  }
  summary = fit(tmp_path, [3.0, 1.0, 2.0, 1.0, 1.5, 0.5], **changes)
  assert summary['train/steps'] == 25
  assert summary['train/best_step'] == 10
  assert summary['train/stopped_early']
  # The newest two, and the best.
  assert checkpoints.steps(tmp_path / 'checkpoints') == [10, 20, 25]
  # The figures are those of the best checkpoint's parameters.
  config = toy_task.config(**changes)
  task = toy_task.build(config)
  assert training.restore(task, tmp_path) == 10
  values = training.evaluate(task)
  assert values['test/error'] == summary['test/error']
  assert training.restore(task, tmp_path, step=25) == 25
  assert training.evaluate(task)['test/error'] != summary['test/error']


def test_patience_survives_a_restart(tmp_path):
  changes = {
    'training__eval_every': 5,
    'training__patience': 3,
    'training__checkpoint_every': 5,
  }
  fit(tmp_path, [1.0, 2.0], **changes, training__steps=10)
  summary = fit(tmp_path, [2.0, 2.0, 0.1], **changes, training__steps=100)
  assert summary['train/steps'] == 20


@pytest.mark.parametrize(
  ('name', 'value', 'message'),
  [
    ('data__batch_size', 8, r'data\.batch_size=8 \(there: 4\)'),
    ('seed', 1, r'seed=1 \(there: 0\)'),
    ('model__dropout', 0.5, r'model\.dropout=0\.5 \(there: 0\.1\)'),
    ('optimizer__name', 'lion', r"name='lion' \(there: 'adam'\)"),
  ],
)
def test_another_config_is_refused_by_name(whole, name, value, message):
  with pytest.raises(errors.UserError, match=message):
    fit(whole[0], **{name: value})


def test_checkpoints_of_an_unknown_run_are_refused(whole, tmp_path):
  shutil.copytree(whole[0] / 'checkpoints', tmp_path / 'checkpoints')
  with pytest.raises(errors.UserError, match=r'without a config\.json'):
    fit(tmp_path)
  assert checkpoints.steps(tmp_path / 'checkpoints') == [10, 20]
  assert not (tmp_path / 'config.json').exists()


def test_another_vocabulary_is_refused(tmp_path):
  fit(tmp_path, training__steps=10)
  config = toy_task.config()
  task = toy_task.build(config)._replace(
    fingerprint={'data': 'numbers-5', 'model': 'linear'}
  )
  with pytest.raises(errors.UserError, match=r'data differs .*numbers-4'):
    training.fit(config, task, tmp_path)


def test_another_shape_is_refused_by_name(tmp_path):
  fit(tmp_path, training__steps=10)
  config = toy_task.config()
  task = toy_task.build(config, model=toy_task.Linear(width=5))
  with pytest.raises(
    errors.UserError, match=r'out\.kernel is float32\[3, 1\], .*\[5, 1\]'
  ):
    training.restore(task, tmp_path)


def test_restore_without_checkpoint(tmp_path):
  task = toy_task.build(toy_task.config())
  with pytest.raises(errors.UserError, match='holds no checkpoint'):
    training.restore(task, tmp_path)


def test_corrupt_newest_checkpoint_falls_back(whole, tmp_path, capsys):
  fit(tmp_path, training__steps=15, training__checkpoint_every=5)
  newest = tmp_path / 'checkpoints' / '00000015'
  data = next((newest / 'arrays' / 'd').iterdir())
  content = bytearray(data.read_bytes())
  content[len(content) // 2] ^= 1
  data.write_bytes(content)
  fit(tmp_path)
  warnings = capsys.readouterr().err.splitlines()
  assert len(warnings) == 1
  assert 'is corrupt' in warnings[0]
  kept = [logging.without_timing(lines(x)) for x in (whole[0], tmp_path)]
  assert kept[0] == kept[1]
  assert_same_run(whole[0], tmp_path, 20)


def test_unwritable_directory_is_one_line(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.UserError, match='cannot be written'):
    fit(tmp_path / 'file' / 'run')


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('training__steps', 0),
    ('training__log_every', -1),
    ('training__keep', 0),
    ('optimizer__learning_rate', -1.0),
  ],
)
def test_settings_out_of_range(tmp_path, name, value):
  field = name.replace('__', '.')
  with pytest.raises(errors.UserError, match=f'{field}={value} must be'):
    fit(tmp_path, **{name: value})


def test_unknown_monitor(tmp_path):
  config = toy_task.config()
  task = toy_task.build(config)._replace(monitor=('validation/eror', 'min'))
  with pytest.raises(errors.UserError, match="mean 'validation/error'"):
    training.fit(config, task, tmp_path)


def test_dry_run_leaves_nothing(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = toy_task.config()
  task = toy_task.build(config)
  values = training.dry_run(config, task)
  assert 'validation/error' in values
  assert not list(tmp_path.iterdir())
  assert 'agree' in capsys.readouterr().out


def test_dry_run_notices_a_state_that_does_not_come_back():
  class Forgetful(toy_task.Numbers):
    def set_state(self, state):
      del state

  config = toy_task.config()
  task = toy_task.build(config)._replace(train=lambda seed: Forgetful(seed, 4))
  with pytest.raises(RuntimeError, match='next batch: '):
    training.dry_run(config, task)


def test_a_finished_run_is_its_own_without_checkpoints_too(whole, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(whole[0], workdir)
  shutil.rmtree(workdir / 'checkpoints')
  assert fit(workdir) == whole[1]
  with pytest.raises(errors.UserError, match=r'holds another run: .*rate=0\.5'):
    fit(workdir, optimizer__learning_rate=0.5)


def test_another_log_every_begins_anew(tmp_path):
  """The gradient's norm is a mean over steps, the weight a sum."""
  every = tmp_path / 'every'
  fit(every, training__log_every=1)
  norms = {n['step']: n['train/gradient_norm'] for n in trained(every)}
  run = tmp_path / 'run'
  fit(run, training__log_every=5, training__steps=10)
  fit(run, training__log_every=3)
  found = {line['step']: line for line in trained(run)}
  assert list(found) == [5, 10, 12, 15, 18, 20]
  for step, first in ((12, 11), (15, 13), (18, 16)):
    steps = range(first, step + 1)
    assert found[step]['train/weight'] == 4 * len(steps)
    assert found[step]['train/gradient_norm'] == pytest.approx(
      np.mean([norms[n] for n in steps]), rel=1e-5
    )


def trained(workdir):
  return [line for line in lines(workdir) if 'train/loss' in line]
