"""Texts with a label: each source a function from options to a corpus.

An example is {'text': words separated by blanks, sentences by line feeds;
'label': int}, and where the words that decide are known 'gold', int32: of a
sentence their numbers [n], of a document pairs [m, 2] (sentence, word), beside
'gold_sentences' [n].

Raw text is brought into that shape by `arrange`; its `form` is a setting:
  given      as it is: words are what blanks separate, sentences are lines
  words      words and marks are separated; one line
  sentences  the same, a line for each sentence

Where a data set has no validation split, every tenth example of each class of
train becomes one.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
import pathlib
import re
from typing import NamedTuple

from attnlab import errors
from attnlab.data import files as files_lib
from attnlab.data import sources
from attnlab.data.sources import Splits
from attnlab.errors import UserError

FORMS = ('given', 'words', 'sentences')


class Corpus(NamedTuple):
  """Splits by name, and the names of the classes in order of their numbers."""

  splits: Splits
  labels: tuple[str, ...]


# Raw text to words and sentences.

_WORD = re.compile(
  r"""
    \d+(?:[.,]\d+)*\w*      # 1,000  3.5  1990s
  | \w+(?:['’]\w+)*         # don't
  | \.+ | -+ | =+ | \*+     # an ellipsis, a rule
  | [^\w\s]
  """,
  re.VERBOSE,
)
_BREAK = re.compile(r'<br\s{0,9}/?>', re.IGNORECASE)
_FULL_STOP = re.compile('[。！？][”’」』]*')
_OPENING, _CLOSING = '"\'“‘([', '"\'”’)]」』'
_MARKS = '.!?。！？'
_LAST = frozenset(_MARKS + _CLOSING)
_ABBREVIATIONS = frozenset('Mr Mrs Ms Dr Prof St Jr Sr No vs e.g i.e'.split())


def arrange(text: str, form: str) -> str:
  """Returns text with words separated by blanks and sentences by line feeds.

  A sentence ends with a word in . ! ? and closing quotes or brackets, unless
  the next word starts with a lower-case letter, or the word is an initial
  ('J.') or one of a few abbreviations; with such a mark between blanks; with
  。！？; at an empty line; at '<br />'. A single line feed is a blank. Text
  without blanks between words, such as Chinese, has to be split before. There
  are no empty words or sentences in the result, which may be ''.

  Args:
    text: anything.
    form: one of FORMS.
  """
  if form == 'given':
    return _join(line.split() for line in text.split('\n'))
  lines = _BREAK.sub('\n\n', text).split('\n')
  if form == 'words':
    return ' '.join(_WORD.findall(' '.join(lines)))
  if form != 'sentences':
    raise errors.unknown('data.form', form, FORMS)
  found, words = [], []
  for line in [*lines, '']:
    row = _FULL_STOP.sub(r'\g<0> ', line).split()
    if row:
      words += row
    elif words:
      found += sentences(words)
      words = []
  return _join(_WORD.findall(sentence) for sentence in found)


def sentences(words: list[str]) -> Iterator[str]:
  """Yields the sentences of a text, by the rule of `arrange`."""
  start = 0
  for i, word in enumerate(words[:-1], 1):
    if word[-1] in _LAST and _ends(word, words[i]):
      yield ' '.join(words[start:i])
      start = i
  yield ' '.join(words[start:])


def _ends(word: str, following: str) -> bool:
  """Whether a word, with the marks around it, ends a sentence."""
  core = word.strip(_OPENING + _CLOSING)
  stem = core.rstrip(_MARKS)
  if stem == core or not stem:  # no mark, or nothing else
    return stem != core
  if core[-1] in '。！？':
    return True
  initial = stem[-1].isupper() and stem[-2:-1] in ('', '.')
  if core[-1] == '.' and (initial or stem in _ABBREVIATIONS):
    return False
  return not following[0].islower()


def _join(sentences: Iterable[list[str]]) -> str:
  return '\n'.join(' '.join(words) for words in sentences if words)


# What the sources share.


def _hold_out(train: Sequence[dict], field: str = 'data.train') -> Splits:
  """Splits train: every tenth example of each class is for validation."""
  counts: dict[int, int] = collections.Counter()
  kept: dict[str, list[dict]] = {'train': [], 'validation': []}
  for example in train:
    counts[example['label']] += 1
    held = counts[example['label']] % 10 == 0
    kept['validation' if held else 'train'].append(example)
  if not kept['validation']:
    raise UserError(
      f'{field} has no class with ten examples to take one from for'
      ' validation: give data.validation'
    )
  return kept


def _folder(dir: str, *names: str) -> pathlib.Path:
  if not dir:
    raise UserError(f"data.dir='' is no folder: it has to hold {names[0]}")
  return files_lib.folder(dir)


def _reader(
  labels: Sequence[str] | None, form: str, empty: str = ''
) -> Callable[[dict[str, str]], dict]:
  """Returns what makes an example of the texts 'text' and 'label'.

  Args:
    labels: in order of their numbers; None leaves labels as they are.
    form: see the head of this module.
    empty: what stands for an empty text; '' refuses it.
  """
  if form not in FORMS:
    raise errors.unknown('data.form', form, FORMS)
  numbers = None if labels is None else {k: i for i, k in enumerate(labels)}

  def convert(record: dict[str, str]) -> dict:
    text, label = arrange(record['text'], form) or empty, record['label']
    if not text:
      raise ValueError('the text is empty')
    if not label:
      raise ValueError('the label is empty')
    if numbers is None:
      return {'text': text, 'label': label}
    if label not in numbers:
      raise errors.unknown('label', label, _some(labels))
    return {'text': text, 'label': numbers[label]}

  return convert


def _some(labels: Sequence[str]) -> list[str]:
  return [files_lib.shown(label[:40]) for label in labels[:50]]


# Generated.


def synthetic_sentiment(*, seed: int = 0, train_size: int = 10_000) -> Corpus:
  """Generated reviews of a sentence, with the words that decide.

  Args:
    seed: of the corpus.
    train_size: examples in train.
  """
  from attnlab.data import synthetic_sentiment as lib

  sources.check_size(seed, train_size)
  return Corpus(lib.generate(seed, {'train': train_size}), lib.LABELS)


def synthetic_documents(*, seed: int = 0, train_size: int = 4_000) -> Corpus:
  """Generated documents, with the sentences and words that carry the topic.

  Args:
    seed: of the corpus.
    train_size: examples in train.
  """
  from attnlab.data import synthetic_documents as lib

  sources.check_size(seed, train_size)
  return Corpus(lib.generate(seed, {'train': train_size}), lib.LABELS)


# Published.

_SENTIMENT = {
  2: ('negative', 'positive'),
  5: ('very negative', 'negative', 'neutral', 'positive', 'very positive'),
}
_PHRASE = re.compile(r'\((\d) |([^ ()]+)\)|\)')


def sst(*, dir: str = '', classes: int = 2, phrases: bool = False) -> Corpus:
  """Stanford Sentiment Treebank: sentences of film reviews, lower-cased.

  Socher et al. 2013, https://aclanthology.org/D13-1170.

  Args:
    dir: a folder with binary.train.tsv or fine.train.tsv (label and tokens),
      the same for dev and test, and for phrases trees.train.txt; packed or not.
    classes: 2, without neutral sentences, or 5.
    phrases: train on every distinct phrase of the trees of train, the sentences
      among them; without neutral ones for 2 classes.
  """
  if classes not in _SENTIMENT:
    raise errors.unknown('data.classes', classes, map(str, _SENTIMENT))
  name = 'binary' if classes == 2 else 'fine'
  folder = _folder(dir, f'{name}.train.tsv')
  convert = _reader([str(i) for i in range(classes)], 'given')
  splits: dict[str, Sequence[dict]] = {
    split: files_lib.records(
      folder / f'{name}.{part}.tsv',
      {'label': '0', 'text': '1'},
      convert=convert,
    )
    for split, part in (
      ('train', 'train'),
      ('validation', 'dev'),
      ('test', 'test'),
    )
    if not (phrases and split == 'train')
  }
  if phrases:
    found = _phrases(folder / 'trees.train.txt')
    if classes == 2:
      found = {text: i // 3 for text, i in found.items() if i != 2}
    train = [{'text': text, 'label': label} for text, label in found.items()]
    splits = {'train': train, **splits}
  return Corpus(splits, _SENTIMENT[classes])


def _phrases(path: pathlib.Path) -> dict[str, int]:
  """Returns the phrases of bracketed trees, each with its first label."""
  found: dict[str, int] = {}
  for number, line in enumerate(files_lib.text_lines(path), 1):
    words: list[str] = []
    spans: list[list[int]] = []  # label, first word, word after the last
    open_: list[list[int]] = []
    for match in _PHRASE.finditer(line):
      label, word = match.groups()
      if label is not None:
        open_.append([int(label), len(words), 0])
        spans.append(open_[-1])
        continue
      if word is not None:
        words.append(word.lower())
      if open_:
        open_.pop()[2] = len(words)
      else:
        spans = []
        break
    if open_ or not spans or max(span[0] for span in spans) > 4:
      raise UserError(f'{path}:{number}: no tree such as (3 (2 It) (4 works))')
    for label, start, end in spans:
      found.setdefault(' '.join(words[start:end]), label)
  return found


def mr(*, dir: str = '', fold: int = 0) -> Corpus:
  """Film review sentences, positive or negative, in ten folds.

  Pang and Lee 2005, https://aclanthology.org/P05-1015.

  Args:
    dir: a folder with mr.tsv: label, fold, tokens; packed or not.
    fold: 0 to 9, which is the test split; train and validation are the others.
  """
  if not 0 <= fold <= 9:
    raise UserError(f'data.fold={fold} is not in 0 to 9')
  convert = _reader(('0', '1'), 'given')
  rows = files_lib.records(
    _folder(dir, 'mr.tsv') / 'mr.tsv',
    {'label': '0', 'fold': '1', 'text': '2'},
    convert=lambda record: (record['fold'], convert(record)),
  )
  train = [example for number, example in rows if number != str(fold)]
  test = [example for number, example in rows if number == str(fold)]
  if not test:
    raise UserError(f'data.fold={fold} has no examples')
  return Corpus({**_hold_out(train), 'test': test}, _SENTIMENT[2])


_QUESTIONS = {
  'ABBR': 'abbreviation',
  'DESC': 'description',
  'ENTY': 'entity',
  'HUM': 'human',
  'LOC': 'location',
  'NUM': 'number',
}


def trec(*, dir: str = '') -> Corpus:
  """Questions by the type of their answer, six classes.

  Li and Roth 2002, https://aclanthology.org/C02-1150.

  Args:
    dir: a folder with trec.train.tsv and trec.test.tsv: class, subclass,
      tokens; packed or not.
  """
  folder = _folder(dir, 'trec.train.tsv')
  convert = _reader(tuple(_QUESTIONS), 'given')
  train, test = (
    files_lib.records(
      folder / f'trec.{part}.tsv', {'label': '0', 'text': '2'}, convert=convert
    )
    for part in ('train', 'test')
  )
  names = tuple(_QUESTIONS.values())
  return Corpus({**_hold_out(train), 'test': test}, names)


def imdb(*, dir: str = '', form: str = 'words') -> Corpus:
  """Film reviews, positive or negative, 231 words on average.

  Maas et al. 2011, https://aclanthology.org/P11-1015.

  Args:
    dir: a folder with train.jsonl and test.jsonl, whose objects have 'text' and
      'label' (0 or 1); packed or not.
    form: see the head of this module.
  """
  folder = _folder(dir, 'train.jsonl')
  train, test = (
    files_lib.records(
      folder / f'{part}.jsonl',
      {'text': 'text', 'label': 'label'},
      numbers=('label',),
      convert=_reader(('0', '1'), form),
    )
    for part in ('train', 'test')
  )
  return Corpus({**_hold_out(train), 'test': test}, _SENTIMENT[2])


def newsgroups20(*, dir: str = '', form: str = 'sentences') -> Corpus:
  """Posts of 20 newsgroups, split by date; the text without the header.

  A post without a text is the one word '<empty>', so that no split is smaller
  than published.

  Lang 1995; the version 'bydate' of Rennie.

  Args:
    dir: a folder with train.jsonl and test.jsonl, whose objects have 'text' and
      'group'; packed or not.
    form: see the head of this module.
  """
  folder = _folder(dir, 'train.jsonl')

  def read(part: str, labels: Sequence[str] | None) -> list[dict]:
    return files_lib.records(
      folder / f'{part}.jsonl',
      {'text': 'text', 'label': 'group'},
      convert=_reader(labels, form, '<empty>'),
    )

  train, labels = _numbered(read('train', None))
  test = read('test', labels)
  return Corpus({**_hold_out(train), 'test': test}, labels)


# Your own.


def _numbered(examples: list[dict]) -> tuple[list[dict], tuple[str, ...]]:
  """Sorts the labels, whole numbers as such, and puts numbers for them."""
  names = {example['label'] for example in examples}
  whole = all(re.fullmatch(r'-?[0-9]{1,9}', name) for name in names)
  # 1 and 01 are two labels, in the same order every time.
  labels = tuple(sorted(names, key=lambda n: (int(n) if whole else 0, n)))
  numbers = {label: i for i, label in enumerate(labels)}
  made = [{**e, 'label': numbers[e['label']]} for e in examples]
  return made, labels


def files(
  *,
  dir: str = '',
  train: str = '',
  validation: str = '',
  test: str = '',
  text_field: str = 'text',
  label_field: str = 'label',
  form: str = 'words',
  on_bad: str = 'error',
) -> Corpus:
  """Your own texts and labels: TSV, CSV or JSON lines; .gz and .xz too.

  The classes are the labels of train, sorted; every other label is bad.

  Args:
    dir: the folder that the names below start from.
    train: 'train.tsv', 'train.csv' or 'train.jsonl'; see `files.records`.
    validation: likewise; '' takes every tenth example of each class of train.
    test: likewise; may be left out.
    text_field: name of the column or key, or number of the column if the file
      has no header.
    label_field: likewise.
    form: see the head of this module.
    on_bad: 'error' or 'skip', for lines that cannot be used.
  """
  if not train:
    raise UserError(
      "data.train='' names no file: give e.g. --config.data.train=train.tsv"
    )
  folder = files_lib.expand(dir)

  def read(path: str, labels: Sequence[str] | None) -> list[dict]:
    return files_lib.records(
      folder / path,
      {'text': text_field, 'label': label_field},
      numbers=('label',),
      convert=_reader(labels, form),
      on_bad=on_bad,
    )

  examples, labels = _numbered(read(train, None))
  if len(labels) < 2:
    raise UserError(f'{folder / train}: the only label is {labels[0][:40]!r}')
  if len(labels) > max(20, len(examples) // 2):
    raise UserError(
      f'{folder / train}: data.label_field={label_field!r} has {len(labels)}'
      f' different values in {len(examples)} lines: is it the label?'
    )
  splits: dict[str, Sequence[dict]] = {'train': examples}
  if not validation:
    splits = dict(_hold_out(examples, str(folder / train)))
  for split, path in (('validation', validation), ('test', test)):
    if path:
      splits[split] = read(path, labels)
  return Corpus(splits, labels)


def tfds(
  *,
  dataset: str = 'imdb_reviews',
  text: str = 'text',
  label: str = 'label',
  train: str = 'train',
  validation: str = '',
  test: str = 'test',
  form: str = 'words',
  dir: str = '',
  manual_dir: str = '',
) -> Corpus:
  """Any TFDS data set that has a text and a class.

  Args:
    dataset: its name, with config and version as TFDS writes them.
    text: name of a text feature.
    label: name of a feature of classes; of whole numbers without names, those
      that train has are the classes.
    train: a split, slices allowed ('train[:90%]'); '' leaves it out.
    validation: likewise; '' takes every tenth example of train.
    test: likewise.
    form: see the head of this module.
    dir: the folder of prepared data sets, as array_record or TFRecords; '' is
      $TFDS_DATA_DIR or ~/tensorflow_datasets.
    manual_dir: a folder with the files from which to prepare; '' downloads.
  """
  from attnlab.data import named

  if form not in FORMS:
    raise errors.unknown('data.form', form, FORMS)
  return Corpus(
    *named.labelled(
      dataset,
      {'train': train, 'validation': validation, 'test': test},
      text,
      label,
      lambda raw: arrange(raw, form),
      dir=dir,
      manual_dir=manual_dir,
    )
  )


SOURCES: tuple[Callable[..., Corpus], ...] = (
  synthetic_sentiment,
  synthetic_documents,
  sst,
  mr,
  trec,
  imdb,
  newsgroups20,
  files,
  tfds,
)


def load(name: str, **options: object) -> Corpus:
  """Returns a corpus.

  Args:
    name: a function of this module, or a TFDS name, after 'tfds:' if you like.
    **options: the keyword-only arguments of that function.

  Raises:
    UserError: an unknown name or option, or data that cannot be had.
  """
  return sources.call(SOURCES, name, options)
