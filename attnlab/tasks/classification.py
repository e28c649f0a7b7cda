"""Classification: a sentence or a document to one class."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import functools
import json
import logging
import pathlib
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from attnlab import errors
from attnlab.data import batching
from attnlab.data import vocabulary as vocabulary_lib
from attnlab.measures import classification as measures
from attnlab.tasks import base, class_losses

Array = jax.Array
MONITOR = ('validation/accuracy', 'max')
# What the task itself reads of the section `data`.
OWN = ('buckets', 'examples', 'max_length', 'max_sentences', 'max_words')
_FIRST = 100  # examples of a split whose attention is written


def build(config: Any, workdir: pathlib.Path | None = None) -> base.Task:
  """Builds the task from a config; see `base.build`.

  Sections that it reads: data, vectors, vocabulary, model, attention, training
  (batch_size, precision, loss, class_weights) and evaluation.
  """
  return _Classification(config, workdir).task()


class _Classification:
  """What the functions of the task share: config, data and vocabulary."""

  def __init__(self, config, workdir):
    self.config = config
    self.workdir = None if workdir is None else pathlib.Path(workdir)
    loss, settings = base.part(
      'classification:training.loss', config['training']['loss']
    )
    self.per_example = loss(**settings)

  def task(self) -> base.Task:
    with_data = self.workdir is None
    return base.Task(
      model=self.model,
      loss=self.loss,
      train=self.train,
      evaluate=self.evaluate,
      splits=self.eval_splits if with_data else (),
      monitor=MONITOR,
      predict=self.predict,
      example=next(self.train(0)) if with_data else {},
      fingerprint=self.fingerprint() if with_data else {},
      signatures={
        'macro_f1': 'mean over classes of 2 tp / (2 tp + fp + fn)',
        'pointing': 'share of texts whose largest weight is on a gold word',
      },
      save_assets=self.save_assets,
      measure=self.measure,
      fresh=self.fresh,
    )

  # Data.

  @functools.cached_property
  def loaded(self) -> tuple[Mapping[str, Sequence[dict]], tuple[str, ...]]:
    """Examples by split, and the names of the classes."""
    from attnlab.data import classification

    settings = {k: v for k, v in self.config['data'].items() if k not in OWN}
    splits, labels = classification.load(settings.pop('name'), **settings)
    limit = self.config['data']['examples']
    splits = base.checked(splits, limit)
    if limit:
      there = {example['label'] for example in splits['train']}
      lacking = [name for i, name in enumerate(labels) if i not in there]
      if lacking:
        told = errors.shortened(', '.join(lacking))
        logging.warning('data.examples=%d: train has none of %s', limit, told)
    return splits, tuple(labels)

  @functools.cached_property
  def classes(self) -> tuple[str, ...]:
    """Names of the classes, from the run directory or the data."""
    if self.workdir is None:
      return self.loaded[1]
    return _read_classes(self.workdir / 'vocabulary' / 'classes.json')

  @functools.cached_property
  def vocabulary(self) -> vocabulary_lib.Vocabulary:
    if self.workdir is not None:
      return vocabulary_lib.load(self.workdir / 'vocabulary' / 'text')
    make, settings = base.part('vocabulary', self.config['vocabulary'])
    return make((e['text'] for e in self.examples('train')), **settings)

  @functools.cached_property
  def eval_splits(self) -> tuple[str, ...]:
    return base.eval_splits(self.loaded[0])

  @functools.cache
  def examples(self, split: str) -> list[dict]:
    """A split read once: sources may decode an example at every access."""
    return list(self.loaded[0][split])

  @functools.cache
  def labels(self, split: str) -> np.ndarray:
    """[n] int32, all of them classes."""
    labels = np.array([e['label'] for e in self.examples(split)], np.int64)
    wrong = (labels < 0) | (labels >= len(self.classes))
    if wrong.any():
      i = int(np.argmax(wrong))
      raise errors.UserError(
        f'data.{split}: example {i} has the label {labels[i]}, but there are '
        f'{len(self.classes)} classes, counted from 0'
      )
    return labels.astype(np.int32)

  def lines(self, text: str) -> list[str]:
    """What is read one by one: sentences, or the text as one line."""
    return text.split('\n') if self.model.rank == 2 else [text]

  def encode(self, text: str) -> list[list[int]]:
    """The ids of each line, cut to the lengths that the config allows."""
    limits = self.config['data']
    if self.model.rank == 1:
      return [_cut(self.vocabulary.encode(text), limits.get('max_length', 0))]
    return [
      _cut(self.vocabulary.encode(line), limits.get('max_words', 0))
      for line in _cut(self.lines(text), limits.get('max_sentences', 0))
    ]

  def array(self, text: str) -> np.ndarray:
    """Ids [T], or [N, W] padded with 0; at least one position an axis."""
    lines = self.encode(text)
    width = max(1, *map(len, lines)) if lines else 1
    grid = np.zeros((max(1, len(lines)), width), np.int32)
    for row, ids in zip(grid, lines, strict=False):
      row[: len(ids)] = ids
    return grid if self.model.rank == 2 else grid[0]

  @functools.cache
  def columns(self, split: str) -> dict[str, Any]:
    texts = [example['text'] for example in self.examples(split)]
    arrays = [self.array(text) for text in texts]
    cut = sum(
      len(self.vocabulary.encode(text)) > np.count_nonzero(array)
      for text, array in zip(texts, arrays, strict=True)
    )
    if cut:
      logging.warning(
        'data.%s: %d of %d texts are cut to the lengths that data allows',
        split,
        cut,
        len(texts),
      )
    return {'tokens': arrays, 'label': self.labels(split)}

  def train(self, seed: int, shard: tuple[int, int] = (0, 1)):
    columns = self.columns('train')
    return batching.train_iterator(
      columns,
      batch_size=self.config['training']['batch_size'],
      boundaries=batching.boundaries(
        columns, buckets=self.config['data']['buckets']
      ),
      seed=seed,
      shard=shard,
    )

  @functools.cached_property
  def eval_bounds(self) -> list[tuple[int, ...]]:
    """The same few shapes for all splits: each is compiled once."""
    arrays = [
      array
      for split in self.eval_splits
      for array in self.columns(split)['tokens']
    ]
    return batching.boundaries({'tokens': arrays}, buckets=4)

  @functools.cache
  def batches(self, split: str) -> list[dict[str, np.ndarray]]:
    return batching.eval_batches(
      self.columns(split),
      batch_size=self.config['evaluation']['batch_size'],
      boundaries=self.eval_bounds,
    )

  def fingerprint(self) -> dict[str, str]:
    return {
      'data': batching.fingerprint(
        self.columns('train'),
        batch_size=self.config['training']['batch_size'],
        buckets=self.config['data']['buckets'],
      ),
      'vocabulary': self.vocabulary.fingerprint(),
      'classes': ' '.join(self.classes),
      'model': base.model_fingerprint(self.config),
    }

  def save_assets(self, workdir: pathlib.Path) -> None:
    folder = pathlib.Path(workdir) / 'vocabulary'
    folder.mkdir(parents=True, exist_ok=True)
    self.vocabulary.save(folder / 'text')
    text = json.dumps(list(self.classes), ensure_ascii=False)
    (folder / 'classes.json').write_text(text + '\n', encoding='utf-8')

  # Model and loss.

  @functools.cached_property
  def model(self) -> Any:
    return self.fresh(self.config['seed'])

  @functools.cached_property
  def models(self) -> Callable[[int], Any]:
    sizes = len(self.vocabulary), len(self.classes)
    return base.models('classification:model', self.config, sizes)

  def fresh(self, seed: int) -> Any:
    model = self.models(seed)
    # A run directory has vectors of its own.
    if self.config['vectors'] and self.workdir is None:
      self.put_vectors(model.embed.table)
    return model

  def put_vectors(self, table: nnx.Param) -> None:
    """Starts the words that the file has from its vectors."""
    from attnlab.data import vectors

    words = self.vocabulary.pieces(range(len(self.vocabulary)))
    matrix, found = vectors.read(self.config['vectors'], words)
    if matrix.shape[1] != table.shape[1]:
      raise errors.UserError(
        f'model.embedding={table.shape[1]}, but the vectors of '
        f'{self.config["vectors"]!r} have {matrix.shape[1]} numbers'
      )
    logging.warning(
      'vectors: %d of %d words are in %s',
      int(found.sum()),
      len(words),
      self.config['vectors'],
    )
    table[...] = jnp.where(found[:, None], matrix, table[...])

  @functools.cached_property
  def class_weights(self) -> np.ndarray | None:
    """[C] float32, or None where all examples count the same."""
    setting = self.config['training']['class_weights']
    counts = np.bincount(self.labels('train'), minlength=len(self.classes))
    weights = class_losses.class_weights(setting, counts.tolist())
    return None if setting == 'none' else np.array(weights, np.float32)

  def loss(self, model, batch, rng):
    """The sum over examples that is trained on, and what they count."""
    logits, _ = model(batch, rng)
    labels = batch['label']
    real = (batch['index'] >= 0).astype(jnp.float32)
    losses = self.per_example(logits, labels) * real
    if self.class_weights is not None:
      losses *= jnp.asarray(self.class_weights)[labels]
    nll = -class_losses.chosen(jax.nn.log_softmax(logits), labels)
    right = jnp.argmax(logits, axis=-1) == labels
    metrics = {
      'loss': jnp.sum(nll * real),
      'accuracy': jnp.sum(right * real),
      'weight': jnp.sum(real),
      'tokens': jnp.sum(batch['tokens'] != 0).astype(jnp.float32),
    }
    return jnp.sum(losses), metrics

  # Evaluation.

  def evaluate(
    self,
    model: nnx.Module,
    split: str,
    *,
    full: bool,
    workdir: pathlib.Path | None,
  ) -> dict[str, float]:
    """Loss, accuracy and macro-F1; pointing and mass where there is gold.

    A full evaluation writes predictions, the attention to the texts of
    `shown`, and pictures into `workdir`.
    """
    parts = nnx.split(model)
    examples, labels = self.examples(split), self.labels(split)
    gold = all('gold' in example for example in examples)
    log_probs = np.zeros((len(examples), len(self.classes)), np.float32)
    weights: list[Any] = [None] * len(examples)
    spread = np.zeros(2)
    shown = set(self.shown(split)) if full and workdir is not None else set()
    for batch in self.batches(split):
      found, shares = map(np.asarray, forward(*parts, batch['tokens']))
      real = shares[batch['index'] >= 0]
      spread += base.entropies(real.reshape(len(real), -1))
      for row, i in enumerate(batch['index']):
        if i < 0:
          continue
        log_probs[i] = found[row]
        if gold or i in shown:
          weights[i] = self.by_word(examples[i]['text'], shares[row])
    predictions = log_probs.argmax(axis=-1)
    counts = measures.confusion(labels, predictions, len(self.classes))
    figures = {
      'loss': float(-log_probs[np.arange(len(labels)), labels].mean()),
      'accuracy': float((predictions == labels).mean()),
      'macro_f1': measures.macro_f1(counts),
    }
    if spread[1]:
      figures['entropy'] = float(spread[0] / spread[1])
    if gold:
      figures |= pointed(examples, weights)
    if full and workdir is not None:
      self.record(split, log_probs, weights, counts, pathlib.Path(workdir))
    return figures

  def measure(
    self, model: nnx.Module, split: str, *, examples: int, workdir: Any
  ) -> tuple[dict[str, float], dict[str, str]]:
    from attnlab.tasks import measure_classification as own

    del workdir
    return own.measure(self, model, split, examples=examples), own.SIGNATURES

  def by_word(self, text: str, weights: np.ndarray) -> list[np.ndarray]:
    """Weights of pieces as weights of words, a row for each sentence.

    Args:
      text: one sentence a line.
      weights: [T] or [N, W], as the model gave them.
    """
    ids = self.encode(text)
    found = []
    grid = weights if weights.ndim == 2 else weights[None]
    for row, line in enumerate(self.lines(text)):
      size = len(line.split())
      if row >= len(ids) or not ids[row]:  # cut away, or empty
        found.append(np.zeros(size))
        continue
      words = np.asarray(self.vocabulary.word_of(ids[row]))
      found.append(
        np.bincount(words, grid[row, : len(words)], minlength=size)[:size]
      )
    if len(found) == 1 and '\n' in text:
      ends = np.cumsum([len(line.split()) for line in text.split('\n')])
      return np.split(found[0], ends[:-1])
    return found

  def record(self, split, log_probs, weights, counts, workdir):
    """Writes predictions/, attention/ and figures/ of one split."""
    examples = self.examples(split)
    probabilities = np.exp(log_probs)
    records = [
      {
        'text': example['text'],
        'label': self.classes[example['label']],
        'prediction': self.classes[int(row.argmax())],
        'probabilities': np.round(row, 5).tolist(),
      }
      for example, row in zip(examples, probabilities, strict=True)
    ]
    base.write_lines(
      workdir / 'predictions' / f'{split}.jsonl',
      (json.dumps(record, ensure_ascii=False) for record in records),
    )
    base.write_lines(
      workdir / 'attention' / f'{split}.jsonl',
      (
        json.dumps(
          {
            'example': i,
            'source': examples[i]['text'].split(),
            'target': [records[i]['prediction']],
            'weights': [
              np.round(np.concatenate(weights[i], dtype=np.float64), 4).tolist()
            ],
            'shift': 0,
            **_flat_gold(examples[i], weights[i]),
          },
          ensure_ascii=False,
        )
        for i in self.shown(split)
      ),
    )
    from attnlab.report import figures

    folder = workdir / 'figures'
    figures.save(
      figures.confusion(counts, self.classes), folder / f'confusion_{split}'
    )
    for i in self.pictured(split):
      record = records[i]
      sure = probabilities[i].max()
      figures.save(
        figures.shaded_text(
          [line.split() for line in examples[i]['text'].split('\n')],
          weights[i],
          gold=_gold(examples[i]),
          gold_sentences=examples[i].get('gold_sentences', ()),
          title=f'{record["label"]}, taken for {record["prediction"]} '
          f'({sure:.2f})',
        ),
        folder / f'words_{split}_{i}',
      )

  def pictured(self, split: str) -> list[int]:
    """The examples that are drawn: typical ones, and the longest."""
    lengths = [len(e['text'].split()) for e in self.examples(split)]
    return base.shown(lengths, self.config['evaluation']['pictures'])

  def shown(self, split: str) -> list[int]:
    """The examples whose attention is written: the first, and those drawn.

    The weights of all words of a large test set would be 100 MB of text.
    """
    first = range(min(_FIRST, len(self.examples(split))))
    return sorted({*first, *self.pictured(split)})

  # Prediction.

  def predict(
    self, model: nnx.Module, lines: Iterable[str]
  ) -> Iterator[base.Prediction]:
    """Names the class of each line; the weights are those of its words.

    A line is brought into the form that data.form gave the texts of training.
    A source without that setting has a line for each sentence: there a model
    of sentences splits it by the rule of `attnlab.data.classification`.
    """
    parts = nnx.split(model)
    size = self.config['evaluation']['batch_size']
    documents = map(self.as_document, lines)
    for texts, _, tokens in base.chunks(documents, size, self.array):
      log_probs, weights = map(np.asarray, forward(*parts, tokens))
      for row, text in enumerate(texts):
        name = self.classes[int(log_probs[row].argmax())]
        shares = np.concatenate(self.by_word(text, weights[row]))
        shares = shares[None] if len(shares) else None
        yield base.Prediction(name, [name], text.split(), shares)

  def as_document(self, line: str) -> str:
    from attnlab.data import classification

    form = self.config['data'].get('form')
    text = classification.arrange(line, form or 'given')
    if form or self.model.rank == 1 or '\n' in text:
      return text
    return '\n'.join(classification.sentences(text.split()))


@functools.partial(jax.jit, static_argnums=0)
def forward(graph, state, tokens):
  """Log-probabilities [B, C] and the weights of the tokens."""
  logits, out = nnx.merge(graph, state)({'tokens': tokens}, None)
  return jax.nn.log_softmax(logits), out['weights']


def _gold(example: dict) -> list[tuple[int, int]]:
  """The deciding words as (sentence, word)."""
  gold = np.asarray(example.get('gold', ()), np.int64)
  if gold.ndim == 2:
    return [(int(s), int(w)) for s, w in gold]
  return [(0, int(w)) for w in gold]


def _flat_gold(example: dict, rows: Sequence) -> dict[str, list[int]]:
  """The deciding words counted over all sentences, where there is gold."""
  if 'gold' not in example:
    return {}
  starts = np.cumsum([0, *map(len, rows)])
  return {'gold': [int(starts[s]) + w for s, w in _gold(example)]}


def pointed(examples, weights) -> dict[str, float]:
  """Pointing and mass over the examples that have gold."""
  found: dict[str, list[float]] = {}

  def add(prefix, shares, gold):
    if not len(gold):
      return
    hit, mass = measures.pointing(shares, gold)
    found.setdefault(f'{prefix}pointing', []).append(hit)
    found.setdefault(f'{prefix}mass', []).append(mass)

  for example, rows in zip(examples, weights, strict=True):
    starts = np.cumsum([0, *map(len, rows)])
    add(
      '',
      np.concatenate(rows),
      [int(starts[s]) + w for s, w in _gold(example)],
    )
    if 'gold_sentences' in example:
      shares = np.array([row.sum() for row in rows])
      add('sentence_', shares, example['gold_sentences'])
  return {name: float(np.mean(values)) for name, values in found.items()}


def _cut(items: list, limit: int) -> list:
  return items[:limit] if limit else items


def _read_classes(path: pathlib.Path) -> tuple[str, ...]:
  try:
    classes = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError as error:
    raise errors.UserError(f'{path} does not exist') from error
  except ValueError as error:
    raise errors.UserError(f'{path} is not JSON') from error
  if not isinstance(classes, list) or not all(
    isinstance(name, str) for name in classes
  ):
    raise errors.UserError(f'{path} is no list of names')
  return tuple(classes)
