"""Pretrained word vectors from text files of GloVe and word2vec."""

from collections.abc import Sequence
import math
import pathlib

import numpy as np

from attnlab.data import files
from attnlab.errors import UserError


def read(
  path: str | pathlib.Path, words: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the vectors of some words; the file is read line by line.

  A line is a word and its numbers, separated by blanks. word2vec has a first
  line with the number of words and of dimensions; GloVe has none. Where a word
  is there twice, the first counts. Case has to match.

  Args:
    path: plain, .gz or .xz.
    words: what is wanted.

  Returns:
    float32 [n, D], zeros where the word is not there; and bool [n], whether it
    is.

  Raises:
    UserError: the file cannot be read, a line does not fit, or no word is
      there.
  """
  wanted: dict[bytes, list[int]] = {}
  for i, word in enumerate(words):
    wanted.setdefault(word.encode(), []).append(i)
  found = np.zeros(len(words), bool)
  matrix, size = np.zeros((0, 0), np.float32), 0
  for number, row in enumerate(files.stream(files.expand(path)), 1):
    if number == 1:
      head = row.split()
      header = len(head) == 2 and all(cell.isdigit() for cell in head)
      size = int(head[1]) if header else len(head) - 1
      if size < 1:
        raise UserError(f'{path}:1: not a word and its numbers')
      if header:
        continue
    # From the right: a few words of GloVe have blanks inside.
    word, *cells = row.rsplit(None, size) or [b'']
    if len(cells) != size:
      raise UserError(
        f'{path}:{number}: {len(cells)} numbers after the word, not {size}'
      )
    if word in wanted:
      if not matrix.size:  # not before a line has shown that the size is true
        matrix = np.zeros((len(words), size), np.float32)
      rows = wanted.pop(word)
      matrix[rows] = _numbers(path, number, cells)
      found[rows] = True
    if not wanted:
      break
  if not found.any():
    raise UserError(f'{path} has none of the {len(words)} words')
  return matrix, found


def _numbers(
  path: str | pathlib.Path, number: int, cells: Sequence[bytes]
) -> list[float]:
  try:
    values = [float(cell) for cell in cells]
  except ValueError as error:
    raise UserError(f'{path}:{number}: {error}') from error
  if not all(math.isfinite(value) and abs(value) < 1e30 for value in values):
    raise UserError(f'{path}:{number}: a number is not finite')
  return values
