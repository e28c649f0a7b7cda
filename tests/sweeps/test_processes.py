"""Sweeps in processes: the same however many there are and whatever dies."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from attnlab import errors
from attnlab.sweeps import engines, live, sweep
from attnlab.training import logging
from benchmarks import nothing_lost
import launch

pytest.importorskip('optuna')

ROOT = pathlib.Path(launch.__file__).parent
TINY = 'tests/sweeps/tiny.py'
SPACE = 'attention.score.name=keys_only,dot; optimizer.learning_rate=0.01,1e38'


def start(folder, *words, space=SPACE, config=TINY):
  return subprocess.Popen(
    [
      sys.executable,
      'launch.py',
      f'--config={config}',
      f'--sweep={space}',
      f'--workdir={folder}',
      *words,
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def whole(folder, *words, code=0, **kwargs):
  process = start(folder, *words, **kwargs)
  out, err = process.communicate(timeout=600)
  assert process.returncode == code, (out, err)
  assert err == ''
  return out


def points(folder):
  data = json.loads((folder / 'sweep.json').read_text())
  return data['points']


def outcome(folder):
  """All that has to be the same, whoever ran it."""
  found = []
  for point in points(folder):
    run = folder / 'trials' / f'{point["number"]:04d}'
    keys = ('number', 'settings', 'state', 'value', 'error')
    row = {key: point[key] for key in keys}
    row['error'] = row['error'].replace(str(folder), '')
    metrics = run / 'metrics.jsonl'
    lines = logging.read(metrics) if metrics.exists() else []
    row['metrics'] = logging.without_timing(lines)
    found.append(row)
  return found


def assert_same_runs(one, other):
  assert outcome(one) == outcome(other)
  for point in points(one):
    if point['state'] == 'complete':
      run = pathlib.Path('trials') / f'{point["number"]:04d}'
      nothing_lost.assert_same(one / run, other / run)


def children(pid):
  """{pid: ppid} of a process's children, from /proc."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      fields = (path / 'stat').read_text().rsplit(')', 1)[1].split()
    except OSError:
      continue
    if int(fields[1]) == pid and fields[0] != 'Z':
      found.append(int(path.name))
  return found


def family(pid):
  """All processes below this one."""
  return [p for c in children(pid) for p in (c, *family(c))]


def trials(pid):
  """(worker, trial) of a sweep's processes: who writes a log.txt."""
  found = []
  for worker in family(pid):
    for child in children(worker):
      with contextlib.suppress(OSError):
        if os.readlink(f'/proc/{child}/fd/1').endswith('/log.txt'):
          found.append((worker, child))
  return found


def public(pids):
  """Addresses other than loopback on which these processes listen."""
  sockets = {}
  for name in ('tcp', 'tcp6'):
    for line in pathlib.Path('/proc/net', name).read_text().splitlines()[1:]:
      words = line.split()
      address = words[1].split(':')[0]
      # 127.0.0.1, ::ffff:127.0.0.1 and ::1, as Linux writes them.
      loopback = (
        '0100007F',
        '0000000000000000FFFF00000100007F',
        '00000000000000000000000001000000',
      )
      if words[3] == '0A' and address not in loopback:
        sockets[f'socket:[{words[9]}]'] = words[1]
  found = []
  for pid in pids:
    for file in pathlib.Path(f'/proc/{pid}/fd').glob('*'):
      with contextlib.suppress(OSError):
        if (target := os.readlink(file)) in sockets:
          found.append((pid, sockets[target]))
  return found


def wait_until(condition, seconds=120):
  until = time.monotonic() + seconds
  while not (found := condition()):
    assert time.monotonic() < until
    time.sleep(0.02)
  return found


@pytest.fixture(scope='module')
def serial(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sweep') / 'serial'
  out = whole(folder, code=1)
  assert 'grid: 4 trials' in out
  return folder


@pytest.fixture(scope='module')
def parallel(tmp_path_factory, serial):
  folder = tmp_path_factory.mktemp('sweep') / 'parallel'
  whole(folder, '--workers=2', code=1)
  return folder


def test_parallel_is_serial_bit_for_bit(serial, parallel):
  assert_same_runs(serial, parallel)
  assert [p['state'] for p in points(serial)] == ['complete', 'failed'] * 2
  assert 'learning_rate=1e+38' in points(serial)[1]['error']


def test_a_trial_is_the_run_of_its_command(parallel, tmp_path):
  point = points(parallel)[2]
  *words, workdir = point['command'][1:]
  assert workdir == f'--workdir={point["workdir"]}'
  run = tmp_path / 'alone'
  subprocess.run(
    [sys.executable, *words, f'--workdir={run}'],
    cwd=ROOT,
    check=True,
    capture_output=True,
  )
  nothing_lost.assert_same(run, pathlib.Path(point['workdir']))
  environment = json.loads(
    (pathlib.Path(point['workdir']) / 'environment.json').read_text()
  )
  assert environment['command'] == point['command'][1:]


def test_a_finished_sweep_runs_nothing(parallel):
  before = points(parallel)
  out = whole(parallel, code=1)
  assert points(parallel) == before
  assert 'attempt' not in out


@pytest.mark.skipif(
  not pathlib.Path('/proc/self/stat').exists(), reason='reads /proc'
)
def test_kills_of_workers_trials_and_the_sweep(serial, tmp_path):
  folder = tmp_path / 'killed'
  process = start(folder, '--workers=2')
  # A worker with its trial, then a trial alone.
  worker = wait_until(lambda: trials(process.pid))[0][0]
  assert public(family(process.pid)) == []
  os.kill(worker, signal.SIGKILL)
  log = folder / 'trials' / '0002' / 'config.json'
  wait_until(log.exists)
  below = family(process.pid)
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  # What it started leaves with it.
  wait_until(
    lambda: not any(pathlib.Path(f'/proc/{pid}').exists() for pid in below)
  )
  out = whole(folder, '--workers=2', code=1)
  assert 'going on' in out
  assert_same_runs(serial, folder)
  assert sum(point['kills'] for point in points(folder)) == 1


def test_sigterm_saves(serial, tmp_path):
  folder = tmp_path / 'stopped'
  process = start(folder)
  wait_until((folder / 'trials' / '0000' / 'config.json').exists)
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate(timeout=120)
  assert process.returncode == 128 + signal.SIGTERM, (out, err)
  assert 'the same command goes on' in out
  assert {p['state'] for p in points(folder)} <= {'waiting', 'complete'}


def test_a_worker_that_cannot_start_is_one_line(monkeypatch, tmp_path):
  monkeypatch.setattr(engines, '_START', 'raise SystemExit("broken here")')
  plan = sweep.Plan(
    'sentiment:smoke',
    {},
    'seed=0..1',
    sweep.search.Search(
      sweep.search.spaces.parse('seed=0..1'), 'grid', 2, 'none', 0, 'max'
    ),
    'test/loss',
    'test/loss',
    'min',
  )
  with pytest.raises(errors.UserError, match='does not start: broken here'):
    sweep.run(plan, tmp_path, lambda: engines.Local(1), live.View('x', 1))


@pytest.mark.parametrize(
  ('words', 'told'),
  [
    (['--sweep=sed=0..5'], 'did you mean seed'),
    (['--sweep=seed=5..0'], 'did you mean 0..5'),
    (['--sweep=seed=0..1', '--search=grit'], "did you mean 'grid'"),
    (['--sweep=seed=0..1', '--pruner=medium'], "did you mean 'median'"),
    (['--sweep=seed=0..1', '--engine=rey'], "did you mean 'ray'"),
    (['--sweep=seed=0..1', '--workers=0'], 'workers=0'),
    (['--sweep=seed=0..1', '--mode=eval'], 'mode=train'),
    (['--sweep=seed=0..1', '--ray_address=auto'], "engine='ray'"),
    (['--sweep=seed=0..1', '--wandb=x'], 'single run'),
    (['--sweep=seed=0..1', '--config=translation'], 'one --config'),
    (['--sweep=seed=0..1', '--config.seed=3'], 'also set by --config.seed'),
    (['--workers=2'], '--sweep, which is missing'),
    (['--sweep=seed=0..1', '--engine=ray'], "'.[sweep,ray]'"),
    (['--sweep=seed=0..1', '--engine=slurm'], "'.[sweep,slurm]'"),
  ],
)
def test_flags(words, told, capsys, monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'ray', None)
  monkeypatch.setitem(sys.modules, 'submitit', None)
  monkeypatch.chdir(tmp_path)
  code = launch.main(['launch.py', '--config=sentiment:smoke', *words])
  err = capsys.readouterr().err
  assert code == 2
  assert err.count('\n') == 1
  assert told in err


def test_without_the_extra(capsys, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(sys.modules, 'optuna', None)
  words = ['launch.py', '--config=sentiment:smoke', '--sweep=seed=0..1']
  assert launch.main(words) == 2
  assert "'.[sweep]'" in capsys.readouterr().err


def test_a_dry_run_lists_the_commands(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  words = ['launch.py', '--config=sentiment:smoke', '--dry_run']
  assert launch.main([*words, '--sweep=seed=3,4']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 2
  assert '--config.seed=4' in lines[1]
  assert list(tmp_path.iterdir()) == []


def test_launch_without_a_sweep_imports_nothing_for_it():
  done = subprocess.run(
    [sys.executable, '-c', 'import sys, launch; print(*sys.modules)'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  there = {name.partition('.')[0] for name in done.stdout.split()}
  late = {'optuna', 'ray', 'submitit', 'sqlalchemy', 'jax', 'rich'}
  assert not there & late


def test_ray_is_serial_bit_for_bit(serial, tmp_path):
  pytest.importorskip('ray', reason='the extra ray is not installed')
  folder = tmp_path / 'ray'
  process = start(folder, '--engine=ray', '--workers=2')
  worker = wait_until(lambda: trials(process.pid))[0][0]
  assert public(family(process.pid)) == []
  os.kill(worker, signal.SIGKILL)
  out, err = process.communicate(timeout=600)
  assert process.returncode == 1, (out, err)
  assert_same_runs(serial, folder)


def test_submitit_is_serial_bit_for_bit(serial, tmp_path, monkeypatch):
  pytest.importorskip('submitit', reason='the extra slurm is not installed')
  monkeypatch.chdir(ROOT)
  folder = tmp_path / 'slurm'
  args = ['launch.py', f'--config={TINY}', f'--sweep={SPACE}']
  made = engines.Slurm
  monkeypatch.setattr(
    engines,
    'Slurm',
    lambda *a: made(*a, cluster='local'),
  )
  code = launch.main(
    [*args, '--engine=slurm', '--workers=2', f'--workdir={folder}',
     '--slurm=timeout_min=9']
  )  # fmt: skip
  assert code == 1
  assert_same_runs(serial, folder)
