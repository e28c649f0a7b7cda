"""The first study: from one command to a page, whatever the numbers say."""

import importlib.util
import json
import math
import pathlib
import shutil

import pytest

from attnlab.studies import attention_help, grids, questions

pytest.importorskip('optuna')

ROOT = pathlib.Path(__file__).parents[1]
RIVALS = [f'sentiment_{name}' for name in ('mean', 'max', 'last')]
ABOUT = {'aer_diagonal': 0.5, 'order': RIVALS}
BINS = {'1–5': 200, '6–10': 500, '11–15': 250, '16–20': 30}


def load():
  path = ROOT / 'experiments' / 'studies' / 'does_attention_help.py'
  spec = importlib.util.spec_from_file_location('does_attention_help', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='module')
def study():
  return load()


# The smoke size, run once.


@pytest.fixture(scope='module', autouse=True)
def environment():
  """What the smoke size sets for its workers ends with this module."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
    yield


@pytest.fixture(scope='module')
def smoke(study, tmp_path_factory):
  folder = tmp_path_factory.mktemp('study')
  assert study.main(['--size=smoke', f'--runs={folder}']) == 0
  return folder


def page(folder):
  path = folder / 'docs' / 'studies' / 'does_attention_help.md'
  return path.read_text('utf-8')


def test_every_question_is_answered_from_the_runs(study, smoke):
  text = page(smoke)
  assert text.count('No test is possible with 2 seeds') == 2 * 5
  assert 'This is the size "smoke"' in text
  grid = study.study('smoke', None)[0]
  runs = grids.workdirs(grid, smoke / 'translation')
  summaries = [
    json.loads((run / 'summary.json').read_text('utf-8'))
    for run in runs['translation_additive']
  ]
  rate = sum(each['test/aer'] for each in summaries) / 2
  assert f'AER is {rate:.3f} and that of the diagonal' in text
  for name in ('length', 'pools', 'scarce', 'cost'):
    image = f'images/studies/does_attention_help_{name}.png'
    assert (smoke / 'docs' / image).stat().st_size > 5_000
    assert f'(../{image})' in text


def test_the_same_command_repeats_nothing(study, smoke, capsys):
  runs = [*smoke.glob('*/trials/*/metrics.jsonl')]
  runs += smoke.glob('*/trials/*/fitted.json')
  before = {path: path.stat().st_mtime_ns for path in runs}
  assert len(before) == 12 + 8
  text = page(smoke)
  assert study.main(['--size=smoke', f'--runs={smoke}']) == 0
  assert '12 runs, 12 of them finished; about 0 min' in capsys.readouterr().out
  assert {path: path.stat().st_mtime_ns for path in runs} == before
  assert page(smoke) == text


def test_the_results_alone_make_the_page(study, smoke, tmp_path, capsys):
  shutil.copytree(smoke / 'results', tmp_path / 'results')
  assert study.main(['--report_only', f'--out={tmp_path}']) == 0
  assert page(tmp_path) == page(smoke)
  assert study.main(['--report_only', f'--out={tmp_path / "no"}']) == 2
  assert 'holds no results' in capsys.readouterr().err


def test_a_folder_without_the_data_is_one_line(study, tmp_path, capsys):
  words = [f'--data_dir={tmp_path}', f'--runs={tmp_path / "runs"}']
  assert study.main(words) == 2
  assert capsys.readouterr().err.count('\n') == 1


# The full size, as far as it can be seen without running it.


@pytest.mark.parametrize('data_dir', [None, 'DIR'])
def test_the_full_size_is_valid_and_fits_its_time(study, data_dir):
  todo = [(g, pathlib.Path('nowhere')) for g in study.study('full', data_dir)]
  for grid, _ in todo:
    assert len(grids.plan(grid).search.space[0].domain.values) == len(
      grid.points
    )
    assert [seed for _, seed in grid.points] == sorted(
      seed for _, seed in grid.points
    )
    assert min(cell.seeds for cell in grid.cells) == 6
  runs, done, seconds = grids.estimate(todo, workers=2)
  assert (runs, done) == (sum(len(grid.points) for grid, _ in todo), 0)
  assert seconds < 3 * 3600


# Answers, from figures that are made up.


def entry(name, values, count=8):
  values = {key: [*found][:count] for key, found in values.items()}
  return {
    'name': name,
    'label': name,
    'seeds': list(range(count)),
    'figures': {key: sum(v) / count for key, v in values.items()},
    'values': values,
  }


def around(mean, spread=0.1):
  """Eight seeds, none of them at the mean."""
  return [mean + spread * (i - 3.5) / 3.5 for i in range(8)]


def cells(*, sign=1, count=8, noise=None):
  """A study in which attention helps, and costs, or the opposite."""

  def of(base, effect):
    if noise is None:
      return around(base + sign * effect, abs(effect) / 50)
    return [base + effect * noise * (-1) ** i for i in range(8)]

  attention, without = {}, {}
  for number, name in enumerate(BINS):
    attention[f'bleu/{name}'] = of(70, 10 if number else 0)
    without[f'bleu/{name}'] = around(70, 0)
  steps = 'train/steps_per_second'
  attention |= {
    'test/aer': of(0.5, -0.2),
    'test/alignment_precision': around(0.9),
    steps: of(50, -10),
  }
  without |= {steps: around(50, 0)}
  for each in (attention, without):
    each |= {'long/bleu': around(9), 'parameters': [1000] * 8}
  found = {
    'about': ABOUT,
    'translation_additive': entry('additive', attention, count)
    | {'lengths': BINS},
    'translation_no_attention': entry('no attention', without, count),
  }
  flat = {'test/accuracy': around(0.8, 0), 'fitted/accuracy': around(0.9, 0)}
  own = flat | {'test/accuracy': of(0.8, 0.05)}
  for label in ('mean', 'max', 'last'):
    found[f'sentiment_{label}'] = entry(label, flat, count)
  found['sentiment_additive'] = entry('additive', own, count)
  found['sentiment_mean_10'] = entry('mean, 10 %', flat, count)
  gap = flat | {'fitted/accuracy': of(0.9, 0.05)}
  found['sentiment_additive_10'] = entry('additive, 10 %', gap, count)
  return attention_help.Cells(found)


def told(study, **settings):
  asked = attention_help.asked(study.__doc__)
  return questions.answer(asked, cells(**settings))


def test_answers_turn_with_the_numbers(study):
  yes = [
    'Yes: of the lengths that were trained, one fixed vector loses',
    'Yes, more often than the diagonal',
    'Yes: attention is better than each',
    'Yes: attention over-fits more',
    'Time: a training step with attention takes longer',
  ]
  no = [
    'No, the other way round: attention loses more',
    'No: the diagonal points better',
    'No: attention is worse than each',
    'No: attention over-fits less',
    'No time: a training step with attention is shorter',
  ]
  found = told(study)
  # Without attention nothing falls here, so that attention can only rise.
  assert found[0].text.startswith('Neither loses long sentences')
  for each, start in zip(found[1:], yes[1:], strict=True):
    assert each.text.startswith(start)
    assert each.finding.verdict == questions.LARGER
    # Eight pairs, the smallest p of five tests.
    assert each.finding.corrected == pytest.approx(5 * 2 / 2**8)
    assert f'p = {5 * 2 / 2**8:.3f}' in each.text
  for each, start in zip(told(study, sign=-1), no, strict=True):
    assert each.text.startswith(start)
    assert each.finding.verdict == questions.SMALLER


def test_the_first_answer_says_who_loses_what(study):
  asked = attention_help.asked(study.__doc__)

  def first(one, other):
    found = cells()
    for name, last in (('no_attention', one), ('additive', other)):
      values = found.entries[f'translation_{name}']['values']
      values['bleu/1–5'] = around(90)
      values['bleu/11–15'] = around(last, 0)
    return questions.answer(asked, found)[0].text

  assert first(20, 89).startswith(
    'Yes: of the lengths that were trained, one fixed vector loses the long '
    'ones and attention does not: from 1–5 to 11–15 source words BLEU falls by '
    '70.0 without attention and by 1.0 with it;'
  )
  assert first(20, 60).startswith('In part: both lose long sentences')
  assert first(60, 20).startswith('No, the other way round')


def test_noise_is_no_answer(study):
  for each in told(study, noise=1.0):
    assert each.text.startswith('Not shown: ')
    assert each.finding.verdict == questions.UNCLEAR


def test_too_few_seeds_are_no_test(study):
  for each in told(study, count=5):
    assert each.text.startswith('No test is possible with 5 seeds')
    assert math.isnan(each.finding.p)
  # A test, but none that five questions leave significant.
  for each in told(study, count=6):
    assert each.text.startswith('Not shown: ')
    assert math.isinf(each.finding.smallest)


def test_missing_cells_are_no_test(study):
  found = attention_help.Cells({'about': ABOUT})
  asked = attention_help.asked(study.__doc__)
  for each in questions.answer(asked, found):
    assert each.text.startswith('No test is possible with 0 seeds')


def test_better_than_all_needs_all():
  test = lambda mean: questions.test(dict(enumerate(around(mean))))
  small, large = test(1.0), test(2.0)
  assert questions.weakest([large, small]) == small
  assert questions.weakest([test(-2.0), test(-1.0)]).effect < 0
  mixed = questions.weakest([large, test(-1.0)])
  assert mixed.effect == pytest.approx(-1.0)
  assert mixed.p == 1.0


def test_questions_are_those_of_the_docstring(study):
  found = questions.fixed(study.__doc__)
  assert [title[-1] for title, _ in found] == ['?'] * 5
  for _, text in found:
    assert text.startswith('Hypothesis: ')
    assert 'Measure: ' in text
