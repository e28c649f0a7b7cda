"""Parallel text in files: formats, and every complaint."""

import gzip
import json
import logging
import lzma

import pytest

from attnlab import data
from attnlab.data import files
from attnlab.errors import UserError

PAIRS = [('Tom sleeps', '汤姆 睡觉'), ('a\u2028b \x0bc', 'd\x85e'), ('x', 'ß')]
WANT = [{'source': s, 'target': t} for s, t in PAIRS]
PACK = {'': bytes, '.gz': gzip.compress, '.xz': lzma.compress}


def write(path, text, suffix=''):
  raw = text.encode() if isinstance(text, str) else text
  path.with_name(path.name + suffix).write_bytes(PACK[suffix](raw))


@pytest.mark.parametrize('suffix', PACK)
@pytest.mark.parametrize('end', ['\n', '', '\r\n'])
def test_two_files(tmp_path, suffix, end):
  for side, language in enumerate(('en', 'zh')):
    lines = [pair[side] for pair in PAIRS]
    text = ('\r\n' if end == '\r\n' else '\n').join(lines) + end
    write(tmp_path / f'train.{language}', text, suffix)
  languages = {'source_language': 'en', 'target_language': 'zh'}
  for name in ('train', 'train.{language}', 'train.{language}' + suffix):
    assert files.read(tmp_path / name, **languages) == WANT


@pytest.mark.parametrize('suffix', PACK)
def test_tsv(tmp_path, suffix):
  rows = ''.join(f'id\t{t}\t{s}\tmore\n' for s, t in PAIRS)
  write(tmp_path / 'train.tsv', '\ufeff' + rows, suffix)
  for name in ('train.tsv', 'train.tsv' + suffix):
    path = tmp_path / name
    assert files.read(path, source_field='2', target_field='1') == WANT
  assert files.read(tmp_path / 'train.tsv')[0] == {
    'source': 'id',
    'target': '汤姆 睡觉',
  }


@pytest.mark.parametrize('suffix', PACK)
def test_jsonl(tmp_path, suffix):
  rows = ''.join(json.dumps({'en': s, 'out': t}) + '\n' for s, t in PAIRS)
  write(tmp_path / 'train.jsonl', rows, suffix)
  assert files.read(tmp_path / 'train.jsonl', target_field='out') == WANT


@pytest.mark.parametrize(
  ('name', 'content', 'options', 'message'),
  [
    ('a.tsv', 'x\ty\nz\n', {}, 'a.tsv:2: column 1 is missing: there are 1'),
    ('a.tsv', 'x\t \n', {}, 'a.tsv:1: the target is empty'),
    ('a.tsv', '\n', {}, 'a.tsv:1: column 1 is missing'),
    ('a.tsv', b'x\ty\n\xff\ty\n', {}, r'a.tsv:2: invalid UTF-8 \(byte 0xff'),
    ('a.tsv', 'x\ty\n', {'source_field': 'en'}, "source_field='en'"),
    ('a.tsv', '', {}, 'a.tsv is empty'),
    ('a.tsv.gz', b'junk', {}, 'a.tsv.gz cannot be read'),
    ('a.tsv.gz', gzip.compress(b'x\ty' * 99)[:-12], {}, 'cannot be read'),
    ('a.tsv.xz', b'junk', {}, 'a.tsv.xz cannot be read'),
    ('a.jsonl', '{"en": "x"}\n', {}, "a.jsonl:1: target_field='de' is unknown"),
    ('a.jsonl', '{"en": 1, "de": "x"}\n', {}, "a.jsonl:1: 'en' is not a text"),
    ('a.jsonl', '{"en": "x", "de": ""}\n', {}, ':1: the target is empty'),
    ('a.jsonl', '{"en\n', {}, 'a.jsonl:1: invalid JSON'),
    ('a.jsonl', '[]\n', {}, 'a.jsonl:1: not a JSON object'),
    ('a.jsonl', '{}', {'on_bad': 'skp'}, "did you mean 'skip'"),
    ('a.tsv', 'x\n', {'on_bad': 'skip'}, 'a.tsv has no usable line'),
  ],
)
def test_complaints(tmp_path, name, content, options, message):
  raw = content.encode() if isinstance(content, str) else content
  (tmp_path / name).write_bytes(raw)
  with pytest.raises(UserError, match=message) as error:
    files.read(tmp_path / name, **options)
  assert '\n' not in str(error.value)


def test_files_that_do_not_match(tmp_path):
  write(tmp_path / 'a.en', 'x\ny\n')
  write(tmp_path / 'a.de', 'x\n')
  with pytest.raises(UserError, match=r'a.en has 2 and .*a.de has 1 lines'):
    files.read(tmp_path / 'a')


def test_missing_files(tmp_path):
  write(tmp_path / 'train.en', 'x\n')
  with pytest.raises(UserError, match=r"did you mean 'train.en'"):
    files.read(tmp_path / 'trian')
  with pytest.raises(UserError, match=r'train.de does not exist'):
    files.read(tmp_path / 'train')
  with pytest.raises(UserError, match='there is no folder'):
    files.read(tmp_path / 'no' / 'train')


def test_bad_lines_are_skipped_and_counted(tmp_path, caplog):
  write(tmp_path / 'a.en', 'x\n\nz\n')
  write(tmp_path / 'a.de', b'u\nv\n\xff\n')
  with pytest.raises(UserError, match=r'a.{language}:2: the source is empty'):
    files.read(tmp_path / 'a')
  with caplog.at_level(logging.WARNING):
    assert files.read(tmp_path / 'a', on_bad='skip') == [
      {'source': 'x', 'target': 'u'}
    ]
  assert 'skipped 2 of 3 lines, the first: line 2' in caplog.text


def test_load_files(tmp_path):
  write(tmp_path / 'train.tsv', 'x\ty\n', '.gz')
  write(tmp_path / 'dev.en', 'x\n')
  write(tmp_path / 'dev.de', 'y\n')
  splits = data.load(
    'files', dir=str(tmp_path), train='train.tsv', validation='dev'
  )
  want = [{'source': 'x', 'target': 'y'}]
  assert splits == {'train': want, 'validation': want}
  with pytest.raises(UserError, match=r"data.train='' names no file"):
    data.load('files', dir=str(tmp_path))


@pytest.mark.parametrize('name', ['a.csv', 'a.json', 'a.TSV', 'a.csv.gz'])
def test_what_no_parallel_text_is_in(tmp_path, name):
  with pytest.raises(
    UserError, match=r'parallel text is \.tsv, \.jsonl, or two'
  ):
    files.read(tmp_path / name)
