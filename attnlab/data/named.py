"""Any data set of TFDS by name, prepared already or prepared now.

What is prepared is read without TensorFlow, be it array_record or TFRecords.
To prepare it, some data sets need TensorFlow, and say so.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import dataclasses
import difflib
import functools
import importlib
import itertools
import re
import sys
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.data_sources import base

from attnlab import errors
from attnlab.data import builders
from attnlab.data import files as files_lib
from attnlab.data.sources import Splits
from attnlab.errors import UserError

# The parts of TFDS that register data sets with texts.
_PARTS = (
  'structured',
  'summarization',
  'text',
  'text_simplification',
  'translate',
)
_ARRAY_RECORD = tfds.core.FileFormat.ARRAY_RECORD
_TFRECORD = tfds.core.FileFormat.TFRECORD


def _names() -> list[str]:
  """Returns the names that TFDS knows, once those of texts are registered."""
  for part in _PARTS:
    importlib.import_module(f'tensorflow_datasets.{part}')
  return tfds.core.registered.list_imported_builders()


def check_name(field: str, value: str, others: Iterable[str]) -> None:
  """Raises UserError if TFDS has no such data set.

  Args:
    field: what is checked.
    value: name, maybe with a config.
    others: names that would have been right too.
  """
  names = _names()
  if value.partition('/')[0].partition(':')[0] not in names:
    raise _nearest(field, value, [*others, *names], [*others])


def by_name(
  dataset: str,
  splits: Mapping[str, str],
  source_language: str,
  target_language: str,
  *,
  dir: str = '',
  manual_dir: str = '',
) -> Splits:
  """Returns the splits of a TFDS data set, prepared if need be.

  Args:
    dataset: name/config:version.
    splits: our name of a split -> TFDS's, with slices; '' leaves it out.
    source_language: the name of a text feature.
    target_language: likewise.
    dir: the folder of prepared data sets; '' is that of `builders.data_dir`.
    manual_dir: a folder with the files from which to prepare: those of which
      the data set says that you have to download them, or those that it would
      download, under their own names.

  Raises:
    UserError: no such data set, config, feature or split, or it cannot be
      prepared or read.
  """
  fields = {
    'data.source_language': (source_language, _is_text),
    'data.target_language': (target_language, _is_text),
  }
  _, sources = _open(dataset, splits, fields, dir, manual_dir)
  decode = builders.pairs(source_language, target_language)
  return {
    split: builders.Records(records, decode)
    for split, records in sources.items()
  }


def labelled(
  dataset: str,
  splits: Mapping[str, str],
  text: str,
  label: str,
  arrange: Callable[[str], str],
  *,
  dir: str = '',
  manual_dir: str = '',
) -> tuple[Splits, tuple[str, ...]]:
  """Returns the splits of a TFDS data set, and the names of its classes.

  Where 'validation' is '', it is every tenth example of train: TFDS shuffles
  most data sets when it prepares them.

  Args:
    dataset: as for `by_name`.
    splits: likewise.
    text: name of a text feature.
    label: name of a feature of the kind ClassLabel, or of whole numbers: then
      the classes are the numbers that train has, in their order.
    arrange: text -> text as it stands in an example.
    dir: as for `by_name`.
    manual_dir: likewise.

  Raises:
    UserError: as by_name; or labels are missing or not classes.
  """
  fields = {
    'data.text': (text, _is_text),
    'data.label': (label, _is_class),
  }
  features, sources = _open(dataset, splits, fields, dir, manual_dir)
  classes = _classes(features[label], label, splits, sources)
  numbers = {value: i for i, value in enumerate(classes)}

  def decode(record: dict) -> dict:
    value = int(record[label])
    if value not in numbers:
      raise UserError(
        f'data.label={label!r} is {value} in {dataset}, none of'
        f' {", ".join(map(str, [*numbers][:20]))}: TFDS hides the labels of'
        ' some splits'
      )
    return {'text': arrange(record[text].decode()), 'label': numbers[value]}

  made: dict[str, Sequence[dict]] = {
    split: builders.Records(records, decode)
    for split, records in sources.items()
  }
  if 'train' in sources and not splits.get('validation'):
    held = range(9, len(sources['train']), 10)
    kept = [i for i in range(len(sources['train'])) if i % 10 != 9]
    made['train'] = builders.Records(sources['train'], decode, kept)
    made['validation'] = builders.Records(sources['train'], decode, held)
  for split, examples in made.items():
    if not len(examples):
      raise UserError(f'data.{split}={splits[split]!r} has no examples')
    try:
      examples[0]  # does it have labels?
    except UserError as error:
      raise UserError(f'data.{split}={splits[split]!r}: {error}') from error
  return made, tuple(classes.values())


# Features.


def _is_scalar(feature: Any, kinds: str) -> bool:
  """Whether it is one value, of one of NumPy's kinds of dtypes."""
  if not isinstance(feature, tfds.features.Tensor) or feature.shape != ():
    return False
  dtype: Any = feature.np_dtype
  return np.dtype(dtype).kind in kinds


def _is_text(feature: Any) -> bool:
  """Whether it is a Text, or a scalar of bytes, which is as good."""
  return _is_scalar(feature, 'OSU')


def _is_class(feature: Any) -> bool:
  """Whether it is a ClassLabel, a whole number, or true or false."""
  return _is_scalar(feature, 'iub')


_WANTED = {_is_text: 'Text', _is_class: 'ClassLabel or a whole number'}


def _kind(feature: Any) -> str:
  """'Text', or 'float32' of a feature that has no name for its kind."""
  kind = type(feature).__name__
  return np.dtype(feature.np_dtype).name if kind == 'Tensor' else kind


def _classes(
  feature: Any,
  label: str,
  splits: Mapping[str, str],
  sources: Mapping[str, base.BaseDataSource],
) -> dict[int, str]:
  """Returns the names of the classes by the number that stands for them."""
  if getattr(feature, 'num_classes', None):
    return dict(enumerate(feature.names))
  if 'train' not in sources:
    raise UserError(
      f'data.train={splits.get("train", "")!r}: data.label={label!r} has'
      ' numbers without names, and those of train would be the classes'
    )
  records = builders.Records(sources['train'], lambda record: record[label])
  found = sorted({int(value) for value in records})
  if len(found) < 2 or len(found) > max(20, len(records) // 2):
    raise UserError(
      f'data.label={label!r} has {len(found)} different'
      f' value{"s" * (len(found) != 1)} in the {len(records)} examples of'
      f' data.train={splits["train"]!r}: is it the label?'
    )
  return {value: str(value) for value in found}


# Data.


@dataclasses.dataclass(eq=False, repr=False)
class TFRecords(base.BaseDataSource):
  """A split that lies as TFRecords, read without TensorFlow.

  Such a file can only be read from its beginning, so the split is held in
  memory as it is stored, and parsed when it is asked for. Checksums are not
  looked at.
  """

  def __post_init__(self):
    import grain

    data: list[bytes] = []
    for part in base.file_instructions(self.dataset_info, self.split):
      stored = iter(grain.experimental.TFRecordIterDataset(part.filename))
      end = part.skip + part.take
      found = list(itertools.islice(stored, part.skip, end))
      if len(found) < part.take:
        raise ValueError(
          f'{part.filename} has {part.skip + len(found)} records, not the'
          f' {part.examples_in_shard} of its dataset_info.json'
        )
      data += found
    self.data_source = data

  def __getitems__(self, keys: Sequence[int]) -> list[Any]:
    return [self[key] for key in keys]


def citation(dataset: str) -> str:
  """BibTeX of a data set as TFDS has it; '' where there is none.

  Nothing is downloaded.

  Args:
    dataset: name/config:version.
  """
  if dataset.partition('/')[0].partition(':')[0] not in _names():
    return ''
  try:
    with contextlib.redirect_stdout(sys.stderr):
      info = tfds.builder(dataset, data_dir=builders.data_dir()).info
    return info.citation or ''
  except Exception:  # a config or a version that is no more
    return ''


def _open(
  dataset: str,
  splits: Mapping[str, str],
  fields: Mapping[str, tuple[str, Callable[[Any], bool]]],
  dir: str,
  manual_dir: str,
) -> tuple[Mapping, dict[str, base.BaseDataSource]]:
  """Finds a data set and prepares it.

  Args:
    dataset: as for `by_name`.
    splits: likewise.
    fields: setting -> name of a feature, and whether it is of the right kind.
    dir: as for `by_name`.
    manual_dir: likewise.

  Returns:
    The features by name, and the TFDS data source of each split.
  """
  folder = files_lib.folder(dir) if dir else builders.data_dir()
  manual = files_lib.folder(manual_dir, 'manual_dir') if manual_dir else None
  make = functools.partial(tfds.builder, dataset, data_dir=folder)
  builder = _builder(dataset, make)
  features = _checked(dataset, builder.info.features, fields)
  settings = tfds.download.DownloadConfig(
    manual_dir=manual, try_download_gcs=False
  )
  try:
    # Standard output is for results.
    with contextlib.redirect_stdout(sys.stderr):
      builder = builders.prepared(make, quiet=False, download_config=settings)
    wanted = {k: v for k, v in splits.items() if v}
    known = builder.info.splits  # none where TFDS mocks the data
    for split, name in wanted.items():
      if known and name.partition('[')[0] not in known:
        raise errors.unknown(f'data.{split}', name, known)
    sources = {split: _source(builder, name) for split, name in wanted.items()}
    for source in sources.values():
      if len(source):
        source.__getitems__([0])  # can it be read?
    return features, sources
  except UserError:
    raise
  except Exception as error:  # of many kinds: network, TensorFlow, disk
    raise UserError(_told(dataset, builder, manual_dir, error)) from error


def _told(dataset: str, builder: Any, manual_dir: str, error: Exception) -> str:
  """What to do about an error of TFDS, in one line."""
  wants = getattr(builder, 'MANUAL_DOWNLOAD_INSTRUCTIONS', None)
  if wants and not manual_dir and 'Manual directory' in str(error):
    return (
      f"data.manual_dir='' is no folder: {dataset} is prepared from files that"
      f' you download: {_line(wants)}'
    )
  if _needs_tensorflow(error):
    return (
      f'data.dataset={dataset!r} needs TensorFlow to be prepared: install the'
      " extra, pip install -e '.[tensorflow]', or give --config.data.dir= a"
      ' folder where it is prepared'
    )
  return f'data.dataset={dataset!r} cannot be prepared or read: {_line(error)}'


def _builder(dataset: str, make: Callable[[], Any]) -> Any:
  names = _names()
  try:
    with contextlib.redirect_stdout(sys.stderr):
      return make()
  except tfds.core.registered.DatasetNotFoundError as error:
    raise _nearest('data.dataset', dataset, names) from error
  except Exception as error:  # TFDS has no kind of its own for these
    name, _, config = dataset.partition('/')
    name = name.partition(':')[0]
    wrong = isinstance(error, ValueError)  # in its name or config
    if wrong and name not in names:
      raise _nearest('data.dataset', dataset, names) from error
    configs = tfds.builder_cls(name).builder_configs if wrong else {}
    if not configs or config.partition(':')[0] in configs:
      raise UserError(f'data.dataset={dataset!r}: {_line(error)}') from error
    names = [f'{name}/{config}' for config in configs]
    raise _nearest('data.dataset', dataset, names) from error


def _checked(
  dataset: str,
  features: Any,
  fields: Mapping[str, tuple[str, Callable[[Any], bool]]],
) -> Mapping[str, Any]:
  """Returns the features, if those that `fields` names are among them."""
  if not isinstance(features, tfds.features.FeaturesDict):
    features = {}
  if not any(map(_is_text, features.values())):
    told = ', '.join(f'{k} ({_kind(v)})' for k, v in features.items())
    raise UserError(
      f'data.dataset={dataset!r} has no text, only {told or "one feature"}:'
      ' images, sounds and tables are not read'
    )
  for field, (name, fits) in fields.items():
    if name not in features:
      raise errors.unknown(field, name, features)
    if not fits(features[name]):
      raise UserError(
        f'{field}={name!r} of {dataset} is of the kind'
        f' {_kind(features[name])}, not {_WANTED[fits]}'
      )
  return features


def _source(builder: Any, split: str) -> base.BaseDataSource:
  formats = builder.info.available_file_formats()
  if not builder.info.splits or _ARRAY_RECORD in formats:
    return builder.as_data_source(split, file_format=_ARRAY_RECORD)
  if _TFRECORD in formats:
    return TFRecords(builder.info, split)
  raise ValueError(
    f'{builder.data_path} has the format'
    f' {" and ".join(sorted(f.value for f in formats))}, not array_record or'
    ' tfrecord'
  )


def _needs_tensorflow(error: BaseException | None) -> bool:
  """Whether an import of TensorFlow is at the bottom of an error."""
  while error is not None:
    if isinstance(error, ImportError) and 'tensorflow' in str(error):
      return True
    error = error.__cause__ or error.__context__
  return False


def _line(error: object) -> str:
  text = errors.one_line(error)
  # What TFDS was called with is no news.
  text = re.sub(r'^Failed to construct dataset .*?}": ', '', text)
  return text[:200] or type(error).__name__


def _nearest(
  field: str, value: str, names: list[str], shown: Sequence[str] = ()
) -> UserError:
  """As errors.unknown, with the names that are near: there are hundreds."""
  near = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
  return errors.unknown(field, value, {*shown, *near} or names[:10])
