"""Alignments: attention weights as links between words, against gold."""

from collections.abc import Iterable, Sequence
import re
from typing import NamedTuple

import numpy as np

Links = set[tuple[int, int]]  # (source word, target word)


class Counts(NamedTuple):
  """Sums over sentences, from which the rates are made.

  Attributes:
    links: |A|, what was proposed.
    sure: |S|.
    hits_sure: |A & S|.
    hits_possible: |A & P|, with S a part of P.
  """

  links: float = 0
  sure: float = 0
  hits_sure: float = 0
  hits_possible: float = 0

  def __add__(self, other: 'Counts') -> 'Counts':  # pyrefly: ignore
    return Counts(*(a + b for a, b in zip(self, other, strict=True)))

  @property
  def error_rate(self) -> float:
    """AER = 1 - (|A & S| + |A & P|) / (|A| + |S|) (Och & Ney 2003)."""
    total = self.links + self.sure
    return 1 - (self.hits_sure + self.hits_possible) / total if total else 0.0

  @property
  def precision(self) -> float:
    """|A & P| / |A|."""
    return self.hits_possible / self.links if self.links else 0.0

  @property
  def recall(self) -> float:
    """|A & S| / |S|."""
    return self.hits_sure / self.sure if self.sure else 0.0


Word = int | Sequence[int]  # the word of a piece, or the words it overlaps


def links(
  weights: np.ndarray,
  source_words: Sequence[Word],
  target_words: Sequence[Word],
) -> Links:
  """The strongest source piece of every target piece, as links of words.

  Args:
    weights: [T, S'], row t being the weights that predicted target piece t,
      with S' >= S: a piece beyond the source's words (its end) links to none.
    source_words: [S], the word that each source piece belongs to, or the words.
    target_words: [T], likewise.

  Returns:
    Links between words: any link between their pieces.
  """
  return merge(
    strongest(weights[: len(target_words)]), source_words, target_words
  )


def strongest(weights: np.ndarray) -> Links:
  """The source piece of the largest weight of each target piece.

  A row without any weight links to none; of equal ones the first is taken.
  """
  if not weights.size:
    return set()
  places = weights.argmax(axis=-1)
  return {(int(s), t) for t, s in enumerate(places) if weights[t, s] > 0}


def above(weights: np.ndarray, threshold: float) -> Links:
  """All pairs of pieces with a weight of `threshold` or more, and above 0."""
  found = np.argwhere((weights >= threshold) & (weights > 0))
  return {(int(s), int(t)) for t, s in found}


def mutual(weights: np.ndarray) -> Links:
  """Pairs that are each other's strongest, by row and by column."""
  if not weights.size:
    return set()
  rows = weights.argmax(axis=0)
  return {(s, t) for s, t in strongest(weights) if rows[s] == t}


def intersection(forward: Links, backward: Links) -> Links:
  """The links of two models, one of which translates the other way.

  Args:
    forward: of the model, as (source word, target word).
    backward: of the other, whose source is the first one's target.
  """
  return forward & flip(backward)


def flip(pairs: Links) -> Links:
  """Links seen from the other language."""
  return {(t, s) for s, t in pairs}


def shifted(weights: np.ndarray, shift: int) -> np.ndarray:
  """Rows moved so that row t tells of target piece t.

  With 0, row t is what was read while piece t was predicted; with 1, what was
  read when piece t had just been written, which often aligns better (Chen et
  al. 2020, SHIFT-ATT). The last rows are then blind.

  Args:
    weights: [T, S].
    shift: rows, 0 or more.
  """
  if shift < 0:
    raise ValueError(f'{shift=} must be 0 or more')
  empty = np.zeros((min(shift, len(weights)), *weights.shape[1:]))
  return np.concatenate([weights[shift:], empty.astype(weights.dtype)])


def merge(
  pairs: Links, source_words: Sequence[Word], target_words: Sequence[Word]
) -> Links:
  """Links of pieces as links of words: any link between their pieces.

  A piece beyond those of the words is the end of a sentence: a link to it is
  one to nothing (NULL), and is left out.

  Args:
    pairs: (source piece, target piece).
    source_words: the word of each source piece, or the words that it overlaps.
    target_words: likewise.
  """
  found = set()
  for s, t in pairs:
    if s < len(source_words) and t < len(target_words):
      for word in _words(source_words[s]):
        found |= {(word, other) for other in _words(target_words[t])}
  return found


def _words(word: Word) -> list[int]:
  if isinstance(word, Sequence):
    return [int(each) for each in word]
  return [int(word)]


def overlaps(
  spans: Sequence[tuple[int, int]], words: Sequence[str], blank: str = ' '
) -> list[list[int]]:
  """The words that each piece overlaps, by characters.

  Args:
    spans: [begin, end) of each piece in `blank.join(words)`.
    words: of the gold.
    blank: what stands between them: nothing, where a language has no blanks.

  Returns:
    A list for each piece; a piece of blanks belongs to the word after it.
  """
  begins = np.cumsum([0, *(len(word) + len(blank) for word in words)])[:-1]
  ends = begins + [len(word) for word in words]
  found = []
  for begin, end in spans:
    over = np.flatnonzero((begins < end) & (ends > begin))
    if not len(over):
      over = np.flatnonzero(begins >= begin)[:1]
    found.append([int(word) for word in over])
  return found


def read(lines: Iterable[str]) -> list[dict]:
  """Gold alignments from TSV: words, words, sure links, possible links.

  A link is 'i-j', from 0, source first; one to a negative word is one to
  nothing (NULL), and is left out.

  Returns:
    {'source': [words], 'target': [words], 'sure': [...], 'possible': [...]} a
    line, possible links being those that are not sure.

  Raises:
    ValueError: a line is none of these, or a link is outside its sentence; the
      message names the line.
  """
  found = []
  for number, line in enumerate(lines, 1):
    fields = line.rstrip('\n').split('\t')
    if len(fields) not in (3, 4):
      raise ValueError(f'line {number} has {len(fields)} fields, not 3 or 4')
    source, target = fields[0].split(), fields[1].split()
    pairs = []
    for field in (*fields[2:], '')[:2]:
      ends = [match for word in field.split() if (match := _link(word))]
      if len(ends) != len(field.split()):
        raise ValueError(
          f'line {number}: {field!r} holds a link that is not i-j'
        )
      pairs.append(ends)
    kept = []
    for group in pairs:
      group = [(s, t) for s, t in group if s >= 0 and t >= 0]
      for s, t in group:
        if s >= len(source) or t >= len(target):
          raise ValueError(f'line {number}: {s}-{t} is outside the sentence')
      kept.append(group)
    found.append(
      {'source': source, 'target': target, 'sure': kept[0], 'possible': kept[1]}
    )
  return found


def _link(word: str) -> tuple[int, int] | None:
  match = re.fullmatch(r'(-?\d+)-(-?\d+)', word)
  return (int(match[1]), int(match[2])) if match else None


def compare(
  proposed: Links,
  sure: Iterable[Sequence[int]],
  possible: Iterable[Sequence[int]] = (),
) -> Counts:
  """Counts one sentence's links against its gold.

  Args:
    proposed: A.
    sure: S, pairs (source word, target word).
    possible: further links that are not wrong.
  """
  gold = {(int(s), int(t)) for s, t in sure}
  allowed = gold | {(int(s), int(t)) for s, t in possible}
  return Counts(
    len(proposed),
    len(gold),
    len(proposed & gold),
    len(proposed & allowed),
  )


def diagonal(source_length: int, target_length: int) -> Links:
  """The baseline that links by relative position alone."""
  if not source_length:
    return set()
  ratio = source_length / target_length if target_length else 0.0
  return {(int((t + 0.5) * ratio), t) for t in range(target_length)}


def even(
  source_length: int,
  target_length: int,
  sure: Iterable[Sequence[int]],
  possible: Iterable[Sequence[int]] = (),
) -> Counts:
  """The counts to expect where each target word links to any one source word.

  The baseline of uniform weights, whose largest is no word in particular.
  """
  if not source_length:
    return compare(set(), sure, possible)
  gold = {(int(s), int(t)) for s, t in sure}
  allowed = gold | {(int(s), int(t)) for s, t in possible}
  return Counts(
    target_length,
    len(gold),
    len(gold) / source_length,
    len(allowed) / source_length,
  )
