"""What a trained run is good for: a mean of its checkpoints, and an export."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from attnlab import configs, errors, tasks
from attnlab.training import checkpoints, export
import launch

ROWS = (
  'good\ta good film',
  'bad\tbad b c',
  'good\tgood b c',
  'bad\tit was bad',
)
LINES = ['a good film', 'bad bad', '', 'who knows']


def run(*args):
  return launch.main(['launch.py', *map(str, args)])


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """Four steps of a classifier, with a checkpoint of each."""
  folder = tmp_path_factory.mktemp('use')
  for split in ('train', 'validation'):
    (folder / f'{split}.tsv').write_text('\n'.join(ROWS) + '\n')
  code = run(
    '--config=sentiment:smoke',
    f'--workdir={folder / "run"}',
    '--config.data=files',
    f'--config.data.dir={folder}',
    '--config.data.train=train.tsv',
    '--config.data.validation=validation.tsv',
    '--config.data.label_field=0',
    '--config.data.text_field=1',
    '--config.training.batch_size=4',
    '--config.evaluation.batch_size=4',
    '--config.training.steps=4',
    '--config.training.eval_every=4',
    '--config.training.checkpoint_every=1',
    '--config.training.log_every=2',
    '--config.training.keep=3',
    '--config.optimizer.ema=0.5',
    # Both are to be reached by flag.
    '--config.training.loss=focal',
    '--config.training.loss.gamma=1.5',
    '--config.training.class_weights=balanced',
  )
  assert code == 0
  return folder / 'run'


def answers(task):
  return [
    (p.text, None if p.weights is None else p.weights.tobytes())
    for p in task.predict(task.model, LINES)
  ]


def test_losses_are_in_the_config(workdir):
  config = json.loads((workdir / 'config.json').read_text())
  assert config['training']['loss'] == {'name': 'focal', 'gamma': 1.5}
  assert config['training']['class_weights'] == 'balanced'


def test_tokens_are_counted_and_not_examples(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  line = json.loads(lines[0])
  ratio = line['train/tokens_per_second'] / line['train/steps_per_second']
  # Four texts of three words; the figures are rounded.
  assert ratio == pytest.approx(12, rel=0.05)
  assert 'train/tokens' not in line


def test_mean_of_checkpoints_by_flag(workdir, capsys):
  assert run('--mode=eval', f'--workdir={workdir}', '--average=3') == 0
  assert 'mean of 3 checkpoints up to step 4' in capsys.readouterr().out
  record = json.loads((workdir / 'evaluation.json').read_text())
  assert record['average'] == 3
  assert run('--mode=eval', f'--workdir={workdir}', '--average=5') == 2
  assert 'average=5: ' in capsys.readouterr().err
  words = '--mode=predict', f'--workdir={workdir}', '--prompt=good'
  assert run(*words, '--average=2') == 0
  assert capsys.readouterr().out in ('good\n', 'bad\n')


def test_an_export_predicts_exactly_the_same(workdir, tmp_path, capsys):
  folder = tmp_path / 'model'
  words = '--mode=export', f'--workdir={workdir}', f'--output={folder}'
  assert run(*words) == 0
  assert run(*words) == 0  # over an earlier one
  names = {p.relative_to(folder).as_posix() for p in folder.rglob('*.*')}
  assert names == {
    'config.json', 'model.safetensors', 'vocabulary/classes.json'
  }  # fmt: skip
  config = configs.from_json((workdir / 'config.json').read_text())
  task = tasks.build(config, workdir)
  from attnlab import training

  step = training.restore(task, workdir)
  expected = answers(task)
  shutil.move(folder, tmp_path / 'elsewhere')
  folder = tmp_path / 'elsewhere'
  assert answers(export.load(folder)) == expected
  # The parameters that are evaluated: here the moving average.
  arrays = safetensors.numpy.load_file(folder / 'model.safetensors')
  saved = checkpoints.restore(workdir / 'checkpoints', step).arrays
  assert len(arrays) == sum(name.startswith('ema.') for name in saved)
  for name, array in arrays.items():
    np.testing.assert_array_equal(array, saved[f'ema.{name}'])

  capsys.readouterr()
  asked = '--mode=predict', '--prompt=a good film'
  assert run(*asked, f'--workdir={folder}') == 0
  assert capsys.readouterr().out == expected[0][0] + '\n'
  assert run('--mode=eval', f'--workdir={folder}') == 0
  own = json.loads((folder / 'evaluation.json').read_text())
  summary = json.loads((workdir / 'summary.json').read_text())
  assert own['validation/loss'] == summary['validation/loss']
  assert run(*asked, f'--workdir={folder}', '--step=1') == 2
  assert 'is an export' in capsys.readouterr().err


def test_export_refuses(workdir, tmp_path, capsys):
  words = '--mode=export', f'--workdir={workdir}'
  assert run(*words) == 2
  assert 'output is missing' in capsys.readouterr().err
  assert run(*words, f'--output={workdir}') == 2
  assert 'is the run directory itself' in capsys.readouterr().err
  (tmp_path / 'mine').write_text('')
  assert run(*words, f'--output={tmp_path}') == 2
  assert 'is not empty' in capsys.readouterr().err
  assert run(*words, f'--output={tmp_path / "mine"}') == 2
  assert 'cannot be written' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['model.safetensors', 'vocabulary/text'])
def test_a_damaged_export_is_one_line(workdir, tmp_path, name):
  folder = tmp_path / 'model'
  assert run('--mode=export', f'--workdir={workdir}', f'--output={folder}') == 0
  path = folder / name
  if name == 'vocabulary/text':
    path.write_text(path.read_text().replace('film', 'firm'))
  else:
    path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(errors.UserError, match=r'model\.safetensors cannot be'):
    export.load(folder)
  path.unlink()
  with pytest.raises(errors.UserError):
    export.load(folder)


def test_a_translator_is_exported_as_well(tmp_path):
  config = configs.load('translation:transformer,smoke')
  config = configs.override(
    config,
    {
      'data.train_size': '50',
      'vocabulary': 'subwords',
      'vocabulary.size': '400',
    },
  )
  task = tasks.build(config)
  export.save(config, task, tmp_path / 'model', step=7)
  other = export.load(tmp_path / 'model')
  lines = ['Tom chases Jerry', 'I love China']
  one, two = (list(t.predict(t.model, lines)) for t in (task, other))
  assert [p.text for p in one] == [p.text for p in two]
  for a, b in zip(one, two, strict=True):
    np.testing.assert_array_equal(a.weights, b.weights)


def test_an_evaluation_of_another_step_lies_beside_the_run(workdir, capsys):
  before = (workdir / 'predictions' / 'validation.jsonl').read_bytes()
  assert run('--mode=eval', f'--workdir={workdir}', '--step=2') == 0
  assert (workdir / 'predictions' / 'validation.jsonl').read_bytes() == before
  written = workdir / 'evaluation' / 'predictions' / 'validation.jsonl'
  assert len(written.read_text().splitlines()) == len(ROWS)
  assert json.loads((workdir / 'evaluation.json').read_text())['step'] == 2


@pytest.mark.parametrize(
  'name',
  [
    'vectors',
    'vocabulary',
    'attention',
    'evaluation.batch_size',
    'data.buckets',
  ],
)
def test_a_setting_that_an_experiment_lacks_is_named(name):
  config = configs.to_data(configs.load('sentiment:smoke'))
  *sections, last = name.split('.')
  place = config[sections[0]] if sections else config
  del place[last]
  with pytest.raises(errors.UserError, match=f'{name} is missing from the con'):
    task = tasks.build(config)
    task.evaluate(task.model, 'validation', full=False, workdir=None)
