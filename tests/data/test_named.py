"""TFDS by name: prepared or not, array_record or TFRecords, without TensorFlow.

The builders here are small ones of the tests, prepared by TFDS itself, and the
TFRecords hold the very bytes that TFDS serialised.
"""

import hashlib
import importlib.util
import pathlib
import sys
from typing import ClassVar

import numpy as np
import pytest
from tensorboardX import record_writer
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.testing import mocking

from attnlab import data
from attnlab.data import builders, classification
from attnlab.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  return tmp_path / 'tfds'


class TinyTopics(tfds.core.GeneratorBasedBuilder):
  """Texts of three classes; the labels of 'hidden' are missing."""

  VERSION = tfds.core.Version('1.0.0')
  SIZES: ClassVar = {'train': 40, 'test': 3, 'hidden': 2}

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'body': tfds.features.Text(),
          'de': np.str_,
          'topic': tfds.features.ClassLabel(names=['a', 'b', 'c']),
          'stars': tfds.features.Scalar(np.int32),
          'number': np.int64,
          'funny': np.bool_,
          'score': np.float32,
        }
      ),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {k: self._generate_examples(k, n) for k, n in self.SIZES.items()}

  def _generate_examples(self, split, size):
    for i in range(size):
      yield (
        i,
        {
          'body': f'Text {i}. Über!',
          'de': f'Satz {i}',
          'topic': -1 if split == 'hidden' else i % 3,
          'stars': 99 if split == 'hidden' else 10 * (i % 4) - 10,
          'number': i,
          'funny': i % 2 == 0,
          'score': i / 2,
        },
      )


def refused(message, name, load=classification.load, **options):
  with pytest.raises(UserError, match=message) as error:
    load(name, **options)
  assert '\n' not in str(error.value)


# Names, features, splits.


def test_texts_and_classes():
  options = {'text': 'body', 'label': 'topic'}
  splits, labels = classification.load('tiny_topics', **options)
  assert labels == ('a', 'b', 'c')
  assert {k: len(v) for k, v in splits.items()} == {
    'train': 36,
    'validation': 4,
    'test': 3,
  }
  held = [e['text'] for e in splits['validation']]
  assert held == [f'Text {i} . Über !' for i in (9, 19, 29, 39)]
  assert splits['train'][-1] == {'text': 'Text 38 . Über !', 'label': 2}
  assert len(list(splits['train'])) == 36
  assert [e['text'] for e in splits['train'][8:10]] == [
    'Text 8 . Über !',
    'Text 10 . Über !',
  ]
  splits, _ = classification.load(
    'tfds:tiny_topics',
    **options,
    train='train[:30]',
    validation='train[30:]',
    test='',
    form='sentences',
  )
  assert {k: len(v) for k, v in splits.items()} == {
    'train': 30,
    'validation': 10,
  }
  assert splits['validation'][0]['text'] == 'Text 30 .\nÜber !'
  for changed, message in (
    ({'test': 'hidden'}, r"data.test='hidden': data.label='topic' is -1"),
    ({'test': 'tst'}, r"data.test='tst' .* did you mean 'test'"),
    ({'text': 'bdy'}, r"data.text='bdy' .* did you mean 'body'"),
    ({'text': 'topic'}, r"data.text='topic' .* of the kind ClassLabel"),
    ({'label': 'body'}, r"data.label='body' .* of the kind Text"),
    ({'label': 'score'}, r"data.label='score' .* of the kind float32, not Cl"),
    ({'dir': '/no'}, r"data.dir='/no' is not a folder"),
    ({'manual_dir': '/no'}, r"data.manual_dir='/no' is not a folder"),
    ({'form': 'x'}, r"data.form='x' is unknown"),
  ):
    with pytest.raises(UserError, match=message) as error:
      classification.load('tiny_topics', **{**options, **changed})
    assert '\n' not in str(error.value)


def test_sentence_pairs():
  options = {'source_language': 'body', 'target_language': 'de'}
  splits = data.load('tiny_topics', **options, validation='train[:10%]')
  assert {k: len(v) for k, v in splits.items()} == {
    'train': 40,
    'validation': 4,
    'test': 3,
  }
  assert splits['test'][1] == {'source': 'Text 1. Über!', 'target': 'Satz 1'}
  refused(
    "data.target_language='topic' .* of the kind ClassLabel, not Text",
    'tiny_topics',
    data.load,
    source_language='body',
    target_language='topic',
  )


@pytest.mark.parametrize(
  ('label', 'names', 'first'),
  [
    ('stars', ('-10', '0', '10', '20'), [0, 1, 2, 3, 0]),
    ('funny', ('0', '1'), [1, 0, 1, 0, 1]),
  ],
)
def test_numbers_without_names_are_classes(label, names, first):
  options = {'text': 'body', 'label': label}
  splits, labels = classification.load('tiny_topics', **options)
  assert labels == names
  assert [e['label'] for e in splits['train'][:5]] == first
  assert [e['label'] for e in splits['test']] == first[:3]


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (
      {'test': 'hidden'},
      r"'hidden': data.label='stars' is 99 in .* -10, 0",
    ),
    ({'label': 'number'}, r"data.label='number' has 40 different values in"),
    ({'train': 'train[:1]'}, r"data.label='stars' has 1 different value in"),
    ({'train': ''}, r"data.train='': data.label='stars' has numbers without"),
  ],
)
def test_numbers_that_are_no_classes(options, message):
  options = {'text': 'body', 'label': 'stars', **options}
  refused(message, 'tiny_topics', **options)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('imdb_reviews:9.9.9', r"'imdb_reviews:9.9.9': .* version 9.9.9, only: 1"),
    ('imdb_reviews/plain', "did you mean 'imdb_reviews/plain_text'"),
    ('imdb_reviews/a=1', "'imdb_reviews/a=1': .*unexpected keyword"),
    ('../imdb_revews', "did you mean 'imdb_reviews'"),
    ('', "data.dataset='' is unknown"),
    ('squad', "data.text='text' is unknown: did you mean 'context'"),
  ],
)
def test_names_that_are_wrong(name, message, capfd):
  refused(message, 'tfds', dataset=name)
  assert capfd.readouterr().out == ''


# Prepared elsewhere.


@pytest.fixture
def prepared(tmp_path):
  """Makes a folder of data in two shards, of either format."""

  def make(kind, name='tiny_topics'):
    folder = tmp_path / kind
    builder = tfds.builder('tiny_topics', data_dir=folder)
    builder.download_and_prepare(
      file_format='array_record',
      download_config=tfds.download.DownloadConfig(num_shards=2),
    )
    path = pathlib.Path(builder.data_path)
    if kind == 'tfrecord':
      raw = tfds.decode.DeserializeMethod.RAW_BYTES
      for split, info in builder.info.splits.items():
        rows = iter(builder.as_data_source(split, deserialize_method=raw))
        for file, size in zip(info.filepaths, info.shard_lengths, strict=True):
          new = file.with_name(file.name.replace('array_record', kind))
          writer = record_writer.RecordWriter(str(new))
          for _ in range(size):
            writer.write(next(rows))
          writer.close()
          file.unlink()
    for file in list(path.iterdir()):
      if file.suffix == '.json':
        text = file.read_text().replace('tiny_topics', name)
        file.write_text(text.replace('array_record', kind))
      file.rename(file.with_name(file.name.replace('tiny_topics', name)))
    path.parent.rename(folder / name)
    return folder

  return make


@pytest.mark.parametrize('kind', ['array_record', 'tfrecord'])
@pytest.mark.parametrize('name', ['tiny_topics', 'without_code'])
def test_prepared_data_is_read(prepared, cache, kind, name):
  folder = prepared(kind, name)
  files = sorted(folder.rglob('*'))
  options = {
    'dir': str(folder),
    'source_language': 'body',
    'target_language': 'de',
  }
  splits = data.load('tfds', dataset=name, **options, validation='hidden')
  for split, size in (('train', 40), ('validation', 2), ('test', 3)):
    assert [e['source'] for e in splits[split]] == [
      f'Text {i}. Über!' for i in range(size)
    ]
  splits = data.load(
    'tfds',
    dataset=f'{name}:1.0.0',
    **options,
    train='train[20%:]',
    validation='train[5:9]',
    test='',
  )
  assert [e['target'] for e in splits['train']] == [
    f'Satz {i}' for i in range(8, 40)
  ]
  assert [e['target'] for e in splits['validation']] == [
    f'Satz {i}' for i in range(5, 9)
  ]
  splits, labels = classification.load(
    'tfds', dataset=name, dir=str(folder), text='body', label='topic'
  )
  assert labels == ('a', 'b', 'c')
  assert splits['train'][-1] == {'text': 'Text 38 . Über !', 'label': 2}
  assert sorted(folder.rglob('*')) == files  # as it was
  assert not cache.exists()
  assert 'tensorflow' not in sys.modules


def test_damaged_tfrecords_are_refused(prepared):
  folder = prepared('tfrecord')
  options = {'text': 'body', 'label': 'topic', 'dir': str(folder)}
  (path,) = folder.rglob('*train.tfrecord-00001*')
  whole = path.read_bytes()
  path.write_bytes(whole[:-3])
  refused('cannot be prepared or read: .*TFRecord', 'tiny_topics', **options)
  path.write_bytes(whole[: 16 + int.from_bytes(whole[:8], 'little')])
  refused(r'train.tfrecord-00001\S* has 1 records', 'tiny_topics', **options)
  path.unlink()
  refused(r'train.tfrecord-00001', 'tiny_topics', **options)


def test_other_formats_are_refused(prepared):
  folder = prepared('parquet')  # by its name
  message = 'has the format parquet, not array_record or tfrecord'
  options = {'text': 'body', 'label': 'topic', 'dir': str(folder)}
  refused(message, 'tiny_topics', **options)


# Prepared now.


class TinyManual(TinyTopics):
  """Of a file that the user has downloaded."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = """
  Sign the licence,
  and put topics.txt into the folder.
  """

  def _split_generators(self, dl_manager):
    size = int((dl_manager.manual_dir / 'topics.txt').read_text())
    return {'train': self._generate_examples('train', size)}


URL = 'http://127.0.0.1:1/topics.txt'


class TinyDownload(TinyManual):
  """Of a file that TFDS would download."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = None
  url_infos: ClassVar = {
    URL: checksums.UrlInfo(
      size=2, checksum=hashlib.sha256(b'30').hexdigest(), filename='topics.txt'
    )
  }

  def _split_generators(self, dl_manager):
    size = int(dl_manager.download(URL).read_text())
    return {'train': self._generate_examples('train', size)}


@pytest.mark.parametrize('name', ['tiny_manual', 'tiny_download'])
def test_preparing_from_files_that_are_there(tmp_path, name, capfd):
  folder = tmp_path / 'manual'
  folder.mkdir()
  (folder / 'topics.txt').write_text('30')
  options = {'text': 'body', 'label': 'topic', 'test': ''}
  for manual in (str(folder), ''):  # the second time it is prepared
    splits, _ = classification.load(name, manual_dir=manual, **options)
    assert len(splits['train']) == 27
  assert capfd.readouterr().out == ''


def test_what_preparation_lacks_is_told(tmp_path):
  options = {'text': 'body', 'label': 'topic'}
  refused(
    "data.manual_dir='' is no folder: tiny_manual .* Sign the licence, and put",
    'tiny_manual',
    **options,
  )
  options['manual_dir'] = str(tmp_path)
  refused("'tiny_manual' cannot be prepared", 'tiny_manual', **options)
  (tmp_path / 'topics.txt').write_text('31')
  refused("'tiny_download' cannot be prepared", 'tiny_download', **options)


class TinyTensors(TinyTopics):
  """Of a builder that uses TensorFlow, as many of TFDS do."""

  def _generate_examples(self, split, size):
    from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow

    yield 0, {'body': tensorflow.io.gfile.GFile(f'{split}{size}').read()}


@pytest.mark.skipif(
  importlib.util.find_spec('tensorflow') is not None,
  reason='TensorFlow is installed',
)
def test_the_extra_that_preparation_needs_is_told(capfd):
  options = {'text': 'body', 'label': 'topic'}
  refused(
    r"'tiny_tensors' needs TensorFlow to be prepared: .*'.\[tensorflow\]'",
    'tiny_tensors',
    **options,
  )
  assert capfd.readouterr().out == ''


# Public names, with data that TFDS makes up.


@pytest.fixture
def mocked(monkeypatch):
  def getitems(keys, generator, serialized=False):
    del serialized  # TFDS's own takes its first argument for a self
    return [
      {k: v.encode() if isinstance(v, str) else v for k, v in row.items()}
      for row in (generator[key] for key in keys)
    ]

  monkeypatch.setattr(mocking, '_getitems', getitems)
  with tfds.testing.mock_data(num_examples=30):
    yield


@pytest.mark.parametrize(
  ('name', 'options', 'labels'),
  [
    ('imdb_reviews', {}, ('neg', 'pos')),
    ('yelp_polarity_reviews', {}, ('1', '2')),
    (
      'ag_news_subset',
      {'text': 'description'},
      ('World', 'Sports', 'Business', 'Sci/Tech'),
    ),
    (
      'glue/sst2',
      {'text': 'sentence', 'validation': 'validation', 'test': 'validation'},
      ('negative', 'positive'),
    ),
  ],
)
@pytest.mark.usefixtures('mocked')
def test_public_names(name, options, labels):
  splits, names = classification.load('tfds', dataset=name, **options)
  assert names == labels
  assert set(splits) == {'train', 'validation', 'test'}
  for examples in splits.values():
    for example in examples:
      assert example['text'] and 0 <= example['label'] < len(names)
  assert builders.Records is type(splits['train'])


@pytest.mark.usefixtures('mocked')
def test_a_public_translation():
  splits = data.load('tfds', dataset='wmt14_translate/de-en')
  assert {k: len(v) for k, v in splits.items()} == {
    'train': 30,
    'validation': 30,
    'test': 30,
  }
  assert all(e['source'] and e['target'] for e in splits['train'])


@pytest.mark.parametrize('load', [data.load, classification.load])
def test_images_are_not_read(load):
  refused(
    r"'mnist' has no text, only image \(Image\), label \(ClassLabel\): images",
    'mnist',
    load,
  )
