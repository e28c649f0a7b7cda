"""From the command line to the run directory, at smoke size."""

import json

import pytest

import launch

VARIANTS = ('attention', 'flat')


def run(*args):
  return launch.main(['launch.py', *map(str, args)])


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  configs = [f'--config=documents:{name},smoke' for name in VARIANTS]
  assert run(*configs, f'--workdir={folder}') == 0
  return folder


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_run_directory_is_complete(runs, variant):
  path = runs / f'{variant}-smoke'
  summary = json.loads((path / 'summary.json').read_text())
  for split in ('validation', 'test'):
    for name in ('accuracy', 'pointing', 'sentence_pointing', 'sentence_mass'):
      assert 0 <= summary[f'{split}/{name}'] <= 1
    assert (path / 'predictions' / f'{split}.jsonl').exists()
  assert list(path.glob('figures/words_test_*.png'))


def test_predicting_a_document_on_one_line(runs, capsys):
  code = run(
    '--mode=predict',
    f'--workdir={runs / "attention-smoke"}',
    '--prompt=The train was late. My uncle sang near the piano.',
  )
  assert code == 0
  assert capsys.readouterr().out.strip()


def test_the_document_names_every_variant_and_size():
  from experiments import documents

  for word in documents.VARIANTS + documents.SIZES:
    assert word in documents.__doc__
