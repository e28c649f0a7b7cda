"""results/: complete, free of a machine's folders, and README's only source."""

import json
import pathlib

import pytest

from attnlab import errors
from attnlab.report import results

ROOT = pathlib.Path(__file__).parents[2]


def run_directory(path, *, seed=1, bleu=90.0, rate=0.1, command=()):
  path.mkdir(parents=True)
  summary = {
    'test/bleu': bleu,
    'seconds': 90.0,
    'seed': seed,
    'signatures': {'bleu': 'nrefs:1|tok:none'},
    'note': 'text is no figure',
  }
  environment = {
    'command': ['launch.py', '--workdir=/tmp/x', *command],
    'seed': seed,
    'python': '3.11.7',
    'versions': {'jax': '0.10.2'},
    'cpu': 'a CPU',
    'cores': 2,
    'device': 'cpu',
    'commit': None,
    'started': '2026-11-21T10:00:00Z',
  }
  config = {'seed': seed, 'optimizer': {'rate': rate}, 'data': {'dir': '/d/m'}}
  for name, part in (
    ('summary', summary),
    ('environment', environment),
    ('config', config),
  ):
    (path / f'{name}.json').write_text(json.dumps(part))
  return path


def test_readme_is_what_the_results_generate():
  readme = (ROOT / 'README.md').read_text(encoding='utf-8')
  between = readme.partition(results.BEGIN)[2].partition(results.END)[0]
  assert between.strip() == results.render(ROOT / 'results')


def test_entries_are_complete_and_name_no_folder_of_a_machine():
  for path in (ROOT / 'results').glob('*.json'):
    text = path.read_text(encoding='utf-8')
    entry = json.loads(text)
    assert entry['name'] == path.stem
    for key in ('command', 'config', 'versions', 'hardware', 'seeds'):
      assert entry[key], f'{path.name} lacks {key}'
    assert entry['figures']
    for folder in ('"/', '=/'):
      assert folder not in text, f'{path.name} names a folder of a machine'


def test_seeds_are_averaged(tmp_path):
  runs = [
    run_directory(tmp_path / 'a', seed=1, bleu=90.0),
    run_directory(tmp_path / 'b', seed=2, bleu=92.0),
  ]
  entry = results.collect(runs, name='gru', label='GRU | one')
  assert entry['seeds'] == [1, 2]
  assert entry['figures'] == {'seconds': 90.0, 'test/bleu': 91.0}
  assert entry['deviations']['test/bleu'] == pytest.approx(2**0.5, abs=1e-6)
  assert entry['signatures'] == {'bleu': 'nrefs:1|tok:none'}
  assert entry['config']['data']['dir'] == 'm'
  results.write(entry, tmp_path / 'results')
  table = results.render(tmp_path / 'results')
  assert (
    '| [GRU \\| one](results/gru.json) | 91.0 ± 1.4 | 1.5 | 2 cores | 2 |'
    in table
  )
  assert '2 cores of a CPU' in table
  assert 'nrefs:1|tok:none' in table


def test_what_was_measured_is_kept_with_its_command(tmp_path, monkeypatch):
  monkeypatch.setenv('ATTNLAB_DATA', str(tmp_path))
  runs = [run_directory(tmp_path / name, seed=ord(name)) for name in 'ab']
  measures = {
    'zh-en/aer': 0.5,
    'step': 3,
    'overrides': {},
    'alignments': f'{tmp_path}/gold',
    'signatures': {'aer': 'by hand'},
  }
  (runs[0] / 'measures.json').write_text(json.dumps(measures))
  # A mean is of all seeds.
  assert 'zh-en/aer' not in results.collect(runs, name='x')['figures']
  entry = results.collect(runs[:1], name='x')
  assert entry['figures']['zh-en/aer'] == 0.5
  assert 'step' not in entry['figures']
  assert entry['measured'] == (
    'python launch.py --mode=measure --workdir=$RUN '
    '--alignments=$ATTNLAB_DATA/gold'
  )
  assert entry['signatures'] == {'aer': 'by hand', 'bleu': 'nrefs:1|tok:none'}
  # What was measured with other settings is not of the run.
  for change in ({'overrides': {'data.name': 'x'}}, {'average': 2}):
    (runs[0] / 'measures.json').write_text(json.dumps(measures | change))
    assert 'measured' not in results.collect(runs[:1], name='x')


def test_folds_of_one_seed_are_no_seeds(tmp_path):
  runs = [run_directory(tmp_path / name) for name in 'ab']
  for fold, run in enumerate(runs):
    config = json.loads((run / 'config.json').read_text())
    config['data']['fold'] = fold
    (run / 'config.json').write_text(json.dumps(config))
  results.write(results.collect(runs, name='mr'), tmp_path / 'results')
  assert '| 2 folds |' in results.render(tmp_path / 'results')


def test_runs_of_other_configs_are_refused(tmp_path):
  runs = [
    run_directory(tmp_path / 'a'),
    run_directory(tmp_path / 'b', rate=0.2),
  ]
  with pytest.raises(errors.UserError, match=r'optimizer\.rate=0\.2.* 0\.1'):
    results.collect(runs, name='gru')


@pytest.mark.parametrize(
  ('name', 'message'), [('A b', 'lower-case'), ('../x', 'lower-case')]
)
def test_bad_names_are_refused(tmp_path, name, message):
  with pytest.raises(errors.UserError, match=message):
    results.collect([run_directory(tmp_path / 'a')], name=name)


def test_commands_are_for_any_machine(monkeypatch, tmp_path):
  monkeypatch.setenv('ATTNLAB_DATA', str(tmp_path))
  command = results.command_line(
    [
      'launch.py',
      '--config=experiments/translation.py:luong',
      f'--config.data.dir={tmp_path}/multi30k/tok',
      '--workdir',
      '/home/me/runs',
      '--workdir=/x',
      '--config.note=two words',
    ]
  )
  assert command == (
    'python launch.py --config=experiments/translation.py:luong'
    " --config.data.dir=$ATTNLAB_DATA/multi30k/tok '--config.note=two words'"
  )


def test_commands_of_several_seeds_leave_them_to_the_shell():
  words = ['launch.py', '--config.seed=3', '--config.data.fold=1', '--x=seed']
  assert results.command_line(words, several=True) == (
    'python launch.py --config.seed=$SEED --config.data.fold=$FOLD --x=seed'
  )
  assert '--config.seed=3' in results.command_line(words)


def test_command_line(tmp_path, capsys):
  readme = tmp_path / 'README.md'
  readme.write_text(f'a\n{results.BEGIN}\nold\n{results.END}\nb\n')
  run = run_directory(tmp_path / 'run')
  options = [f'--results={tmp_path}/results', f'--readme={readme}']
  assert results.main([str(run), '--name=gru', *options]) == 0
  text = readme.read_text()
  assert 'old' not in text
  assert text.startswith('a\n')
  assert text.endswith('\nb\n')
  assert results.main(options) == 0
  assert readme.read_text() == text
  capsys.readouterr()
  assert results.main([str(tmp_path / 'none'), '--name=x', *options]) == 2
  assert capsys.readouterr().err.count('\n') == 1
  readme.write_text('no markers')
  assert results.main(options) == 2


def test_classification_has_a_table_of_its_own(tmp_path):
  entry = {
    'name': 'linear',
    'label': 'SST-2, linear',
    'command': 'python benchmarks/linear_baseline.py',
    'seeds': [0],
    'hardware': {'cpu': 'a CPU', 'cores': 2},
    'figures': {'test/accuracy': 0.814, 'test/macro_f1': 0.81, 'seconds': 30.0},
  }
  results.write(entry, tmp_path)
  table = results.render(tmp_path)
  assert '| classification | accuracy | macro-F1 | minutes |' in table
  assert '| 81.4 | 81.0 | 0.5 |' in table


def test_speed_has_a_table_of_its_own(tmp_path):
  entry = {
    'name': 'speed',
    'label': 'GRU',
    'command': 'python benchmarks/translation_speed.py',
    'seeds': [1],
    'hardware': {'cpu': 'a CPU', 'cores': 2},
    'figures': {
      'attnlab/tokens_per_second': 4000.0,
      'joeynmt/tokens_per_second': 1000.0,
      'ratio': 4.0,
    },
  }
  results.write(entry, tmp_path)
  assert '| 4,000 | 1,000 | 4.00 |' in results.render(tmp_path)


def rows(folder, figures, seeds):
  """Entries of one data set, a figure a seed."""
  for name, values in figures.items():
    runs = [
      run_directory(folder / name / str(s), seed=s, bleu=v)
      for s, v in zip(seeds, values, strict=True)
    ]
    results.write(results.collect(runs, name=name), folder / 'results')
  return results.render(folder / 'results')


def test_few_seeds_are_no_test(tmp_path):
  text = rows(tmp_path, {'a': [90.0], 'b': [10.0]}, [1])
  assert 'No test is possible with 1 seed: at least 6' in text
  assert '**' not in text


def test_bold_only_where_significant(tmp_path):
  base = [90.0, 91.5, 89.0, 90.5, 92.0, 91.0]
  better = {'a': [v + 1 for v in base], 'b': base}
  text = rows(tmp_path / 'one', better, range(6))
  assert '[a](results/a.json) | **91.7 ± 1.1**' in text
  assert '| 90.7 ± 1.1 |' in text
  assert 'over 1 test; bold is' in text
  better['a'][0] -= 2
  assert '**' not in rows(tmp_path / 'two', better, range(6))
  # Two tests are more than six seeds can bear.
  worse = {**better, 'a': [v + 1 for v in base], 'c': [1.0] * 6}
  text = rows(tmp_path / 'three', worse, range(6))
  assert '**' not in text
  assert 'none can be significant' in text


def test_an_entry_keeps_each_seed_and_an_interval(tmp_path):
  runs = [
    run_directory(tmp_path / str(s), seed=s, bleu=90.0 + s) for s in range(6)
  ]
  entry = results.collect(runs, name='gru')
  assert entry['values']['test/bleu'] == [90, 91, 92, 93, 94, 95]
  low, high = entry['intervals']['test/bleu']
  assert 90.5 < low < 92.5 < high < 94.5
