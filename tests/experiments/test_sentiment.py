"""From the command line to the run directory, at smoke size.

The other pools are those of tests/models: each run here compiles for seconds.
"""

import json

import pytest

import launch

POOLS = ('attention', 'self_attention', 'last')


def run(*args):
  return launch.main(['launch.py', *map(str, args)])


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  configs = [f'--config=sentiment:{name},smoke' for name in POOLS]
  assert run(*configs, f'--workdir={folder}') == 0
  return folder


@pytest.mark.parametrize('pool', POOLS)
def test_a_run_directory_is_complete(runs, pool):
  path = runs / f'{pool}-smoke'
  summary = json.loads((path / 'summary.json').read_text())
  for split in ('validation', 'test'):
    for name in ('accuracy', 'macro_f1', 'pointing', 'mass'):
      assert 0 <= summary[f'{split}/{name}'] <= 1
    assert (path / 'predictions' / f'{split}.jsonl').exists()
  assert list(path.glob('figures/words_test_*.png'))
  assert list(path.glob('figures/confusion_test.*'))


def test_runs_side_by_side_are_compared(runs):
  found = {path.name for path in (runs / 'figures').iterdir()}
  assert {'learning_curves.png', 'learning_curves.pdf'} <= found


def test_predicting_with_attention(runs, tmp_path, capsys):
  code = run(
    '--mode=predict',
    f'--workdir={runs / "attention-smoke"}',
    '--prompt=the film was not bad',
    f'--attention={tmp_path}',
  )
  assert code == 0
  assert capsys.readouterr().out.strip() in ('negative', 'positive')
  record = json.loads((tmp_path / 'attention.jsonl').read_text())
  assert record['source'] == ['the', 'film', 'was', 'not', 'bad']
  assert len(record['weights'][0]) == 5


def test_the_document_names_every_pool_and_size():
  from experiments import sentiment

  for word in sentiment.POOLS + sentiment.SIZES:
    assert word in sentiment.__doc__


def test_bfloat16_and_another_score_train(tmp_path):
  code = run(
    '--config=sentiment:smoke',
    '--config.training.precision=bfloat16',
    '--config.attention.score=additive',
    f'--workdir={tmp_path / "run"}',
    '--dry_run',
  )
  assert code == 0
