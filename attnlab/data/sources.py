"""The data sets of the lab: each a function from options to splits.

A split is a sequence of dicts with 'source' and 'target', one sentence each,
and with the gold alignment 'sure' and 'possible' where there is one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from attnlab import errors
from attnlab.data import files as files_lib
from attnlab.errors import UserError

T = TypeVar('T')
Splits = Mapping[str, Sequence[dict]]


def synthetic_en_zh(*, seed: int = 0, train_size: int = 20_000) -> Splits:
  """Generated English to Chinese, with gold alignments.

  Args:
    seed: of the corpus.
    train_size: examples in train.

  Returns:
    train, validation, test, and long: sentences longer than any in train.
  """
  check_size(seed, train_size)
  from attnlab.data import builders

  return builders.synthetic(seed=seed, train_size=train_size)


def check_size(seed: int, train_size: int) -> None:
  """Raises UserError where a corpus cannot be generated so."""
  errors.check_number('data.seed', seed, 0, 2**31 - 1)
  errors.check_number('data.train_size', train_size, 1, 10_000_000)


def files(
  *,
  dir: str = '',
  train: str = '',
  validation: str = '',
  test: str = '',
  source_language: str = 'en',
  target_language: str = 'de',
  source_field: str = '',
  target_field: str = '',
  on_bad: str = 'error',
) -> Splits:
  """Your own parallel text: two files, TSV or JSON lines; .gz and .xz too.

  Args:
    dir: the folder that the names below start from.
    train: 'train.{language}', 'train.tsv' or 'train.jsonl'; see `files.read`.
    validation: likewise; may be left out, as may test.
    test: likewise.
    source_language: replaces '{language}'; the default key in JSON lines.
    target_language: likewise.
    source_field: number of the column, or key.
    target_field: likewise.
    on_bad: 'error' or 'skip', for lines that cannot be used.
  """
  paths = {'train': train, 'validation': validation, 'test': test}
  if not any(paths.values()):
    raise UserError(
      "data.train='' names no file: give e.g. --config.data.train=train.tsv"
    )
  return {
    split: files_lib.read(
      files_lib.expand(dir) / path,
      source_language=source_language,
      target_language=target_language,
      source_field=source_field,
      target_field=target_field,
      on_bad=on_bad,
    )
    for split, path in paths.items()
    if path
  }


MULTI30K_SPLITS = {
  'train': 'train',
  'validation': 'val',
  'test': 'test_2016_flickr',
  'test_2017_flickr': 'test_2017_flickr',
}


def multi30k(
  *,
  dir: str = '',
  part: str = 'tok',
  source_language: str = 'en',
  target_language: str = 'de',
) -> Splits:
  """Multi30k task 1, image captions; 'test' is test_2016_flickr.

  Elliott et al. 2016, https://aclanthology.org/W16-3210. For research only.

  Args:
    dir: a folder with tok/train.en.gz and so on, or with train.en.gz itself;
      '' downloads the files once.
    part: 'tok' (lower-cased and tokenised) or 'raw'.
    source_language: 'en' or 'de'; other languages where `dir` has them.
    target_language: likewise.
  """
  if part not in ('tok', 'raw'):
    raise errors.unknown('data.part', part, ('tok', 'raw'))
  if not dir:
    from attnlab.data import builders

    return builders.multi30k(part, source_language, target_language)
  folder = files_lib.folder(dir)
  folder = folder / part if (folder / part).is_dir() else folder
  return {
    split: files_lib.read(
      folder / name,
      source_language=source_language,
      target_language=target_language,
    )
    for split, name in MULTI30K_SPLITS.items()
    if split != 'test_2017_flickr' or any(folder.glob(f'{name}.*'))
  }


def tatoeba_en_zh(
  *,
  dir: str = '',
  source_language: str = 'en',
  target_language: str = 'zh',
) -> Splits:
  """Tatoeba sentence pairs; the Chinese is not split into words.

  Args:
    dir: a folder with train.tsv.gz, dev.tsv.gz, test.tsv.gz: English in column
      0, Chinese in column 1.
    source_language: 'en' or 'zh'.
    target_language: the other one.
  """
  columns = {'en': '0', 'zh': '1'}
  for field, language in (
    ('data.source_language', source_language),
    ('data.target_language', target_language),
  ):
    if language not in columns:
      raise errors.unknown(field, language, columns)
  if not dir:
    raise UserError(
      "data.dir='' is no folder: tatoeba_en_zh needs one that holds"
      ' train.tsv.gz, dev.tsv.gz and test.tsv.gz'
    )
  return files(
    dir=dir,
    train='train.tsv',
    validation='dev.tsv',
    test='test.tsv',
    source_field=columns[source_language],
    target_field=columns[target_language],
  )


def tfds(
  *,
  dataset: str = 'wmt14_translate/de-en',
  source_language: str = 'de',
  target_language: str = 'en',
  train: str = 'train',
  validation: str = 'validation',
  test: str = 'test',
  dir: str = '',
  manual_dir: str = '',
) -> Splits:
  """Any TFDS data set whose features are named by two languages.

  Args:
    dataset: its name, with config and version as TFDS writes them.
    source_language: name of a text feature.
    target_language: likewise.
    train: a split, slices allowed ('train[:90%]'); '' leaves it out.
    validation: likewise.
    test: likewise.
    dir: the folder of prepared data sets, as array_record or TFRecords; '' is
      $TFDS_DATA_DIR or ~/tensorflow_datasets.
    manual_dir: a folder with the files from which to prepare; '' downloads.
  """
  from attnlab.data import named

  return named.by_name(
    dataset,
    {'train': train, 'validation': validation, 'test': test},
    source_language,
    target_language,
    dir=dir,
    manual_dir=manual_dir,
  )


SOURCES: tuple[Callable[..., Splits], ...] = (
  synthetic_en_zh,
  files,
  multi30k,
  tatoeba_en_zh,
  tfds,
)


def load(name: str, **options: object) -> Splits:
  """Returns the splits of a data set.

  Args:
    name: a function of this module, or a TFDS name, after 'tfds:' if you like.
    **options: the keyword-only arguments of that function.

  Raises:
    UserError: an unknown name or option, or data that cannot be had.
  """
  return call(SOURCES, name, options)


def call(
  sources: Iterable[Callable[..., T]], name: str, options: Mapping[str, object]
) -> T:
  """Returns what the named source gives; other names are those of TFDS.

  Args:
    sources: functions, `tfds` among them.
    name: as for `load`.
    options: likewise.
  """
  functions = {function.__name__: function for function in sources}
  if name not in functions:
    dataset = name.removeprefix('tfds:')
    if dataset == name:
      from attnlab.data import named

      named.check_name('data.name', dataset, functions)
    name, options = 'tfds', {'dataset': dataset, **options}
  function = functions[name]
  known = getattr(function, '__kwdefaults__', {})
  for option in options:
    if option not in known:
      raise errors.unknown('data option', option, known)
  return function(**options)
