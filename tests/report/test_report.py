"""Reports as a whole: what is written, left out, refused and replaced."""

import json
import pathlib
import re

from folders import HOSTILE, lines, write_run
import numpy as np
import pytest

from attnlab import configs, errors
from attnlab.report import (
  citations,
  figures,
  groups,
  methods,
  report,
  tables,
  viewer,
)
from attnlab.report import runs as runs_lib
from attnlab.report.figures import canvas
import launch


def test_a_report_is_whole_and_is_written_again(tmp_path, capsys):
  for score in ('additive', 'dot'):
    for seed in range(2):
      run = tmp_path / 'runs' / f'{score}-{seed}'
      write_run(run, score=score, seed=seed, examples=60)
      costs = {16: 5.0, 64: 9.5 + seed, 'x': 1.0, 128: 0.0}
      measures = {f'cost/milliseconds_at_{n}': ms for n, ms in costs.items()}
      (run / 'measures.json').write_text(json.dumps(measures))
  write_run(tmp_path / 'runs' / 'fixed', attends=False, examples=60)
  command = ['launch.py', f'--report={tmp_path}/runs', f'--out={tmp_path}/out']
  assert launch.main(command) == 0
  first = {
    path.relative_to(tmp_path / 'out').as_posix(): path.read_bytes()
    for path in (tmp_path / 'out').rglob('*')
    if path.is_file()
  }
  table = 'translation_synthetic_en_zh'
  assert {
    'CITATION.cff',
    'examples.html',
    'references.bib',
    'report.json',
    'report.md',
    f'tables/{table}.csv',
    f'tables/{table}.md',
    f'tables/{table}.tex',
    f'tables/{table}_settings.md',
    f'figures/{table}_bleu_by_length.pdf',
    f'figures/{table}_cost_by_length.png',
    f'figures/{table}_entropy.png',
    f'figures/{table}_learning_curves.png',
  } <= first.keys()
  assert sum('_weights_' in name for name in first) == 2 * 3
  text = first['report.md'].decode()
  for link in re.findall(r'\]\((.*?)\)', text):
    assert link.replace('\\', '') in first
  for words in (
    'jax 0.10.2',
    '2 cores of a CPU',
    'bleu is by hand',
    'python launch.py --config=x.py --config.seed=$SEED',
    'No test is possible',
  ):
    assert words in text
  # Written again from the same runs it is the same to the byte.
  assert launch.main(command) == 0
  again = {
    path.relative_to(tmp_path / 'out').as_posix(): path.read_bytes()
    for path in (tmp_path / 'out').rglob('*')
    if path.is_file()
  }
  assert again == first
  assert [p.name for p in tmp_path.iterdir() if p.name.startswith('.')] == []
  assert capsys.readouterr().err == ''


def fails(capsys, *words: str) -> str:
  """Runs a command that is refused, and returns the one line."""
  assert launch.main(['launch.py', *words]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  return line


def test_what_is_not_a_run_is_refused_in_one_line(tmp_path, capsys):
  out = f'--out={tmp_path}/out'
  (tmp_path / 'empty').mkdir()
  assert 'is no directory' in fails(capsys, f'--report={tmp_path}/x', out)
  assert 'no run directory' in fails(capsys, f'--report={tmp_path}/empty', out)
  run = write_run(tmp_path / 'runs' / 'a')
  assert 'out is missing' in fails(capsys, f'--report={run}')
  assert '--out' in fails(capsys, out)
  for other in ('--mode=eval', '--dry_run', '--config.seed=1', '--workdir=x'):
    assert 'does not read' in fails(capsys, f'--report={run}', out, other)
  assert not (tmp_path / 'out').exists()


def test_other_content_is_never_overwritten(tmp_path, capsys):
  run = write_run(tmp_path / 'a', examples=2)
  for out in (run, tmp_path):
    line = fails(capsys, f'--report={run}', f'--out={out}')
    assert 'no part of a report' in line
  (tmp_path / 'file').write_text('mine')
  assert 'no folder' in fails(
    capsys, f'--report={run}', f'--out={tmp_path / "file"}'
  )
  report.write([run], tmp_path / 'out')
  (tmp_path / 'out' / 'notes.txt').write_text('mine')
  line = fails(capsys, f'--report={run}', f'--out={tmp_path / "out"}')
  assert "'notes.txt'" in line
  assert (tmp_path / 'out' / 'notes.txt').read_text() == 'mine'
  # Nor because a file calls itself a manifest.
  (tmp_path / 'out' / 'notes.txt').unlink()
  (tmp_path / 'out' / 'report.json').write_text('{"files": ["report.md"]}')
  assert 'no part' in fails(
    capsys, f'--report={run}', f'--out={tmp_path / "out"}'
  )


def test_half_written_runs_are_named_and_left_out(tmp_path):
  good = write_run(tmp_path / 'good', examples=3)
  for name, harm in {
    'no_summary': lambda p: (p / 'summary.json').unlink(),
    'no_environment': lambda p: (p / 'environment.json').unlink(),
    'cut': lambda p: (p / 'summary.json').write_text('{"test/bl'),
    'list': lambda p: (p / 'summary.json').write_text('[]'),
    'deep': lambda p: (p / 'config.json').write_text('[' * 100_000),
    'no_task': lambda p: (p / 'config.json').write_text('{}'),
    'metrics': lambda p: (p / 'metrics.jsonl').write_text('{}\n3\n'),
    'bytes': lambda p: (p / 'summary.json').write_bytes(b'\xff\xfe{}'),
    'versions': lambda p: (p / 'environment.json').write_text(
      '{"versions": 3}'
    ),
  }.items():
    harm(write_run(tmp_path / name, examples=1, seed=5))
  said: list[str] = []
  runs = runs_lib.read(runs_lib.find([tmp_path]), say=said.append)
  assert [run.path for run in runs] == [good]
  assert len(said) == 9
  assert all('\n' not in line for line in said)
  assert any('no_summary: it has no summary.json' in line for line in said)
  good.joinpath('summary.json').unlink()
  with pytest.raises(errors.UserError, match='none of 10'):
    runs_lib.read(runs_lib.find([tmp_path]), say=said.append)


BAD_RECORDS = [
  3,
  {},
  {'source': 'a', 'reference': 1, 'hypothesis': 'b'},
  {'example': 0, 'source': ['a'], 'target': ['b'], 'weights': [[0.5, 0.5]]},
  {'example': 0, 'source': ['a'], 'target': ['b'], 'weights': [['x']]},
  {'example': 0, 'source': ['a'], 'target': ['b'], 'weights': [[1], [2, 3]]},
  {'example': 0, 'source': ['a'], 'target': ['b'], 'weights': None},
  {'example': 0, 'source': 'a', 'target': ['b'], 'weights': [[1.0]]},
  {'example': -1, 'source': ['a'], 'target': ['b'], 'weights': [[1.0]]},
  {'example': True, 'source': ['a'], 'target': ['b'], 'weights': [[1.0]]},
  {'example': 0, 'source': [1], 'target': ['b'], 'weights': [[1.0]]},
  {'example': 0, 'source': [], 'target': [], 'weights': []},
  {
    'example': 0,
    'source': ['a'],
    'target': ['b'],
    'weights': [[float('nan')]],
  },
]


def test_malformed_records_are_counted_and_left_out(tmp_path):
  run = write_run(tmp_path / 'a', examples=5)
  for folder in ('predictions', 'attention'):
    path = run / folder / 'test.jsonl'
    good = [json.loads(line) for line in path.read_text().splitlines()]
    lines(path, [*good, *BAD_RECORDS])
    with path.open('a') as file:
      file.write('{"source": "a"\n')
  said: list[str] = []
  files = report.write([run], tmp_path / 'out', say=said.append)
  assert all(path.is_file() for path in files)
  named = [line for line in said if 'malformed' in line]
  assert any('predictions/test.jsonl' in line for line in named)
  assert any('attention/test.jsonl' in line for line in named)
  data = embedded(tmp_path / 'out' / 'examples.html')
  assert len(data['sections'][0]['splits'][0]['examples']) == 5


WEIRD = [
  None,
  [],
  {},
  'x',
  '',
  -1,
  1e999,
  True,
  '\ud800</script>',
  [[1]],
  10**400,
]


def leaves(data, *path):
  """Yields the place of everything in nested dicts and lists."""
  for key, value in data.items() if isinstance(data, dict) else enumerate(data):
    yield (*path, key)
    if isinstance(value, dict | list):
      yield from leaves(value, *path, key)


@pytest.mark.parametrize('task', ['translation', 'classification'])
@pytest.mark.parametrize(
  'name', ['config.json', 'summary.json', 'environment.json']
)
def test_any_value_may_be_any_other(tmp_path, task, name):
  write_run(tmp_path / 'good', task=task, examples=2)
  run = write_run(tmp_path / 'bad', task=task, examples=2, seed=1)
  (run / 'measures.json').write_text(json.dumps({'test/entropy': 1.0}))
  text = (run / name).read_text()
  for place in leaves(json.loads(text)):
    for value in WEIRD:
      data = json.loads(text)
      inside = data
      for key in place[:-1]:
        inside = inside[key]
      inside[place[-1]] = value
      (run / name).write_text(json.dumps(data))
      runs = runs_lib.read(runs_lib.find([tmp_path]), say=lambda _: None)
      found = groups.sections(runs, say=lambda _: None)
      assert sum(len(section.runs) for section in found) in (1, 2)
      for section in found:
        tables.markdown(tables.build(section))
        tables.settings(section)
        tables.measures(section)
      methods.markdown(found)
      citations.bibtex(runs)
      viewer.embedded(viewer.examples(found, say=lambda _: None))


def test_a_seed_counts_once(tmp_path):
  write_run(tmp_path / 'a', seed=3, examples=1)
  write_run(tmp_path / 'b', seed=3, examples=1)
  said: list[str] = []
  runs = runs_lib.read(runs_lib.find([tmp_path]))
  (section,) = groups.sections(runs, say=said.append)
  assert len(section.runs) == 1
  assert 'same setting and the same seed' in said[0]


def test_places_may_be_patterns(tmp_path):
  for name in ('sweep/a-0', 'sweep/a-1', 'sweep/b-0'):
    write_run(tmp_path / name, examples=1)
  find = lambda *places: [path.name for path in runs_lib.find(places)]
  assert find(f'{tmp_path}/sweep/a-*') == ['a-0', 'a-1']
  assert find(tmp_path, f'{tmp_path}/sweep/b-0') == ['a-0', 'a-1', 'b-0']


# References.


def test_references_are_those_of_what_was_used(tmp_path):
  write_run(tmp_path / 'a', score='additive')
  write_run(tmp_path / 'b', score='dot', model={'cell': 'gru'})
  runs = runs_lib.read(runs_lib.find([tmp_path]))
  text, lacking = citations.bibtex(runs)
  keys = re.findall(r'^@\w+\{(.*),$', text, re.MULTILINE)
  assert len(keys) == len(set(keys))
  assert {'attnlab', 'bahdanau2014', 'luong2015', 'kingma2015'} <= set(keys)
  assert {'post2018', 'bradbury2018', 'harris2020', 'cho2014'} <= set(keys)
  assert 'vaswani2017' not in keys
  assert lacking == []
  for entry in citations.entries().values():
    assert entry.count('{') == entry.count('}')
    assert entry.startswith('@')
    assert entry.endswith('}')


@pytest.mark.parametrize(
  ('experiment', 'overrides', 'has', 'lacks'),
  [
    ('sentiment', {}, 'yang2016', 'tfds szegedy2016 socher2013 jain2019'),
    ('sentiment:sst2', {}, 'socher2013', 'tfds'),
    ('sentiment', {'data': 'glue/sst2'}, 'tfds socher2013recursive', ''),
    (
      'sentiment',
      {'data': 'tfds', 'data.dataset': 'ag_news_subset'},
      'tfds zhang2015characterlevel',
      'socher2013',
    ),
    ('sentiment', {'training.loss.label_smoothing': 0.1}, 'szegedy2016', ''),
    (
      'translation:luong,multi30k',
      {'vocabulary': 'subwords'},
      'elliott2016 kudo2018 post2018 chen2020',
      'tfds',
    ),
    ('translation:bahdanau,tatoeba', {}, 'tatoeba sennrich2016', 'elliott2016'),
  ],
)
def test_data_and_measures_are_cited(experiment, overrides, has, lacks):
  config = configs.override(configs.load(experiment), overrides)
  summary: dict = {}
  if 'translation' in experiment:
    told = {'aer_shifted': 'shifted (Chen et al. 2020)', 'probe': 'Jain 2019'}
    summary = {'test/bleu': 1.0, 'long/aer_shifted': 0.5, 'signatures': told}
  run = runs_lib.Run(
    pathlib.Path('x'),
    'x',
    configs.flat(configs.to_data(config)),
    {},
    summary,
    (),
  )
  text, lacking = citations.bibtex([run])
  keys = re.findall(r'^@\w+\{(.*),$', text, re.MULTILINE)
  assert set(has.split()) <= set(keys)
  assert not set(lacks.split()) & set(keys)
  assert lacking == []


# Figures.


def test_learning_curves_pool_seeds():
  seeds = [
    [{'step': 1, 'loss': 2.0}, {'step': 2, 'loss': 1.0}],
    [{'step': 1, 'loss': 9.0}, {'step': 1, 'loss': 4.0}],
  ]
  steps, mean, spread = figures.pooled(seeds, 'loss')
  assert steps.tolist() == [1, 2]
  assert mean.tolist() == [3.0, 1.0]
  assert spread[0] == pytest.approx(2**0.5)
  assert np.isnan(spread[1])
  figure = figures.learning_curves({'a': seeds, 'b': seeds[:1]}, ['loss'])
  (axes,) = figure.axes
  assert len(axes.lines) == 2
  assert len(axes.collections) == 1  # b has one seed, and no band
  with pytest.raises(ValueError, match='test/x'):
    figures.learning_curves({'a': seeds}, ['test/x'])


def test_side_by_side_and_costs_are_within_bounds():
  rng = np.random.default_rng(0)
  panels = [
    figures.Panel(
      f'mechanism {i} with a long name',
      rng.random((t, s)),
      ['我'] * s,
      ['Donaudampfschiff'] * t,
    )
    for i, (t, s) in enumerate([(3, 4), (1, 1), (40, 60), (8, 8)])
  ]
  points = {64: [1.0, 1.1], 128: [4.0, 4.2]}
  bins = np.array([[1.0, np.nan], [2.0, np.nan]])
  for figure in (
    figures.side_by_side(panels),
    figures.cost_by_length({'a': points, 'b': {64: [1.0]}}, 'seconds'),
    figures.metric_by_length(
      {'a': bins, 'b' * 40: bins}, ['1–5', '6–10'], [3, 0], ylabel='BLEU'
    ),
  ):
    with canvas.style():
      renderer = figure.canvas.get_renderer()
      figure.draw(renderer)
      drawn = figure.get_tightbbox(renderer)
    width, height = figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= -0.02
    assert drawn.x1 <= width + 0.02
    assert drawn.y1 <= height + 0.02
  with pytest.raises(ValueError, match='mechanism'):
    figures.side_by_side([panels[0]._replace(source=['a'])])


# The page.


def embedded(path: pathlib.Path) -> dict:
  """The data of a page, as JSON."""
  text = path.read_text(encoding='utf-8')
  block = re.search(
    r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL
  )
  return json.loads(block[1])


def test_the_page_is_one_file_that_asks_nothing_of_a_network(tmp_path):
  run = write_run(tmp_path / 'a', examples=3)
  report.write([run], tmp_path / 'out')
  text = (tmp_path / 'out' / 'examples.html').read_text(encoding='utf-8')
  markup = re.sub(r'<(script|style)[ >].*?</\1>', '', text, flags=re.DOTALL)
  assert re.findall(r'(?:src|href)="(?!#)', markup) == []
  assert re.search(r'\son\w+=', markup) is None
  assert 'style="' not in markup
  assert "default-src 'none'" in markup
  assert 'unsafe' not in markup
  script = (viewer._HERE / 'viewer.js').read_text()
  for word in ('innerHTML', 'outerHTML', 'eval(', 'document.write', 'fetch('):
    assert word not in script
  for word in ('</script', '<!--', 'http:', 'https:'):
    assert word not in script


@pytest.mark.parametrize('text', HOSTILE)
def test_hostile_data_stay_data(text):
  block = viewer.embedded({'a': text, text: ['b']})
  assert re.search('[<>&\u2028\u2029]', block) is None
  block.encode('utf-8')
  clean = text.encode('utf-8', 'replace').decode()
  assert json.loads(block) == {'a': clean, clean: ['b']}


def test_weights_survive_the_page(tmp_path):
  write_run(tmp_path / 'a', heads=(2, 3), examples=4)
  (section,) = groups.sections(runs_lib.read(runs_lib.find([tmp_path])))
  data = viewer.examples([section])
  (example, *_) = data['sections'][0]['splits'][0]['examples']
  answer = example['answers']['0']
  record = runs_lib.attention(section.runs[0])['test'][example['id']]
  assert answer['shape'] == list(record['heads'].shape)
  import base64

  found = np.frombuffer(base64.b64decode(answer['w']), np.uint8)
  found = found.reshape(answer['shape']) / 255 * answer['m']
  np.testing.assert_allclose(found, record['heads'], atol=0.6 / 255)


def test_a_hundred_runs_stay_below_five_megabytes(tmp_path):
  first = write_run(tmp_path / '0', examples=40, tokens=['word'] * 40)
  for i in range(1, 100):
    run = tmp_path / f'{i}'
    run.mkdir()
    for name in ('predictions', 'attention', 'environment.json'):
      (run / name).symlink_to(first / name)
    for name in ('metrics.jsonl', 'summary.json'):
      (run / name).symlink_to(first / name)
    config = json.loads((first / 'config.json').read_text())
    config |= {'seed': i % 6, 'training': {'steps': 1 + i // 6}}
    (run / 'config.json').write_text(json.dumps(config))
  found = groups.sections(
    runs_lib.read(runs_lib.find([tmp_path])), say=lambda _: None
  )
  page = viewer.page(viewer.examples(found))
  assert 1_000_000 < len(page.encode()) < 5_000_000
