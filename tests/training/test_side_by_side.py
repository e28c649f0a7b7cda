"""Seeds side by side: each is the run of its seed alone."""

import json
import pathlib

import numpy as np
import pytest
import toy_task

from attnlab import configs, errors, tasks, training
from attnlab.training import checkpoints, side_by_side
from attnlab.training import logging as logs

WAYS = pytest.mark.parametrize('together', [True, False])


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


def seeds_of(config, seeds):
  result = []
  for seed in seeds:
    other = config.copy_and_resolve_references()
    with other.unlocked():
      other.seed = seed
    result.append(other)
  return result


def experiment(spec):
  config = configs.load(spec)
  with config.unlocked():
    config.evaluation.pictures = 0
  return config


@WAYS
@pytest.mark.parametrize(
  'spec',
  ['experiments/sentiment.py:smoke', 'experiments/translation.py:luong,smoke'],
)
def test_each_lane_is_the_run_of_its_seed_alone(spec, together, tmp_path):
  trio = seeds_of(experiment(spec), (0, 1, 2))
  folders = [tmp_path / f'seed={n}' for n in range(3)]
  found = side_by_side.fit(trio, tasks.build, folders, together=together)
  assert [summary['seed'] for summary in found] == [0, 1, 2]
  losses = {summary['train/loss'] for summary in found}
  assert len(losses) == 3
  alone = tmp_path / 'alone'
  training.fit(trio[1], tasks.build(trio[1]), alone)
  same(folders[1], alone, exact=not together)
  files = lambda folder: sorted(
    str(path.relative_to(folder))
    for path in folder.rglob('*')
    if 'events' not in path.name and 'arrays' not in path.parts
  )
  assert files(folders[1]) == files(alone)
