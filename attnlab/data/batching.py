"""Batches of static shapes, in an order that is a function of the seed.

Columns are the examples, one list per key: 1-D integer arrays (sequences, to be
padded with 0), 2-D ones (documents: sentences x words) or numbers. A boundary
gives one length to each axis of each sequence column, in the order of the
columns; a batch takes the smallest boundary that holds its longest row. So the
shapes, and the compilations, are as few as boundaries.
"""

from collections.abc import Mapping, Sequence
import functools
import hashlib
import json
import logging

import numpy as np

from attnlab.errors import UserError

Columns = Mapping[str, Sequence]
Boundary = tuple[int, ...]
Batch = dict[str, np.ndarray]

_POOL = 100  # batches that are sorted by length together


def _lengths(columns: Columns) -> np.ndarray:
  """Returns int64 [axes of all sequence columns, examples]."""
  rows = [
    [x.shape[axis] if axis else len(x) for x in column]
    for column in columns.values()
    for axis in range(np.ndim(column[0]))
  ]
  return np.array(rows).reshape(len(rows), -1)


def within(columns: Columns, max_length: int, what: str = 'data') -> np.ndarray:
  """Returns the indices of the examples no sequence of which is too long.

  Says in one line how many are left out.

  Args:
    columns: the examples.
    max_length: the longest sequence allowed.
    what: names the data in that line.
  """
  kept = np.flatnonzero((_lengths(columns) <= max_length).all(0))
  total = len(next(iter(columns.values())))
  if len(kept) < total:
    logging.warning(
      '%s: skipped %d of %d examples longer than max_length=%d',
      what,
      total - len(kept),
      total,
      max_length,
    )
  return kept


def boundaries(columns: Columns, *, buckets: int = 6) -> list[Boundary]:
  """Chooses the boundaries that need the least padding.

  Args:
    columns: the examples.
    buckets: how many boundaries at most.

  Returns:
    Boundaries in growing order; the last one holds every example.
  """
  lengths = _lengths(columns)
  if not lengths.size:
    return [()]
  grids = any(np.ndim(column[0]) == 2 for column in columns.values())
  longest = lengths[0] if grids else lengths.max(0)
  sizes, counts = np.unique(longest, return_counts=True)
  before = np.concatenate([[0], np.cumsum(counts)])
  # A row of a bucket costs its length, or its sentences times its words.
  costs = sizes
  if grids:
    order = np.argsort(longest, kind='stable')
    widest = np.maximum.accumulate(lengths[:, order], axis=1).prod(0)
    costs = widest[before[1:] - 1]
  # cost[j]: padded length of the examples up to sizes[j - 1], cut at best.
  cost = np.concatenate([[0], np.full(len(sizes), np.inf)])
  cuts = []
  for _ in range(min(buckets, len(sizes))):
    # through[i, j]: the last bucket holds sizes[i] to sizes[j - 1].
    through = cost[:-1, None] + costs * (before[None, 1:] - before[:-1, None])
    through[np.tri(len(sizes), k=-1, dtype=bool)] = np.inf
    cuts.append(through.argmin(0))
    cost = np.concatenate([[0], through.min(0)])
  ends, end = [], len(sizes)
  for best in reversed(cuts):
    if end:
      ends.append(sizes[end - 1])
      end = best[end - 1]
  return sorted(
    {tuple(int(n) for n in lengths[:, longest <= size].max(1)) for size in ends}
  )


class _Batches:
  """Fills batches from columns; `bucket[i]` is the boundary of example i."""

  def __init__(self, columns: Columns, bounds: Sequence[Boundary]):
    lengths = _lengths(columns)
    self.bounds = sorted(tuple(b) for b in bounds)
    if any(len(b) != len(lengths) for b in self.bounds):
      raise UserError(
        f'boundaries={self.bounds} need {len(lengths)} lengths each: one for'
        ' each axis of each sequence column'
      )
    table = np.array(self.bounds)  # [boundaries, columns]
    if (np.diff(table, axis=0) < 0).any():
      raise UserError(f'boundaries={self.bounds} do not grow in every column')
    # [boundaries, examples]
    fits = np.asarray((lengths[None] <= table[:, :, None]).all(1))
    if not fits[-1].all():
      i = int(np.argmin(fits[-1]))
      raise UserError(
        f'example {i} has lengths {tuple(lengths[:, i].tolist())}, over the'
        f' largest of boundaries={self.bounds}'
      )
    self.bucket = fits.argmax(0)
    self.order = np.lexsort((*lengths, self.bucket))  # by bucket, then length
    self.columns = {
      k: [np.asarray(x) for x in c] if np.ndim(c[0]) else np.asarray(c)
      for k, c in columns.items()
    }

  def fill(self, rows: np.ndarray, boundary: Boundary) -> Batch:
    """Returns the rows as a batch; a row of -1 is all zeros."""
    batch, sizes = {}, iter(boundary)
    for key, column in self.columns.items():
      if isinstance(column, list):
        shape = [next(sizes) for _ in range(column[0].ndim)]
        batch[key] = np.zeros((len(rows), *shape), np.int32)
        for row, i in zip(batch[key], rows, strict=True):
          if i >= 0:
            row[tuple(map(slice, column[i].shape))] = column[i]
      else:
        kind = np.float32 if column.dtype.kind == 'f' else np.int32
        batch[key] = np.where(rows < 0, 0, column[rows]).astype(kind)
    batch['index'] = rows.astype(np.int32)
    return batch


class _TrainSource:
  """Batch number `step` of an endless stream, for random access."""

  def __init__(self, batches, batch_size, seed, shard):
    self._batches = batches
    self._batch_size = batch_size
    self._seed = seed
    self._shard = shard
    self._examples = len(batches.bucket)
    self._order = functools.lru_cache(2)(self._epoch)
    self._plan = functools.lru_cache(2)(self._pool)

  def __len__(self) -> int:
    return 2**40  # endless for all purposes

  def _rng(self, *what: int) -> np.random.Generator:
    return np.random.Generator(
      np.random.PCG64(np.random.SeedSequence([self._seed, *what]))
    )

  def _epoch(self, epoch: int) -> np.ndarray:
    return self._rng(0, epoch).permutation(self._examples)

  def _pool(self, pool: int) -> np.ndarray:
    """Returns the examples [_POOL, batch_size] of a pool of batches.

    The stream is one permutation of the examples after the other; a stretch of
    it is sorted by length, cut into batches, and the batches are shuffled. So
    every example comes once in an epoch, whatever the batch size.
    """
    size = _POOL * self._batch_size
    at = np.arange(pool * size, (pool + 1) * size)
    epochs = range(at[0] // self._examples, at[-1] // self._examples + 1)
    stream = np.concatenate([self._order(epoch) for epoch in epochs])
    rows = stream[at - epochs[0] * self._examples]
    rank = np.empty(self._examples, np.int64)
    rank[self._batches.order] = np.arange(self._examples)
    rows = rows[np.argsort(rank[rows], kind='stable')]
    rows = rows.reshape(_POOL, self._batch_size)
    return self._rng(1, pool).permutation(rows)

  def __getitem__(self, step: int) -> Batch:
    rows = self._plan(step // _POOL)[step % _POOL]
    boundary = self._batches.bounds[self._batches.bucket[rows].max()]
    index, count = self._shard
    # In one piece, so that all shares after each other are the batch itself.
    return self._batches.fill(np.split(rows, count)[index], boundary)


def train_iterator(
  columns: Columns,
  *,
  batch_size: int,
  boundaries: Sequence[Boundary],
  seed: int,
  shard: tuple[int, int] = (0, 1),
):
  """An endless Grain iterator over batches.

  Batch `step` is a function of the seed and the step, so the iterator's state
  is one counter: `get_state()`, `set_state(state)`.

  Args:
    columns: the examples.
    batch_size: rows of a batch over all shards.
    boundaries: lengths that batches may have.
    seed: of the order.
    shard: (index, count): this process gets its share of every batch.

  Returns:
    A `grain.DatasetIterator` over dicts: each column, [B, L] or [B, N, W] int32
    padded with 0 or [B], and 'index' [B] int32, the position of the example in
    `columns`.

  Raises:
    UserError: no examples, or sizes that do not fit together.
  """
  import grain

  if not len(next(iter(columns.values()))):
    raise UserError('there are no training examples')
  if batch_size < 1 or batch_size % shard[1]:
    raise UserError(
      f'training.batch_size={batch_size} has to be a positive multiple of the'
      f' number of shards, {shard[1]}'
    )
  batches = _Batches(columns, boundaries)
  source = _TrainSource(batches, batch_size, seed, shard)
  dataset = grain.MapDataset.source(source)  # pyrefly: ignore[bad-argument-type]
  # Reading ahead in threads costs more than it gains: a batch takes 0.2 ms.
  options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  return iter(dataset.to_iter_dataset(options))


def eval_batches(
  columns: Columns,
  *,
  batch_size: int,
  boundaries: Sequence[Boundary],
) -> list[Batch]:
  """Returns every example once, sorted by length.

  The last batch of a bucket is filled up with rows of zeros, 'index' -1.
  """
  if not len(next(iter(columns.values()))):
    return []
  batches = _Batches(columns, boundaries)
  result = []
  for bucket, boundary in enumerate(batches.bounds):
    rows = batches.order[batches.bucket[batches.order] == bucket]
    rows = np.append(rows, np.full(-len(rows) % batch_size, -1, rows.dtype))
    for start in range(0, len(rows), batch_size):
      result.append(batches.fill(rows[start : start + batch_size], boundary))
  return result


def fingerprint(columns: Columns, **settings: object) -> str:
  """Returns a hash of the examples and of what sets their order.

  Args:
    columns: the examples.
    **settings: batch_size, boundaries, seed, a vocabulary's fingerprint ...:
      anything JSON can hold.
  """
  digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
  for key, column in columns.items():
    digest.update(key.encode())
    if np.ndim(column[0]):
      shapes = np.array([np.shape(x) for x in column], np.int64)
      digest.update(shapes.tobytes())
      column = np.concatenate([np.ravel(x) for x in column])
    digest.update(np.ascontiguousarray(column, np.float64).tobytes())
  return digest.hexdigest()[:16]
