"""What a model is trained for, as functions that the one loop is given."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import hashlib
import importlib
import itertools
import json
import math
import os
import pathlib
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from attnlab import attention, configs, errors

TASKS = ('classification', 'translation')
PRECISIONS = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


class Prediction(NamedTuple):
  """One answer.

  Attributes:
    text: what the model says.
    tokens: its pieces.
    source_tokens: the pieces of what was asked.
    weights: [T, S], row t being the weights that predicted piece t; None for a
      model without attention.
    heads: [layers, heads, T, S] where they were kept.
  """

  text: str
  tokens: list[str]
  source_tokens: list[str]
  weights: np.ndarray | None
  heads: np.ndarray | None = None


class Task(NamedTuple):
  """Everything that the loop needs to know.

  Attributes:
    model: freshly initialised.
    loss: (model, batch, rng or None) -> (sum of losses, sums of metrics); the
      metrics hold 'weight', by which all are divided, and 'tokens' where that
      is not the number of tokens that were read or written. None: no dropout.
    train: (seed, shard=(index, count)) -> checkpointable iterator over that
      process's share of each batch; without a shard over whole ones.
    evaluate: (model, split, *, full, workdir) -> figures; full decodes with
      care and writes predictions, attention and figures into workdir.
    splits: what can be evaluated, the validation split first.
    monitor: the figure that chooses the best checkpoint, and 'max' or 'min';
      the config may put another split in place of its first.
    predict: (model, lines) -> predictions in the same order.
    example: one batch, for shapes and costs.
    fingerprint: what must not change between start and resume, by name.
    signatures: how each metric was computed.
    save_assets: (workdir) writes what prediction needs besides parameters.
    measure: (model, split, *, examples, workdir) -> figures of what attention
      does, and how each was computed; examples of the split are looked at
      closely.
    measure_gold: (model, directory, back) -> the name of the gold alignments
      that a directory has of the model's languages, and figures; None where a
      task knows no such thing. `back` is None, or what `align` gave of a task
      that goes the other way round.
    align: (model, directory) -> the languages, and the links of each sentence
      of the gold.
    fresh: seed -> the model as a run of that seed starts it; None where only
      the config can tell.
  """

  model: nnx.Module
  loss: Callable[..., tuple[Any, Mapping[str, Any]]]
  train: Callable[..., Iterator[dict]]
  evaluate: Callable[..., dict[str, float]]
  splits: tuple[str, ...]
  monitor: tuple[str, str]
  predict: Callable[[nnx.Module, Iterable[str]], Iterator[Prediction]]
  example: dict[str, np.ndarray]
  fingerprint: dict[str, str]
  signatures: dict[str, str]
  save_assets: Callable[[pathlib.Path], None]
  measure: Callable[..., tuple[dict[str, float], dict[str, str]]] | None = None
  measure_gold: Callable[..., tuple[str, dict[str, float]]] | None = None
  align: Callable[..., tuple[tuple[str, str], list]] | None = None
  fresh: Callable[[int], nnx.Module] | None = None


def build(config: Any, workdir: pathlib.Path | None = None) -> Task:
  """Builds the task that `config.task` names.

  Args:
    config: of an experiment.
    workdir: a finished or begun run, whose vocabularies are taken and whose
      training data is not read before it is needed; None starts from data.
  """
  config = configs.Section(configs.to_data(config))
  if config['task'] not in TASKS:
    raise errors.unknown('task', config['task'], TASKS)
  if config['data'] is None:
    raise errors.UserError(f'data=None: {config["task"]} needs a data set')
  check_numbers(config)
  module = importlib.import_module(f'attnlab.tasks.{config["task"]}')
  return module.build(config, workdir)


def monitor(config: Mapping[str, Any]) -> tuple[str, str]:
  """Returns the figure that a run of this config watches, without building it.

  Returns:
    Its name, and 'max' or 'min'.
  """
  if config['task'] not in TASKS:
    raise errors.unknown('task', config['task'], TASKS)
  module = importlib.import_module(f'attnlab.tasks.{config["task"]}')
  metric, mode = module.MONITOR
  splits = config.get('evaluation', {}).get('splits', '').split(',')
  if first := next(filter(None, map(str.strip, splits)), ''):
    metric = f'{first}/{metric.partition("/")[2]}'
  return metric, mode


# Settings of every task, and the least and the most that they may be. A pool of
# batches is held in memory, and searches are written out for their length.
_RANGES = {
  'seed': (0, 2**31 - 1),
  'data.buckets': (1, 1_000),
  'data.examples': (0, 2**31 - 1),
  'data.max_length': (0, 2**31 - 1),
  'data.max_sentences': (0, 2**31 - 1),
  'data.max_words': (0, 2**31 - 1),
  'training.batch_size': (1, 2**16),
  'training.label_smoothing': (0, 0.99),
  'evaluation.batch_size': (1, 2**16),
  'evaluation.beam_size': (1, 1_000),
  'evaluation.length_penalty': (-10, 10),
  'evaluation.max_length': (0, 10_000),
  'evaluation.pictures': (0, 10_000),
}


def check_numbers(config: Mapping[str, Any]) -> None:
  """Raises UserError for a number that no task can take."""
  found = configs.flat(configs.to_data(config))
  for name, (least, most) in _RANGES.items():
    if name in found:
      errors.check_number(name, found[name], least, most)


def part(path: str, settings: Mapping[str, Any]):
  """The function that a part of a config names, and its arguments.

  Args:
    path: a key of `configs.PARTS`, e.g. 'attention.score'.
    settings: {'name': ..., and that function's keyword-only arguments}.
  """
  choices = configs.choices(path)
  shown = path.rpartition(':')[2]
  if settings is None:
    raise errors.unknown(shown, None, choices)
  settings = dict(settings)
  name = settings.pop('name')
  if name not in choices:
    raise errors.unknown(f'{shown}.name', name, choices)
  known = configs.settings(path, name)
  for key in settings:
    if key not in known:
      raise errors.unknown(f'{shown}.{key}', settings[key], known)
  return choices[name], settings


def mechanism(config: Mapping[str, Any]) -> attention.Attention:
  """The mechanism that `config.attention` describes."""
  found = {}
  for name in ('score', 'normalizer', 'locality', 'position'):
    settings = config.get(name)
    if settings is not None or name in ('score', 'normalizer'):
      found[name] = part(f'attention.{name}', settings)
  around = [
    part(f'attention.{name}', config[name])
    for name in ('heads', 'hops')
    if config.get(name) is not None
  ]
  try:
    mechanism = attention.compose(
      **{name: make(**rest) for name, (make, rest) in found.items()}
    )
    for make, rest in around:
      mechanism = make(mechanism, **rest)
    return mechanism
  except ValueError as error:
    raise errors.UserError(f'attention: {error}') from error


def initialiser(
  make: Callable[[nnx.Rngs], nnx.Module],
) -> Callable[[int], nnx.Module]:
  """Makes a constructor one compiled program, the same for all seeds.

  Outside of jit every small array is a compilation of its own: seconds.

  Args:
    make: of a model.

  Returns:
    seed -> the model.

  Raises:
    UserError: the parameters would not fit into the memory.
  """
  graph, _ = nnx.split(shapes(lambda: make(nnx.Rngs(0))))
  state = jax.jit(lambda key: nnx.state(make(nnx.Rngs(key))))
  return lambda seed: nnx.merge(graph, state(jax.random.key(seed)))


def shapes(make: Callable[[], nnx.Module]) -> nnx.Module:
  """Returns the model of a constructor with the shapes of its arrays alone.

  Raises:
    UserError: the arrays would not fit into the memory.
  """
  module = nnx.eval_shape(make)
  arrays = jax.tree.leaves(nnx.state(module))
  needed = sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays)
  there = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  if needed > there:
    raise errors.UserError(
      f'model: its parameters take {needed / 2**30:,.0f} GiB, and the machine '
      f'has {there / 2**30:,.0f}: lower its sizes or those of the vocabulary'
    )
  return module


def dtype(config: Mapping[str, Any]) -> jnp.dtype:
  """The dtype to compute in; parameters and softmax stay float32."""
  precision = config['training']['precision']
  if precision not in PRECISIONS:
    raise errors.unknown('training.precision', precision, PRECISIONS)
  return PRECISIONS[precision]


def models(
  path: str, config: Mapping[str, Any], sizes: Iterable[int]
) -> Callable[[int], nnx.Module]:
  """The model that `config.model` describes, freshly initialised for a seed.

  Args:
    path: its key of `configs.PARTS`.
    config: of an experiment.
    sizes: the positional arguments that come first: of vocabularies, classes.
  """
  make, settings = part(path, config['model'])
  attend, kind = mechanism(config['attention']), dtype(config)
  return initialiser(lambda rngs: make(*sizes, attend, rngs, kind, **settings))


def checked(
  splits: Mapping[str, Sequence[dict]], limit: int
) -> Mapping[str, Sequence[dict]]:
  """The splits, train cut to `limit` examples where that is not 0.

  Raises:
    UserError: there is no train, or a split is empty.
  """
  if 'train' not in splits:
    raise errors.UserError('data.train is empty: there is nothing to learn')
  for split, examples in splits.items():
    if not len(examples):
      raise errors.UserError(f'data.{split} is empty: it has no examples')
  return {**splits, 'train': splits['train'][:limit]} if limit else splits


def eval_splits(splits: Iterable[str]) -> tuple[str, ...]:
  """The names of all splits but train, the validation split first."""
  names = [name for name in splits if name != 'train']
  if 'validation' not in names:
    raise errors.UserError(
      'data.validation is missing: training needs a split to choose the '
      'best checkpoint by'
    )
  return ('validation', *(n for n in names if n != 'validation'))


def chunks(
  lines: Iterable[str], size: int, encode: Callable[[str], np.ndarray]
) -> Iterator[tuple[list[str], list[np.ndarray], np.ndarray]]:
  """Yields up to `size` lines, the ids of each, and all ids in one array.

  The array is padded with 0 to lengths that are multiples of 8, and to `size`
  rows unless there is one line alone, so that few shapes are compiled.

  Args:
    lines: may come one by one.
    size: rows of the array.
    encode: line -> int32 [T], or [N, W].
  """
  lines = iter(lines)
  while chunk := list(itertools.islice(lines, size)):
    arrays = [encode(line) for line in chunk]
    shape = np.max([array.shape for array in arrays], axis=0)
    rows = size if len(chunk) > 1 else 1
    padded = np.zeros((rows, *(-(-shape // 8) * 8)), np.int32)
    for row, array in enumerate(arrays):
      padded[(row, *map(slice, array.shape))] = array
    yield chunk, arrays, padded


def model_fingerprint(config: Mapping[str, Any]) -> str:
  """A hash of all settings that say which parameters there are."""
  settings = {key: plain(config[key]) for key in ('model', 'attention')}
  text = json.dumps([settings, config['training']['precision']], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def shown(lengths: Sequence[int], count: int) -> list[int]:
  """The examples that are drawn: typical ones, and the longest."""
  order = np.argsort(lengths, kind='stable')
  count = min(count, len(order))
  places = np.linspace(len(order) // 2, len(order) - 1, count)
  return list(dict.fromkeys(int(order[int(place)]) for place in places))


def entropies(weights: np.ndarray) -> np.ndarray:
  """The sum of the entropies of rows [n, S] in nats, and their number.

  Rows of zeros, which saw nothing, do not count.
  """
  rows = np.asarray(weights, np.float64)
  rows = rows[rows.sum(axis=-1) > 0]
  shares = rows / rows.sum(axis=-1, keepdims=True)
  logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
  return np.array([-(shares * logs).sum(), len(rows)])


def plain(section: Any) -> dict[str, Any]:
  """A section of a config as plain dicts."""
  return section.to_dict() if hasattr(section, 'to_dict') else dict(section)


def write_lines(path: pathlib.Path, lines: Iterable[str]) -> None:
  """Writes a file of lines; its folder is made."""
  path.parent.mkdir(parents=True, exist_ok=True)
  text = ''.join(' '.join(line.split('\n')) + '\n' for line in lines)
  path.write_text(text, encoding='utf-8')
