"""Batching: shapes, order, resumption, shards."""

import logging

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from attnlab.data import batching
from attnlab.errors import UserError


def columns_of(seed=0, size=300, longest=20):
  rng = np.random.default_rng(seed)
  source = rng.integers(1, longest + 1, size)
  target = np.maximum(1, source + rng.integers(-3, 6, size))
  return {
    'source': [rng.integers(4, 90, n).astype(np.int32) for n in source],
    'target': [rng.integers(4, 90, n).astype(np.int32) for n in target],
    'label': rng.integers(0, 5, size),
  }


def start(columns, batch_size=16, seed=0, buckets=4, **options):
  bounds = batching.boundaries(columns, buckets=buckets)
  return batching.train_iterator(
    columns, batch_size=batch_size, boundaries=bounds, seed=seed, **options
  )


def take(iterator, n):
  return [next(iterator) for _ in range(n)]


def same(a, b):
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_array_equal(a[key], b[key])
  return True


def check_rows(batch, columns):
  for row, i in enumerate(batch['index']):
    for key in ('source', 'target'):
      want = columns[key][i] if i >= 0 else []
      np.testing.assert_array_equal(batch[key][row][: len(want)], want)
      assert not batch[key][row][len(want) :].any()
    assert batch['label'][row] == (columns['label'][i] if i >= 0 else 0)


sizes = st.tuples(
  st.integers(1, 60), st.integers(1, 25), st.integers(1, 6), st.integers(0, 9)
)


@given(sizes)
def test_boundaries(size):
  examples, longest, buckets, seed = size
  columns = columns_of(seed, examples, longest)
  bounds = batching.boundaries(columns, buckets=buckets)
  assert 1 <= len(bounds) <= buckets
  assert bounds[-1] == tuple(
    max(map(len, columns[key])) for key in ('source', 'target')
  )
  assert (np.diff(bounds, axis=0) >= 0).all()


def test_boundaries_save_padding():
  columns = columns_of(size=1000, longest=60)
  padded = [
    sum(
      batch['source'].size
      for batch in batching.eval_batches(
        columns,
        batch_size=10,
        boundaries=batching.boundaries(columns, buckets=n),
      )
    )
    for n in (1, 3, 8)
  ]
  assert padded[0] > 1.3 * padded[1] > 1.3 * padded[2]


@given(sizes, st.integers(1, 9))
def test_each_example_once_an_epoch(size, batch_size):
  examples, longest, buckets, seed = size
  columns = columns_of(seed, examples, longest)
  iterator = start(columns, batch_size, seed, buckets)
  batches = take(iterator, 2 * batching._POOL)
  for batch in batches[:5]:
    check_rows(batch, columns)
    assert {v.dtype for v in batch.values()} == {np.dtype(np.int32)}
  shapes = {batch['source'].shape + batch['target'].shape for batch in batches}
  assert len(shapes) <= buckets
  counts = np.bincount(
    np.concatenate([b['index'] for b in batches]), minlength=examples
  )
  assert counts.max() - counts.min() <= 1


def test_order_depends_on_seed_and_step_only():
  columns = columns_of()
  first = take(start(columns, seed=3), 130)
  assert all(map(same, first, take(start(columns, seed=3), 130)))
  other = take(start(columns, seed=4), 130)
  assert any(
    (a['index'] != b['index']).any() for a, b in zip(first, other, strict=True)
  )


@pytest.mark.parametrize('step', [0, 1, 99, 100, 257])
def test_resumes(step):
  columns = columns_of()
  iterator = start(columns)
  take(iterator, step)
  state = iterator.get_state()
  want = take(iterator, 5)
  resumed = start(columns)
  resumed.set_state(state)
  assert all(map(same, take(resumed, 5), want))


def test_shards_are_parts_of_the_batch():
  columns = columns_of()
  whole = take(start(columns), 20)
  parts = [take(start(columns, shard=(i, 4)), 20) for i in range(4)]
  for batch, *shards in zip(whole, *parts, strict=True):
    index = np.concatenate([s['index'] for s in shards])
    assert sorted(index) == sorted(batch['index'])
    for shard in shards:
      assert shard['source'].shape == (4, batch['source'].shape[1])
      check_rows(shard, columns)


@given(sizes, st.integers(1, 9))
def test_evaluation_sees_each_example_once(size, batch_size):
  examples, longest, buckets, seed = size
  columns = columns_of(seed, examples, longest)
  bounds = batching.boundaries(columns, buckets=buckets)
  batches = batching.eval_batches(
    columns, batch_size=batch_size, boundaries=bounds
  )
  index = np.concatenate([b['index'] for b in batches])
  assert sorted(index[index >= 0]) == list(range(examples))
  shapes = {b['source'].shape + b['target'].shape for b in batches}
  assert len(shapes) <= buckets
  for batch in batches:
    assert len(batch['index']) == batch_size
    check_rows(batch, columns)


def test_long_examples_are_counted(caplog):
  columns = {'source': [np.ones(n, np.int32) for n in (3, 9, 4)]}
  with caplog.at_level(logging.WARNING):
    kept = batching.within(columns, 4, 'train')
  assert kept.tolist() == [0, 2]
  assert 'train: skipped 1 of 3' in caplog.text


def test_errors():
  columns = columns_of(size=20)
  for options, message in [
    ({'boundaries': [(2, 2)]}, 'over the largest of boundaries'),
    ({'boundaries': [(99,)]}, '2 lengths each'),
    ({'boundaries': [(1, 99), (50, 50)]}, 'do not grow'),
    ({'batch_size': 0}, 'batch_size=0'),
    ({'shard': (0, 3)}, 'multiple of the number of shards, 3'),
  ]:
    options = {'boundaries': [(99, 99)], 'batch_size': 4, 'seed': 0} | options
    with pytest.raises(UserError, match=message):
      batching.train_iterator(columns, **options)
  with pytest.raises(UserError, match='no training examples'):
    batching.train_iterator({'source': []}, batch_size=1, boundaries=[], seed=0)
  assert (
    batching.eval_batches({'source': []}, batch_size=1, boundaries=[]) == []
  )


def test_fingerprint():
  columns = columns_of()
  settings = {'batch_size': 4, 'boundaries': [(3, 4)], 'seed': 0}
  first = batching.fingerprint(columns, **settings)
  assert first == batching.fingerprint(columns_of(), **settings)
  assert first != batching.fingerprint(columns, **settings | {'seed': 1})
  columns['source'][7] = columns['source'][7] + 1
  assert first != batching.fingerprint(columns, **settings)


def test_documents_are_bucketed_by_sentences_and_words():
  rng = np.random.default_rng(0)
  shapes = rng.integers(1, 9, (50, 2))
  columns = {
    'tokens': [rng.integers(1, 9, shape) for shape in shapes],
    'label': rng.integers(0, 3, 50),
  }
  bounds = batching.boundaries(columns, buckets=3)
  assert 1 < len(bounds) <= 3
  seen = []
  for batch in batching.eval_batches(columns, batch_size=4, boundaries=bounds):
    assert batch['tokens'].shape[1:] in bounds
    for row, label, i in zip(
      batch['tokens'], batch['label'], batch['index'], strict=True
    ):
      if i < 0:
        assert not row.any()
        continue
      seen.append(i)
      n, w = shapes[i]
      np.testing.assert_array_equal(row[:n, :w], columns['tokens'][i])
      assert np.count_nonzero(row) == n * w
      assert label == columns['label'][i]
  assert sorted(seen) == list(range(50))
  train = batching.train_iterator(
    columns, batch_size=4, boundaries=bounds, seed=0
  )
  assert next(train)['tokens'].ndim == 3
