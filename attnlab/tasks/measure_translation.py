"""What attention does in a translator, by `attnlab.measures`.

All weights are those of a forced decoding of the reference.
"""

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any, NamedTuple

from flax import nnx
import numpy as np

from attnlab import errors
from attnlab.data import batching, files
from attnlab.data import vocabulary as vocabulary_lib
from attnlab.measures import alignment, lengths
from attnlab.measures import weights as weights_lib
from attnlab.tasks import faithful

SIDES = ('source', 'target')
SHIFT = 0  # row t of the weights predicted piece t
THRESHOLDS = tuple(round(0.05 * n, 2) for n in range(1, 13))
_THRESHOLD = 0.2  # where no gold of the validation split can choose one
_BATCH = 32
SIGNATURES = {
  **weights_lib.SIGNATURES,
  **faithful.SIGNATURES,
  'aer': 'AER (Och & Ney 2003) of the largest weight of each target word, '
  'under forced decoding; words linked by any of their pieces; target shift 0',
  'aer_shifted': 'the same with target shift 1 (Chen et al. 2020)',
  'aer_threshold': 'AER of all weights from a threshold, the best one of the '
  f'validation split, or {_THRESHOLD}',
  'threshold': 'that threshold',
  'aer_mutual': 'AER of the largest of the row that are so of the column too',
  'aer_reverse': 'AER of the run that translates the other way round',
  'aer_intersection': 'AER of the links that both runs have (Och & Ney 2003)',
  'intersection_precision': 'precision of the links that both runs have',
  'intersection_recall': 'recall of the links that both runs have',
  'aer_uniform': 'baseline: AER to expect of a source word at random',
  'aer_diagonal': 'baseline: AER of relative positions',
  'unlinked': 'share of target words that the largest weights link to none',
  'unknown': 'share of the pieces, of both sides, that the model does not know',
  'bleu_of_1_to_5_words': 'and so on: BLEU by length of the source',
}


class Case(NamedTuple):
  """One sentence pair with gold links and the weights of its reference.

  Attributes:
    weights: [T, S], row t predicted target piece t.
    words: side -> the word, or words, of each piece.
    sizes: side -> how many words.
    sure: gold links (source word, target word).
    possible: further links that are not wrong.
  """

  weights: np.ndarray
  words: Mapping[str, Sequence[alignment.Word]]
  sizes: Mapping[str, int]
  sure: Sequence[Sequence[int]]
  possible: Sequence[Sequence[int]]


def measure(
  task: Any, model: nnx.Module, split: str, *, examples: int, workdir: Any
) -> dict[str, float]:
  """The figures of one split, by the names of SIGNATURES.

  Args:
    task: a `translation` task.
    model: of it.
    split: one that has been read.
    examples: how many sentences, evenly spaced, are read with other weights.
    workdir: a run whose predictions are taken, where they are of this split;
      None decodes.
  """
  parts = nnx.split(model)
  weights = forced(task, parts, task.columns(split))
  found = _by_length(task, parts, split, workdir)
  if not any(row.any() for row in weights):
    return found  # a model without attention
  found |= weights_lib.means(map(weights_lib.sums, weights))
  if all('sure' in example for example in task.examples(split)):
    threshold = _THRESHOLD
    first = task.eval_splits()[0]
    if all('sure' in example for example in task.examples(first)):
      own = forced(task, parts, task.columns(first))
      threshold = choose(_cases(task, first, own))
    found |= aligned(_cases(task, split, weights), threshold)
  return found | _faithfulness(task, parts, split, examples)


def forced(task, parts, columns) -> list[np.ndarray]:
  """The weights [T, S] of each pair of columns, ends of sentences included."""
  from attnlab.tasks import translation

  found: list[Any] = [None] * len(columns['source'])
  bounds = batching.boundaries(columns, buckets=2)
  size = task.config['evaluation']['batch_size']
  for batch in batching.eval_batches(
    columns, batch_size=size, boundaries=bounds
  ):
    inputs = {side: batch[side] for side in SIDES}
    weights = np.asarray(translation.forced(*parts, inputs)[1])
    for row, i in enumerate(batch['index']):
      if i >= 0:
        s, t = (np.count_nonzero(batch[side][row]) for side in SIDES)
        found[i] = weights[row, :t, :s].copy()
  return found


def aligned(cases: Sequence[Case], threshold: float) -> dict[str, float]:
  """AER of several ways to read links from weights, and of the baselines."""
  counts = {
    name: sum((make(case) for case in cases), alignment.Counts())
    for name, make in {
      'aer': lambda c: _compare(c, alignment.strongest(c.weights)),
      'aer_shifted': lambda c: _compare(
        c, alignment.strongest(alignment.shifted(c.weights, 1))
      ),
      'aer_threshold': lambda c: _compare(
        c, alignment.above(c.weights, threshold)
      ),
      'aer_mutual': lambda c: _compare(c, alignment.mutual(c.weights)),
      'aer_diagonal': lambda c: alignment.compare(
        alignment.diagonal(c.sizes['source'], c.sizes['target']),
        c.sure,
        c.possible,
      ),
      'aer_uniform': lambda c: alignment.even(
        c.sizes['source'], c.sizes['target'], c.sure, c.possible
      ),
    }.items()
  }
  linked = sum(len({t for _, t in _strongest(c)}) for c in cases)
  words = sum(case.sizes['target'] for case in cases)
  best = counts['aer']
  return {
    'aer': best.error_rate,
    'alignment_precision': best.precision,
    'alignment_recall': best.recall,
    **{name: value.error_rate for name, value in counts.items()},
    'threshold': threshold,
    'unlinked': 1 - linked / max(words, 1),
  }


def choose(cases: Sequence[Case]) -> float:
  """The threshold with the lowest AER, the smallest of equal ones."""
  rates = [
    sum(
      (_compare(c, alignment.above(c.weights, value)) for c in cases),
      alignment.Counts(),
    ).error_rate
    for value in THRESHOLDS
  ]
  return THRESHOLDS[int(np.argmin(rates))]


def _strongest(case: Case) -> alignment.Links:
  return alignment.links(case.weights, *_words(case))


def _compare(case: Case, pairs: alignment.Links) -> alignment.Counts:
  found = alignment.merge(pairs, *_words(case))
  return alignment.compare(found, case.sure, case.possible)


def _words(case: Case) -> tuple:
  return tuple(case.words[side] for side in SIDES)


def _cases(task, split, weights) -> list[Case]:
  found = []
  for example, rows in zip(task.examples(split), weights, strict=True):
    words, sizes = {}, {}
    for side in SIDES:
      vocabulary = task.vocabularies[side]
      words[side] = vocabulary.word_of(vocabulary.encode(example[side]))
      sizes[side] = len(example[side].split())
    found.append(Case(rows, words, sizes, example['sure'], example['possible']))
  return found


# Human gold.


def languages(config: Mapping[str, Any]) -> tuple[str, str]:
  """From which language to which a run translates."""
  data = config['data']
  if data['name'] == 'synthetic_en_zh':
    return 'en', 'zh'
  return data['source_language'], data['target_language']


def gold(
  directory: pathlib.Path, config: Mapping[str, Any]
) -> tuple[str, list[dict]]:
  """The gold alignments of a run's languages: their name and sentences.

  Args:
    directory: holds A-B.tsv, maybe packed, in the form of `alignment.read`.
    config: of the run, which may translate from A to B or from B to A.

  Raises:
    UserError: there are none of this pair, or the file is none.
  """
  source, target = languages(config)
  there = sorted(
    {path.name.split('.')[0] for path in directory.glob('*-*.tsv*')}
  )
  for name in (f'{source}-{target}', f'{target}-{source}'):
    if name not in there:
      continue
    try:
      found = alignment.read(files.text_lines(directory / f'{name}.tsv'))
    except ValueError as error:
      raise errors.UserError(f'{directory / name}.tsv: {error}') from error
    if name == f'{source}-{target}':
      return name, found
    return name, [
      {
        'source': each['target'],
        'target': each['source'],
        'sure': sorted(alignment.flip(set(each['sure']))),
        'possible': sorted(alignment.flip(set(each['possible']))),
      }
      for each in found
    ]
  raise errors.UserError(
    f'alignments={str(directory)!r} holds {", ".join(there) or "none"}, and '
    f'the run translates from {source!r} to {target!r}'
  )


def measure_gold(
  task: Any,
  model: nnx.Module,
  directory: pathlib.Path,
  back: tuple[tuple[str, str], Sequence[alignment.Links]] | None = None,
  *,
  limit: int = 0,
) -> tuple[str, dict[str, float]]:
  """Forced decoding of gold alignments: their name and figures.

  Args:
    task: a `translation` task.
    model: of it.
    directory: see `gold`.
    back: what `align` gave of a run that translates the other way round.
    limit: measure the first sentences alone; 0 is all.

  Raises:
    UserError: as `gold`; or the other run is none of the other way round.
  """
  here = languages(task.config)
  if back is not None and back[0] != here[::-1]:
    raise errors.UserError(
      f'reverse: its run translates from {" to ".join(map(repr, back[0]))}, '
      f'and this one from {" to ".join(map(repr, here))}: it must be the other '
      'way round'
    )
  name, cases, unknown = _gold_cases(task, model, directory, limit)
  found = {'unknown': unknown}
  if not any(case.weights.any() for case in cases):
    return name, found  # a model without attention
  found |= weights_lib.means(weights_lib.sums(case.weights) for case in cases)
  found |= aligned(cases, _THRESHOLD)
  if back is not None:
    found |= intersected(cases, back[1])
  return name, found


def align(
  task: Any, model: nnx.Module, directory: pathlib.Path
) -> tuple[tuple[str, str], list[alignment.Links]]:
  """The languages of a run, and its strongest links in each gold sentence."""
  _, cases, _ = _gold_cases(task, model, directory)
  return languages(task.config), [_strongest(case) for case in cases]


def intersected(
  cases: Sequence[Case], back: Sequence[alignment.Links]
) -> dict[str, float]:
  """AER of the other run's links, and of those that both runs have.

  Args:
    cases: of the one run.
    back: links of the other for the same sentences, as (target, source).
  """
  other, both = alignment.Counts(), alignment.Counts()
  for case, links in zip(cases, back, strict=True):
    common = alignment.intersection(_strongest(case), links)
    other += alignment.compare(alignment.flip(links), case.sure, case.possible)
    both += alignment.compare(common, case.sure, case.possible)
  return {
    'aer_reverse': other.error_rate,
    'aer_intersection': both.error_rate,
    'intersection_precision': both.precision,
    'intersection_recall': both.recall,
  }


def _gold_cases(
  task, model, directory, limit: int = 0
) -> tuple[str, list[Case], float]:
  """The name of the gold, its sentences, and the share of unknown pieces."""
  name, sentences = gold(directory, task.config)
  sentences = sentences[:limit] if limit else sentences
  blank = {side: _blank(task.texts('train', side)) for side in SIDES}
  columns = {
    side: [
      task.encode(side, blank[side].join(each[side])) for each in sentences
    ]
    for side in SIDES
  }
  weights = forced(task, nnx.split(model), columns)
  pieces = np.concatenate([ids for side in SIDES for ids in columns[side]])
  cases = []
  for each, rows in zip(sentences, weights, strict=True):
    words = {
      side: alignment.overlaps(
        task.vocabularies[side].spans(blank[side].join(each[side])),
        each[side],
        blank[side],
      )
      for side in SIDES
    }
    sizes = {side: len(each[side]) for side in SIDES}
    cases.append(Case(rows, words, sizes, each['sure'], each['possible']))
  unknown = float(np.mean(pieces == vocabulary_lib.UNK))
  return name, cases, unknown


def _blank(texts: Sequence[str]) -> str:
  """What the training text has between words: blanks, or nothing."""
  some = [text for text in texts[:1_000] if len(text) > 5]
  with_blanks = sum(len(text.split()) > 2 for text in some)
  return ' ' if 2 * with_blanks >= len(some) else ''


# The rest.


def _faithfulness(task, parts, split, examples) -> dict[str, float]:
  where = faithful.sites(nnx.merge(*parts))
  if not where:
    return {}
  columns = task.columns(split)
  count = len(columns['source'])
  chosen = np.unique(
    np.linspace(0, count - 1, min(count, examples)).astype(int)
  )
  some = {side: [columns[side][i] for i in chosen] for side in SIDES}
  bounds = batching.boundaries(some, buckets=1)
  batches = []
  for batch in batching.eval_batches(
    some, batch_size=_BATCH, boundaries=bounds
  ):
    inputs = {side: batch[side] for side in SIDES}
    batches.append(
      {**inputs, 'label': batch['target'], 'real': batch['target'] != 0}
    )
  return faithful.figures(parts, where, batches, rows='target', searched=2)


def _by_length(task, parts, split, workdir) -> dict[str, float]:
  from attnlab.tasks import translation

  written = _predictions(task, split, workdir)
  hypotheses = [''] * len(task.examples(split)) if written is None else written
  for batch in task.batches(split) if written is None else ():
    tokens = task.search(parts, batch['source'], 1)
    for row, i in enumerate(batch['index']):
      if i >= 0:
        hypotheses[i] = task.vocabularies['target'].decode(tokens[row])
  references = task.texts(split, 'target')
  metric = translation.bleu_metric(task.tokenize)

  def bleu(rows):
    return metric.corpus_score(
      [hypotheses[i] for i in rows], [[references[i] for i in rows]]
    ).score

  sizes = [len(text.split()) for text in task.texts(split, 'source')]
  everything = range(len(references))
  return {
    'bleu': bleu(everything),
    **lengths.by_length(sizes, bleu, 'bleu'),
  }


def _predictions(task, split, workdir) -> list[str] | None:
  """What a full evaluation wrote, if it is of the same sentences."""
  if workdir is None:
    return None
  path = pathlib.Path(workdir) / 'predictions' / f'{split}.jsonl'
  if not path.is_file():
    return None
  try:
    with path.open(encoding='utf-8', newline='\n') as file:
      records = [json.loads(line) for line in file]
    if [r['source'] for r in records] == task.texts(split, 'source'):
      return [record['hypothesis'] for record in records]
  except (ValueError, KeyError, TypeError):
    pass
  return None
