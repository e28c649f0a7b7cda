"""A little of benchmarks/nothing_lost.py: kills, bad disks, four at once."""

import os
import pathlib
import random
import resource
import signal
import subprocess
import sys

import pytest
import toy_task

from attnlab import errors, training
from attnlab.training import checkpoints
from benchmarks import nothing_lost

TOY = pathlib.Path(toy_task.__file__)
ROOT = TOY.parents[2]


def start(workdir, *words, prefix=()):
  return subprocess.Popen(
    [*prefix, sys.executable, str(TOY), str(workdir), *words],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )


def fit(workdir, **changes):
  config = toy_task.config(training__checkpoint_every=5, **changes)
  return training.fit(config, toy_task.build(config), workdir)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run that nobody disturbed."""
  workdir = tmp_path_factory.mktemp('whole')
  fit(workdir)
  return workdir


def begin(workdir, *words, prefix=()):
  """Starts a run and returns when it has saved something more."""
  saved = workdir / 'checkpoints'
  before_it = checkpoints.steps(saved)
  process = start(
    workdir, 'pause=0.05', 'training.checkpoint_every=5', *words, prefix=prefix
  )
  nothing_lost.wait_for(lambda: checkpoints.steps(saved) != before_it, process)
  return process


def test_killed_again_and_again(whole, tmp_path):
  for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
    process = begin(tmp_path)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGTERM)
  fit(tmp_path)
  nothing_lost.assert_same(whole, tmp_path)


def test_random_corruptions(whole):
  seen = nothing_lost.try_corruptions(
    whole / 'checkpoints', 25, random.Random(0)
  )
  assert sum(seen.values()) == 25
  assert seen.keys() == {'flipped', 'cut', 'removed'}


def test_the_judge_of_corruptions_sees_what_was_restored(whole, monkeypatch):
  real = checkpoints.restore_newest

  def forgiving(directory, warn):
    # As a reader without checksums would: the newest, whatever it holds.
    warn('said')
    return real(whole / 'checkpoints', warn)

  monkeypatch.setattr(checkpoints, 'restore_newest', forgiving)
  with pytest.raises(nothing_lost.Failure, match='step 20 was taken'):
    nothing_lost.try_corruptions(whole / 'checkpoints', 1, random.Random(0))


def test_the_disk_is_full(whole, tmp_path):
  process = begin(tmp_path)
  # As on a full disk, every write to a file fails from here on.
  resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
  nothing_lost.refused(process, 'File too large', str(tmp_path))
  fit(tmp_path)
  nothing_lost.assert_same(whole, tmp_path)


def test_a_permission_is_lost(whole, tmp_path):
  process = begin(tmp_path, prefix=nothing_lost.OBEY_PERMISSIONS)
  (tmp_path / 'checkpoints').chmod(0o555)
  nothing_lost.refused(process, 'Permission denied', str(tmp_path))
  (tmp_path / 'checkpoints').chmod(0o755)
  fit(tmp_path)
  nothing_lost.assert_same(whole, tmp_path)


def test_a_directory_that_nobody_may_write(tmp_path):
  tmp_path.chmod(0o555)
  process = start(tmp_path, prefix=nothing_lost.OBEY_PERMISSIONS)
  nothing_lost.refused(process, 'cannot be written', 'Permission denied')
  assert list(tmp_path.iterdir()) == []


def test_four_at_once(whole, tmp_path):
  several = [
    start(tmp_path, 'pause=0.4', 'training.checkpoint_every=5')
    for _ in range(4)
  ]
  said = [process.communicate() for process in several]
  codes = [process.returncode for process in several]
  assert sorted(codes) == [0, 2, 2, 2], said
  winner = several[codes.index(0)].pid
  for process, (_, err) in zip(several, said, strict=True):
    if process.returncode:
      assert err.endswith(f'is in use by process {winner}\n')
      assert err.count('\n') == 1
  nothing_lost.assert_same(whole, tmp_path)


def test_what_another_program_wrote_is_refused(whole, tmp_path):
  step = checkpoints.steps(whole / 'checkpoints')[-1]
  good = checkpoints.restore(whole / 'checkpoints', step)
  task = toy_task.build(toy_task.config())
  for i, change in enumerate(
    (
      {'progress': None},
      {'progress': {'best_step': '../../../etc'}},
      {'progress': {'no_such': 1}},
      {'fingerprint': None},
    )
  ):
    directory = tmp_path / str(i) / 'checkpoints'
    checkpoints.save(directory, step, good.arrays, {**good.meta, **change})
    with pytest.raises(errors.UserError, match=r'meta\.json was not written'):
      training.restore(task, directory.parent)


def test_a_failure_is_in_the_table_and_in_the_exit_code(monkeypatch, capsys):
  def good(args):
    yield f'{args.kills} times', 'nothing lost'

  def bad(args):
    yield from good(args)
    raise nothing_lost.Failure('out.kernel differs')

  campaigns = {'kills': good, 'race': bad}
  monkeypatch.setattr(nothing_lost, 'CAMPAIGNS', campaigns)
  assert nothing_lost.main(['--only=kills', '--kills=3']) == 0
  assert '| kills | 3 times | nothing lost |' in capsys.readouterr().out
  assert nothing_lost.main(['--only=race,kills']) == 1
  assert '| race | FAILED | out.kernel differs |' in capsys.readouterr().out
  with pytest.raises(SystemExit):
    nothing_lost.main(['--only=kill'])


def test_another_number_is_not_the_same_run(whole, tmp_path):
  fit(tmp_path, optimizer__learning_rate=0.0500001)
  with pytest.raises(nothing_lost.Failure, match='differs'):
    nothing_lost.assert_same(whole, tmp_path)
