"""The range test: where a loss of known shape falls and explodes."""

import csv
import json

import numpy as np
import pytest
import toy_task

from attnlab import errors, training
from attnlab.training import lr_find


def build(**changes):
  config = toy_task.config(data__batch_size=16, model__dropout=0.0, **changes)
  return config, toy_task.build(config)


def test_rates_grow_and_the_test_ends_when_the_loss_explodes():
  config, task = build(optimizer__name='sgd')
  found = lr_find.find(config, task, steps=60, low=1e-4, high=1e3)
  ratios = found.rates[1:] / found.rates[:-1]
  np.testing.assert_allclose(ratios, 1e7 ** (1 / 59), rtol=1e-4)
  assert found.exploded
  assert len(found.rates) < 60
  # The mean square of x has curvature 2: from a rate of 1 on it diverges.
  assert 1 < found.rates[-1] < 100
  assert found.reason == lr_find.STEEPEST
  assert 1e-3 < found.suggestion < 1


def test_the_rate_is_really_used():
  config, task = build(optimizer__name='sgd')
  found = lr_find.find(config, task, steps=10, low=1e-9, high=1e-8)
  # Nothing is learned by such rates: each loss is that of the first model.
  model = toy_task.build(config).model
  batches = task.train(0)
  for loss in found.losses:
    batch = next(batches)
    error = np.asarray(model(batch['x'])) - batch['y']
    assert loss == pytest.approx(np.mean(error**2), rel=1e-4)


def test_suggestions():
  rates = np.geomspace(1e-6, 1.0, 61)
  exponent = np.log10(rates)
  falls = 1 / (1 + np.exp(4 * (exponent + 3))) + np.exp(5 * (exponent + 0.5))
  rate, reason = lr_find.suggest(rates, falls, falls, True)
  assert reason == lr_find.STEEPEST
  assert rate == pytest.approx(1e-3, rel=0.1)
  # Noise has slopes, too.
  noise = 1 + 0.05 * np.random.default_rng(0).normal(size=61)
  rises = noise + 9 * (rates > 0.1)
  rate, reason = lr_find.suggest(rates, rises, lr_find.smooth(rises), True)
  assert reason == lr_find.BEFORE_RISE
  assert 0.003 < rate < 0.02
  smoothed = lr_find.smooth(noise)
  assert lr_find.suggest(rates, noise, smoothed, False) == (None, '')
  # A last batch that is not finite is no part of the losses.
  rate, _ = lr_find.suggest(rates, noise, smoothed, True)
  assert rate == pytest.approx(0.1)


def test_it_writes_its_folder_and_disturbs_no_training(tmp_path, capsys):
  plain, after = tmp_path / 'plain', tmp_path / 'after'
  short = {'training__steps': 5, 'optimizer__name': 'sgd'}
  config, task = build(**short)
  rate = lr_find.run(config, task, after, low=1e-4, high=1e3, steps=50)
  assert f'optimizer.learning_rate={rate:.2g} ' in capsys.readouterr().out
  assert [path.name for path in after.iterdir()] == ['lr_find']
  folder = after / 'lr_find'
  assert {path.name for path in folder.iterdir()} == {
    'losses.csv', 'losses.png', 'losses.pdf', 'lr_find.json'
  }  # fmt: skip
  record = json.loads((folder / 'lr_find.json').read_text())
  assert record['suggestion'] == rate
  with (folder / 'losses.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == record['steps']
  assert float(rows[0]['learning_rate']) == pytest.approx(1e-4)

  errors_after = []
  for workdir in (plain, after):
    config, task = build(**short)
    errors_after.append(training.fit(config, task, workdir)['test/error'])
  assert errors_after[0] == errors_after[1]


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'steps': 3}, 'lr_steps=3 must be'),
    ({'low': 1.0, 'high': 0.1}, 'lr_range=1,0.1 must be'),
    ({'low': 0.0}, 'lr_range=0,10 must be'),
  ],
)
def test_settings_out_of_range(tmp_path, settings, message):
  config, task = build()
  with pytest.raises(errors.UserError, match=message):
    lr_find.run(config, task, tmp_path, **settings)


def test_a_first_loss_that_is_not_finite(tmp_path):
  config, task = build(data__broken=0)
  with pytest.raises(errors.UserError, match='first loss is not finite'):
    lr_find.run(config, task, tmp_path)
