"""Every variant from the command line to the run directory, at smoke size."""

import json

import pytest

import launch

VARIANTS = ('luong', 'bahdanau', 'transformer', 'no_attention')


def run(*args):
  return launch.main(['launch.py', *map(str, args)])


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  configs = [f'--config=translation:{name},smoke' for name in VARIANTS]
  assert run(*configs, f'--workdir={folder}') == 0
  return folder


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_run_directory_is_complete(runs, variant):
  (path,) = [p for p in runs.iterdir() if p.name.startswith(variant)]
  summary = json.loads((path / 'summary.json').read_text())
  for split in ('validation', 'test', 'long'):
    assert 0 <= summary[f'{split}/bleu'] <= 100
    assert summary[f'{split}/loss'] > 0
    assert (path / 'predictions' / f'{split}.jsonl').exists()
    # A model without attention has no alignment to be wrong about.
    assert (f'{split}/aer' in summary) == (variant != 'no_attention')
  assert summary['train/compilations'] <= 2
  assert 'tok:none' in summary['signatures']['bleu']
  for name in ('config.json', 'environment.json', 'metrics.jsonl'):
    assert (path / name).stat().st_size
  assert any((path / 'checkpoints').iterdir())
  assert any((path / 'tensorboard').iterdir())
  pictures = list(path.glob('figures/alignment_*.png'))
  assert bool(pictures) == (variant != 'no_attention')


def test_runs_side_by_side_are_compared(runs):
  found = {path.name for path in (runs / 'figures').iterdir()}
  assert {'learning_curves.png', 'learning_curves.pdf'} <= found
  assert {'bleu_by_length.png', 'bleu_by_length.pdf'} <= found


def test_a_finished_run_is_not_run_again(runs, capsys):
  (path,) = [p for p in runs.iterdir() if p.name.startswith('luong')]
  before = (path / 'metrics.jsonl').read_bytes()
  assert run('--config=translation:luong,smoke', f'--workdir={path}') == 0
  assert 'finished' in capsys.readouterr().out
  assert (path / 'metrics.jsonl').read_bytes() == before


def test_predicting_from_a_file_with_attention(runs, tmp_path):
  (path,) = [p for p in runs.iterdir() if p.name.startswith('luong')]
  lines = tmp_path / 'input.txt'
  lines.write_text('Tom chases Jerry\nI love China\n', encoding='utf-8')
  out, seen = tmp_path / 'out.txt', tmp_path / 'seen'
  code = run(
    '--mode=predict',
    f'--workdir={path}',
    f'--input={lines}',
    f'--output={out}',
    f'--attention={seen}',
  )
  assert code == 0
  assert len(out.read_text(encoding='utf-8').splitlines()) == 2
  records = (seen / 'attention.jsonl').read_text(encoding='utf-8').splitlines()
  assert json.loads(records[1])['source'] == ['I', 'love', 'China', '</s>']


def test_evaluating_a_run_gives_its_own_figures(runs):
  (path,) = [p for p in runs.iterdir() if p.name.startswith('no_attention')]
  assert run('--mode=eval', f'--workdir={path}') == 0
  summary = json.loads((path / 'summary.json').read_text())
  again = json.loads((path / 'evaluation.json').read_text())
  for key in ('test/bleu', 'test/loss', 'long/accuracy'):
    assert again[key] == pytest.approx(summary[key], rel=1e-6)


def test_the_document_names_every_variant_and_size():
  from experiments import translation

  for word in translation.VARIANTS + translation.SIZES:
    assert word in translation.__doc__


def test_bfloat16_trains(tmp_path):
  code = run(
    '--config=translation:luong,smoke',
    '--config.training.precision=bfloat16',
    f'--workdir={tmp_path / "run"}',
    '--dry_run',
  )
  assert code == 0
