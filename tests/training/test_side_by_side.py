"""Seeds side by side: each is the run of its seed alone."""

import os
import shutil
import signal

import numpy as np
import pytest
import toy_task

from attnlab import configs, errors, seeds, tasks, training
from attnlab.training import checkpoints, side_by_side
from attnlab.training import logging as logs
import launch


def figures(workdir):
  return logs.without_timing(logs.read(workdir / 'metrics.jsonl'))


def arrays(workdir):
  directory = workdir / 'checkpoints'
  newest = checkpoints.steps(directory)[-1]
  return checkpoints.restore(directory, newest).arrays


def same(one, other, exact):
  """Whether two finished runs have the same figures and parameters."""
  lines = figures(one), figures(other)
  assert len(lines[0]) == len(lines[1]) > 0
  if exact:
    assert lines[0] == lines[1]
  else:
    for a, b in zip(*lines, strict=True):
      assert a == pytest.approx(b, abs=1e-5, rel=1e-5)
  a, b = arrays(one), arrays(other)
  assert a.keys() == b.keys()
  for name in a:
    tolerance = 0 if exact else 1e-5
    np.testing.assert_allclose(a[name], b[name], tolerance, tolerance, name)


def three(config):
  return [seeds.seeded(config, seed) for seed in range(3)]


def folders(path):
  return [path / f'seed={seed}' for seed in range(3)]


def files(folder):
  """What a run directory holds, but for names that a clock or Orbax gave."""
  return sorted(
    str(path.relative_to(folder))
    for path in folder.rglob('*')
    if 'events' not in path.name and 'arrays' not in path.parts
  )


WAYS = pytest.mark.parametrize('together', [True, False])


@pytest.mark.parametrize(
  ('spec', 'together', 'buckets'),
  [
    ('experiments/sentiment.py:smoke', True, 2),
    ('experiments/sentiment.py:smoke', False, 2),
    ('experiments/translation.py:luong,smoke', True, 1),
    ('experiments/translation.py:luong,smoke', False, 2),
  ],
)
def test_each_lane_is_the_run_of_its_seed_alone(
  spec, together, buckets, tmp_path
):
  config = configs.load(spec)
  assert config.model.dropout > 0
  with config.unlocked():
    config.evaluation.pictures = 0
    config.data.buckets = buckets
    # Together, only batches of one shape have the dropout of a run alone.
    config.model.dropout *= not (together and buckets > 1)
  trio, alone, there = three(config), tmp_path / 'alone', folders(tmp_path)
  training.fit(trio[1], tasks.build(trio[1]), alone)
  found = side_by_side.fit(trio, tasks.build, there, together=together)
  assert [summary['seed'] for summary in found] == [0, 1, 2]
  assert len({summary['train/loss'] for summary in found}) == 3
  same(there[1], alone, exact=not together)
  assert files(there[1]) == files(alone)


@WAYS
def test_lanes_go_on_from_wherever_each_was_killed(together, tmp_path):
  trio, there = three(toy_task.config()), folders(tmp_path)
  fit = lambda: side_by_side.fit(trio, toy_task.build, there, together=together)
  fit()
  whole = [(figures(path), arrays(path)) for path in there]
  for path, lost in zip(there[:2], ([20], [10, 20]), strict=True):
    (path / 'summary.json').unlink()
    for step in lost:
      shutil.rmtree(path / 'checkpoints' / f'{step:08d}')
  fit()
  for path, (lines, state) in zip(there, whole, strict=True):
    assert figures(path) == lines
    again = arrays(path)
    assert {k: v.tobytes() for k, v in again.items()} == {
      k: v.tobytes() for k, v in state.items()
    }


@WAYS
def test_a_signal_stops_all_and_the_same_call_goes_on(together, tmp_path):
  trio, there = three(toy_task.config()), folders(tmp_path / 'stopped')
  whole = folders(tmp_path / 'whole')
  side_by_side.fit(trio, toy_task.build, whole, together=together)

  def build(config):
    task = toy_task.build(config)

    def train(seed, shard=(0, 1)):
      numbers = task.train(seed, shard)
      if seed == 2:
        following = numbers.__class__.__next__

        class Killing(numbers.__class__):
          def __next__(self):
            if self.position == 7:
              os.kill(os.getpid(), signal.SIGTERM)
            return following(self)

        numbers.__class__ = Killing
      return numbers

    return task._replace(train=train)

  with pytest.raises(training.Stopped):
    side_by_side.fit(trio, build, there, together=together)
  stopped = [checkpoints.steps(path / 'checkpoints')[-1] for path in there]
  assert stopped[2] < 20
  if together:
    assert len(set(stopped)) == 1
  side_by_side.fit(trio, toy_task.build, there, together=together)
  for one, other in zip(there, whole, strict=True):
    same(one, other, exact=True)


@WAYS
def test_a_lane_ends_early_and_the_others_go_on(together, tmp_path):
  def build(config):
    worse = [1.0, 2.0, 3.0, 4.0] if config['seed'] == 1 else None
    return toy_task.build(config, evaluations=worse)

  config = toy_task.config(training__patience=1, training__eval_every=5)
  with config.unlocked():
    config.optimizer.learning_rate = 0.01
  trio, there = three(config), folders(tmp_path)
  found = side_by_side.fit(trio, build, there, together=together)
  assert [each['train/steps'] for each in found] == [20, 10, 20]
  alone = tmp_path / 'alone'
  training.fit(trio[2], build(trio[2]), alone)
  same(there[2], alone, exact=not together)


@WAYS
def test_a_lane_diverges_and_is_named(together, tmp_path, capsys):
  def build(config):
    task = toy_task.build(config)
    broken = 7 if config['seed'] == 1 else -1
    return task._replace(
      train=lambda seed, shard=(0, 1): toy_task.Numbers(seed, 4, broken)
    )

  trio, there = three(toy_task.config()), folders(tmp_path)
  with pytest.raises(errors.UserError, match=r'seed=1: step 8: .*not finite'):
    side_by_side.fit(trio, build, there, together=together)
  assert 'seed=1: step 8' in capsys.readouterr().err
  assert [(path / 'summary.json').exists() for path in there] == [
    True, False, True
  ]  # fmt: skip


def test_padding_is_zeros_and_the_first_axis_is_the_lane():
  found = side_by_side.pad(
    [
      {'x': np.ones((2, 3), np.int32), 'index': np.arange(2)},
      {'x': np.ones((2, 5), np.int32), 'index': np.arange(2)},
    ]
  )
  assert found['x'].shape == (2, 2, 5)
  assert found['x'][0].sum() == 6 and not found['x'][0, :, 3:].any()
  assert found['x'].dtype == np.int32


def test_other_differences_than_the_seed_are_refused(tmp_path):
  one, other = seeds.seeded(toy_task.config(), 0), toy_task.config(seed=1)
  other.training.log_every = 7
  there = folders(tmp_path)[:2]
  fit = side_by_side.fit
  with pytest.raises(
    errors.UserError, match=r'training\.log_every=7 of seed 1'
  ):
    fit([one, other], toy_task.build, there)
  with pytest.raises(errors.UserError, match='seed=0 is given twice'):
    fit([one, one], toy_task.build, there)
  with pytest.raises(errors.UserError, match='2 configs and 1 workdirs'):
    fit([one, other], toy_task.build, there[:1])
  assert not any(tmp_path.iterdir())


def test_a_lane_whose_directory_is_of_another_config(tmp_path):
  trio, there = three(toy_task.config()), folders(tmp_path)
  other = toy_task.config(optimizer__learning_rate=0.5)
  training.fit(other, toy_task.build(other), there[0])
  with pytest.raises(errors.UserError, match=r'seed=0: .*learning_rate'):
    side_by_side.fit(trio, toy_task.build, there)
  assert (there[2] / 'summary.json').exists()


@pytest.mark.parametrize(
  'given, said',
  [
    (['--seeds=0'], 'seeds=0 must be from 1 to 1,000'),
    (['--seeds=2', '--dry_run'], 'dry_run=True'),
    (['--seeds=2', '--wandb=x'], "wandb='x'"),
    (['--seeds=2', '--mode=eval'], 'seeds=2 is for mode=train'),
    (['--seeds=6', '--sweep=seed=0..1'], "'seed=0..5'"),
    (['--seeds=2', '--coordinator=auto'], "coordinator='auto'"),
    (['--seeds=2', '--config.seed=2147483647'], 'seed=2147483648'),
    (['--seeds=2', '--config.data.train_size=0'], 'data.train'),
  ],
)
def test_flags_that_do_not_go_together(given, said, capsys):
  words = ['launch.py', '--config=experiments/sentiment.py:smoke', *given]
  assert launch.main(words) == 2
  assert said in capsys.readouterr().err


def test_the_command_line(tmp_path, capsys):
  words = [
    'launch.py', '--config=experiments/sentiment.py:smoke', '--seeds=2',
    '--config.seed=4', '--config.evaluation.pictures=0',
    f'--workdir={tmp_path}',
  ]  # fmt: skip
  assert launch.main(words) == 0
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'seed=4', 'seed=5'
  ]  # fmt: skip
  said = capsys.readouterr().out
  assert 'deviation' in said and 'seed=4  step 5' in said
  assert launch.main(words) == 0
  assert 'is finished at step 10' in capsys.readouterr().out
