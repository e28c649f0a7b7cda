"""Comparisons of run directories."""

import json

import pytest

from attnlab import errors
from attnlab.measures import lengths
from attnlab.report import compare

SENTENCES = [
  ('a b c', 'x y z w'),
  *[(f'{"w " * 8}{i}', f'u v {i} w x') for i in range(30)],
  *[(f'{"w " * 13}{i}', f'u v {i} w x') for i in range(25)],
  ('w ' * 40, 'u v w x y'),
]


def write_run(path, *, good: bool, sentences=SENTENCES):
  (path / 'predictions').mkdir(parents=True)
  lines = [
    json.dumps(
      {
        'source': source,
        'reference': target,
        'hypothesis': target if good else 'u v w x y',
      }
    )
    for source, target in sentences
  ]
  (path / 'predictions' / 'test.jsonl').write_text('\n'.join(lines[:9]))
  (path / 'predictions' / 'long.jsonl').write_text('\n'.join(lines[9:]))
  (path / 'predictions' / 'validation.jsonl').write_text(lines[0])
  metrics = [{'step': s, 'train/loss': 1.0 / s, 'time': 1} for s in (1, 2, 3)]
  metrics.append({'step': 3, 'validation/loss': 1.0, 'validation/bleu': 5.0})
  (path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, metrics)))
  summary = {'test/bleu': 99.0, 'train/tokens_per_second': 4321.5, 'note': 'x'}
  (path / 'summary.json').write_text(json.dumps(summary))
  return path


def test_compare_draws_and_prints(tmp_path, capsys):
  runs = {
    'with attention': write_run(tmp_path / 'a', good=True),
    'no attention': write_run(tmp_path / 'b', good=False),
  }
  files = compare.compare(runs, tmp_path / 'figures')
  assert {path.parent for path in files} == {tmp_path / 'figures'}
  assert [path.name for path in files] == [
    'learning_curves.png',
    'learning_curves.pdf',
    'bleu_by_length.png',
    'bleu_by_length.pdf',
  ]
  assert all(path.stat().st_size for path in files)
  out = capsys.readouterr().out
  assert 'with attention' in out
  assert '4,322' in out
  assert 'note' not in out
  # One seed each is no test; of one text there is one, over its sentences.
  assert 'No test is possible with 1 seed' in ' '.join(out.split())
  assert 'long: BLEU with attention 100.0 ± 0.0, no attention' in out
  assert '(p = 0.00' in out
  assert 'validation: BLEU' not in out


def test_other_sentences_are_not_compared(tmp_path):
  runs = {
    'a': write_run(tmp_path / 'a', good=True),
    'b': write_run(tmp_path / 'b', good=False, sentences=SENTENCES[1:]),
  }
  assert compare.bleu_tests(runs) == []
  assert compare.bleu_tests({'a': runs['a']}) == []


def test_bleu_by_length(tmp_path):
  runs = {
    'good': compare.records(write_run(tmp_path / 'a', good=True)),
    'bad': compare.records(write_run(tmp_path / 'b', good=False)),
  }
  series = compare.bleu_by_length(runs)
  names, values, counts = series['good']
  assert names == ['1–10', '11–40']
  assert counts == [31, 26]
  assert sum(counts) == len(SENTENCES)
  assert values == pytest.approx([100, 100])
  assert max(series['bad'][1]) < 50


def test_runs_over_other_sentences_share_no_bins(tmp_path):
  runs = {
    'a': compare.records(write_run(tmp_path / 'a', good=True)),
    'b': compare.records(
      write_run(tmp_path / 'b', good=True, sentences=SENTENCES[1:])
    ),
  }
  assert compare.bleu_by_length(runs) == {}
  assert compare.bleu_by_length({}) == {}
  assert compare.bleu_by_length({'a': []}) == {}


@pytest.mark.parametrize(
  ('counts', 'bins'),
  [
    ([3], [(1, 5)]),
    ([3] * 20 + [8] * 20, [(1, 5), (6, 10)]),
    ([3] * 20 + [8] * 19, [(1, 10)]),
    ([3] + [8] * 20 + [33] * 20, [(1, 10), (11, 35)]),
  ],
)
def test_length_bins(counts, bins):
  assert lengths.bins(counts) == bins


def test_curve_keys_prefer_quality():
  lines = [
    {'step': 1, 'train/loss': 1.0, 'train/accuracy': 1.0},
    {'step': 1, 'validation/aer': 1.0, 'validation/loss': 1.0},
    {'step': 1, 'validation/bleu': 1.0, 'validation/zzz': 1.0},
  ]
  assert compare.curve_keys({'a': lines}) == [
    'train/loss',
    'validation/bleu',
    'validation/loss',
  ]


def test_an_unfinished_run_is_refused(tmp_path):
  with pytest.raises(errors.UserError, match=r'summary\.json'):
    compare.compare({'a': tmp_path}, tmp_path)
  with pytest.raises(errors.UserError, match='no run'):
    compare.compare({}, tmp_path)


def test_lines_may_hold_any_character(tmp_path):
  path = tmp_path / 'x.jsonl'
  path.write_text('{"source": "a\u2028b"}\n', encoding='utf-8')
  assert compare._lines(path) == [{'source': 'a\u2028b'}]
