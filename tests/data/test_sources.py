"""Sources by name, TFDS builders, and the download of Multi30k."""

import gzip
import hashlib
import http.server
import logging
import multiprocessing
import os
import pathlib
import threading

import numpy as np
import pytest

from attnlab import data
from attnlab.data import builders, synthetic
from attnlab.errors import UserError

SIZES = {'train': 30}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  return tmp_path / 'tfds'


def same(a, b):
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_array_equal(a[key], b[key])
  return True


def check_corpus(splits, seed=0):
  want = synthetic.generate(seed, SIZES)
  assert splits.keys() == want.keys()
  for split in want:
    assert len(splits[split]) == len(want[split])
    assert all(map(same, splits[split], want[split]))


def test_the_generated_corpus_is_read_back(cache, capfd):
  check_corpus(data.load('synthetic_en_zh', train_size=30))
  assert list(cache.rglob('*train.array_record*'))
  splits = data.load('synthetic_en_zh', train_size=30)  # prepared by now
  check_corpus(splits)
  train = splits['train']
  assert same(train[-1], train[29])
  assert [e['source'] for e in train[3:5]] == [
    train[i]['source'] for i in (3, 4)
  ]
  with pytest.raises(IndexError):
    train[30]
  check_corpus(data.load('synthetic_en_zh', train_size=30, seed=5), seed=5)
  assert capfd.readouterr() == ('', '')


def test_a_read_only_cache_does_not_stop_the_corpus(monkeypatch, caplog):
  monkeypatch.setenv('TFDS_DATA_DIR', '/dev/null/no')
  with caplog.at_level(logging.WARNING):
    check_corpus(data.load('synthetic_en_zh', train_size=30))
  assert "TFDS_DATA_DIR='/dev/null/no' cannot be used" in caplog.text


def _load(barrier, queue):
  barrier.wait()
  splits = data.load('synthetic_en_zh', train_size=30)
  queue.put([len(s) for s in splits.values()])


def test_two_processes_at_once():
  context = multiprocessing.get_context('spawn')
  barrier, queue = context.Barrier(2), context.Queue()
  processes = [
    context.Process(target=_load, args=(barrier, queue)) for _ in range(2)
  ]
  for process in processes:
    process.start()
  assert [queue.get(timeout=60) for _ in processes] == [
    [30, 500, 1000, 500]
  ] * 2
  for process in processes:
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('multi3k', {}, "data.name='multi3k' is unknown: did you mean 'multi30k'"),
    ('wmt14_translat', {}, "did you mean 'wmt14_translate'"),
    ('tfds:wmt14_translat/x', {}, "did you mean 'wmt14_translate'"),
    ('wmt14_translate/de-e', {}, "did you mean 'wmt14_translate/de-en'"),
    (
      'mnist',
      {},
      r"'mnist' has no text.*image \(Image\).*images.* are not read",
    ),
    ('multi30k', {'prt': 'raw'}, "data option='prt' .* did you mean 'part'"),
    ('multi30k', {'part': 'tokk'}, "data.part='tokk' .* did you mean 'tok'"),
    ('multi30k', {'target_language': 'fr'}, "data.target_language='fr'"),
    ('multi30k', {'dir': '/no/folder'}, "dir='/no/folder' is not a folder"),
    ('tatoeba_en_zh', {}, "data.dir='' is no folder"),
    ('tatoeba_en_zh', {'source_language': 'fr'}, "source_language='fr'"),
    ('synthetic_en_zh', {'train_size': 0}, 'data.train_size=0'),
  ],
)
def test_complaints(name, options, message):
  with pytest.raises(UserError, match=message) as error:
    data.load(name, **options)
  assert '\n' not in str(error.value)


# Multi30k over HTTP, on loopback.


@pytest.fixture
def upstream(tmp_path, monkeypatch):
  """A server laid out as the public repository, and the sums of its files."""
  root, sums = tmp_path / 'upstream', {}
  for part in ('tok', 'raw'):
    (root / part).mkdir(parents=True)
    for name in ('train', 'val', 'test_2016_flickr', 'test_2017_flickr'):
      for language in ('en', 'de'):
        text = f'{name} {language}\u2028 1 \n{name} {language} 2\n'.encode()
        sums[f'{part}/{name}.{language}'] = hashlib.sha256(text).hexdigest()
        if part == 'tok':
          path, packed = f'tok/{name}.lc.norm.tok.{language}', text
        else:
          path, packed = f'raw/{name}.{language}.gz', gzip.compress(text)
        (root / path).write_bytes(packed)

  class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args):
      super().__init__(*args, directory=str(root))

    def log_message(self, *args):
      pass

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  monkeypatch.setattr(
    builders, 'MULTI30K_URL', f'http://127.0.0.1:{server.server_port}'
  )
  monkeypatch.setattr(builders, '_multi30k_sums', lambda: sums)
  monkeypatch.setenv('no_proxy', '127.0.0.1')
  yield root, sums
  server.shutdown()
  server.server_close()
  thread.join()


@pytest.mark.parametrize('part', ['tok', 'raw'])
def test_multi30k_is_downloaded(upstream, part):
  root, _ = upstream
  for _ in range(2):  # the second time from the cache
    splits = data.load(
      'multi30k', part=part, source_language='de', target_language='en'
    )
    assert list(splits) == ['train', 'validation', 'test', 'test_2017_flickr']
    assert [dict(e) for e in splits['test']] == [
      {
        'source': 'test_2016_flickr de\u2028 1',
        'target': 'test_2016_flickr en\u2028 1',
      },
      {'source': 'test_2016_flickr de 2', 'target': 'test_2016_flickr en 2'},
    ]
    for path in root.rglob('*.*'):
      if path.is_file():
        path.unlink()


@pytest.mark.parametrize('name', ['tfds:multi30k/tok', 'multi30k/tok'])
def test_any_tfds_name(upstream, name):
  splits = data.load(
    name,
    source_language='de',
    target_language='en',
    train='train[:1]',
    validation='',
    test='test_2017_flickr',
  )
  assert {k: len(v) for k, v in splits.items()} == {'train': 1, 'test': 2}
  assert splits['train'][0]['source'] == 'train de\u2028 1'
  with pytest.raises(
    UserError, match=r"data.test='tst' .* did you mean 'test'"
  ):
    data.load(name, test='tst', validation='')


def test_a_wrong_checksum_is_refused(upstream, cache):
  root, _ = upstream
  (root / 'tok/val.lc.norm.tok.de').write_bytes(b'something else\n')
  with pytest.raises(UserError, match=r'tok.de has the checksum .*, not') as e:
    data.load('multi30k')
  assert '\n' not in str(e.value)
  assert not list(cache.rglob('*.array_record*'))


def test_a_missing_file_is_told(upstream):
  root, _ = upstream
  (root / 'raw/val.en.gz').unlink()
  with pytest.raises(
    UserError, match=r'raw/val.en.gz cannot be .*404.*data.dir'
  ):
    data.load('multi30k', part='raw')
  (root / 'raw/val.en.gz').write_bytes(b'junk')
  with pytest.raises(UserError, match=r'raw/val.en.gz is damaged'):
    data.load('multi30k', part='raw')


def test_checksums_are_recorded_for_every_file():
  sums = builders._multi30k_sums()
  assert set(sums) == {
    f'{part}/{name}.{language}'
    for part in ('tok', 'raw')
    for name in builders.MULTI30K_SPLITS.values()
    for language in ('en', 'de')
  }
  assert all(len(s) == 64 for s in sums.values())


# The real files.


@pytest.fixture
def real():
  folder = os.environ.get('ATTNLAB_DATA')
  if not folder:
    pytest.skip('ATTNLAB_DATA names no folder with multi30k/ and so on')
  return pathlib.Path(folder)


@pytest.mark.parametrize('part', ['tok', 'raw'])
@pytest.mark.parametrize('inner', [False, True])
def test_real_multi30k(real, part, inner):
  folder = real / 'multi30k' / (part if inner else '')
  splits = data.load('multi30k', dir=str(folder), part=part)
  sizes = {k: len(v) for k, v in splits.items()}
  assert sizes == {
    'train': 29000,
    'validation': 1014,
    'test': 1000,
    'test_2017_flickr': 1000,
  }
  words = sum(len(e['target'].split()) for e in splits['test'])
  assert words == 12103 or part == 'raw'


def test_real_multi30k_has_the_recorded_checksums(real):
  for name, checksum in builders._multi30k_sums().items():
    text = gzip.decompress((real / f'multi30k/{name}.gz').read_bytes())
    assert hashlib.sha256(text).hexdigest() == checksum


def test_real_tatoeba(real):
  folder = str(real / 'tatoeba-en-zh')
  splits = data.load('tatoeba_en_zh', dir=folder)
  assert {k: len(v) for k, v in splits.items()} == {
    'train': 26154,
    'validation': 1501,
    'test': 1500,
  }
  back = data.load(
    'tatoeba_en_zh', dir=folder, source_language='zh', target_language='en'
  )
  assert back['test'][0]['source'] == splits['test'][0]['target']
