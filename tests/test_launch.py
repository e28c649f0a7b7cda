"""The command line: what it runs, and one line for what is wrong."""

import io
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest

from attnlab import tasks, workdirs
import launch

ROOT = pathlib.Path(launch.__file__).parent
sys.path.insert(0, str(ROOT / 'tests' / 'training'))

import toy_task  # noqa: E402

TOY = '''
"""A toy."""
import ml_collections
from attnlab import errors

def get_config(arg=''):
  if arg not in ('', 'other'):
    raise errors.unknown('config argument', arg, ('other',))
  return ml_collections.ConfigDict({
      'seed': 0,
      'data': {'name': 'files', 'batch_size': 4, 'broken': -1},
      'model': {'name': 'fixed', 'dropout': 0.1},
      'attention': None if arg else {'score': {'name': 'additive'}},
      'optimizer': {'name': 'adam', 'learning_rate': 0.05},
      'training': {'steps': 4, 'log_every': 2, 'eval_every': 4},
  })
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
  """An experiment file whose task is the toy, in an empty directory."""

  def build(config, workdir=None):
    del workdir
    task = toy_task.build(config)

    def predict(model, lines):
      del model
      for line in lines:
        words = line.split()
        weights = np.eye(len(words), dtype=np.float32)
        yield tasks.Prediction(line[::-1], words[::-1], words, weights)

    return task._replace(predict=predict)

  monkeypatch.setattr(tasks, 'build', build)
  monkeypatch.chdir(tmp_path)
  path = tmp_path / 'toy.py'
  path.write_text(TOY)
  return path


def run(*words):
  return launch.main(['launch.py', *map(str, words)])


def test_train_again_eval_and_predict(toy, tmp_path, capsys):
  del toy
  assert run('--config=toy.py') == 0
  workdir = tmp_path / 'runs' / 'toy'
  assert (workdir / 'summary.json').exists()
  assert run('--config=toy.py') == 0
  assert 'is finished at step 4' in capsys.readouterr().out

  assert run('--mode=eval', f'--workdir={workdir}') == 0
  evaluation = json.loads((workdir / 'evaluation.json').read_text())
  summary = json.loads((workdir / 'summary.json').read_text())
  assert evaluation['test/error'] == summary['test/error']
  assert evaluation['step'] == 4

  capsys.readouterr()
  assert run('--mode=predict', f'--workdir={workdir}', '--prompt=ab cd') == 0
  assert capsys.readouterr().out == 'dc ba\n'
  # U+2028 ends a line for Python, and for nobody else.
  (tmp_path / 'in.txt').write_text('ab\n\nc\u2028d\n', encoding='utf-8')
  assert (
    run(
      '--mode=predict',
      f'--workdir={workdir}',
      '--input=in.txt',
      '--output=out/put.txt',
      '--attention=seen',
    )
    == 0
  )
  out = (tmp_path / 'out' / 'put.txt').read_text(encoding='utf-8')
  assert out == 'ba\n\nd\u2028c\n'
  records = (tmp_path / 'seen' / 'attention.jsonl').read_text('utf-8')
  records = [json.loads(line) for line in records.split('\n') if line]
  assert records[0] == {
      'text': 'ba', 'source': ['ab'], 'tokens': ['ab'], 'weights': [[1.0]]
  }  # fmt: skip
  assert (tmp_path / 'seen' / '0001.png').stat().st_size
  assert (tmp_path / 'seen' / '0001.pdf').stat().st_size


def test_several_configs_are_compared(toy, tmp_path, monkeypatch, capsys):
  del toy
  compared = []
  from attnlab.report import compare

  monkeypatch.setattr(
    compare, 'compare', lambda runs, directory: compared.append(runs)
  )
  words = [
    '--config=toy.py',
    '--config=toy.py:other',
    '--workdir=both',
    '--config.attention.score.hidden=3',
  ]
  assert run(*words) == 0
  assert 'toy.py:other has no attention.score' in capsys.readouterr().err
  assert list(compared[0]) == ['default', 'other']
  config = json.loads((tmp_path / 'both/default/config.json').read_text())
  assert config['attention']['score']['hidden'] == 3
  config = json.loads((tmp_path / 'both/other/config.json').read_text())
  assert config['attention'] is None


def test_dry_run_leaves_nothing(toy, tmp_path):
  del toy
  assert run('--config=toy.py', '--dry_run') == 0
  assert [path.name for path in tmp_path.iterdir()] == ['toy.py']


def test_learning_rates_are_tried(toy, tmp_path, capsys):
  del toy
  words = '--mode=lr_find', '--config=toy.py', '--config.optimizer=sgd'
  assert run(*words, '--lr_range=1e-4,1e3', '--lr_steps=40') == 0
  assert 'optimizer.learning_rate=' in capsys.readouterr().out
  (workdir,) = (tmp_path / 'runs').iterdir()
  record = json.loads((workdir / 'lr_find' / 'lr_find.json').read_text())
  assert (record['low'], record['high']) == (1e-4, 1e3)
  assert [path.name for path in workdir.iterdir()] == ['lr_find']


def test_print_config(toy, capsys):
  del toy
  assert run('--config=toy.py', '--print_config', '--config.seed', '3') == 0
  assert json.loads(capsys.readouterr().out)['seed'] == 3


def test_default_directories():
  directories = workdirs.directories
  assert str(directories('', ['a/toy.py'], {})['a/toy.py']) == 'runs/toy'
  one = directories('', ['toy:x'], {'seed': '1'})['toy:x']
  two = directories('', ['toy:x'], {'seed': '2'})['toy:x']
  assert one != two
  assert one.name.startswith('toy-x-')
  longer = {'seed': '1', 'training.steps': '9'}
  assert directories('', ['toy:x'], longer)['toy:x'] == one
  both = directories('', ['toy:x', 'toy:y'], {})
  assert [str(path) for path in both.values()] == ['runs/toy/x', 'runs/toy/y']


def test_list(capsys):
  assert run('--list') == 0
  out = capsys.readouterr().out
  for word in ('experiments/', 'additive', 'softmax', 'causal', 'multi30k'):
    assert word in out


WRONG = [
  (['--modee=eval'], "'modee'. Did you mean: mode"),
  (['--mode=evall'], "mode='evall' is unknown: did you mean 'eval'"),
  (['train'], "'train' is not a flag"),
  (['--step=x', '--mode=eval'], 'step=x'),
  (['--step=3'], 'step=3 is for mode=eval or measure or predict'),
  (['--prompt=x'], "prompt='x' is for mode=predict"),
  (['--mode=eval', '--dry_run'], 'dry_run=True is for mode=train'),
  (['--dry_run=perhaps'], 'dry_run=perhaps'),
  (['--dry_run', '--profile'], 'profile=True: a dry_run has'),
  (['--mode=eval', '--profile'], 'profile=True is for mode=train'),
  (['--mode=predict', '--wandb=x'], "wandb='x' is for mode=train"),
  (
    ['--average=2'],
    'average=2 is for mode=eval or measure or predict or export',
  ),
  (['--mode=eval', '--average=0'], 'average=0 must be 1 or more'),
  (['--mode=export', '--workdir=x'], 'output is missing'),
  (['--lr_steps=50'], 'lr_steps=50 is for mode=lr_find'),
  (['--mode=lr_find', '--config=toy.py', '--lr_steps=5'], 'lr_steps=5 must'),
  (['--mode=lr_find', '--config=toy.py', '--lr_range=1'], "lr_range='1' must"),
  (['--mode=lr_find', '--config=toy.py', '--lr_range=2,1'], 'lr_range=2,1 m'),
  (['--config=toyy.py'], "config='toyy.py' is unknown"),
  (['--config=.'], "config='.' is unknown"),
  (['--config='], "config='' is unknown"),
  (['--config=toy.py:othr'], "did you mean 'other'"),
  (['--config=toy.py', '--config=toy.py'], "'toy.py' is given twice"),
  (['--config=toy.py', '--config.sed=3'], 'did you mean seed'),
  (['--config=toy.py', '--config.seed=3', '--config.seed=4'], 'twice'),
  (['--config=toy.py', '--config.seed=x'], "'x' must be a whole number"),
  (['--config=toy.py', '--config.seed'], '--config.seed needs a value'),
  (['--config=toy.py', '--config.=3'], 'names no value'),
  (['--config=toy.py', '--config.training.steps=0'], 'training.steps=0'),
  (
    ['--config=toy.py', '--config.optimizer.schedule=cosin'],
    "did you mean 'cosine'",
  ),
  (['--config=toy.py', '--workdir=toy.py'], "workdir='"),
  (['--mode=eval'], 'workdir is missing'),
  (['--mode=eval', '--workdir=nowhere'], 'is no directory'),
  (['--mode=eval', '--workdir=x', '--config=toy.py'], "config='toy.py'"),
  (['--mode=predict', '--workdir=.', '--prompt=a', '--input=b'], 'one of'),
  (['--flagfile=nowhere'], 'nowhere'),
]


@pytest.mark.parametrize(('words', 'message'), WRONG)
def test_one_line_and_exit_code_2(toy, capsys, words, message):
  del toy
  assert run(*words) == 2
  out, err = capsys.readouterr()
  assert message in err
  assert err.count('\n') == 1
  assert 'Traceback' not in out + err


def test_divergence_is_one_line(toy, capsys):
  del toy
  assert run('--config=toy.py', '--config.data.broken=1') == 2
  err = capsys.readouterr().err
  assert err.startswith('step 2: ')
  assert err.count('\n') == 1


def test_missing_input_file(toy, capsys):
  del toy
  assert run('--config=toy.py', '--workdir=run') == 0
  capsys.readouterr()
  words = ['--mode=predict', '--workdir=run']
  assert run(*words, '--input=none.txt') == 2
  assert "input='none.txt' cannot be read" in capsys.readouterr().err
  pathlib.Path('bad.txt').write_bytes(b'a\xff')
  assert run(*words, '--input=bad.txt') == 2
  assert 'is not UTF-8 at byte 1' in capsys.readouterr().err
  assert run('--mode=eval', '--workdir=run', '--step=3') == 2
  assert "step='3'" in capsys.readouterr().err.replace('step=3', "step='3'")


def test_many_runs_are_evaluated_in_one_command(toy, capsys):
  del toy
  for seed in range(3):
    words = [f'--config.seed={seed}', f'--workdir=many/seed={seed}']
    assert run('--config=toy.py', *words) == 0
  shutil.rmtree('many/seed=1/checkpoints')
  capsys.readouterr()
  for place, code in (('many', 2), ('many/seed=[02]', 0)):
    assert run('--mode=eval', f'--workdir={place}') == code
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == 'many/seed=0, step 4: many/seed=0/evaluation.json'
    assert len(lines) == 2
    assert len(err.splitlines()) == code
  assert err == ''
  assert pathlib.Path('many/seed=2/evaluation.json').exists()
  assert run('--mode=eval', '--workdir=many', '--step=7') == 2
  assert capsys.readouterr().err.endswith('3 of 3 runs failed\n')
  # The others take one.
  assert run('--mode=predict', '--workdir=many', '--prompt=a') == 2
  assert 'is no run directory' in capsys.readouterr().err


def test_changed_config_is_refused(toy, capsys):
  del toy
  assert run('--config=toy.py', '--workdir=run') == 0
  capsys.readouterr()
  words = ['--config=toy.py', '--workdir=run', '--config.data.batch_size=8']
  assert run(*words) == 2
  assert 'data.batch_size=8 (there: 4)' in capsys.readouterr().err


def test_internal_error_keeps_its_traceback(toy, monkeypatch):
  del toy
  monkeypatch.setattr(tasks, 'build', lambda config: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    run('--config=toy.py')


def test_help_is_quick_and_imports_no_jax():
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  done = subprocess.run(
    [sys.executable, '-X', 'importtime', str(ROOT / 'launch.py'), '--help'],
    capture_output=True,
    text=True,
    check=True,
    cwd='/',
  )
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  assert '--workdir' in done.stdout
  modules = {
    line.rpartition('|')[2].strip() for line in done.stderr.split('\n')
  }
  assert 'absl.flags' in modules
  assert not modules & {'jax', 'flax', 'numpy', 'tensorflow_datasets'}
  # Of the processor, since the machine may be busy with other things.
  assert after.ru_utime - before.ru_utime < 0.5


def test_wrong_flag_in_a_process():
  done = subprocess.run(
    [sys.executable, str(ROOT / 'launch.py'), '--wrokdir=x'],
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, 'PYTHONWARNINGS': ''},
  )
  assert done.returncode == 2
  assert 'Did you mean: workdir' in done.stderr
  assert 'Traceback' not in done.stderr


def test_the_users_own_folder(toy, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  assert run(f'--config={toy}', '--workdir=~/run') == 0
  assert (tmp_path / 'home' / 'run' / 'summary.json').exists()
  assert not (tmp_path / '~').exists()


def test_an_experiment_without_arguments(tmp_path, capsys):
  path = tmp_path / 'plain.py'
  path.write_text(TOY.replace("get_config(arg='')", 'get_config()'))
  assert run(f'--config={path}:other') == 2
  assert 'its get_config takes no argument' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('lines', 'seen'),
  [(b'\xef\xbb\xbfone two\n', 'owt eno'), (b'\xff\n', None)],
)
def test_bytes_on_stdin(toy, tmp_path, monkeypatch, capsys, lines, seen):
  assert run(f'--config={toy}', '--workdir=run') == 0
  capsys.readouterr()
  words = '--mode=predict', '--workdir=run'
  stdin = io.TextIOWrapper(io.BytesIO(lines), 'utf-8', 'strict')
  monkeypatch.setattr(sys, 'stdin', stdin)
  assert run(*words) == (0 if seen else 2)
  if not seen:
    assert 'stdin is not UTF-8' in capsys.readouterr().err
    assert run(*words, '--prompt=a\udcff') == 2
    assert 'prompt is not UTF-8' in capsys.readouterr().err
    return
  assert capsys.readouterr().out == f'{seen}\n'
  (tmp_path / 'in').write_bytes(lines)
  assert run(*words, '--input=in') == 0
  assert capsys.readouterr().out == f'{seen}\n'
