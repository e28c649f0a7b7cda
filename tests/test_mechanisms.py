"""benchmarks/mechanisms.py: a run for every part, none of them twice."""

import json
import pathlib
import types

import pytest

from attnlab import configs
from attnlab.report import parts
from benchmarks import mechanisms as bench

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module')
def rows():
  return {row.name: row for row in bench.rows()}


def test_every_part_and_every_pool_has_a_row(rows):
  for kind, path in parts.kinds().items():
    for name in parts.of_config(path).choices:
      if name != 'softmax':
        assert f'translation_{kind}_{name}' in rows
  for name in parts.pools().choices:
    assert f'sentiment_{name}' in rows


def test_every_row_is_a_config_with_its_part(rows):
  for row in rows.values():
    config = configs.override(
      configs.load(row.config), bench.overrides(row, steps=7)
    )
    assert config.training.steps == 7
    found = configs.flat(config.to_dict())
    for path, value in row.overrides.items():
      assert str(found[path]) == value


def test_notes_come_from_what_the_parts_declare(rows):
  def note(kind, name):
    return rows[f'translation_{kind}_{name}'].note

  for name in ('hardmax', 'uniform'):
    assert note('normalizer', name) == 'no gradient reaches the scores'
  assert note('score', 'keys_only') == 'the query has no say'
  assert note('score', 'bilinear') == ''
  assert 'one direction' in note('score', 'dot')


def test_a_finished_run_is_not_repeated(rows, tmp_path, monkeypatch):
  started = []

  def train(words, **settings):
    started.append(words)
    workdir = pathlib.Path(words[-1].removeprefix('--workdir='))
    workdir.mkdir(parents=True, exist_ok=True)
    row = rows['sentiment_max']
    config = configs.override(
      configs.load(row.config), bench.overrides(row, steps)
    )
    (workdir / 'config.json').write_text(configs.to_json(config))
    (workdir / 'summary.json').write_text('{}')
    return types.SimpleNamespace(returncode=0, stderr='')

  monkeypatch.setattr(bench.subprocess, 'run', train)
  for steps, count in ((5, 1), (5, 1), (6, 2)):
    assert bench.run(rows['sentiment_max'], tmp_path / 'run', steps) == ''
    assert len(started) == count
  assert '--config=experiments/sentiment.py:max' in started[0]
  assert '--config.training.steps=5' in started[0]


def test_a_failed_run_is_its_last_line(rows, tmp_path, monkeypatch):
  failed = types.SimpleNamespace(returncode=2, stderr='warning\nit broke\n')
  monkeypatch.setattr(bench.subprocess, 'run', lambda *a, **k: failed)
  assert bench.run(rows['sentiment_max'], tmp_path / 'x', 0) == 'it broke'


def test_the_page_shows_what_was_run_and_what_was_refused():
  done = bench.Row('translation', 'a', 'A', 'c', {}, 'a note')
  refused = bench.Row('translation', 'b', 'B', 'c', {}, 'because', True)
  missing = bench.Row('sentiment', 'd', 'D', 'c', {})
  figures = {'test/bleu': 12.345, 'parameters': 1234}
  figures |= {'train/steps': 100.0, 'train/steps_per_second': 8.0}
  hardware = {'cpu': 'a processor', 'cores': 2}
  entry = {'figures': figures, 'hardware': hardware}
  page = bench.page([done, refused, missing], {'a': entry})
  assert 'on 2 cores of a processor' in page
  row = '| [A](../results/mechanisms/a.json) | 12.3 | – | – | 12 | 1,234 |'
  assert f'{row} a note |' in page
  assert '| B | – | – | – | – | – | because |' in page
  assert '| accuracy |' not in page


@pytest.mark.parametrize(
  ('task', 'label', 'entropy', 'told'),
  [
    ('translation', 'a', 1.99, 'its weights stay equal'),
    ('translation', 'inverse_euclidean', 2.0, 'inverse squares'),
    ('translation', 'a', 1.5, ''),
    ('translation', 'uniform', 2.0, ''),
    ('sentiment', 'a', 2.0, ''),
  ],
)
def test_weights_that_stay_equal_are_told(task, label, entropy, told):
  row = bench.Row(task, 'a', label, 'c', {})
  found = bench.learned(row, {'test/entropy': entropy}, 2.0)
  assert told in found and bool(told) == bool(found)


def test_an_unknown_name_is_answered(rows, monkeypatch, capsys):
  monkeypatch.setattr(bench, 'rows', lambda: list(rows.values()))
  with pytest.raises(SystemExit):
    bench.main(['--only=translation_score_addtive'])
  message = capsys.readouterr().err
  assert "did you mean 'translation_score_additive'" in message


def test_the_page_alone(rows, monkeypatch, tmp_path):
  monkeypatch.setattr(bench, 'rows', lambda: list(rows.values()))
  assert bench.main(['--only=', f'--out={tmp_path}']) == 0
  page = (tmp_path / 'docs' / 'mechanisms.md').read_text()
  assert page.startswith('<!-- Written by')


def test_the_entries_are_complete():
  """As all of results/, where there are some."""
  for path in (ROOT / 'results' / 'mechanisms').glob('*.json'):
    entry = json.loads(path.read_text(encoding='utf-8'))
    assert entry['name'] == path.stem
    for key in ('command', 'config', 'versions', 'hardware', 'seeds'):
      assert entry[key], f'{path.name} lacks {key}'
