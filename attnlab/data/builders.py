"""TFDS: the lab's own builders.

Everything is stored as array_record, so nothing here needs TensorFlow. Data
lies in $TFDS_DATA_DIR, or in ~/tensorflow_datasets.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import fcntl
import functools
import gzip
import hashlib
import io
import logging
import os
import pathlib
import time
from typing import ClassVar
import urllib.error
import urllib.request

import numpy as np
import tensorflow_datasets as tfds

from attnlab import errors
from attnlab.data import synthetic as synthetic_lib
from attnlab.data.sources import MULTI30K_SPLITS, Splits
from attnlab.errors import UserError


class Records(Sequence[dict]):
  """A TFDS data source as examples, decoded when they are asked for.

  Args:
    records: the data source.
    decode: record -> example.
    rows: which records, where not all.
  """

  def __init__(
    self,
    records,
    decode: Callable[[dict], dict],
    rows: Sequence[int] | None = None,
  ):
    self._records = records
    self._decode = decode
    self._rows = range(len(records)) if rows is None else rows

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index):  # pyrefly: ignore[bad-override]
    if isinstance(index, slice):
      return self._read(self._rows[index])
    return self._read([self._rows[index]])[0]

  def __iter__(self):
    for start in range(0, len(self), 1000):  # many times faster than one by one
      yield from self[start : start + 1000]

  def _read(self, rows: Sequence[int]) -> list[dict]:
    if not rows:
      return []
    return [self._decode(r) for r in self._records.__getitems__(list(rows))]


def pairs(source: str, target: str) -> Callable[[dict], dict]:
  """Returns what decodes a sentence pair and the links between its words."""

  def decode(record: dict) -> dict:
    return {
      'source': record[source].decode(),
      'target': record[target].decode(),
      **{
        kind: np.asarray(record[kind], np.int32).reshape(-1, 2)
        for kind in ('sure', 'possible')
        if kind in record
      },
    }

  return decode


# Where prepared data lies.


def data_dir() -> pathlib.Path:
  """Returns the folder of prepared data sets, made if need be.

  Raises:
    UserError: it cannot be written.
  """
  path = pathlib.Path(
    os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  ).expanduser()
  try:
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
      raise PermissionError('not writable')
  except OSError as error:
    raise UserError(
      f'TFDS_DATA_DIR={str(path)!r} cannot be used: {error.strerror or error}'
    ) from error
  return path


@contextlib.contextmanager
def _silence() -> Iterator[None]:
  """TFDS talks a lot about what takes it a second."""
  log = logging.getLogger('absl')
  level = log.level
  log.setLevel(logging.ERROR)
  try:
    with (
      contextlib.redirect_stdout(io.StringIO()),
      contextlib.redirect_stderr(io.StringIO()),
    ):
      yield
  finally:
    log.setLevel(level)


def prepared(make: Callable, *, quiet: bool = True, **settings):
  """Returns make(), a TFDS builder, with its data set prepared.

  Args:
    make: makes the builder, maybe more than once.
    quiet: keeps TFDS from talking.
    **settings: for `download_and_prepare`.
  """
  with _silence() if quiet else contextlib.nullcontext():
    builder = make()
    if builder.info.splits:
      return builder
    folder = pathlib.Path(builder.data_path).parent
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.lock', 'w', encoding='utf-8') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)  # until the file closes
      builder = make()  # another process may have prepared it by now
      if not builder.info.splits:
        builder.download_and_prepare(file_format='array_record', **settings)
    return builder


# The generated corpus.


def _version_of_grammar() -> str:
  """A hash of the files that make the corpus: no stale copy is ever read."""
  digest = hashlib.sha256()
  for name in ('lexicon.py', 'grammar.py', 'synthetic.py'):
    digest.update(pathlib.Path(__file__).with_name(name).read_bytes())
  return digest.hexdigest()[:8]


@dataclasses.dataclass(kw_only=True, eq=False)
class SyntheticConfig(tfds.core.BuilderConfig):
  """The arguments of `synthetic.generate`."""

  name: str = ''
  seed: int = 0
  train_size: int = synthetic_lib.SIZES['train']

  def __post_init__(self):
    self.name = f'seed{self.seed}-{self.train_size}-{_version_of_grammar()}'


class SyntheticEnZh(tfds.core.GeneratorBasedBuilder):
  """English to Chinese sentences of a grammar, with word alignments."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS: ClassVar = [SyntheticConfig()]

  def _info(self) -> tfds.core.DatasetInfo:
    links = tfds.features.Tensor(shape=(None,), dtype=np.int32)
    return tfds.core.DatasetInfo(
      builder=self,
      description=synthetic_lib.__doc__,
      features=tfds.features.FeaturesDict(
        {
          'en': tfds.features.Text(),
          'zh': tfds.features.Text(),
          # Pairs, one after the other: nested features need TensorFlow.
          'sure': links,
          'possible': links,
        }
      ),
      supervised_keys=('en', 'zh'),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    config = self.builder_config
    splits = synthetic_lib.generate(config.seed, {'train': config.train_size})
    return {k: self._generate_examples(v) for k, v in splits.items()}

  def _generate_examples(self, examples):
    for key, example in enumerate(examples):
      yield (
        key,
        {
          'en': example['source'],
          'zh': example['target'],
          'sure': example['sure'].ravel(),
          'possible': example['possible'].ravel(),
        },
      )


def synthetic(*, seed: int, train_size: int) -> Splits:
  """Returns the splits of the generated corpus, prepared if need be."""
  config = SyntheticConfig(seed=seed, train_size=train_size)
  known = config.name in SyntheticEnZh.builder_configs
  try:
    builder = prepared(
      functools.partial(
        SyntheticEnZh,
        data_dir=data_dir(),
        config=config.name if known else config,
        file_format='array_record',
      )
    )
  except (UserError, OSError) as error:
    logging.warning('%s; the corpus is generated anew in memory', error)
    return synthetic_lib.generate(seed, {'train': train_size})
  return _splits(builder, {s: s for s in synthetic_lib.SIZES}, 'en', 'zh')


# Multi30k.

MULTI30K_URL = (
  'https://raw.githubusercontent.com/multi30k/dataset/'
  'a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1'
)


def _multi30k_sums() -> dict[str, str]:
  """Returns 'tok/val.en' -> sha256 of that text, unpacked."""
  table = pathlib.Path(__file__).with_name('multi30k.sha256').read_text('utf-8')
  rows = (line.split() for line in table.splitlines())
  return {name: checksum for checksum, name in rows}


def fetch(url: str, sha256: str) -> bytes:
  """Downloads a file, plain or .gz, and checks its unpacked content.

  Args:
    url: where it is.
    sha256: of the content after unpacking (a packer's output may change).

  Returns:
    The content.

  Raises:
    UserError: it cannot be had, or is not what the checksum says.
  """
  hint = 'try again, or give --config.data.dir= a folder that has the files'
  data = None
  for pause in (0.5, 1.0, 0.0):
    try:
      with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310
        data = response.read()
      break
    except OSError as error:  # URLError and time-outs are OSErrors
      final = isinstance(error, urllib.error.HTTPError) and error.code < 500
      if final or not pause:
        raise UserError(
          f'{url} cannot be downloaded: {error}; {hint}'
        ) from error
      time.sleep(pause)
  assert data is not None
  try:
    data = gzip.decompress(data) if url.endswith('.gz') else data
  except (OSError, EOFError) as error:
    raise UserError(f'{url} is damaged: {error}; {hint}') from error
  found = hashlib.sha256(data).hexdigest()
  if found != sha256:
    raise UserError(
      f'{url} has the checksum {found}, not {sha256}: it was changed or'
      f' damaged; {hint}'
    )
  return data


class Multi30k(tfds.core.GeneratorBasedBuilder):
  """Multi30k task 1: image captions in English and German."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS: ClassVar = [
    tfds.core.BuilderConfig(name='tok', description='lower-cased, tokenised'),
    tfds.core.BuilderConfig(name='raw', description='as published'),
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.__doc__,
      features=tfds.features.FeaturesDict(
        {'en': tfds.features.Text(), 'de': tfds.features.Text()}
      ),
      homepage='https://github.com/multi30k/dataset',
      citation='Elliott et al. 2016, https://aclanthology.org/W16-3210',
      supervised_keys=('en', 'de'),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # has checksums of packed files only, and long errors
    part = self.builder_config.name
    pattern = {'tok': '{}.lc.norm.tok.{}', 'raw': '{}.{}.gz'}[part]
    sums = _multi30k_sums()
    texts = {}
    for split, name in MULTI30K_SPLITS.items():
      texts[split] = {
        language: fetch(
          f'{MULTI30K_URL}/{part}/{pattern.format(name, language)}',
          sums[f'{part}/{name}.{language}'],
        )
        for language in ('en', 'de')
      }
    return {k: self._generate_examples(v) for k, v in texts.items()}

  def _generate_examples(self, texts):
    # Split on LF only: the raw text has other line separators inside.
    en, de = (
      texts[k].decode('utf-8').removesuffix('\n').split('\n')
      for k in ('en', 'de')
    )
    for key, (english, german) in enumerate(zip(en, de, strict=True)):
      yield key, {'en': english.strip(), 'de': german.strip()}


def multi30k(part: str, source_language: str, target_language: str) -> Splits:
  """Returns the splits of Multi30k, downloaded if need be."""
  for field, language in (
    ('data.source_language', source_language),
    ('data.target_language', target_language),
  ):
    if language not in ('en', 'de'):
      raise errors.unknown(field, language, ('en', 'de'))
  builder = prepared(
    functools.partial(
      Multi30k, data_dir=data_dir(), config=part, file_format='array_record'
    )
  )
  splits = {split: split for split in MULTI30K_SPLITS}
  return _splits(builder, splits, source_language, target_language)


def _splits(builder, splits: Mapping[str, str], source: str, target: str):
  decode = pairs(source, target)
  return {
    split: Records(builder.as_data_source(name), decode)
    for split, name in splits.items()
  }
