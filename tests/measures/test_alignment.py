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


WEIGHTS = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2]])


def test_four_ways_to_read_links():
  assert alignment.strongest(WEIGHTS) == {(0, 0), (1, 1), (0, 2)}
  assert alignment.above(WEIGHTS, 0.3) == {(0, 0), (1, 0), (1, 1), (0, 2)}
  # Of column 0 the largest is in row 2; column 2 has no row of its own.
  assert alignment.mutual(WEIGHTS) == {(1, 1), (0, 2)}
  back = {(0, 0), (1, 1), (2, 1)}  # the other direction: (target, source)
  assert alignment.intersection({(0, 0), (1, 1), (1, 0)}, back) == {
    (0, 0),
    (1, 1),
  }
  blind = np.zeros((2, 3))
  assert alignment.strongest(blind) == set()
  assert alignment.above(blind, 0.0) == set()
  assert alignment.mutual(np.zeros((0, 3))) == set()


def test_a_target_shift_moves_rows():
  # What was read when the next piece was predicted belongs to this one.
  moved = alignment.shifted(WEIGHTS, 1)
  np.testing.assert_array_equal(moved, [*WEIGHTS[1:], [0, 0, 0]])
  assert alignment.strongest(moved) == {(1, 0), (0, 1)}
  np.testing.assert_array_equal(alignment.shifted(WEIGHTS, 0), WEIGHTS)
  assert alignment.shifted(WEIGHTS, 9).shape == WEIGHTS.shape
  with pytest.raises(ValueError, match='shift=-1'):
    alignment.shifted(WEIGHTS, -1)


def test_pieces_link_all_the_words_that_they_overlap():
  # Source piece 0 is part of the words 0 and 1; piece 2 is the end.
  found = alignment.merge(
    {(0, 0), (1, 1), (2, 0)}, [[0, 1], [1]], [[0], [0, 1]]
  )
  assert found == {(0, 0), (1, 0), (1, 1)}


def test_overlaps_by_characters():
  # 科学家 一直 as 科 | 学家一 | 直, without blanks.
  spans = [(0, 1), (1, 4), (4, 5)]
  assert alignment.overlaps(spans, ['科学家', '一直'], '') == [[0], [0, 1], [1]]
  # 'ab c' as '▁a', 'b', '▁', 'c'.
  spans = [(0, 1), (1, 2), (2, 3), (3, 4)]
  assert alignment.overlaps(spans, ['ab', 'c']) == [[0], [0], [1], [1]]


def test_gold_is_read_and_checked():
  lines = ['a b\tx y z\t0-0 1-2\t1-1\n', 'a\tx\t0-0 -1-0\n', 'a\tx\t\t']
  found = alignment.read(lines)
  assert found[0] == {
    'source': ['a', 'b'],
    'target': ['x', 'y', 'z'],
    'sure': [(0, 0), (1, 2)],
    'possible': [(1, 1)],
  }
  assert found[1]['sure'] == [(0, 0)]  # -1 is the empty word
  assert found[2]['sure'] == found[2]['possible'] == []
  for line, message in (
    ('a\tx', 'line 1 has 2 fields'),
    ('a\tx\t0_0', r"'0_0' holds a link that is not i-j"),
    ('a\tx\t0-1', '0-1 is outside'),
  ):
    with pytest.raises(ValueError, match=message):
      alignment.read([line])


def test_the_uniform_baseline_is_the_mean_over_all_choices():
  sure, possible = [(0, 0), (1, 1)], [(0, 1)]
  counts = [
    alignment.compare({(a, 0), (b, 1)}, sure, possible)
    for a in range(3)
    for b in range(3)
  ]
  mean = np.mean(counts, axis=0)
  np.testing.assert_allclose(alignment.even(3, 2, sure, possible), mean)
  assert alignment.even(0, 2, [], []) == (0, 0, 0, 0)


def test_aer_of_a_published_definition_by_hand():
  """Och & Ney 2003, eq. 20: A of 4, S of 3, P of 5."""
  sure = [(0, 0), (1, 1), (2, 2)]
  possible = [(2, 1), (3, 3)]
  proposed = {(0, 0), (1, 1), (3, 3), (3, 0)}
  counts = alignment.compare(proposed, sure, possible)
  assert counts == (4, 3, 2, 3)
  assert counts.error_rate == pytest.approx(1 - (2 + 3) / (4 + 3))
  assert counts.precision == pytest.approx(3 / 4)
  assert counts.recall == pytest.approx(2 / 3)
