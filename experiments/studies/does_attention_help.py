r"""Does attention help? Two tasks, eleven ways to read, five questions.

  python experiments/studies/does_attention_help.py --data_dir=DIR

DIR holds SST-2 (binary.train.tsv.gz and so on); without it the built-in
sentiment corpus stands in, and the report says so. Writes
docs/studies/does_attention_help.md with its figures, and
results/studies/does_attention_help/*.json, of which --report_only makes the
page again. The same command again goes on after any kill. 190 runs take 80
minutes on two CPU cores. --size=smoke is a minute of tiny runs, which says
whether it works and nothing else.

What is run. Translation of the built-in corpus (20,000 sentences of 3 to 15
words; the split long has 18 to 40) by a GRU of 128 units, in one direction, so
that queries and keys have equal depths and the dot product needs no matrix: no
attention (one vector), uniform weights, and the scores dot, scaled dot,
bilinear, additive and cosine; local-p is Luong's, around bilinear; hard is the
straight-through argmax and sparsemax the other normaliser around additive.
SST-2 (6,920 sentences; no phrases, 64 units and 1,000 steps, so that a run is
under a minute) by a bidirectional LSTM that is pooled by the last state, the
mean (uniform weights), the maximum, or by the same mechanisms asked by a
learned query. Each has six seeds, and the cells that are tested eight: with
fewer, no test is significant after Holm's correction over five. Training sets
of 10 % and 30 % are the first sentences.

The questions, fixed before the runs. In each "attention" is the additive one.

  1. Does one fixed vector lose long sentences and attention not?
     Hypothesis: without attention BLEU falls more from the shortest (1-5
     words) to the longest sentences (11-15) of the lengths that were trained.
     Measure: the fall without attention minus that with it, in BLEU.
  2. Do the weights point at the right word?
     Hypothesis: the strongest weight of each target word is nearer to the gold
     alignment than the diagonal is.
     Measure: AER of the diagonal (equal relative positions) minus AER of
     attention, on the test split.
  3. Is attention pooling better than mean, max and last?
     Hypothesis: its accuracy is higher than that of each of the three.
     Measure: accuracy minus that of the strongest rival, in points; the claim
     is of all three, so that p is the largest of the three.
  4. Does attention over-fit when data is scarce?
     Hypothesis: with 10 % of the texts, the accuracy on those that were
     trained on is further above that of the test split with attention than
     with the mean.
     Measure: the difference of the two gaps, in points.
  5. What does it cost?
     Hypothesis: a training step of the translator takes more time with
     attention than without.
     Measure: the additional time of a step, in per cent.
"""

import argparse
from collections.abc import Mapping, Sequence
import json
import os
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import numpy as np

from attnlab import allocator, configs, data, errors, workdirs
from attnlab.data import classification
from attnlab.measures import alignment
from attnlab.report import compare
from attnlab.studies import attention_help as reading
from attnlab.studies import attention_help_page, grids, questions
from attnlab.sweeps import sweep

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = 'does_attention_help'
SIZES = ('full', 'smoke')
_TRAIN_SIZE = {'translation': 20_000, 'sst': 6_920, 'built-in': 10_000}
_PLAIN = {
  'attention.score.name': 'additive',
  'attention.normalizer.name': 'softmax',
  'attention.locality': 'None',
  'data.examples': '0',
}
_MECHANISMS = {
  'dot': {'attention.score.name': 'dot'},
  'scaled dot': {'attention.score.name': 'scaled_dot'},
  'bilinear': {'attention.score.name': 'bilinear'},
  'additive': {},
  'cosine': {'attention.score.name': 'cosine'},
  'local-p': {
    'attention.score.name': 'bilinear',
    'attention.locality': 'local_p',
  },
  'hard': {'attention.normalizer.name': 'straight_through'},
  'sparsemax': {'attention.normalizer.name': 'sparsemax'},
}
_TRANSLATORS = {
  'no attention': {'model.name': 'fixed'},
  'uniform': {'attention.normalizer.name': 'uniform'},
  **_MECHANISMS,
}
_POOLS = {
  'last': {'model.pool': 'last'},
  'mean': {'model.pool': 'mean'},
  'max': {'model.pool': 'max'},
  **_MECHANISMS,
}


def _cells(
  task: str,
  settings: Mapping[str, Mapping[str, str]],
  common: Mapping[str, str],
  tested: Sequence[tuple[str, int]],
  scarce: Sequence[str],
  examples: int,
  seeds: tuple[int, int],
  smoke: bool,
) -> list[grids.Cell]:
  """Every mechanism on all data, and those of `scarce` on shares of it."""
  wanted = [(label, 100) for label in settings]
  wanted += [(label, share) for share in reading.SHARES for label in scarce]
  if smoke:
    wanted = [each for each in tested if each[0] not in ('max', 'last')]
  found = []
  for label, share in wanted:
    values = {**_PLAIN, **common, **settings[label]}
    if share < 100:
      values['data.examples'] = str(examples * share // 100)
    shown = label if share == 100 else f'{label}, {share} %'
    many = seeds[(label, share) in tested]
    found.append(
      grids.Cell(reading.name_of(task, label, share), shown, values, many)
    )
  return found


def texts(size: str, data_dir: str | None) -> int:
  """How many texts there are to train the classifiers on."""
  if data_dir:
    return _TRAIN_SIZE['sst']
  return 100 if size == 'smoke' else _TRAIN_SIZE['built-in']


def study(size: str, data_dir: str | None) -> list[grids.Grid]:
  """The runs of a size: translation, then classification."""
  smoke = size == 'smoke'
  seeds = (2, 2) if smoke else (6, 8)
  quick = {'evaluation.pictures': '0'}
  if smoke:
    steps = ('steps', 'log_every', 'eval_every', 'checkpoint_every')
    quick |= {f'training.{key}': '4' for key in steps}
    quick |= {'training.batch_size': '8', 'data.buckets': '1'}
  width = {
    f'model.{key}': '8' if smoke else '128' for key in ('embedding', 'hidden')
  }
  translation = grids.Grid(
    'translation',
    'experiments/translation.py:luong',
    {
      **quick,
      **width,
      'model.cell': 'gru',
      'model.bidirectional': 'False',
      'data.train_size': '100' if smoke else str(_TRAIN_SIZE['translation']),
      'evaluation.beam_size': '1' if smoke else '4',
      'evaluation.max_length': '3' if smoke else '0',
    },
    _cells(
      'translation',
      _TRANSLATORS,
      {'model.name': 'luong'},
      [('no attention', 100), ('additive', 100)],
      ['no attention', 'additive'],
      100 if smoke else _TRAIN_SIZE['translation'],
      seeds,
      smoke,
    ),
    seconds=8 if smoke else 65,
  )
  examples = texts(size, data_dir)
  own = {'training.steps': '1000', 'training.eval_every': '100'}
  own |= {'training.checkpoint_every': '1000'}
  if smoke:
    own |= {'data.max_length': '8'}  # one shape to compile
  if data_dir:
    own |= {'data.dir': data_dir, 'data.phrases': 'False'}
  else:
    own |= {'data.train_size': str(examples)}
  width = {
    f'model.{key}': '8' if smoke else '64' for key in ('embedding', 'hidden')
  }
  sentiment = grids.Grid(
    'sentiment',
    f'experiments/sentiment.py:attention{",sst2" if data_dir else ""}',
    {**own, **quick, **width},
    _cells(
      'sentiment',
      _POOLS,
      {'model.pool': 'attention'},
      [
        *((label, 100) for label in ('additive', *reading.RIVALS)),
        ('additive', reading.SHARES[0]),
        ('mean', reading.SHARES[0]),
      ],
      ['additive', 'mean'],
      examples,
      seeds,
      smoke,
    ),
    seconds=5 if smoke else 50,
  )
  return [translation, sentiment]


def more(cell: grids.Cell, runs: Sequence[pathlib.Path]) -> dict:
  """BLEU by length of translators; of pools the accuracy on trained texts."""
  if cell.name.startswith('sentiment'):
    label = cell.label.partition(',')[0]
    if label not in ('additive', 'mean'):
      return {}
    fitted = [_fitted(run) for run in runs]
    return {'values': {key: [f[key] for f in fitted] for key in fitted[0]}}
  bins = compare.bleu_by_length(
    {str(i): compare.records(run) for i, run in enumerate(runs)}
  )
  names, _, counts = bins['0']
  rows = np.array([values for _, values, _ in bins.values()])
  return {
    'values': {
      f'bleu/{name}': [round(float(v), 4) for v in rows[:, i]]
      for i, name in enumerate(names)
    },
    'lengths': dict(zip(names, counts, strict=True)),
  }


def _fitted(run: pathlib.Path) -> dict[str, float]:
  """Accuracy and loss of the best checkpoint on the texts it was trained on."""
  path = run / 'fitted.json'
  if not path.is_file():
    from attnlab import tasks, training

    training.cache_compilations()
    config = configs.from_json((run / 'config.json').read_text('utf-8'))
    task = tasks.build(config)
    training.restore(task, run)
    found = training.evaluate(task, splits=['train'], full=False)
    both = {k: v for k, v in found.items() if k != 'train/macro_f1'}
    fitted = {f'fitted/{k.partition("/")[2]}': v for k, v in both.items()}
    workdirs.write_json(path, fitted)
  found = json.loads(path.read_text('utf-8'))
  return {key: found[key] for key in ('fitted/accuracy', 'fitted/loss')}


def diagonal() -> float:
  """AER of the diagonal on the built-in test split: the same for all seeds."""
  total = alignment.Counts()
  for each in data.load('synthetic_en_zh', seed=0, train_size=1)['test']:
    sizes = [len(each[side].split()) for side in ('source', 'target')]
    links = alignment.diagonal(*sizes)
    total += alignment.compare(links, each['sure'], each['possible'])
  return total.error_rate


def collect(
  todo: Sequence[tuple[grids.Grid, pathlib.Path]],
  results: pathlib.Path,
  **about: Any,
) -> None:
  """Writes the entries of all finished runs, and about.json."""
  for grid, folder in todo:
    grids.collect(grid, folder, results, more)
  cells = [cell.name for grid, _ in todo for cell in grid.cells]
  found = grids.read(results)
  corpus = 'SST-2' if about.pop('sst') else 'the built-in sentiment corpus'
  stands_in = (
    '' if corpus == 'SST-2' else f' Here {corpus} stands in for SST-2.'
  )
  told = {
    'name': NAME,
    'order': cells,
    'texts': corpus,
    'design': _design() + stands_in,
    'aer_diagonal': diagonal(),
    'trained': {
      str(share): about['examples'] * share // 100
      for share in (*reading.SHARES, 100)
    },
    'runs': sum(len(found[name]['seeds']) for name in cells if name in found),
    'minutes': sum(
      found[name]['figures']['seconds'] * len(found[name]['seeds']) / 60
      for name in cells
      if name in found
    ),
    **about,
  }
  workdirs.write_json(results / 'about.json', told)


def _design() -> str:
  """What the docstring says of the runs, in one paragraph."""
  text = (__doc__ or '').partition('What is run. ')[2].partition('\n\n')[0]
  return ' '.join(text.split())


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs what is missing, and writes entries and page."""
  parser = argparse.ArgumentParser(
    description=(__doc__ or '').split('\n')[0],
  )
  parser.add_argument('--data_dir', help='of SST-2')
  parser.add_argument('--size', choices=SIZES, default='full')
  parser.add_argument('--out', type=pathlib.Path, help='gets docs/, results/')
  parser.add_argument('--runs', type=pathlib.Path, help='the run directories')
  parser.add_argument('--workers', type=int, default=2, help='runs at a time')
  parser.add_argument(
    '--report_only', action='store_true', help='from OUT/results alone'
  )
  given = parser.parse_args(arguments)
  runs = given.runs or ROOT / 'runs' / 'studies' / NAME / given.size
  # What is no result is not written among them.
  out = given.out or (ROOT if given.size == 'full' else runs)
  results = out / 'results' / 'studies' / NAME
  try:
    failed = []
    if not given.report_only:
      failed = _run(given, runs.resolve(), results)
    entries = grids.read(results)
    if 'about' not in entries:
      raise errors.UserError(f'{str(results)!r} holds no results')
    cells = reading.Cells(entries)
    found = questions.answer(reading.asked(__doc__ or ''), cells)
    path = attention_help_page.write(found, cells, out, NAME)
  except errors.UserError as error:
    print(f'error: {errors.one_line(error)}', file=sys.stderr)
    return 2
  except sweep.Stopped as stopped:
    print('stopped: the same command goes on')
    return 128 + stopped.number
  for number, each in enumerate(found, 1):
    print(f'{number}. {each.question.title} {each.text}')
  print(path)
  for line in failed:
    print(line, file=sys.stderr)
  return 1 if failed else 0


def _run(
  given: argparse.Namespace, runs: pathlib.Path, results: pathlib.Path
) -> list[str]:
  """Trains what is missing; returns a line for each run that failed."""
  errors.check_number('workers', given.workers, 1, 10_000)
  if not given.data_dir:
    print('no --data_dir: the built-in sentiment corpus stands in for SST-2')
  data_dir = given.data_dir and str(pathlib.Path(given.data_dir).resolve())
  if data_dir:
    # Better now than in each run.
    classification.load('sst', dir=data_dir, classes=2, phrases=False)
  todo = [(grid, runs / grid.name) for grid in study(given.size, data_dir)]
  if given.size == 'smoke':
    # Next to nothing runs there but the compiler.
    os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
  count, done, seconds = grids.estimate(todo, given.workers)
  print(
    f'{count} runs, {done} of them finished; about {seconds / 60:.0f} minutes '
    f'with {given.workers} workers',
    flush=True,
  )
  failed = [
    line
    for grid, folder in todo
    for line in grids.run(grid, folder, given.workers)
  ]
  words = ['python', f'experiments/studies/{NAME}.py']
  words += ['--data_dir=DIR'] if data_dir else []
  words += [f'--size={given.size}'] if given.size != 'full' else []
  collect(
    todo,
    results,
    sst=bool(data_dir),
    examples=texts(given.size, data_dir),
    size=given.size,
    workers=given.workers,
    command=' '.join(words),
  )
  return failed


if __name__ == '__main__':
  allocator.keep()  # as launch.py does
  sys.exit(main())
