"""Does attention help? The page of the study."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from attnlab.measures import statistics
from attnlab.report import figures, tables
from attnlab.studies import attention_help as reading
from attnlab.studies import page, questions

_COMMAND = 'python experiments/studies/does_attention_help.py'
_MADE = f'<!-- Written by {_COMMAND} from results/studies. -->'
_SHOWN = ('no attention', 'uniform', 'additive', 'local-p', 'hard', 'sparsemax')
_EXAMPLES = (
  'translation_additive',
  'sentiment_additive',
  'sentiment_mean_10',
)
_COSTS = (
  tables.Column('steps/s', 'train/steps_per_second', 1),
  tables.Column('parameters', 'parameters', 0),
  tables.Column('minutes', 'seconds', 2, 1 / 60),
)


def write(
  found: Sequence[questions.Answer],
  cells: reading.Cells,
  out: pathlib.Path,
  name: str,
) -> pathlib.Path:
  """Writes OUT/docs/studies/NAME.md and its figures, and returns the page."""
  images = out / 'docs' / 'images' / 'studies'
  path = out / 'docs' / 'studies' / f'{name}.md'
  drawn = _figures(cells)
  shown = {}
  for key, (figure, caption) in drawn.items():
    figures.save_png(figure, images / f'{name}_{key}')
    alt = caption.partition('.')[0]
    shown[key] = f'![{alt}](../images/studies/{name}_{key}.png)\n\n*{caption}*'
  bold = _bold(found)
  sections = (
    [_lengths(cells, bold), shown.get('length', '')],
    [_translators(cells, bold)],
    [_classifiers(cells, bold), shown.get('pools', '')],
    [_scarce(cells), shown.get('scarce', '')],
    [shown.get('cost', ''), _COST],
  )
  blocks = [_MADE, '# Does attention help?', _abstract(cells)]
  blocks += ['## Answers', page.answers(found), page.tests(found), '## Design']
  blocks.append(tables.markdown_text(cells.about['design']))
  for number, (each, parts) in enumerate(zip(found, sections, strict=True), 1):
    title = tables.markdown_text(each.question.title)
    fixed = tables.markdown_text(each.question.fixed)
    blocks += [f'## {number}. {title}', f'Fixed before the runs. {fixed}']
    blocks += [f'**{tables.markdown_text(each.text)}**', page.by_seed(each)]
    blocks += [part for part in parts if part]
  blocks += ['## Limits', _LIMITS, '## How it was made', _how(cells)]
  blocks.append(page.made(cells.entries, _EXAMPLES))
  page.write(path, blocks)
  return path


def _abstract(cells: reading.Cells) -> str:
  texts = cells.about['texts']
  text = (
    'Translation of the built-in English-Chinese corpus, and classification '
    f'of {texts}, by the same recurrent networks with eleven ways to read '
    'their states: without attention, with uniform weights, and with eight '
    'mechanisms. Five questions, fixed beforehand, with a test each.'
  )
  if cells.about['size'] != 'full':
    text += (
      f' **This is the size "{cells.about["size"]}": a few steps of tiny '
      'models, which say nothing of attention.**'
    )
  return text


def _rows(cells: reading.Cells, task: str) -> list[Any]:
  """The entries of a task on all data."""
  names = [name for name in cells.about['order'] if name in cells.entries]
  return [
    cells.entries[name]
    for name in names
    if name.startswith(task)
    and not name.endswith(tuple(f'_{s}' for s in reading.SHARES))
  ]


def _bold(found: Sequence[questions.Answer]) -> set[tuple[str, str]]:
  """The cells of tables that a test has found better."""
  best = {
    0: [('translation_additive', 'fall'), ('translation_no_attention', 'fall')],
    1: [('translation_additive', 'test/aer')],
    2: [('sentiment_additive', 'test/accuracy')],
  }
  bold = set()
  for number, (larger, *smaller) in best.items():
    verdict = found[number].finding.verdict
    if verdict == questions.LARGER:
      bold.add(larger)
    elif verdict == questions.SMALLER:
      bold.update(smaller)
  return bold


def _note(number: int, count: int) -> str:
  others = max(count - 1, 1)
  return (
    'Mean ± standard deviation over seeds. Bold: better by the test of '
    f'question {number}. No other difference of the table is tested: with a '
    f'test for each row, significance takes {statistics.fewest(others)} seeds.'
  )


def _lengths(cells: reading.Cells, bold: set) -> str:
  rows = []
  for entry in _rows(cells, 'translation'):
    falls = cells.fall(entry['label'])
    rows.append(_with(entry, 'fall', falls))
  columns = [
    *(tables.Column(f'{b} words', f'bleu/{b}') for b in cells.trained()),
    tables.Column('fall', 'fall'),
    tables.Column('long', 'long/bleu'),
  ]
  note = (
    'BLEU on the test split by source length; fall: from the shortest to the '
    'longest; long: on sentences of 18 to 40 words. '
  )
  return page.table(rows, columns, notes=note + _note(1, len(rows)), bold=bold)


def _with(entry: Mapping, key: str, values: Mapping[int, float]) -> dict:
  """The entry with one more figure."""
  found = list(values.values())
  if not found:
    return dict(entry)
  return {
    **entry,
    'figures': {**entry['figures'], key: float(np.mean(found))},
    'values': {**entry.get('values', {}), key: found},
  }


def _translators(cells: reading.Cells, bold: set) -> str:
  rows = _rows(cells, 'translation')
  columns = (
    tables.Column('BLEU', 'test/bleu'),
    tables.Column('AER', 'test/aer', 3),
    tables.Column('precision, %', 'test/alignment_precision', 1, 100),
    tables.Column('recall, %', 'test/alignment_recall', 1, 100),
    tables.Column('AER (long)', 'long/aer', 3),
    *_COSTS,
  )
  note = (
    'AER, precision and recall of the strongest weight of each target word '
    'against the gold links, under forced decoding of the reference; AER of '
    f'the diagonal: {cells.about["aer_diagonal"]:.3f}. Of equal weights, as '
    'uniform ones are, the first counts. '
  )
  return page.table(rows, columns, notes=note + _note(2, len(rows)), bold=bold)


def _classifiers(cells: reading.Cells, bold: set) -> str:
  rows = _rows(cells, 'sentiment')
  columns = (
    tables.Column('accuracy, %', 'test/accuracy', 1, 100),
    tables.Column('macro-F1, %', 'test/macro_f1', 1, 100),
    tables.Column('gold word, %', 'test/pointing', 1, 100),
    tables.Column('loss, nats', 'test/loss', 3),
    *_COSTS,
  )
  note = f'Test split of {cells.about["texts"]}. '
  return page.table(rows, columns, notes=note + _note(3, len(rows)), bold=bold)


def _scarce(cells: reading.Cells) -> str:
  rows = []
  for label in ('additive', 'mean'):
    for share in (*reading.SHARES, 100):
      entry = cells.entries.get(reading.name_of('sentiment', label, share))
      if entry:
        count = cells.about['trained'][str(share)]
        entry = _with(entry, 'trained', dict.fromkeys(entry['seeds'], count))
        rows.append(_with(entry, 'gap', cells.gap(label, share)))
  columns = (
    tables.Column('texts', 'trained', 0),
    tables.Column('accuracy on them, %', 'fitted/accuracy', 1, 100),
    tables.Column('test accuracy, %', 'test/accuracy', 1, 100),
    tables.Column('gap, points', 'gap', 1),
    tables.Column('loss on them, nats', 'fitted/loss', 3),
    tables.Column('test loss, nats', 'test/loss', 3),
    tables.Column('best step', 'train/best_step', 0),
  )
  text = page.table(
    rows,
    columns,
    notes=(
      'Mean ± standard deviation over seeds, at the step that was best on the '
      'validation split. Question 4 tests the gaps with '
      f'{reading.SHARES[0]} % of the texts.'
    ),
  )
  rows = [
    cells.entries[name]
    for label in ('no attention', 'additive')
    for share in (*reading.SHARES, 100)
    if (name := reading.name_of('translation', label, share)) in cells.entries
  ]
  columns = (
    tables.Column('BLEU', 'test/bleu'),
    tables.Column('test loss, nats a word', 'test/loss', 3),
    tables.Column('training loss, nats a word', 'train/loss', 3),
    tables.Column('AER', 'test/aer', 3),
  )
  return (
    f'{text}\nThe translators with less data; the training loss is that of the '
    'last steps, with dropout. Nothing is tested.\n\n'
    + page.table(rows, columns, notes='')
  )


def _figures(cells: reading.Cells) -> dict[str, tuple[Any, str]]:
  """The figures with their captions."""
  drawn = {}
  bins = cells.bins()
  counts = cells.entries['translation_additive']['lengths']
  lines = {}
  for label in _SHOWN:
    found = [cells.values('translation', label, f'bleu/{b}') for b in bins]
    if all(found):
      lines[label] = np.array([list(values.values()) for values in found]).T
  caption = (
    'BLEU by source length, test split and long sentences together; nothing '
    f'above {reading.TRAINED} words was trained on. Lines are means over '
    'seeds, bands ± one standard deviation, bars the number of sentences.'
  )
  figure = figures.metric_by_length(
    lines,
    bins,
    [counts[b] for b in bins],
    ylabel='BLEU',
    counted='sentences',
    bottom=0,
  )
  drawn['length'] = figure, caption
  rows = {
    entry['label']: list(
      cells.values(
        'sentiment', entry['label'], 'test/accuracy', scale=100
      ).values()
    )
    for entry in _rows(cells, 'sentiment')
  }
  drawn['pools'] = (
    figures.dots(
      rows, 'test accuracy (%)', line=float(np.mean(rows.get('mean', [np.nan])))
    ),
    (
      'Accuracy by pool. Rings are seeds, squares their mean ± one standard '
      'deviation; the dashed line is the mean of the pool "mean".'
    ),
  )
  sizes = cells.about['trained']
  pools = lambda values: {
    label: {
      sizes[str(share)]: list(found.values())
      for share in (*reading.SHARES, 100)
      if (found := values(label, share))
    }
    for label in ('additive', 'mean')
  }
  accuracy = lambda label, share: cells.values(
    'sentiment', label, 'test/accuracy', share, 100
  )
  drawn['scarce'] = (
    figures.by_size(
      {
        'test accuracy (%)': pools(accuracy),
        'training − test accuracy (points)': pools(cells.gap),
      },
      'training texts',
    ),
    (
      'Accuracy and over-fitting by the number of training texts. Lines are '
      'means over seeds, bands ± one standard deviation.'
    ),
  )
  base = 'no attention'
  rows = {
    label: list(found.values())
    for entry in _rows(cells, 'translation')
    if (label := entry['label']) != base
    and (found := reading.slower(cells, 'translation', label, base))
  }
  drawn['cost'] = (
    figures.dots(rows, 'additional time of a training step (%)', line=0.0),
    (
      'What a training step of the translator takes beyond that of the same '
      'seed without attention. Rings are seeds, squares their mean ± one '
      'standard deviation.'
    ),
  )
  return drawn


_COST = (
  'Steps per second are the median over windows of a run, while as many other '
  'runs were under way as there were workers. The tables of questions 2 and 3 '
  'have them, parameters and minutes of all mechanisms.'
)
_LIMITS = (
  'One corpus a task, that of the translators generated; small networks, few '
  'steps and one setting of the optimiser for all, tuned for no mechanism. '
  'The questions were fixed before these runs, but not before all others: '
  'single runs of some cells with larger networks, in the README, were known. '
  'The seeds share the data and, where it is scarce, the same part of it, so '
  'that the intervals say what another seed would give, not another corpus. '
  'The test is exact but coarse: n pairs allow no p below 2/2^n before the '
  'correction. AER judges the strongest weight alone, under the reference. '
  'Times are of one machine.'
)


def _how(cells: reading.Cells) -> str:
  about = cells.about
  return (
    f'`{about["command"]}` writes this page, `{_COMMAND} --report_only` from '
    'the files of '
    f'[results/studies](../../results/studies/{about["name"]}) alone, which '
    'hold each figure by seed, config, versions and command. '
    f'{about["runs"]} runs of {about["minutes"]:.0f} minutes in all, summed '
    f'over {about["workers"]} workers.'
  )
