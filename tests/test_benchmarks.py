"""Benchmarks: what they read and what they set; they are run by hand."""

import json

import pytest

from benchmarks import gradient_estimators as bench
from benchmarks import seeds
from benchmarks import translation_speed as speed

LOG = """\
12:00:00 - INFO - joeynmt.model - Total params: 7445760
12:00:01 - Epoch   1, Step:       10, Batch Acc: 0.1, Tokens per Sec:      770,
12:00:02 - Epoch   1, Step:       20, Batch Acc: 0.1, Tokens per Sec:     1842,
12:00:03 - Epoch   1, Step:       30, Batch Acc: 0.1, Tokens per Sec:     1789,
12:00:04 - Epoch   1, Step:       40, Batch Acc: 0.1, Tokens per Sec:     1865,
"""


def test_warm_up_is_left_out_of_joeynmts_log():
  assert speed.joeynmt_speed(LOG, warm_up=10) == {
    'tokens_per_second': 1842.0,
    'parameters': 7445760,
  }


def test_the_config_is_the_model_of_the_docstring():
  config = speed.attnlab_config('somewhere', seed=3)
  assert config.seed == 3
  assert config.data.dir == 'somewhere'
  assert (config.model.name, config.model.cell) == ('luong', 'gru')
  assert (config.model.hidden, config.model.embedding) == (256, 256)
  assert config.attention.score.name == 'additive'
  assert config.vocabulary.min_freq == 2
  assert config.training.batch_size == 64


def test_a_folder_without_the_corpus_is_named(tmp_path):
  with pytest.raises(SystemExit, match=r'train\.en'):
    speed.lay_out(tmp_path, tmp_path)


def test_steps_follow_joeynmts_log(capsys):
  with pytest.raises(SystemExit):
    speed.main(['--data=x', '--steps=15'])
  assert 'multiple of 10' in capsys.readouterr().err


def test_gradient_estimators_are_measured_on_a_small_problem(
  monkeypatch, tmp_path, capsys
):
  rows = bench.rows()
  assert {'exact', 'reinforce_leave_one_out_4', 'gumbel_st_1'} <= set(rows)
  assert 'reinforce_leave_one_out_1' not in rows
  monkeypatch.setattr(bench, 'rows', lambda: {'exact': rows['exact']})
  monkeypatch.setattr(bench, 'PROBLEMS', 1)
  assert bench.main(['--keys=3', '--draws=5', f'--out={tmp_path}']) == 0
  assert 'exact' in capsys.readouterr().out
  entry = json.loads((tmp_path / 'gradient_estimators.json').read_text())
  assert entry['figures']['exact/bias'] == pytest.approx(0, abs=1e-5)
  assert entry['figures']['exact/cosine'] == pytest.approx(1, abs=1e-5)
  with pytest.raises(SystemExit):
    bench.main(['--draws=1'])
  assert 'not above 1' in capsys.readouterr().err


def test_seeds_are_compared_with_one_of_the_same_round():
  seconds, cpu, memory = seeds._timed(['true'])
  assert 0 <= cpu <= seconds + 1 and memory > 0
  one = [{'seconds': 2.0, 'cpu_seconds': 3.0, 'memory': 8.0, 'step': 0.5}]
  six = [{name: 3 * value for name, value in one[0].items()}]
  given = seeds.argparse.Namespace(seeds=6, config='experiments/sentiment.py')
  entry = seeds.entry({'one': one, 'apart': six}, given)
  assert entry['figures']['apart/seconds_ratio'] == 3
  assert entry['figures']['one/step'] == 0.5
  with pytest.raises(SystemExit):
    seeds.main(['--ways=apart'])
