"""Vocabularies: text to ids and back.

All of them keep pad=0, bos=1, eos=2, unk=3. Words are what blanks separate.
"""

import collections
from collections.abc import Iterable, Sequence
import hashlib
import io
import json
import pathlib
import re
from typing import Protocol

from attnlab import errors
from attnlab.errors import UserError

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ('<pad>', '<s>', '</s>', '<unk>')
_BLANK = '▁'  # stands for a blank in pieces of words, as in sentencepiece
# A run of blanks between words is one character, at its first place.
_CHARACTERS = re.compile(r'\S|(?<=\S)\s+(?=\S)')


class Vocabulary(Protocol):
  """What a task may ask of a vocabulary."""

  def __len__(self) -> int:
    """Number of ids."""

  def encode(self, text: str) -> list[int]:
    """Ids of the text, without bos and eos."""

  def decode(self, ids: Iterable[int]) -> str:
    """Text of the ids up to the first eos, without pad and bos."""

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """The piece of each id, the special ones included."""

  def word_of(self, ids: Iterable[int]) -> list[int]:
    """For each id, the index of the word it belongs to."""

  def spans(self, text: str) -> list[tuple[int, int]]:
    """Where each piece of `encode` stands in the text: [begin, end)."""

  def fingerprint(self) -> str:
    """A hash of the pieces: equal for vocabularies that mean the same."""

  def save(self, path: str | pathlib.Path) -> None:
    """Writes one file, which `load` reads."""


def _content(ids: Iterable[int]) -> list[int]:
  kept = []
  for i in map(int, ids):
    if i == EOS:
      break
    if i not in (PAD, BOS):
      kept.append(i)
  return kept


def _count_words(pieces: Iterable[str]) -> list[int]:
  """Numbers words where a piece that starts with a blank opens a new one."""
  numbers, word = [], -1
  for piece in pieces:
    word += piece.startswith(_BLANK) or word < 0
    numbers.append(word)
  return numbers


def _hash(kind: str, pieces: Sequence[str]) -> str:
  text = json.dumps([kind, list(pieces)], ensure_ascii=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Table:
  """A list of pieces. `kind` is 'words' or 'characters'."""

  def __init__(self, kind: str, pieces: Sequence[str], lowercase: bool = False):
    self.kind = kind
    self.lowercase = lowercase
    self._pieces = [*SPECIAL, *pieces]
    # '<s>' in a user's text is a word like any other, never id 1.
    self._ids = {piece: i + len(SPECIAL) for i, piece in enumerate(pieces)}

  def __len__(self) -> int:
    return len(self._pieces)

  def encode(self, text: str) -> list[int]:
    split = _split(text, self.kind, self.lowercase)
    return [self._ids.get(piece, UNK) for piece in split]

  def decode(self, ids: Iterable[int]) -> str:
    pieces = self.pieces(_content(ids))
    if self.kind == 'words':
      return ' '.join(pieces)
    return ''.join(pieces).replace(_BLANK, ' ').strip()

  def pieces(self, ids: Iterable[int]) -> list[str]:
    return [self._pieces[i] for i in ids]

  def word_of(self, ids: Iterable[int]) -> list[int]:
    pieces = self.pieces(ids)
    if self.kind == 'words':
      return list(range(len(pieces)))
    return _count_words(pieces)

  def spans(self, text: str) -> list[tuple[int, int]]:
    if self.kind == 'words':
      return [match.span() for match in re.finditer(r'\S+', text)]
    found = _CHARACTERS.finditer(text)
    return [(match.start(), match.start() + 1) for match in found]

  def fingerprint(self) -> str:
    return _hash(f'{self.kind} {self.lowercase}', self._pieces)

  def save(self, path: str | pathlib.Path) -> None:
    pieces = self._pieces[len(SPECIAL) :]
    record = {
      'kind': self.kind,
      'lowercase': self.lowercase,
      'pieces': pieces,
    }
    text = json.dumps(record, ensure_ascii=False, indent=0)
    pathlib.Path(path).write_text(text + '\n', encoding='utf-8')


class _Subwords:
  """A sentencepiece model."""

  def __init__(self, model: bytes):
    import sentencepiece

    self._model = model
    if not model:
      raise ValueError('empty model')
    self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    special = [self._processor.piece_to_id(piece) for piece in SPECIAL]
    if special != [PAD, BOS, EOS, UNK]:
      raise ValueError(f'its special ids are {special}')
    self._pieces = [
      self._processor.id_to_piece(i) for i in range(len(self._processor))
    ]

  def __len__(self) -> int:
    return len(self._pieces)

  def encode(self, text: str) -> list[int]:
    return self._processor.encode(' '.join(text.split()))

  def decode(self, ids: Iterable[int]) -> str:
    return self._processor.decode(_content(ids))

  def pieces(self, ids: Iterable[int]) -> list[str]:
    return [self._pieces[i] for i in ids]

  def word_of(self, ids: Iterable[int]) -> list[int]:
    return _count_words(self.pieces(ids))

  def spans(self, text: str) -> list[tuple[int, int]]:
    # encode leaves one blank between words; these are its characters' places.
    places = [match.start() for match in _CHARACTERS.finditer(text)]
    places.append(len(text))
    found = self._processor.encode(
      ' '.join(text.split()), return_type='offset_mapping'
    )
    return [
      (places[begin], places[end - 1] + 1 if begin < end else places[begin])
      for begin, end in found['offsets']
    ]

  def fingerprint(self) -> str:
    # Two trainings may differ in bytes of the model that mean nothing.
    return _hash('subwords', self._pieces)

  def save(self, path: str | pathlib.Path) -> None:
    pathlib.Path(path).write_bytes(self._model)


def _split(text: str, kind: str, lowercase: bool) -> list[str]:
  words = text.lower().split() if lowercase else text.split()
  return words if kind == 'words' else list(_BLANK.join(words))


def _frequent(
  lines: Iterable[str], kind: str, min_freq: int, max_size: int, lower: bool
) -> list[str]:
  counts = collections.Counter(
    piece for line in lines for piece in _split(line, kind, lower)
  )
  # Ties are broken by the piece itself: the order of lines does not matter.
  ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
  pieces = [piece for piece, count in ranked if count >= min_freq]
  return pieces[: max(0, max_size - len(SPECIAL))] if max_size else pieces


def words(
  lines: Iterable[str],
  *,
  min_freq: int = 1,
  max_size: int = 0,
  lowercase: bool = False,
) -> Vocabulary:
  """A vocabulary of words, the frequent ones first.

  Args:
    lines: the text.
    min_freq: words that are rarer become unk.
    max_size: of the vocabulary with its four special ids; 0 is no limit.
    lowercase: whether text is lower-cased before it is looked up.
  """
  pieces = _frequent(lines, 'words', min_freq, max_size, lowercase)
  return _Table('words', pieces, lowercase)


def characters(
  lines: Iterable[str], *, min_freq: int = 1, max_size: int = 0
) -> Vocabulary:
  """A vocabulary of characters; a blank is one of them."""
  pieces = _frequent(lines, 'characters', min_freq, max_size, False)
  return _Table('characters', pieces)


def subwords(
  lines: Iterable[str],
  *,
  size: int = 8000,
  model: str = 'unigram',
  seed: int = 0,
) -> Vocabulary:
  """A vocabulary of subwords by sentencepiece; text is not normalised.

  For one vocabulary of two languages, pass the lines of both.

  Args:
    lines: the text.
    size: of the vocabulary with its four special ids; 'unigram' may end up
      smaller on a small text.
    model: 'unigram' or 'bpe'.
    seed: chooses the million lines to train on, where there are more.

  Raises:
    UserError: `size` does not suit the text.
  """
  import sentencepiece

  if model not in ('unigram', 'bpe'):
    raise UserError(
      f"vocabulary.model={model!r} is unknown: choose 'unigram' or 'bpe'"
    )
  writer = io.BytesIO()
  sentencepiece.set_random_generator_seed(seed)
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=(' '.join(line.split()) for line in lines),
      model_writer=writer,
      model_type=model,
      vocab_size=size,
      hard_vocab_limit=model == 'bpe',
      character_coverage=0.9999,
      normalization_rule_name='identity',  # ？ and ? stay two characters
      input_sentence_size=1_000_000,
      num_threads=1,  # more are faster and not deterministic
      pad_id=PAD,
      bos_id=BOS,
      eos_id=EOS,
      unk_id=UNK,
      pad_piece=SPECIAL[PAD],
      unk_surface=SPECIAL[UNK],
      minloglevel=2,
    )
  except (RuntimeError, ValueError) as error:
    reason = errors.one_line(error)
    raise UserError(
      f'vocabulary.size={size} does not suit the text: {reason}'
    ) from error
  return _Subwords(writer.getvalue())


def load(path: str | pathlib.Path) -> Vocabulary:
  """Reads what `save` wrote: JSON or a sentencepiece model.

  Raises:
    UserError: there is no such file, or it is no vocabulary.
  """
  try:
    data = pathlib.Path(path).read_bytes()
    if not data.startswith(b'{'):
      return _Subwords(data)
    record = json.loads(data)
    if record['kind'] not in ('words', 'characters'):
      raise ValueError(record['kind'])
    return _Table(record['kind'], record['pieces'], record['lowercase'])
  except FileNotFoundError as error:
    raise UserError(f'vocabulary {path} does not exist') from error
  except (RuntimeError, ValueError, KeyError, TypeError) as error:
    raise UserError(f'{path} is not a vocabulary') from error
