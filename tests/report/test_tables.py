"""Tables: what is pooled, tested, bold, and how any text is escaped."""

import csv
import io
import json
import math
import re

from folders import HOSTILE, write_run
import pytest

from attnlab.report import groups, tables
from attnlab.report import runs as runs_lib


def sections(path):
  return groups.sections(runs_lib.read(runs_lib.find([path])))


def two_settings(tmp_path, seeds: int, gap: float = 5.0):
  for seed in range(seeds):
    for score, figure in (('dot', 30.0), ('additive', 30.0 + gap)):
      write_run(
        tmp_path / f'{score}-{seed}',
        score=score,
        seed=seed,
        figure=figure + 0.1 * seed + (score == 'dot') * 0.03 * seed**2,
        examples=3,
      )
  (section,) = sections(tmp_path)
  return section


GOLDEN = """\
| setting | seeds | BLEU | tokens/s | parameters | minutes |
| --- | ---: | ---: | ---: | ---: | ---: |
| additive | 2 | 35.0 ± 0.1 | 1,000 ± 1 | 1,234 | 1.0 ± 0.0 |
| dot | 2 | 30.1 ± 0.1 | 1,000 ± 1 | 1,234 | 1.0 ± 0.0 |

Mean ± standard deviation over seeds; the CSV file has the 95 % intervals \
(BCa bootstrap). No test is possible: the rows share 2 of the at least 6 seeds \
without which p &lt; 0.05 is out of reach, so that a difference may be chance.
"""


def test_markdown_golden_and_too_few_seeds(tmp_path):
  table = tables.build(two_settings(tmp_path, 2))
  assert tables.markdown(table) == GOLDEN


def test_latex_golden(tmp_path):
  table = tables.build(two_settings(tmp_path, 2))._replace(
    notes=['50 % of A & B_1.'], title='A #1'
  )
  assert tables.latex(table) == (
    '\\begin{table}\n'
    '  \\centering\n'
    '  \\caption{A \\#1. 50 \\% of A \\& B\\_1.}\n'
    '  \\label{tab:translation-synthetic-en-zh}\n'
    '  \\begin{tabular}{lrrrrr}\n'
    '    \\toprule\n'
    '    setting & seeds & BLEU & tokens/s & parameters & minutes \\\\\n'
    '    \\midrule\n'
    '    additive & 2 & 35.0 \\(\\pm\\) 0.1 & 1,000 \\(\\pm\\) 1 & 1,234'
    ' & 1.0 \\(\\pm\\) 0.0 \\\\\n'
    '    dot & 2 & 30.1 \\(\\pm\\) 0.1 & 1,000 \\(\\pm\\) 1 & 1,234'
    ' & 1.0 \\(\\pm\\) 0.0 \\\\\n'
    '    \\bottomrule\n'
    '  \\end{tabular}\n'
    '\\end{table}\n'
  )


def test_csv_has_all_numbers(tmp_path):
  table = tables.build(two_settings(tmp_path, 3))
  rows = list(csv.DictReader(io.StringIO(tables.comma_separated(table))))
  assert [row['setting'] for row in rows] == ['additive', 'dot']
  first = rows[0]
  assert float(first['BLEU mean']) == pytest.approx(35.1)
  assert float(first['BLEU sd']) == pytest.approx(0.1)
  assert float(first['BLEU low']) < 35.1 < float(first['BLEU high'])
  assert first['BLEU n'] == '3'
  assert first['p'] == ''


def test_the_baseline_is_without_attention_or_with_equal_weights(tmp_path):
  write_run(tmp_path / 'additive', score='additive')
  equal = {'normalizer': {'name': 'uniform'}}
  write_run(tmp_path / 'equal', score='dot', attention=equal)
  (section,) = sections(tmp_path)
  base = tables.baseline(section).config
  assert base['attention.normalizer.name'] == 'uniform'
  write_run(tmp_path / 'fixed', attends=False)
  (section,) = sections(tmp_path)
  assert tables.baseline(section).config['model.name'] == 'fixed'


@pytest.mark.parametrize(('gap', 'bold'), [(5.0, True), (0.0, False)])
def test_bold_is_significantly_better_than_the_baseline(tmp_path, gap, bold):
  for seed in range(6):
    figure = 30 + 0.1 * seed
    write_run(tmp_path / f'a-{seed}', seed=seed, figure=figure, attends=False)
    figure += gap + 0.01 * (-1) ** seed
    write_run(tmp_path / f'b-{seed}', seed=seed, figure=figure)
  table = tables.build(*sections(tmp_path))
  base, other = table.rows
  assert (base.label, other.label) == ('fixed', 'luong')
  assert math.isnan(base.p)
  # Two of 2^6 signs are as far from 0, and there is one test.
  assert other.p == pytest.approx(2 / 64) if bold else other.p > 0.05
  assert other.cells[0].bold is bold
  text = tables.markdown(table)
  assert ('**35.2 ± 0.2** | 0.031' in text) is bold
  assert (
    '\\textbf{35.2 \\(\\pm\\) 0.2} & 0.031' in tables.latex(table)
  ) is bold
  assert 'against &quot;fixed&quot;' in text


def test_a_worse_row_is_never_bold(tmp_path):
  for seed in range(6):
    write_run(tmp_path / f'a-{seed}', seed=seed, figure=30, attends=False)
    write_run(tmp_path / f'b-{seed}', seed=seed, figure=20 + 0.1 * seed)
  _, other = tables.build(*sections(tmp_path)).rows
  assert other.p < 0.05
  assert not other.cells[0].bold


def test_seeds_are_paired_and_others_left_out_of_the_test(tmp_path):
  for seed in range(8):
    write_run(tmp_path / f'a-{seed}', seed=seed, figure=30 + seed)
  for seed in range(2, 9):
    write_run(tmp_path / f'b-{seed}', seed=seed, figure=31 + seed, score='dot')
  table = tables.build(*sections(tmp_path))
  assert [row.seeds for row in table.rows] == [8, 7]
  assert table.rows[1].p == pytest.approx(2 / 64)
  assert 'over 6 paired seeds' in ' '.join(table.notes)


def test_labels_name_what_differs(tmp_path):
  write_run(
    tmp_path / 'a', attention={'score': {'name': 'additive', 'hidden': 8}}
  )
  write_run(
    tmp_path / 'b', attention={'score': {'name': 'additive', 'hidden': 9}}
  )
  write_run(tmp_path / 'c', score='dot', optimizer={'learning_rate': 0.01})
  write_run(tmp_path / 'd', attends=False)
  (section,) = sections(tmp_path)
  assert [setting.label for setting in section.settings] == [
    'luong, additive, hidden=8',
    'luong, additive, hidden=9',
    'luong, dot',
    'fixed',
  ]
  notes = ' '.join(tables.build(section).notes)
  assert 'also differ in model.cell, optimizer.learning_rate' in notes
  rows = tables.settings(section)
  assert ['optimizer.learning_rate', '0.001', '0.001', '0.01', '0.001'] in rows
  assert ['attention.score.hidden', '8', '9', '–', '–'] in rows


def test_a_part_that_is_off_differs_from_one_that_is_on(tmp_path):
  on = {'locality': {'name': 'local_p', 'window': 5}}
  write_run(tmp_path / 'a', attention=on)
  write_run(tmp_path / 'b', attention={'locality': None})
  (section,) = sections(tmp_path)
  labels = [setting.label for setting in section.settings]
  assert labels == ['local_p', 'no locality']


def test_data_sets_and_tasks_have_tables_of_their_own(tmp_path):
  write_run(tmp_path / 'a')
  write_run(tmp_path / 'b', data={'name': 'multi30k'})
  write_run(tmp_path / 'c', task='classification', figure=0.8)
  found = sections(tmp_path)
  assert [section.title for section in found] == [
    'Translation on synthetic_en_zh',
    'Translation on multi30k',
    'Classification on synthetic_sentiment',
  ]
  text = tables.markdown(tables.build(found[-1]))
  assert '| classifier, additive, softmax | 1 | 80.0 |' in text


@pytest.mark.parametrize('text', HOSTILE)
def test_any_text_is_a_cell_of_one_line(text):
  markdown = tables.markdown_text(f'a{text}b')
  latex = tables.latex_text(f'a{text}b')
  for escaped in (markdown, latex, tables.csv_text(text)):
    assert len(escaped.splitlines()) < 2
    assert not re.search('[\x00-\x1f\x7f\u2028\u2029\u202e\ud800]', escaped)
  assert '<' not in markdown
  assert re.search(r'(?<!\\)[|`*_\[$]', markdown) is None
  assert tables.csv_text(text)[:1] not in ('=', '+', '-', '@')
  # All that TeX reads is escaped, and its braces are paired.
  plain = re.sub(r'\\(text\w+|char\d+)\{\}', '', latex)
  plain = re.sub(r"\\\(\\pm\\\)|\{[\[\]]\}|[?!',-]\{\}", '', plain)
  assert re.search("--|''|,,", latex) is None
  plain = re.sub(r'\\[{}&%$#_]', '', plain)
  assert re.search(r'[\\{}&%$#_~^<>|"`]', plain) is None


def test_escaping_goldens():
  assert tables.latex_text('a_b 5% & #1 $x <y> "q"') == (
    r'a\_b 5\% \& \#1 \$x \textless{}y\textgreater{} \char34{}q\char34{}'
  )
  assert tables.markdown_text('a_b 5% & #1 $x <y> "q"') == (
    r'a\_b 5% &amp; \#1 \$x &lt;y&gt; &quot;q&quot;'
  )
  assert tables.csv_text('=1+1') == "'=1+1"


def test_hostile_labels_stay_in_their_cells(tmp_path):
  for i, text in enumerate(HOSTILE[:12]):
    write_run(tmp_path / f'{i:02d}', model={'name': text or 'x'}, examples=1)
  (section,) = sections(tmp_path)
  table = tables.build(section)
  lines = tables.markdown(table).splitlines()
  bars = {len(re.findall(r'(?<!\\)\|', line)) for line in lines[:14]}
  assert len(bars) == 1
  body = (
    tables.latex(table).split('\\midrule\n')[1].split('    \\bottomrule')[0]
  )
  counts = {len(re.findall(r'(?<!\\)&', line)) for line in body.splitlines()}
  assert counts == {len(table.columns) + 1}
  rows = list(csv.reader(io.StringIO(tables.comma_separated(table))))
  assert len({len(row) for row in rows}) == 1


def test_files_of_the_same_names_elsewhere_are_other_data(tmp_path):
  for seed, place in enumerate(('films', 'food')):
    data = {'name': 'files', 'dir': f'/home/{place}/data', 'train': 'a.tsv'}
    write_run(
      tmp_path / place, task='classification', seed=seed, data=data, examples=2
    )
  found = sections(tmp_path)
  assert [len(section.runs) for section in found] == [1, 1]
  assert found[0].title != found[1].title
  assert '/home/films/data' in found[0].title


def test_other_classes_are_another_test_set(tmp_path):
  for classes in (2, 5):
    data = {'name': 'sst', 'classes': classes, 'phrases': classes > 2}
    write_run(
      tmp_path / str(classes), task='classification', data=data, examples=2
    )
  titles = [section.title for section in sections(tmp_path)]
  assert titles == [
    'Classification on sst (classes=2)',
    'Classification on sst (classes=5)',
  ]


def test_a_figure_of_some_seeds_says_of_how_many(tmp_path):
  for seed in range(3):
    run = write_run(tmp_path / f'{seed}', seed=seed, examples=2)
    if seed < 2:
      measures = {'test/coverage': 0.5 + 0.1 * seed, 'overrides': {}}
      (run / 'measures.json').write_text(json.dumps(measures))
  table = tables.measures(sections(tmp_path)[0])
  assert '0.550 ± 0.071 (n = 2)' in tables.markdown(table)
  assert r'0.550 \(\pm\) 0.071 (n = 2)' in tables.latex(table)


def test_measures_of_another_checkpoint_are_left_out(tmp_path):
  run = write_run(tmp_path / 'a', examples=2)
  summary = json.loads((run / 'summary.json').read_text())
  summary |= {'train/best_step': 20}
  (run / 'summary.json').write_text(json.dumps(summary))
  told = []
  for change, kept in (
    ({'step': 20}, True),
    ({'step': 10}, False),
    ({'step': 20, 'average': 3}, False),
    ({'step': 20, 'overrides': {'data.test': 'x'}}, False),
  ):
    measures = {'test/coverage': 0.5, **change}
    (run / 'measures.json').write_text(json.dumps(measures))
    (found,) = runs_lib.read([run], say=told.append)
    assert ('test/coverage' in found.summary) == kept
  assert len(told) == 3
  assert 'is left out' in told[0]


def test_costs_are_no_split(tmp_path):
  run = write_run(tmp_path / 'a', task='classification', examples=2)
  summary = json.loads((run / 'summary.json').read_text())
  del summary['test/accuracy']
  (run / 'summary.json').write_text(json.dumps(summary))
  before = tables.markdown(tables.build(sections(tmp_path)[0]))
  measures = {'cost/milliseconds_at_16': 3.0, 'zh-en/aer': 0.5}
  (run / 'measures.json').write_text(json.dumps(measures))
  assert 'accuracy, % (validation)' in before
  after = tables.markdown(tables.build(sections(tmp_path)[0]))
  assert 'accuracy, % (validation)' in after
