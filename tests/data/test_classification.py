"""Sources of labelled texts: shapes, classes, splits, and every complaint."""

import gzip
import json
import logging
import os
import pathlib
import time

import pytest

from attnlab.data import classification, files
from attnlab.errors import UserError

# Words and sentences.


@pytest.mark.parametrize(
  ('raw', 'want'),
  [
    ('It works. Does it? Yes!', 'It works .\nDoes it ?\nYes !'),
    ('He said: "Stop!" (Now.) Go', 'He said : " Stop ! "\n( Now . )\nGo'),
    ('Mr. A. B. Lee of the U.S. Army', 'Mr . A . B . Lee of the U . S . Army'),
    ('I ate, e.g. Pie... and slept', 'I ate , e . g . Pie ... and slept'),
    ('it was . it was not ! end', 'it was .\nit was not !\nend'),
    ("don't pay 1,000.50 for 3d", "don't pay 1,000.50 for 3d"),
    ('a\nb\n \nc<br /><br>d', 'a b\nc\nd'),
    ('我 来 。你 呢 ？ 好', '我 来 。\n你 呢 ？\n好'),
    ('\u2028 \x0b\x85', ''),
    ('', ''),
  ],
)
def test_words_and_sentences(raw, want):
  assert classification.arrange(raw, 'sentences') == want
  flat = classification.arrange(raw, 'words')
  assert flat == want.replace('\n', ' ')


def test_text_as_given():
  assert classification.arrange(' a  b.\n\n\tc\u2028d ', 'given') == 'a b.\nc d'
  with pytest.raises(UserError, match=r"data.form='word' .* mean 'words'"):
    classification.arrange('', 'word')


@pytest.mark.parametrize(
  'unit', ['.', '. ', '!"', '<br', ' ', '\n ', "a'", '。']
)
def test_time_is_linear_in_the_text(unit):
  start = time.monotonic()
  for form in classification.FORMS:
    classification.arrange(unit * 100_000, form)
  assert time.monotonic() - start < 5


# Your own files.

ROWS = [('Good. Very!', 'pos'), ('bad, "so"', 'neg')] * 10
WANT = [
  {'text': 'Good . Very !', 'label': 1},
  {'text': 'bad , " so "', 'label': 0},
]


def write(path, rows, header=('text', 'label')):
  if path.suffix == '.jsonl':
    made = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
  else:
    rows = [header, *rows] if header else rows
    made = ['\t'.join(row) for row in rows]
    if path.suffix == '.csv':
      quote = lambda cell: '"' + cell.replace('"', '""') + '"'
      made = [','.join(map(quote, row)) for row in rows]
  path.write_text('\n'.join(made) + '\n', encoding='utf-8', newline='')


@pytest.mark.parametrize('kind', ['tsv', 'csv', 'jsonl'])
def test_files(tmp_path, kind):
  for name in ('train', 'dev'):
    write(tmp_path / f'{name}.{kind}', ROWS)
  splits, labels = classification.load(
    'files', dir=str(tmp_path), train=f'train.{kind}', validation=f'dev.{kind}'
  )
  assert labels == ('neg', 'pos')
  assert splits == {'train': WANT * 10, 'validation': WANT * 10}
  splits, _ = classification.load(
    'files', dir=str(tmp_path), train=f'train.{kind}', form='sentences'
  )
  assert {k: len(v) for k, v in splits.items()} == {
    'train': 18,
    'validation': 2,
  }
  assert sorted(e['label'] for e in splits['validation']) == [0, 1]
  assert splits['train'][0]['text'] == 'Good .\nVery !'


@pytest.mark.parametrize('kind', ['tsv', 'csv'])
def test_columns_by_number_and_packed(tmp_path, kind):
  path = tmp_path / f'a.{kind}'
  write(path, [('x', '10', 'one'), ('y', '9', 'two')] * 10, header=())
  path.with_name(f'a.{kind}.gz').write_bytes(gzip.compress(path.read_bytes()))
  path.unlink()
  splits, labels = classification.files(
    dir=str(tmp_path), train=f'a.{kind}', text_field='2', label_field='1'
  )
  assert labels == ('9', '10')  # as numbers
  assert splits['train'][0] == {'text': 'one', 'label': 1}


def test_whole_numbers_in_json(tmp_path):
  path = tmp_path / 'a.jsonl'
  write(path, [('x', -1), ('y', 3)] * 10)
  assert classification.files(train=str(path)).labels == ('-1', '3')


def test_csv_records_over_lines(tmp_path):
  path = tmp_path / 'a.csv'
  path.write_bytes(
    b'\xef\xbb\xbfid,text,label\r\n1,"a\nb ""c""",x\r\n2,5" disk,y\r\n'
    b'3,' + b'word ' * 50_000 + b',y\n'
  )
  rows = files.records(path, {'text': 'text', 'label': 'label'})
  assert rows[:2] == [
    {'text': 'a\nb "c"', 'label': 'x'},
    {'text': '5" disk', 'label': 'y'},
  ]
  assert len(rows[2]['text'].split()) == 50_000


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.txt', 'x\n', 'a.txt is none of .tsv, .csv, .jsonl'),
    ('a.tsv', '', 'a.tsv is empty'),
    ('a.csv', '', 'a.csv is empty'),
    ('a.tsv', 'text\tlabel\n', 'a.tsv has no usable line'),
    ('a.tsv', 'x\ty\n', "a.tsv:1: data.text_field='text' .*without a header"),
    ('a.tsv', 'text\tlabels\n', "data.label_field='label' .* mean 'labels'"),
    ('a.tsv', 'text\tlabel\nx\n', 'a.tsv:2: column 1 is missing'),
    ('a.tsv', 'text\tlabel\n\tx\n', 'a.tsv:2: the text is empty'),
    ('a.tsv', 'text\tlabel\nx\t\n', 'a.tsv:2: the label is empty'),
    ('a.tsv', b'text\tlabel\n\xff\tx\n', r'a.tsv:2: invalid UTF-8 \(byte 0xff'),
    ('a.csv', b'text,label\nx\xff,y\n', r'a.csv:2: invalid UTF-8'),
    ('a.csv', 'text,label\n"a\nb",x\n"y"z,x\n', r'a.csv:4: invalid CSV \('),
    (
      'a.csv',
      'text,label\nx,y\n"open,y\n\n',
      r'a.csv:3: a quote that is not closed',
    ),
    ('a.csv', 'text,label\n\n', r'a.csv:2: column 1 is missing'),
    ('a.jsonl', '{"text": "x", "label": 1.5}', "'label' is not a text or a wh"),
    ('a.jsonl', '{"text": 1, "label": 1}', "'text' is not a text "),
    ('a.jsonl', '{"text": "\\ud800", "label": 1}', 'a.jsonl:1: .*surrogates'),
    ('a.jsonl', '[' * 100_000, 'a.jsonl:1: invalid JSON'),
    ('a.tsv', 'text\tlabel\nx\ty\n', "the only label is 'y'"),
    ('a.tsv', 'text\tlabel\nx\ty\nx\tz\n', 'no class with ten examples'),
    (
      'a.tsv',
      'text\tlabel\n' + ''.join(f'x\t{i}\n' for i in range(40)),
      "label_field='label' has 40 different values in 40 lines",
    ),
  ],
)
def test_complaints_about_files(tmp_path, name, content, message):
  raw = content.encode() if isinstance(content, str) else content
  (tmp_path / name).write_bytes(raw)
  with pytest.raises(UserError, match=message) as error:
    classification.files(dir=str(tmp_path), train=name)
  assert '\n' not in str(error.value)


def test_bad_lines_are_skipped_and_counted(tmp_path, caplog):
  rows = [*ROWS, ('', 'pos'), ('x', '')]
  write(tmp_path / 'a.csv', rows)
  write(tmp_path / 'b.csv', [('fine', 'pos'), ('x', 'other')])
  options = {'dir': str(tmp_path), 'train': 'a.csv', 'validation': 'b.csv'}
  with caplog.at_level(logging.WARNING):
    splits, _ = classification.load('files', **options, on_bad='skip')
  assert splits['train'] == WANT * 10
  assert splits['validation'] == [{'text': 'fine', 'label': 1}]
  assert 'skipped 2 of 22 lines, the first: line 22: the text' in caplog.text
  assert "label='other' is unknown" in caplog.text
  write(tmp_path / 'a.csv', ROWS)
  with pytest.raises(UserError, match=r"b.csv:3: label='other' .*neg, pos"):
    classification.load('files', **options)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('sts', {}, "data.name='sts' is unknown: did you mean 'sst'"),
    ('sst', {'class': 2}, "data option='class' .* did you mean 'classes'"),
    ('sst', {}, "data.dir='' is no folder: it has to hold binary.train.tsv"),
    ('sst', {'dir': '/no/folder'}, "dir='/no/folder' is not a folder"),
    ('sst', {'classes': 3}, r'data.classes=3 is unknown: \(choices: 2, 5\)'),
    ('mr', {'fold': 10}, 'data.fold=10 is not in 0 to 9'),
    ('files', {}, "data.train='' names no file"),
    ('files', {'train': 'no\n.csv'}, r"^'no\\n.csv' does not exist"),
    ('files', {'train': 'a', 'dir': '~nobody_x'}, 'no such home directory'),
    ('files', {'train': 'x' * 5000 + '.csv'}, 'x cannot be read: .* too long'),
    ('tfds:no such name!', {}, "data.dataset='no such name!' is unknown"),
    ('files', {'train': 'a', 'form': 'x'}, "data.form='x' is unknown"),
    ('imdb', {'dir': '/', 'form': 'x'}, "data.form='x' is unknown"),
    ('synthetic_sentiment', {'train_size': 0}, 'data.train_size=0 must be'),
    ('synthetic_documents', {'train_size': 0}, 'data.train_size=0 must be'),
  ],
)
def test_complaints(name, options, message):
  with pytest.raises(UserError, match=message) as error:
    classification.load(name, **options)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'tree', ['', '(3 a) b)', '(3 (2 a)', '(7 a)', 'no tree', ') (2 a)']
)
def test_a_broken_tree_is_refused(tmp_path, tree):
  for part in ('dev', 'test'):
    (tmp_path / f'fine.{part}.tsv').write_text('0\tx\n')
  path = tmp_path / 'trees.train.txt'
  path.write_text(f'(3 (2 It) (4 works))\n{tree}\n')
  with pytest.raises(UserError, match=r'trees.train.txt:2: no tree') as error:
    classification.sst(dir=str(tmp_path), classes=5, phrases=True)
  assert '\n' not in str(error.value)
  path.write_text('(3 (2 It) (4 (4 Works) (2 it)))\n')
  splits, _ = classification.sst(dir=str(tmp_path), classes=5, phrases=True)
  assert [(e['text'], e['label']) for e in splits['train']] == [
    ('it works it', 3),
    ('it', 2),
    ('works it', 4),
    ('works', 4),
  ]


def test_generated_corpora_by_name():
  for name in ('synthetic_sentiment', 'synthetic_documents'):
    splits, labels = classification.load(name, train_size=20, seed=3)
    assert {k: len(v) for k, v in splits.items()} == {
      'train': 20,
      'validation': 500,
      'test': 1000,
    }
    assert {e['label'] for e in splits['train']} == set(range(len(labels)))


# The real files.


@pytest.fixture
def real():
  folder = os.environ.get('ATTNLAB_DATA')
  if not folder:
    pytest.skip('ATTNLAB_DATA names no folder with sst/ and so on')
  return pathlib.Path(folder)


def counts(corpus):
  return [
    [sum(e['label'] == i for e in split) for i in range(len(corpus.labels))]
    for split in corpus.splits.values()
  ]


def test_real_sst(real):
  load = lambda **options: classification.sst(dir=str(real / 'sst'), **options)
  evaluation = [[428, 444], [912, 909]]
  assert counts(load()) == [[3310, 3610], *evaluation]
  # As many as the phrases that Kim 2014 trained on.
  phrases = load(phrases=True)
  assert counts(phrases) == [[34702, 42259], *evaluation]
  fine = load(classes=5)
  assert [sum(row) for row in counts(fine)] == [8544, 1101, 2210]
  known = {
    e['text']: e['label'] for e in load(classes=5, phrases=True).splits['train']
  }
  same = [known.get(e['text']) == e['label'] for e in fine.splits['train']]
  assert sum(same) > 0.97 * len(same)


def test_real_mr_and_trec(real):
  folder = str(real / 'sentences')
  folds = [classification.mr(dir=folder, fold=i).splits for i in range(10)]
  assert sum(len(splits['test']) for splits in folds) == 10662
  assert {sum(map(len, splits.values())) for splits in folds} == {10662}
  corpus = classification.trec(dir=folder)
  assert [sum(row) for row in counts(corpus)] == [4909, 543, 500]
  assert counts(corpus)[2] == [9, 138, 94, 65, 81, 113]


@pytest.mark.slow
def test_real_imdb(real):
  corpus = classification.imdb(dir=str(real / 'imdb'), form='sentences')
  assert counts(corpus) == [[11250] * 2, [1250] * 2, [12500] * 2]
  lengths = [e['text'].count('\n') + 1 for e in corpus.splits['test']]
  assert 10 < sum(lengths) / len(lengths) < 14


@pytest.mark.slow
def test_real_newsgroups(real):
  corpus = classification.newsgroups20(dir=str(real / '20newsgroups'))
  assert [sum(row) for row in counts(corpus)] == [10191, 1123, 7532]
  assert corpus.labels[0] == 'alt.atheism' and len(corpus.labels) == 20
  empty = [e for e in corpus.splits['test'] if e['text'] == '<empty>']
  assert len(empty) == 16


@pytest.mark.parametrize(
  ('name', 'row'), [('a.tsv', 'pos\tfoo\tbar baz'), ('a.csv', 'pos,foo, bar')]
)
def test_a_text_is_never_cut_at_what_separates_columns(tmp_path, name, row):
  mark = row[3]
  rows = [f'label{mark}text', f'neg{mark}fine', row]
  (tmp_path / name).write_text('\n'.join(rows) + '\n')
  with pytest.raises(UserError, match=f'{name}:3: there are 3 columns'):
    classification.load('files', dir=str(tmp_path), train=name)


def test_an_open_quote_swallows_nothing_in_silence(tmp_path):
  rows = [f'{"pos" if i % 2 else "neg"},text {i}' for i in range(100)]
  rows[50] = 'pos,"no end'
  (tmp_path / 'a.csv').write_text('\n'.join(['label,text', *rows]) + '\n')
  with pytest.raises(UserError, match=r'a.csv:52: a quote that is not closed'):
    classification.load(
      'files', dir=str(tmp_path), train='a.csv', on_bad='skip'
    )


def test_labels_of_one_number_have_one_order(tmp_path):
  rows = [f'{label}\tx' for label in ('1', '01', '0', '001') * 10]
  (tmp_path / 'a.tsv').write_text('\n'.join(rows) + '\n')
  _, labels = classification.load(
    'files', dir=str(tmp_path), train='a.tsv', label_field='0', text_field='1'
  )
  assert labels == ('0', '001', '01', '1')
