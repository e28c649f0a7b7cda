"""TFDS: the lab's own builders, and any data set of TFDS by name.

Everything is stored as array_record, so nothing here needs TensorFlow. Data
lies in $TFDS_DATA_DIR, or in ~/tensorflow_datasets.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import difflib
import fcntl
import functools
import gzip
import hashlib
import io
import logging
import os
import pathlib
import time
import types
from typing import ClassVar
import urllib.error
import urllib.request

import numpy as np
import tensorflow_datasets as tfds
import tensorflow_datasets.translate  # registers wmt14_translate and others

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


def _pairs(source: str, target: str) -> Callable[[dict], dict]:
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


def _prepared(make: Callable, *, quiet: bool = True):
  """Returns make(), a TFDS builder, with its data set prepared."""
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
        builder.download_and_prepare(file_format='array_record')
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
    builder = _prepared(
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
  builder = _prepared(
    functools.partial(
      Multi30k, data_dir=data_dir(), config=part, file_format='array_record'
    )
  )
  splits = {split: split for split in MULTI30K_SPLITS}
  return _splits(builder, splits, source_language, target_language)


# Any data set of TFDS.


def _names() -> list[str]:
  """Returns the names that TFDS knows, once those of texts are registered."""
  import tensorflow_datasets.text as _  # noqa: F401

  return tfds.core.registered.list_imported_builders()


def check_name(field: str, value: str, others: Iterable[str]) -> None:
  """Raises UserError if TFDS has no such data set.

  Args:
    field: what is checked.
    value: name, maybe with a config.
    others: names that would have been right too.
  """
  names = _names()
  if value.partition('/')[0] not in names:
    raise _nearest(field, value, [*others, *names], [*others])


def by_name(
  dataset: str,
  splits: Mapping[str, str],
  source_language: str,
  target_language: str,
) -> Splits:
  """Returns the splits of a TFDS data set, prepared if need be.

  Args:
    dataset: name/config:version.
    splits: our name of a split -> TFDS's, with slices; '' leaves it out.
    source_language: the name of a text feature.
    target_language: likewise.

  Raises:
    UserError: no such data set, config, feature or split, or it needs
      TensorFlow to be prepared or read.
  """
  fields = {
    'data.source_language': source_language,
    'data.target_language': target_language,
  }
  _, sources = _open(dataset, splits, fields)
  decode = _pairs(source_language, target_language)
  return {split: Records(records, decode) for split, records in sources.items()}


def labelled(
  dataset: str,
  splits: Mapping[str, str],
  text: str,
  label: str,
  arrange: Callable[[str], str],
) -> tuple[Splits, tuple[str, ...]]:
  """Returns the splits of a TFDS data set, and the names of its classes.

  Where 'validation' is '', it is every tenth example of train: TFDS shuffles
  most data sets when it prepares them.

  Args:
    dataset: as for `by_name`.
    splits: likewise.
    text: name of a text feature.
    label: name of a feature of the kind ClassLabel.
    arrange: text -> text as it stands in an example.

  Raises:
    UserError: as by_name; or labels are missing or not classes.
  """
  fields = {'data.text': text, 'data.label': label}
  kinds = {
    'data.text': tfds.features.Text,
    'data.label': tfds.features.ClassLabel,
  }
  features, sources = _open(dataset, splits, fields, kinds)
  names = tuple(features[label].names)

  def decode(record: dict) -> dict:
    number = int(record[label])
    if not 0 <= number < len(names):
      raise UserError(
        f'data.label={label!r} is {number} in {dataset}, outside 0 to'
        f' {len(names) - 1}: TFDS hides the labels of this split'
      )
    return {'text': arrange(record[text].decode()), 'label': number}

  made: dict[str, Sequence[dict]] = {
    split: Records(records, decode) for split, records in sources.items()
  }
  if 'train' in sources and not splits.get('validation'):
    held = range(9, len(sources['train']), 10)
    kept = [i for i in range(len(sources['train'])) if i % 10 != 9]
    made['train'] = Records(sources['train'], decode, kept)
    made['validation'] = Records(sources['train'], decode, held)
  for split, examples in made.items():
    if not len(examples):
      raise UserError(f'data.{split}={splits[split]!r} has no examples')
    try:
      examples[0]  # does it have labels?
    except UserError as error:
      raise UserError(f'data.{split}={splits[split]!r}: {error}') from error
  return made, names


def _open(
  dataset: str,
  splits: Mapping[str, str],
  fields: Mapping[str, str],
  kinds: Mapping[str, type] = types.MappingProxyType({}),
) -> tuple[Mapping, dict]:
  """Finds a data set and prepares it.

  Args:
    dataset: as for `by_name`.
    splits: likewise.
    fields: setting -> name of the feature that has to be there.
    kinds: setting -> of which kind that feature has to be.

  Returns:
    The features by name, and the TFDS data source of each split.
  """
  names = _names()
  make = functools.partial(
    tfds.builder, dataset, data_dir=data_dir(), file_format='array_record'
  )
  try:
    builder = make()
  except tfds.core.registered.DatasetNotFoundError as error:
    raise _nearest('data.dataset', dataset, names) from error
  except ValueError as error:
    name, _, config = dataset.partition('/')
    name = name.partition(':')[0]
    if name not in names:
      raise _nearest('data.dataset', dataset, names) from error
    configs = getattr(tfds.builder_cls(name), 'builder_configs', {})
    if not configs or config.partition(':')[0] in configs:
      raise UserError(f'data.dataset={dataset!r}: {_line(error)}') from error
    names = [f'{name}/{config}' for config in configs]
    raise _nearest('data.dataset', dataset, names) from error
  features = builder.info.features
  for field, feature in fields.items():
    if feature not in features:
      raise errors.unknown(field, feature, features)
    kind = kinds.get(field, object)
    if not isinstance(features[feature], kind):
      raise UserError(
        f'{field}={feature!r} of {dataset} is of the kind'
        f' {type(features[feature]).__name__}, not {kind.__name__}'
      )
  try:
    builder = _prepared(make, quiet=False)
    wanted = {k: v for k, v in splits.items() if v}
    known = builder.info.splits  # none where TFDS mocks the data
    for split, name in wanted.items():
      if known and name.partition('[')[0] not in known:
        raise errors.unknown(f'data.{split}', name, known)
    return features, {
      split: builder.as_data_source(name) for split, name in wanted.items()
    }
  except UserError:
    raise
  except Exception as error:  # of many kinds: network, TensorFlow, disk
    raise UserError(
      f'data.dataset={dataset!r} cannot be prepared: {_line(error)}'
    ) from error


def _splits(builder, splits: Mapping[str, str], source: str, target: str):
  decode = _pairs(source, target)
  return {
    split: Records(builder.as_data_source(name), decode)
    for split, name in splits.items()
  }


def _line(error: Exception) -> str:
  return ' '.join(str(error).split())[:200] or type(error).__name__


def _nearest(
  field: str, value: str, names: list[str], shown: Sequence[str] = ()
) -> UserError:
  """As errors.unknown, with the names that are near: there are hundreds."""
  near = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
  return errors.unknown(field, value, {*shown, *near} or names[:10])
