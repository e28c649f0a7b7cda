"""Which splits a training watches."""

import pytest
import toy_task

from attnlab import errors, training
from attnlab.training import logging


def fit(workdir, splits, **changes):
  config = toy_task.config(evaluation={'splits': splits}, **changes)
  return training.fit(config, toy_task.build(config), workdir)


def evaluations(workdir):
  lines = logging.read(workdir / 'metrics.jsonl')
  return [x for x in lines if any(name.endswith('/error') for name in x)]


def test_all_that_are_named_are_evaluated(tmp_path):
  summary = fit(tmp_path, 'test, validation')
  found = evaluations(tmp_path)
  assert [line['step'] for line in found] == [10, 20]
  best = min(found, key=lambda line: line['test/error'])
  assert all('validation/error' in line for line in found)
  assert summary['train/best_step'] == best['step']


def test_the_first_one_is_monitored(tmp_path):
  config = toy_task.config(
    evaluation={'splits': 'test,validation'}, training__eval_every=5
  )
  # In turn: test, validation, test, validation ...
  script = [5.0, 1.0, 2.0, 2.0, 3.0, 0.1, 4.0, 0.01]
  summary = training.fit(config, toy_task.build(config, script), tmp_path)
  assert summary['train/best_step'] == 10


def test_validation_alone_is_the_default(tmp_path):
  fit(tmp_path, '', training__steps=10)
  assert 'test/error' not in evaluations(tmp_path)[0]


@pytest.mark.parametrize('function', [training.fit, training.dry_run])
def test_a_wrong_name_is_refused_before_a_step(tmp_path, function):
  config = toy_task.config(evaluation={'splits': 'validation,tst'})
  task = toy_task.build(config)
  with pytest.raises(
    errors.UserError, match=r"evaluation\.splits='tst' .* mean 'test'"
  ):
    where = (tmp_path / 'run',) if function is training.fit else ()
    function(config, task, *where)
  assert not (tmp_path / 'run' / 'metrics.jsonl').exists()
