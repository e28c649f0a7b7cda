"""The catalogue, the support table, --list and the guide follow the code."""

import ast
import inspect
import itertools
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import attention, configs
from attnlab.report import (
  catalogue,
  example,
  figures,
  parts,
  references,
  support,
)
from attnlab.sweeps import spaces
from attnlab.tasks import measure_classification, measure_translation
from attnlab.training import loop
import launch

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / 'docs'
REMAKE = 'run python -m attnlab.report.catalogue'


def gaussian(*, width: float = 1.0) -> attention.scores.Score:
  """Gaussian kernel, -|q - k|^2 / (2 w^2) (Nadaraya 1964; Watson 1964).

  Args:
    width: w, above 0.
  """

  def init(rng, query_dim, key_dim):
    if query_dim != key_dim:
      raise ValueError(f'gaussian: {query_dim=} and {key_dim=} must be equal')
    return {}

  def apply(params, query, key):
    squares = (query[:, None, :] - key[None, :, :]) ** 2
    return -jnp.sum(squares, axis=-1) / (2 * width**2)

  return attention.scores.Score(init, lambda params, key: key, apply)


@pytest.fixture
def added(monkeypatch):
  """A lab in which somebody wrote `scores.gaussian`."""
  monkeypatch.setattr(gaussian, '__module__', attention.scores.__name__)
  monkeypatch.setattr(attention.scores, 'gaussian', gaussian, raising=False)


def tables(page):
  """[{row: {column: cell}}] of the tables of a Markdown page."""
  found = []
  for block in re.split(r'\n\s*\n', page):
    if block.startswith('| '):
      head, _, *lines = (
        [cell.strip() for cell in line.strip('| ').split(' | ')]
        for line in block.strip().split('\n')
      )
      columns = head if head[0] else head[1:]
      found.append(
        {row: dict(zip(columns, cells, strict=True)) for row, *cells in lines}
      )
  return found


def written():
  """The tables of docs/support.md with the reasons in place of numbers."""
  page = (DOCS / 'support.md').read_text(encoding='utf-8')
  reasons = dict(re.findall(r'^(\d+)\. (.*)$', page, re.MULTILINE))
  return [
    {
      name: {c: '' if m == '✓' else reasons.get(m, m) for c, m in row.items()}
      for name, row in table.items()
    }
    for table in tables(page)
  ]


def test_the_catalogue_is_what_the_code_generates():
  page = (DOCS / 'catalogue.md').read_text(encoding='utf-8')
  assert page == catalogue.render(), REMAKE


def test_every_picture_of_the_catalogue_is_there():
  page = (DOCS / 'catalogue.md').read_text(encoding='utf-8')
  there = {
    path.relative_to(DOCS).as_posix() for path in (DOCS / 'images').rglob('*')
  }
  assert set(re.findall(r'!\[.*?\]\((.*?)\)', page)) <= there, REMAKE


def test_the_support_table_is_what_the_code_does():
  """All pairs of score and normaliser; of the rest a cell in each row."""
  first, with_score, with_normalizer, in_models, _ = written()
  assert first == support.pairs('score', 'normalizer'), REMAKE
  columns = support.models()
  mechanisms = support.mechanisms()
  assert in_models.keys() == mechanisms.keys(), REMAKE
  for number, (name, mechanism) in enumerate(mechanisms.items()):
    assert list(in_models[name]) == list(columns), REMAKE
    column = list(columns)[number % len(columns)]
    found = support.in_model(columns[column], mechanism)
    assert in_models[name][column] == found, REMAKE
  masks = list(parts.of_library('masks').choices)
  for kind, table in (('score', with_score), ('normalizer', with_normalizer)):
    assert list(table) == list(support.choices(kind)), REMAKE
    for row in table.values():
      assert list(row)[-len(masks) :] == masks, REMAKE


def test_implementations():
  """The engine's table: dense takes what composes, the others declare."""
  *_, table = written()
  assert list(table) == list(support.choices('score'))
  assert 'L' in table['kernel']['proportional']
  assert 'F' in table['dot']['softmax']
  assert 'F' not in table['additive']['softmax']
  given = {'score': 'dot', 'normalizer': 'softmax'}
  for way in attention.engine.WAYS[1:]:
    reason = support.attempt(
      lambda way=way: support._run(given, None, implementation=way)
    )
    assert (way[0].upper() in table['dot']['softmax']) == (not reason), REMAKE


def test_what_is_refused_is_refused_in_words():
  for table in written():
    for name, row in table.items():
      for column, reason in row.items():
        assert not reason.startswith('fails:'), f'{name}, {column}: {reason}'


def test_every_cited_paper_has_its_entry():
  entries = references.read()
  missing = {}
  for path in (ROOT / 'attnlab').rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
        found = references.cited(ast.get_docstring(node) or '')
        missing |= {k: (c, path.name) for k, c in found.items()}
  missing = {k: where for k, where in missing.items() if k not in entries}
  assert not missing, 'docs/references.bib lacks these'


def test_entries_are_complete_and_named_by_surname_and_year():
  for key, fields in references.read().items():
    for field in ('author', 'title', 'year'):
      assert fields[field], f'{key} lacks {field}'
    assert {'journal', 'booktitle', 'eprint'} & fields.keys(), key
    surname = fields['author'].split(',')[0]
    cited = references.cited(f'{surname} et al. {fields["year"]}')
    assert list(cited) == [key]
    assert fields['year'] in references.sentence(fields)


@pytest.mark.parametrize(
  ('text', 'keys'),
  [
    ('Score (Bahdanau et al. 2014, eq. 6).', ['bahdanau2014']),
    ('(Martins & Astudillo 2016)', ['martins2016']),
    ('Nadaraya 1964; Watson 1964', ['nadaraya1964', 'watson1964']),
    ('as van den Oord et al. 2016 had it', ['vandenoord2016']),
    ('Schütze & Ré 2022', ['schutze2022']),
    ('in 2017, of 1024 and 20 Newsgroups', []),
  ],
)
def test_citations(text, keys):
  assert list(references.cited(text)) == keys
  for key in keys:
    assert f'](#{key})' in references.linked(text)


def test_a_citation_without_entry_is_named():
  with pytest.raises(ValueError, match=r'Nobody 1900.*no entry nobody1900'):
    catalogue.bibliography({'nobody1900': 'Nobody 1900'})


def test_a_new_score_is_listed(added, capsys):
  assert launch.main(['launch.py', '--list']) == 0
  out = capsys.readouterr().out
  section = out.partition('attention.score.name')[2].partition('\n\n')[0]
  lines = [line.strip() for line in section.splitlines()]
  row = next(n for n, line in enumerate(lines) if line.startswith('gaussian'))
  assert 'Gaussian kernel' in lines[row]
  assert lines[row + 1] == 'width=1.0'


def test_a_new_score_is_in_the_catalogue(added):
  page = catalogue.render()
  entry = page.partition('### gaussian')[2].partition('###')[0]
  assert '**Gaussian kernel**, `-|q - k|^2 / (2 w^2)`' in entry
  assert '[Nadaraya 1964](#nadaraya1964)' in entry
  assert '<a id="watson1964">' in page
  assert '--config.attention.score.name=gaussian' in entry
  assert '`width=1.0`: w, above 0.' in entry


def test_a_new_score_is_a_flag(added):
  config = configs.override(
    configs.load('experiments/translation.py:luong'),
    {'attention.score.name': 'gaussian', 'attention.score.width': '3'},
  )
  assert config.attention.score.to_dict() == {'name': 'gaussian', 'width': 3.0}


def test_a_new_score_is_in_the_support_table_and_in_each_model(
  added, monkeypatch
):
  mechanism = support.mechanisms()['gaussian']
  columns = support.models()
  refused = {
    name: reason
    for name, run in columns.items()
    if (reason := support.in_model(run, mechanism))
  }
  # A decoder's queries are half as deep as states of both directions.
  assert refused.keys() == {'bahdanau', 'luong'}
  for reason in refused.values():
    assert reason.startswith('attention: gaussian: query_dim=')
    assert reason.endswith('runs with model.bidirectional=False')
  monkeypatch.setattr(support, 'attempt', lambda run, *arguments: '')
  for table in tables(support.render())[:2]:
    assert set(table['gaussian'].values()) == {'✓'}


def test_a_faulty_part_is_a_failure_not_a_refusal():
  def faulty(mechanism):
    raise TypeError('no such thing')

  assert support.attempt(faulty, None) == 'fails: TypeError: no such thing'


def test_everything_is_drawn(monkeypatch):
  shape = len(example.TARGET), len(example.SOURCE)
  monkeypatch.setattr(
    example, 'weights', lambda mechanism: (np.zeros(shape), False)
  )
  panels = catalogue.pictures()
  alone = {n for n, m in support.mechanisms().items() if isinstance(m, str)}
  for page in catalogue.pages():
    if page.kind == 'estimators':
      continue
    titles = [re.split(r'[(,*]', title)[0] for title in panels[page.kind]]
    for name in page.section.choices:
      assert name in titles or name in alone, (
        f'{name} has no picture: example.REQUIRED lacks one of its arguments'
      )


def test_weights_of_the_example():
  def of(score, normalizer):
    return example.weights(
      attention.compose(score=score, normalizer=normalizer)
    )

  scores, normalizers = attention.scores, attention.normalizers
  same, fitted = of(scores.dot(), normalizers.uniform())
  np.testing.assert_allclose(same, 1 / 8, rtol=1e-6)
  assert not fitted
  weights, fitted = of(scores.bilinear(), normalizers.softmax())
  assert fitted
  # The three articles have one key.
  np.testing.assert_allclose(weights[:, 0], weights[:, 3], rtol=1e-5)
  np.testing.assert_allclose(weights[:, 0], weights[:, 6], rtol=1e-5)
  unique = [(s, t) for s, t in example.GOLD if example.SOURCE[s] != 'the']
  for s, t in unique[1:]:  # 'im' is two words
    assert weights[t, s] > 0.9
  again, _ = of(scores.bilinear(), normalizers.softmax())
  np.testing.assert_array_equal(weights, again)


def test_no_gradient_is_no_fit():
  mechanism = attention.compose(
    score=attention.scores.additive(hidden=4),
    normalizer=attention.normalizers.hardmax(),
  )
  weights, fitted = example.weights(mechanism)
  assert not fitted
  np.testing.assert_array_equal(weights.sum(axis=1), 1)


def test_sheets_are_the_same_bytes_and_check_their_shapes(tmp_path):
  panels = {'one': np.eye(2, 3), 'another(with=5)': np.ones((2, 3)) / 3}
  words = ['a', 'b', 'c'], ['x', 'y']
  gold = np.array([(0, 0)]), np.zeros((0, 2), int)
  first, second = (
    figures.save_png(
      figures.sheet(panels, *words, gold=gold, columns=1), tmp_path / name
    )
    for name in 'ab'
  )
  assert first.read_bytes() == second.read_bytes()
  assert first.read_bytes().startswith(b'\x89PNG')
  with pytest.raises(ValueError, match=r"'one' *\].*\(2, 3\)"):
    figures.sheet(panels, words[0], ['x'])
  with pytest.raises(ValueError, match='panels is empty'):
    figures.sheet({}, *words)


def test_main_writes_the_pages(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(support, 'render', lambda: 'table\n')
  monkeypatch.setattr(
    catalogue, 'pictures', lambda: {'score': {'dot': np.eye(7, 8)}}
  )
  assert catalogue.main([f'--out={tmp_path}']) == 0
  assert (tmp_path / 'catalogue.md').read_text() == catalogue.render()
  assert (tmp_path / 'support.md').read_text() == 'table\n'
  picture = tmp_path / 'images' / 'catalogue' / 'score.png'
  assert picture.stat().st_size > 1_000
  assert str(picture) in capsys.readouterr().out
  picture.unlink()
  catalogue.main([f'--out={tmp_path}', '--no_pictures'])
  assert not picture.exists()


def test_the_guide_runs(tmp_path, monkeypatch):
  """Its blocks are one program."""
  monkeypatch.chdir(tmp_path)
  text = (DOCS / 'guide.md').read_text(encoding='utf-8')
  blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  assert len(blocks) >= 4
  names: dict = {}
  for block in blocks:
    exec(compile(block, 'guide.md', 'exec'), names)  # the guide's own code
    out = names['out']
    assert out.context.shape == (2, 10, 16)
    if out.weights is not None:
      sums = np.asarray(out.weights.sum(axis=-1))
      np.testing.assert_allclose(sums, 1, rtol=1e-5)
  assert (tmp_path / 'runs' / 'mine' / 'summary.json').exists()
  assert names['answer'].text in ('negative', 'positive')
  assert names['answer'].weights.shape == (1, 9)
  # The score of the guide is the kernel of the paper.
  kernel = names['gaussian'](width=2.0)
  query = jax.random.normal(jax.random.key(1), (3, 4))
  got = kernel.apply({}, query, kernel.prepare({}, query + 1.0))
  np.testing.assert_allclose(np.diagonal(got), -4 / 8, rtol=1e-5)


@pytest.mark.parametrize(
  'page',
  [
    'README.md',
    'docs/data.md',
    'docs/guide.md',
    'experiments/documents.py',
    'experiments/sentiment.py',
    'experiments/translation.py',
    'launch.py',
  ],
)
def test_the_commands_of_a_page_can_be_given(page):
  """Flags, experiments, settings and spaces; none of them is run."""
  text = (DOCS.parent / page).read_text(encoding='utf-8').replace('\\\n', ' ')
  found = re.findall(r'^ *python launch\.py.*$', text, re.MULTILINE)
  assert len(found) >= 3
  for command in found:
    words = shlex.split(command.replace('$i', '0').rstrip('& '))
    overrides, rest = launch.split_overrides(words[2:])
    args = launch._parse(words[1:2] + rest)
    launch._check_flags(args)
    assert args.mode in launch.MODES
    loaded = {spec: configs.load(spec) for spec in args.config}
    configs.override_all(loaded, overrides)
    if args.sweep:
      (config,) = loaded.values()
      spaces.check(spaces.parse(args.sweep), config, overrides)


def test_the_guide_has_ten_commands():
  text = (DOCS / 'guide.md').read_text(encoding='utf-8')
  numbers = re.findall(r'^# (\d+)\. .*\n(?:#.*\n)*python launch', text, re.M)
  assert numbers == [str(n) for n in range(1, 11)]


def test_every_figure_is_explained():
  text = (DOCS / 'numbers.md').read_text(encoding='utf-8')
  figures = {
    *measure_translation.SIGNATURES,
    *measure_classification.SIGNATURES,
    *re.findall(r"'(train/\w+)'", inspect.getsource(loop._Run._finish)),
  }
  assert len(figures) > 30
  assert not {name for name in figures if f'`{name}`' not in text}


def test_every_setting_is_explained():
  """Each setting of each experiment, and nothing else."""
  text = (DOCS / 'settings.md').read_text(encoding='utf-8')
  told = set()
  for row in re.findall(r'^\| (`.*?) \|', text, re.MULTILINE):
    told |= set(re.findall('`([^`]*)`', row))
  there = set()
  for name, path in configs.experiments().items():
    source = path.read_text(encoding='utf-8')
    words = re.findall(r'^(?:VARIANTS|POOLS|SIZES) = (\(.*\))$', source, re.M)
    assert len(words) == 2
    for arg in itertools.chain(*map(ast.literal_eval, words)):
      config = configs.load(f'{name}:{arg}')
      there |= configs.flat(configs.to_data(config)).keys()
  assert told == there


PAGES = sorted(path.relative_to(DOCS.parent) for path in DOCS.glob('**/*.md'))


@pytest.mark.parametrize('page', ['README.md', *map(str, PAGES)])
def test_links_lead_to_what_is_there(page):
  path = DOCS.parent / page
  for target in re.findall(r'\]\(([^)]+)\)', path.read_text(encoding='utf-8')):
    if target.startswith('http'):
      continue
    name, _, anchor = target.partition('#')
    to = path.parent / name if name else path
    assert to.exists(), target
    if anchor:
      text = to.read_text(encoding='utf-8')
      made = [
        re.sub(r'[^\w -]', '', head.lower()).replace(' ', '-')
        for head in re.findall(r'^#+ (.*)$', text, re.MULTILINE)
      ]
      assert anchor in made or f'<a id="{anchor}">' in text, target
