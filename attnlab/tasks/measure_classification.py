"""What attention does in a classifier, by `attnlab.measures`."""

from typing import Any

from flax import nnx
import numpy as np

from attnlab.data import batching
from attnlab.measures import faithfulness, lengths
from attnlab.measures import weights as weights_lib
from attnlab.tasks import faithful

_BATCH = 64
_CORRELATED = 64  # texts whose words are left out one by one
_PROBED = 4_000  # texts that a probe learns from
SIGNATURES = {
  **{k: v for k, v in weights_lib.SIGNATURES.items() if k in weights_lib.ROWS},
  **faithful.SIGNATURES,
  'pointing': 'share of texts whose largest weight is on a gold word',
  'mass': 'weight on gold words, mean over texts',
  'pointing_uniform': 'pointing of a word at random; also its mass',
  'comprehensiveness': 'loss of probability without the highest weights, mean '
  'of 1, 5, 10, 20 and 50 % of the words (DeYoung et al. 2020)',
  'sufficiency': 'the same with these words alone: small is sufficient',
  'comprehensiveness_random': 'comprehensiveness of random words',
  'sufficiency_random': 'sufficiency of random words',
  'rank_correlation': "Kendall's tau-b of weights and leave-one-out, mean over "
  'texts; for the record alone',
  'probe': 'accuracy of a bag of words with these weights, frozen (Wiegreffe & '
  'Pinter 2019)',
  'probe_uniform': 'the same with uniform weights',
  'accuracy_of_1_to_5_words': 'and so on: accuracy by length of the text',
}


def measure(
  task: Any, model: nnx.Module, split: str, *, examples: int
) -> dict[str, float]:
  """The figures of one split, by the names of SIGNATURES.

  Args:
    task: a `classification` task.
    model: of it.
    split: one that has been read.
    examples: how many texts, evenly spaced, are read with other weights.
  """
  parts = nnx.split(model)
  arrays = task.columns(split)['tokens']
  labels = task.labels(split)
  probabilities, weights = _read(task, parts, arrays)
  right = probabilities.argmax(axis=-1) == labels
  words = [len(example['text'].split()) for example in task.examples(split)]
  found = {
    'accuracy': float(right.mean()),
    **weights_lib.means(
      weights_lib.sums(row[array != 0][None])
      for row, array in zip(weights, arrays, strict=True)
    ),
    **_pointing(task, split, weights),
    **lengths.by_length(words, lambda rows: right[rows].mean(), 'accuracy'),
  }
  chosen = _spaced(len(arrays), examples)
  tokens = _grid([arrays[i] for i in chosen])
  found |= _faithfulness(parts, tokens, labels[chosen])
  found |= _erasing(parts, tokens, _grid([weights[i] for i in chosen]))
  return found | _probe(task, parts, split)


def _read(task, parts, arrays) -> tuple[np.ndarray, list[np.ndarray]]:
  """Probabilities [n, C], and weights in the shape of each array."""
  from attnlab.tasks import classification

  columns = {'tokens': arrays}
  probabilities = np.zeros((len(arrays), len(task.classes)))
  weights: list[Any] = [None] * len(arrays)
  for batch in batching.eval_batches(
    columns,
    batch_size=_BATCH,
    boundaries=batching.boundaries(columns, buckets=2),
  ):
    log_probs, shares = map(
      np.asarray, classification.forward(*parts, batch['tokens'])
    )
    for row, i in enumerate(batch['index']):
      if i >= 0:
        probabilities[i] = np.exp(log_probs[row])
        inside = tuple(map(slice, arrays[i].shape))
        weights[i] = shares[row][inside].copy()
  return probabilities, weights


def _grid(arrays) -> np.ndarray:
  """Arrays [T] or [N, W] as one, padded with 0."""
  shape = np.max([array.shape for array in arrays], axis=0)
  grid = np.zeros((len(arrays), *shape), arrays[0].dtype)
  for row, array in zip(grid, arrays, strict=True):
    row[tuple(map(slice, array.shape))] = array
  return grid


def _spaced(count: int, most: int) -> np.ndarray:
  """Up to `most` of `count` indices, evenly spaced."""
  return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def _predicting(parts, shape, flat):
  """predict(visible [n, K]) -> probabilities: what is hidden is not read."""
  from attnlab.tasks import classification

  def predict(visible):
    found = []
    for start in range(0, len(flat), _BATCH):
      ids = np.where(visible, flat, 0)[start : start + _BATCH]
      rows = np.zeros((_BATCH, flat.shape[1]), np.int32)
      rows[: len(ids)] = ids
      log_probs, _ = classification.forward(*parts, rows.reshape(-1, *shape))
      found.append(np.exp(np.asarray(log_probs))[: len(ids)])
    return np.concatenate(found)

  return predict


def _erasing(parts, tokens, weights) -> dict[str, float]:
  """Comprehensiveness, sufficiency and rank correlation: words left out."""
  shape = tokens.shape[1:]
  flat, scores = (x.reshape(len(tokens), -1) for x in (tokens, weights))
  predict, visible = _predicting(parts, shape, flat), flat != 0
  found = faithfulness.eraser(predict, visible, scores)
  drawn = np.random.default_rng(0).random(scores.shape)
  random = faithfulness.eraser(predict, visible, drawn)
  found |= {f'{name}_random': value for name, value in random.items()}
  few = _spaced(len(flat), _CORRELATED)
  alone = faithfulness.leave_one_out(
    _predicting(parts, shape, flat[few]), visible[few]
  )
  tau = faithfulness.rank_correlation(scores[few], alone, visible[few])
  return found if np.isnan(tau) else {**found, 'rank_correlation': tau}


def _faithfulness(parts, tokens, labels) -> dict[str, float]:
  """What `faithful` measures."""
  where = faithful.sites(nnx.merge(*parts))
  if not where:
    return {}
  batches = []
  for start in range(0, len(tokens), _BATCH):
    count = len(tokens[start : start + _BATCH])
    rows = np.zeros((_BATCH, *tokens.shape[1:]), np.int32)
    rows[:count] = tokens[start : start + count]
    label = np.zeros(_BATCH, np.int32)
    label[:count] = labels[start : start + count]
    real = np.arange(_BATCH) < count
    batches.append({'tokens': rows, 'label': label, 'real': real})
  return faithful.figures(parts, where, batches, rows='', searched=2)


def _pointing(task, split, weights) -> dict[str, float]:
  """Pointing and mass, and those of a word at random."""
  examples = task.examples(split)
  if not all('gold' in example for example in examples):
    return {}
  from attnlab.tasks import classification

  rows = [
    task.by_word(example['text'], each)
    for example, each in zip(examples, weights, strict=True)
  ]
  even = [
    [np.full(len(line), 1 / sum(map(len, lines))) for line in lines]
    for lines in rows
  ]
  found = classification.pointed(examples, rows)
  chance = classification.pointed(examples, even)
  # Of equal weights one is the largest by chance: on gold by gold's share.
  for name in ('mass', 'sentence_mass'):
    if name in chance:
      found[name.replace('mass', 'pointing_uniform')] = chance[name]
  return found


def _probe(task, parts, split) -> dict[str, float]:
  """The frozen-weights probe, with the model's weights and uniform ones."""
  data = {}
  for name, of, most in (('train', 'train', _PROBED), ('test', split, 1_000)):
    columns = task.columns(of)['tokens']
    chosen = _spaced(len(columns), most)
    arrays = [columns[i] for i in chosen]
    _, weights = _read(task, parts, arrays)
    rows = zip(arrays, weights, strict=True)
    seen = [(array[array != 0], each[array != 0]) for array, each in rows]
    data[name] = {
      'tokens': _grid([ids for ids, _ in seen]),
      'weights': _grid([each for _, each in seen]),
      'labels': task.labels(of)[chosen],
    }
  settings = {'words': len(task.vocabulary), 'classes': len(task.classes)}
  found = {}
  for name in ('probe', 'probe_uniform'):
    if name == 'probe_uniform':
      data = {of: {**rows, 'weights': _even(rows)} for of, rows in data.items()}
    found[name] = faithfulness.frozen_probe(
      data['train'], data['test'], **settings
    )
  return found


def _even(rows) -> np.ndarray:
  seen = (rows['tokens'] != 0).astype(np.float32)
  return seen / np.maximum(seen.sum(axis=-1, keepdims=True), 1)
