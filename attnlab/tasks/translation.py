"""Translation: sentences in one language to sentences in another."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import functools
import itertools
import json
import pathlib
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from attnlab import data, errors
from attnlab.data import batching
from attnlab.data import vocabulary as vocabulary_lib
from attnlab.measures import alignment
from attnlab.tasks import base, decoding, losses

Array = jax.Array
EOS = vocabulary_lib.EOS
SIDES = ('source', 'target')
MONITOR = ('validation/bleu', 'max')
_FIRST = 100  # examples of a split whose attention is written


def build(config: Any, workdir: pathlib.Path | None = None) -> base.Task:
  """Builds the task from a config; see `base.build`.

  Sections that it reads: data, vocabulary, model, attention, training
  (batch_size, precision, label_smoothing) and evaluation.
  """
  return _Translation(config, workdir).task()


class _Translation:
  """What the functions of the task share: config, data and vocabularies."""

  def __init__(self, config, workdir):
    self.config = config
    self.workdir = None if workdir is None else pathlib.Path(workdir)

  def task(self) -> base.Task:
    with_data = self.workdir is None
    return base.Task(
      model=self.fresh(self.config['seed']),
      loss=self.loss,
      train=self.train,
      evaluate=self.evaluate,
      splits=self.eval_splits() if with_data else (),
      monitor=MONITOR,
      predict=self.predict,
      example=self.example() if with_data else {},
      fingerprint=self.fingerprint() if with_data else {},
      signatures={'bleu': _signature(self.tokenize)},
      save_assets=self.save_assets,
      measure=self.measure,
      measure_gold=self.measure_gold,
      align=self.align,
      fresh=self.fresh,
    )

  # Data.

  @functools.cached_property
  def splits(self) -> Mapping[str, Sequence[dict]]:
    """Examples by split; 'train' is cut to what fits max_length."""
    settings = dict(self.config['data'])
    for key in ('max_length', 'buckets', 'share_vocabulary'):
      settings.pop(key, None)
    limit = settings.pop('examples', 0)
    return base.checked(data.load(settings.pop('name'), **settings), limit)

  @functools.cached_property
  def vocabularies(self) -> dict[str, Any]:
    """The vocabulary of each side, from the run directory or the data."""
    if self.workdir is not None:
      folder = self.workdir / 'vocabulary'
      return {side: vocabulary_lib.load(folder / side) for side in SIDES}
    make, settings = base.part('vocabulary', self.config['vocabulary'])
    lines = {side: self.texts('train', side) for side in SIDES}
    if self.config['data']['share_vocabulary']:
      both = make(itertools.chain(*lines.values()), **settings)
      return dict.fromkeys(SIDES, both)
    return {side: make(lines[side], **settings) for side in SIDES}

  def texts(self, split: str, side: str) -> list[str]:
    return [example[side] for example in self.examples(split)]

  @functools.cache
  def examples(self, split: str) -> list[dict]:
    """A split read once: sources may decode an example at every access."""
    return list(self.splits[split])

  def encode(self, side: str, text: str) -> np.ndarray:
    """Ids with eos: the encoder sees where a source ends."""
    return np.array([*self.vocabularies[side].encode(text), EOS], np.int32)

  @functools.cache
  def columns(self, split: str) -> dict[str, list[np.ndarray]]:
    """The ids of a split; only training leaves out what is too long."""
    columns = {
      side: [self.encode(side, text) for text in self.texts(split, side)]
      for side in SIDES
    }
    if split != 'train':
      return columns
    kept = batching.within(
      columns, self.config['data']['max_length'], 'data.train'
    )
    if not len(kept):
      raise errors.UserError(
        f'data.max_length={self.config["data"]["max_length"]} leaves no '
        'training example'
      )
    return {side: [column[i] for i in kept] for side, column in columns.items()}

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

  def example(self) -> dict[str, np.ndarray]:
    return next(self.train(0))

  @functools.cached_property
  def eval_bounds(self) -> list[tuple[int, ...]]:
    """The same few shapes for all splits: each is compiled once."""
    splits = [self.columns(split) for split in self.eval_splits()]
    together = {
      side: [ids for columns in splits for ids in columns[side]]
      for side in SIDES
    }
    return batching.boundaries(together, buckets=3)

  @functools.cache
  def batches(self, split: str) -> list[dict[str, np.ndarray]]:
    return batching.eval_batches(
      self.columns(split),
      batch_size=self.config['evaluation']['batch_size'],
      boundaries=self.eval_bounds,
    )

  def eval_splits(self) -> tuple[str, ...]:
    return base.eval_splits(self.splits)

  def fingerprint(self) -> dict[str, str]:
    return {
      'data': batching.fingerprint(
        self.columns('train'),
        batch_size=self.config['training']['batch_size'],
        buckets=self.config['data']['buckets'],
      ),
      'vocabulary': ' '.join(
        self.vocabularies[side].fingerprint() for side in SIDES
      ),
      'model': base.model_fingerprint(self.config),
    }

  def save_assets(self, workdir: pathlib.Path) -> None:
    folder = pathlib.Path(workdir) / 'vocabulary'
    folder.mkdir(parents=True, exist_ok=True)
    for side in SIDES:
      self.vocabularies[side].save(folder / side)

  # Model and loss.

  @functools.cached_property
  def fresh(self) -> Callable[[int], nnx.Module]:
    sizes = [len(self.vocabularies[side]) for side in SIDES]
    return base.models('model', self.config, sizes)

  def loss(self, model, batch, rng):
    """The sum over target words that is trained on, and what they count."""
    smoothing = self.config['training']['label_smoothing']
    total, metrics, _ = _cross_entropy(model, batch, rng, smoothing)
    return total, metrics

  # Evaluation.

  @property
  def tokenize(self) -> str:
    return self.config['evaluation']['tokenize']

  def evaluate(
    self,
    model: nnx.Module,
    split: str,
    *,
    full: bool,
    workdir: pathlib.Path | None,
  ) -> dict[str, float]:
    """Loss, accuracy, BLEU, and AER where there is gold.

    A quick evaluation decodes greedily; a full one by beam, and writes
    predictions, alignments and pictures into `workdir`.
    """
    parts = nnx.split(model)
    size = self.config['evaluation']['beam_size'] if full else 1
    count = len(self.examples(split))
    hypotheses: list[str] = [''] * count
    records: list[np.ndarray | None] = [None] * count
    gold = full and all('sure' in e for e in self.examples(split))
    kept = full and workdir is not None
    shown = set(self.shown(split)) if kept else set()
    pictured = set(self.pictured(split)) if kept else set()
    predictions: dict[int, base.Prediction] = {}
    sums, spread = np.zeros(3), np.zeros(2)
    for batch in self.batches(split):
      index = batch['index']
      batch = {side: batch[side] for side in SIDES}
      counted, weights = forced(*parts, batch)
      sums += np.array(counted)
      found = self.search(parts, batch['source'], size)
      weights = np.asarray(weights)
      spread += base.entropies(weights[batch['target'] != 0])
      for row, i in enumerate(index):
        if i < 0:
          continue
        hypotheses[i] = self.vocabularies['target'].decode(found[row])
        if gold:
          # Cut to the sentence and copied, or every batch would be kept.
          s, t = (np.count_nonzero(batch[side][row]) for side in SIDES)
          records[i] = weights[row, :t, :s].copy()
      drawn = [(row, int(i)) for row, i in enumerate(index) if i in shown]
      if drawn:
        looked = self.look(parts, batch['source'], found)
        heads = None
        if pictured.intersection(i for _, i in drawn):
          heads = _heads(*parts, {'source': batch['source'], 'target': found})
        for row, i in drawn:
          predictions[i] = self.prediction(
            batch['source'][row],
            found[row],
            looked[row],
            None if heads is None or i not in pictured else heads[row],
          )
    loss, right, weight = sums
    references = self.texts(split, 'target')
    figures = {
      'loss': float(loss / weight),
      'accuracy': float(right / weight),
      'bleu': bleu_metric(self.tokenize)
      .corpus_score(hypotheses, [references])
      .score,
    }
    if spread[1]:
      figures['entropy'] = float(spread[0] / spread[1])
    if gold and self.attends(records):
      figures |= self.alignment(split, records)
    if full and workdir is not None:
      self.record(
        split, hypotheses, records, predictions, pathlib.Path(workdir)
      )
    return figures

  def measure(
    self, model: nnx.Module, split: str, *, examples: int, workdir: Any
  ) -> tuple[dict[str, float], dict[str, str]]:
    from attnlab.tasks import measure_translation as own

    found = own.measure(self, model, split, examples=examples, workdir=workdir)
    return found, own.SIGNATURES

  def measure_gold(
    self, model: nnx.Module, directory: pathlib.Path, back: Any = None
  ) -> tuple[str, dict[str, float]]:
    from attnlab.tasks import measure_translation as own

    return own.measure_gold(self, model, directory, back)

  def align(
    self, model: nnx.Module, directory: pathlib.Path
  ) -> tuple[tuple[str, str], list]:
    from attnlab.tasks import measure_translation as own

    return own.align(self, model, directory)

  def search(self, parts, source: np.ndarray, size: int) -> np.ndarray:
    """[B, S] ids -> [B, L] ids, greedily or by beam."""
    evaluation = self.config['evaluation']
    length = evaluation['max_length'] or 2 * source.shape[1] + 10
    found = _search(
      *parts, source, length, size, float(evaluation['length_penalty'])
    )
    return np.asarray(found.tokens)

  @staticmethod
  def attends(records: Sequence[np.ndarray | None]) -> bool:
    """A model without attention reports weights of zero."""
    return any(record is not None and record.any() for record in records)

  def alignment(self, split: str, records) -> dict[str, float]:
    """AER, precision and recall under forced decoding of the reference."""
    total = alignment.Counts()
    for example, weights in zip(self.examples(split), records, strict=True):
      words = {
        side: self.vocabularies[side].word_of(
          self.vocabularies[side].encode(example[side])
        )
        for side in SIDES
      }
      total += alignment.compare(
        alignment.links(weights, words['source'], words['target']),
        example['sure'],
        example['possible'],
      )
    return {
      'aer': total.error_rate,
      'alignment_precision': total.precision,
      'alignment_recall': total.recall,
    }

  def record(self, split, hypotheses, records, predictions, workdir):
    """Writes predictions/, attention/ and figures/ of one split."""
    examples = self.examples(split)
    folder = workdir / 'predictions'
    base.write_lines(
      folder / f'{split}.jsonl',
      (
        json.dumps(
          {
            'source': example['source'],
            'reference': example['target'],
            'hypothesis': hypothesis,
          },
          ensure_ascii=False,
        )
        for example, hypothesis in zip(examples, hypotheses, strict=True)
      ),
    )
    base.write_lines(folder / f'{split}.txt', hypotheses)
    predictions = {
      i: p for i, p in predictions.items() if p.weights is not None
    }
    if not predictions:
      return
    base.write_lines(
      workdir / 'attention' / f'{split}.jsonl',
      (
        json.dumps(
          {'example': i, **attention_record(prediction)}, ensure_ascii=False
        )
        for i, prediction in sorted(predictions.items())
      ),
    )
    from attnlab.report import figures

    for i in self.pictured(split):
      gold = None
      prediction = predictions[i]
      weights = prediction.weights
      tokens = prediction.source_tokens, prediction.tokens
      if records[i] is not None:
        # Gold belongs to the reference, so its picture shows the reference.
        weights = records[i]
        gold = examples[i]['sure'], examples[i]['possible']
        tokens = tuple(self.tokens(side, examples[i][side]) for side in SIDES)
      figures.save(
        figures.alignment(weights, *tokens, gold=gold),
        workdir / 'figures' / f'alignment_{split}_{i}',
      )

  def shown(self, split: str) -> list[int]:
    """The examples whose attention is written: the first, and those drawn."""
    first = range(min(_FIRST, len(self.examples(split))))
    return sorted({*first, *self.pictured(split)})

  def pictured(self, split: str) -> list[int]:
    """The examples that are drawn: typical ones, and the longest."""
    lengths = [len(ids) for ids in self.columns(split)['source']]
    return base.shown(lengths, self.config['evaluation']['pictures'])

  def tokens(self, side: str, text: str) -> list[str]:
    vocabulary = self.vocabularies[side]
    return vocabulary.pieces([*vocabulary.encode(text), EOS])

  # Prediction.

  def predict(
    self, model: nnx.Module, lines: Iterable[str]
  ) -> Iterator[base.Prediction]:
    """Translates lines by beam; the weights are those of a forced decoding."""
    parts = nnx.split(model)
    size = self.config['evaluation']['batch_size']
    beam_size = self.config['evaluation']['beam_size']
    encode = functools.partial(self.encode, 'source')
    for _, sources, source in base.chunks(lines, size, encode):
      found = self.search(parts, source, beam_size)
      looked = self.look(parts, source, found)
      for row, ids in enumerate(sources):
        yield self.prediction(ids, found[row], looked[row])

  @staticmethod
  def look(parts, source: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The weights [B, L, S] with which translations [B, L] were written."""
    return np.asarray(forced(*parts, {'source': source, 'target': found})[1])

  def prediction(
    self,
    source: np.ndarray,
    found: np.ndarray,
    weights: np.ndarray,
    heads: Array | None = None,
  ) -> base.Prediction:
    """One translation: ids [S], ids [L] and weights [L, S], maybe padded.

    heads: [layers, heads, L, S] where they are to be kept.
    """
    source = source[source != 0]
    tokens = found[found != 0]
    weights = weights[: len(tokens), : len(source)]
    if heads is not None:
      heads = np.asarray(heads[:, :, : len(tokens), : len(source)])
    return base.Prediction(
      self.vocabularies['target'].decode(found),
      self.vocabularies['target'].pieces(tokens),
      self.vocabularies['source'].pieces(source),
      weights if weights.any() else None,
      heads,
    )


def _cross_entropy(model, batch, rng, label_smoothing):
  """Teacher forcing: the loss, sums of metrics and what the model returns."""
  _, out = model(batch, rng)
  features = out['features']
  weights = (batch['target'] != 0).astype(jnp.float32)
  # The output layer is part of the loss: the logits are never written.
  total, nll, right = losses.linear_cross_entropy(
    features.reshape(-1, features.shape[-1]),
    model.output.kernel(),
    model.output.bias[...],
    batch['target'].reshape(-1),
    weights.reshape(-1),
    label_smoothing,
  )
  metrics = {'loss': nll, 'accuracy': right, 'weight': weights.sum()}
  return total, metrics, out


@functools.partial(jax.jit, static_argnums=0)
def forced(graph, state, batch):
  """Teacher forcing: (loss, right, weight) summed, and weights [B, T, S]."""
  model = nnx.merge(graph, state)
  _, metrics, out = _cross_entropy(model, batch, None, 0.0)
  sums = metrics['loss'], metrics['accuracy'], metrics['weight']
  return sums, out['weights']


@functools.partial(jax.jit, static_argnums=0)
def _heads(graph, state, batch):
  """Weights over the source by layer and head, [B, L, H, T, S], or None.

  Each hop of a layer has heads of its own.
  """
  _, out = nnx.merge(graph, state)(batch, None)
  if 'source_weights' not in out:
    return None
  layers = out['source_weights']
  return jnp.stack(
    [w.reshape(w.shape[0], -1, *w.shape[-2:]) for w in layers], axis=1
  )


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _search(graph, state, source, length, size, length_penalty):
  model = nnx.merge(graph, state)
  memory = model.encode(source)
  carry = model.init_carry(memory, length)
  settings = {'batch': source.shape[0], 'length': length}
  if size == 1:
    return decoding.greedy(model.step, memory, carry, **settings)
  return decoding.beam(
    model.step,
    memory,
    carry,
    size=size,
    length_penalty=length_penalty,
    **settings,
  )


def attention_record(prediction: base.Prediction) -> dict[str, Any]:
  """A prediction's attention as JSON data; row t predicted token t."""
  # As float64, or the digits that rounding took away would come back.
  rounded = lambda array: np.round(np.float64(array), 4).tolist()
  weights, heads = prediction.weights, prediction.heads
  return {
    'source': prediction.source_tokens,
    'target': prediction.tokens,
    'weights': None if weights is None else rounded(weights),
    'shift': 0,
    **({} if heads is None else {'heads': rounded(heads)}),
  }


def bleu_metric(tokenize: str):
  """sacrebleu's BLEU; UserError for a tokenizer that it has not."""
  from sacrebleu.metrics import bleu

  choices = sorted(bleu.BLEU.TOKENIZERS)
  if tokenize not in choices:
    raise errors.unknown('evaluation.tokenize', tokenize, choices)
  return bleu.BLEU(tokenize=tokenize, force=True)


def _signature(tokenize: str) -> str:
  metric = bleu_metric(tokenize)
  # sacrebleu knows its own signature only after a first score.
  metric.corpus_score(['a'], [['a']])
  return str(metric.get_signature())
