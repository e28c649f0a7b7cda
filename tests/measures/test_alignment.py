"""Alignments against gold, on cases counted by hand."""

import numpy as np
import pytest

from attnlab.measures import alignment


def test_links_are_the_strongest_pieces_merged_to_words():
  # Source pieces 0, 1 are one word; target pieces 1, 2 are one word.
  weights = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
  assert alignment.links(weights, [0, 0, 1], [0, 1, 1]) == {
    (0, 0),
    (0, 1),
    (1, 1),
  }


def test_the_end_of_the_source_links_to_nothing():
  weights = np.array([[0.1, 0.2, 0.7], [0.9, 0.0, 0.1]])
  assert alignment.links(weights, [0, 1], [0, 1]) == {(0, 1)}


def test_rates_by_hand():
  # A = {00, 11, 21}, S = {00, 10}, P adds {11}: |A&S| = 1, |A&P| = 2.
  counts = alignment.compare(
    {(0, 0), (1, 1), (2, 1)}, [(0, 0), (1, 0)], [(1, 1)]
  )
  assert counts == (3, 2, 1, 2)
  assert counts.error_rate == pytest.approx(1 - 3 / 5)
  assert counts.precision == pytest.approx(2 / 3)
  assert counts.recall == pytest.approx(1 / 2)


def test_counts_add_up_over_sentences():
  one = alignment.compare({(0, 0)}, [(0, 0)])
  two = alignment.compare({(0, 1)}, [(0, 0)])
  assert (one + two) == (2, 2, 1, 1)
  assert (one + two).error_rate == pytest.approx(0.5)
  assert alignment.Counts().error_rate == 0


def test_the_diagonal_covers_both_ends():
  assert alignment.diagonal(4, 2) == {(1, 0), (3, 1)}
  assert alignment.diagonal(2, 4) == {(0, 0), (0, 1), (1, 2), (1, 3)}
  assert alignment.diagonal(0, 3) == set()
