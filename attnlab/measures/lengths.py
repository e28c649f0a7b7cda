"""Figures by the length of the source, in bins that hold enough examples."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

WIDTH = 5  # words of a bin, at least
FEWEST = 20  # examples of a bin


def bins(lengths: Iterable[int]) -> list[tuple[int, int]]:
  """Returns bins (first, last) of five words, each with enough examples.

  Neighbours are joined until a bin has 20 examples, because BLEU of a handful
  of sentences is noise. Texts of more than 50 words have wider bins, ten at
  most.
  """
  lengths = list(lengths)
  width = WIDTH * max(1, -(-max(lengths, default=0) // (10 * WIDTH)))
  found: list[tuple[int, int]] = []
  first = 1
  while first <= max(lengths, default=0):
    last, count = first - 1, 0
    while count < FEWEST and last < max(lengths):
      last += width
      count = sum(first <= n <= last for n in lengths)
    if found and count < FEWEST:
      found[-1] = (found[-1][0], last)
    else:
      found.append((first, last))
    first = last + 1
  return found


def by_length(
  lengths: Sequence[int],
  metric: Callable[[np.ndarray], float],
  prefix: str,
) -> dict[str, float]:
  """A metric in each bin: {'bleu_of_1_to_5_words': 36.1, ...}.

  Args:
    lengths: of each example.
    metric: (indices of examples) -> figure.
    prefix: its name.
  """
  places = np.asarray(lengths)
  return {
    f'{prefix}_of_{first}_to_{last}_words': float(
      metric(np.flatnonzero((places >= first) & (places <= last)))
    )
    for first, last in bins(lengths)
  }
