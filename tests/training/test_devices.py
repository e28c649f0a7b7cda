"""Devices and processes: the same numbers, whatever the layout."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import toy_task

from attnlab import errors, training
from attnlab.training import checkpoints, devices, logging
import launch

TOY = pathlib.Path(toy_task.__file__)
ROOT = TOY.parents[2]

# Only large arrays are split: here all, and a kernel of [3, 4] among them.
SPLIT = """
import json, pathlib, sys
import jax
from flax import nnx
import toy_task
from attnlab import training
from attnlab.training import devices

class Wide(toy_task.Linear):
  def __init__(self):
    super().__init__()
    self.out = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
  def __call__(self, x):
    return self.out(x).sum(-1)

devices._LARGE = 1
runs = pathlib.Path(sys.argv[1])
found = {}
for name, mesh in json.loads(sys.argv[2]).items():
  config = toy_task.config(mesh=mesh, training__steps=10)
  layout = devices.layout(config)
  kernel = layout.put({'kernel': jax.numpy.zeros((3, 4))})['kernel']
  found[name] = [
    len(kernel.sharding.device_set),
    kernel.addressable_shards[0].data.shape,
  ]
  task = toy_task.build(config, model=Wide())
  training.fit(config, task, runs / name)
print('found', json.dumps(found))
"""


STARTED = []


@pytest.fixture(autouse=True)
def nobody_is_left():
  yield
  while STARTED:
    process = STARTED.pop()
    if process.poll() is None:
      process.kill()
      process.communicate()


def start(*words, devices=1):
  """Starts a Python program with so many emulated devices."""
  process = subprocess.Popen(
    [sys.executable, *map(str, words)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={
      **os.environ,
      'PYTHONPATH': os.pathsep.join((str(ROOT), str(TOY.parent))),
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    },
  )
  STARTED.append(process)
  return process


@contextlib.contextmanager
def free_port():
  """An address that is taken within, and free afterwards."""
  with socket.create_server(('127.0.0.1', 0)) as server:
    yield f'127.0.0.1:{server.getsockname()[1]}'


def start_two(workdirs, *words):
  """Starts the toy task as two processes of one run."""
  with free_port() as at:
    pass
  return [
    start(TOY, workdir, f'process={i},2,{at}', *words)
    for i, workdir in enumerate(workdirs)
  ]


def end(process, code=0, seconds=120):
  out, err = process.communicate(timeout=seconds)
  assert process.returncode == code, (out, err)
  return out, err


def lines(workdir):
  path = workdir / 'metrics.jsonl'
  return logging.read(path) if path.exists() else []


def wait_for_step(workdir, step, processes):
  while not any(line['step'] >= step for line in lines(workdir)):
    for process in processes:
      assert process.poll() is None, process.communicate()
    time.sleep(0.02)


def assert_close(one, other):
  a, b = (logging.without_timing(lines(run)) for run in (one, other))
  assert len(a) == len(b)
  for x, y in zip(a, b, strict=True):
    assert x == pytest.approx(y, rel=1e-5, abs=1e-7)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Twenty steps on one device."""
  workdir = tmp_path_factory.mktemp('whole')
  config = toy_task.config()
  training.fit(config, toy_task.build(config), workdir)
  return workdir


def half(workdir):
  """The first ten of them."""
  config = toy_task.config(training__steps=10)
  training.fit(config, toy_task.build(config), workdir)


def test_two_devices_and_two_processes(whole, tmp_path):
  one, two, other = (tmp_path / name for name in ('one', 'two', 'other'))
  # What one device began goes on on two devices, and in two processes; of
  # these the second has a directory of its own, which it never touches.
  half(one)
  half(two)
  split = start(TOY, one, devices=2)
  both = start_two((two, other))
  end(split)
  (out, _), (silent, _) = (end(process) for process in both)
  for run, processes in ((one, 1), (two, 2)):
    assert_close(whole, run)
    described = json.loads((run / 'environment.json').read_text())
    (resumed,) = described['resumed']
    assert (resumed['devices'], resumed['processes']) == (2, processes)
    # And one device takes up what they leave.
    config = toy_task.config(training__steps=30)
    training.fit(config, toy_task.build(config), run)
    assert lines(run)[-1]['step'] == 30
  assert 'going on at step 10' in out
  assert 'step' not in silent.split('{')[0]
  assert not other.exists()


def test_large_arrays_are_split_over_the_model_axis(tmp_path):
  meshes = {
    'one': {'data': 1, 'model': 1},
    'data': {'data': -1, 'model': 1},
    'model': {'data': -1, 'model': 2},
  }
  out, _ = end(start('-c', SPLIT, tmp_path, json.dumps(meshes), devices=2))
  found = json.loads(out.split('found ')[1])
  assert found == {
    'one': [1, [3, 4]],
    'data': [2, [3, 4]],
    'model': [2, [3, 2]],
  }
  for name in ('data', 'model'):
    assert_close(tmp_path / 'one', tmp_path / name)
    saved = checkpoints.restore(tmp_path / name / 'checkpoints', 10)
    assert saved.arrays['params.out.kernel'].shape == (3, 4)


def test_signal_to_one_process_stops_all_at_one_step(whole, tmp_path):
  both = start_two((tmp_path, tmp_path), 'pause=0.1')
  wait_for_step(tmp_path, 5, both)
  both[1].send_signal(signal.SIGTERM)
  out, _ = end(both[0], 128 + signal.SIGTERM)
  end(both[1], 128 + signal.SIGTERM)
  step = int(re.search(r'stopped and saved at step (\d+)', out)[1])
  assert checkpoints.steps(tmp_path / 'checkpoints')[-1] == step
  assert step < 20
  config = toy_task.config()
  training.fit(config, toy_task.build(config), tmp_path)
  assert_close(whole, tmp_path)


@pytest.mark.parametrize('killed', [0, 1])
def test_a_dead_process_ends_the_other(tmp_path, killed):
  both = start_two((tmp_path, tmp_path), 'pause=0.1', 'training.steps=100000')
  wait_for_step(tmp_path, 5, both)
  both[killed].kill()
  left = both[1 - killed]
  _, err = left.communicate(timeout=devices.HEARTBEAT_SECONDS + 30)
  assert left.returncode != 0
  assert 'another' in err or 'JAX distributed service' in err, err
  both[killed].communicate()


def test_processes_must_have_one_config(tmp_path):
  with free_port() as at:
    words = [f'process={i},2,{at}' for i in range(2)]
  both = [
    start(TOY, tmp_path, words[0]),
    start(TOY, tmp_path, words[1], 'training.steps=10'),
  ]
  for process in both:
    _, err = end(process, 2)
    assert 'process 1 has another config than process 0' in err


@pytest.mark.parametrize(
  ('section', 'message'),
  [
    ({'data': 3}, r'mesh\.data=3 .* there are 1'),
    ({'data': 0}, r'mesh\.data=0 must be'),
    ({'model': 2}, r'mesh\.model=2 does not divide the 1 devices'),
    ({'model': True}, r'mesh\.model=True must be'),
  ],
)
def test_wrong_meshes(section, message):
  with pytest.raises(errors.UserError, match=message):
    devices.layout({'mesh': section})


def test_batch_that_the_devices_do_not_divide(tmp_path):
  process = start(
      ROOT / 'launch.py', '--config=translation:luong,smoke',
      '--config.training.batch_size=31', f'--workdir={tmp_path}', devices=2,
  )  # fmt: skip
  _, err = end(process, 2)
  assert err.count('\n') == 1
  assert 'training.batch_size=31 is not divisible by the 2 devices' in err
  assert 'the nearest that is, is 32' in err


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (('somewhere', 2, 0), 'must be HOST:PORT'),
    (('127.0.0.1:6543', None, 0), 'needs --process_count'),
    (('127.0.0.1:6543', 2, 2), 'process_index=2 must be from 0 to 1'),
    (('', 2, None), 'process_count=2 needs --coordinator=HOST:PORT'),
    (('auto', None, 1), 'process_index=1 needs --coordinator=HOST:PORT'),
  ],
)
def test_wrong_coordinators(words, message):
  with (
    pytest.raises(errors.UserError, match=message),
    devices.joined(*words),
  ):
    pass


def test_coordinator_that_is_taken():
  with (
    free_port() as at,
    pytest.raises(errors.UserError, match='cannot listen there: Address'),
    devices.joined(at, 2, 0),
  ):
    pass


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--coordinator=here'], "coordinator='here' needs --process_count"),
    (['--process_index=1'], 'process_index=1 needs --coordinator=HOST:PORT'),
    (['--coordinator=auto', '--dry_run'], '--dry_run is for one process'),
    (['--coordinator=auto', '--mode=eval'], 'is for mode=train'),
    (['--config.mesh.dat=2'], 'did you mean mesh.data?'),
  ],
)
def test_flags(words, message, tmp_path, capsys):
  config = '--config=translation:luong,smoke'
  assert (
    launch.main(['launch.py', config, f'--workdir={tmp_path}', *words]) == 2
  )
  assert message in capsys.readouterr().err
  assert not list(tmp_path.iterdir())
