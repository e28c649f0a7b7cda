"""Alignments: attention weights as links between words, against gold."""

from collections.abc import Iterable, Sequence
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

  links: int = 0
  sure: int = 0
  hits_sure: int = 0
  hits_possible: int = 0

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


def links(
  weights: np.ndarray,
  source_words: Sequence[int],
  target_words: Sequence[int],
) -> Links:
  """The strongest source piece of every target piece, as links of words.

  Args:
    weights: [T, S'], row t being the weights that predicted target piece t,
      with S' >= S: a piece beyond the source's words (its end) links to none.
    source_words: [S], the word that each source piece belongs to.
    target_words: [T], likewise.

  Returns:
    Links between words: any link between their pieces.
  """
  rows = weights[: len(target_words)].argmax(axis=-1)
  return {
    (int(source_words[s]), int(t))
    for s, t in zip(rows, target_words, strict=True)
    if s < len(source_words)
  }


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
