"""Every mechanism at work: one table, from one command.

  python benchmarks/mechanisms.py

trains the built-in translation model (`experiments/translation.py:luong`) with
every score under softmax, and with additive under every normaliser, every
locality and every position; and the built-in classifier with every pool. Each
is an ordinary run in runs/mechanisms/NAME, about a minute on two CPU cores; a
run that is finished is not repeated, one that was stopped goes on. Writes
results/mechanisms/NAME.json for each, and docs/mechanisms.md from all of these.

  python benchmarks/mechanisms.py --only=translation_score_dot,sentiment_max
  python benchmarks/mechanisms.py --only=          the page alone
"""

import argparse
from collections.abc import Mapping, Sequence
import json
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRANSLATION, SENTIMENT = 'translation', 'sentiment'
# The end of a run is what counts here, and nothing is drawn.
_QUICK = {'evaluation.pictures': '0'}
_COLUMNS = {
  TRANSLATION: (
    ('BLEU', 'test/bleu', '.1f', 1),
    ('BLEU, long', 'long/bleu', '.1f', 1),
    ('AER', 'test/aer', '.3f', 1),
    ('steps, s', 'train/seconds', '.0f', 1),
    ('parameters', 'parameters', ',.0f', 1),
  ),
  SENTIMENT: (
    ('accuracy', 'test/accuracy', '.1f', 100),
    ('gold word', 'test/pointing', '.1f', 100),
    ('steps, s', 'train/seconds', '.0f', 1),
    ('parameters', 'parameters', ',.0f', 1),
  ),
}


_MADE = (
  '<!-- Written by python benchmarks/mechanisms.py from results/mechanisms. -->'
)
_ABOUT = (
  'One run each, of one seed, on the built-in corpora: what a mechanism '
  'reaches where its neighbours were given the same model, data and steps, not '
  'what it could with settings of its own. [The catalogue](catalogue.md) says '
  'what they are; `python benchmarks/mechanisms.py` makes this page.'
)
_NOTES = (
  'BLEU and AER of the test split, BLEU also of sentences longer than any in '
  'training; accuracy and gold word (the largest weight is on a word that '
  'decides) in per cent. Steps: the seconds of all training steps at their '
  'median speed, without compilation and evaluation, on {hardware}, beside '
  'whatever else ran there.'
)
# Entropy of the weights as a share of that of equal ones.
_UNIFORM = 0.98


class Row(NamedTuple):
  """One run.

  Attributes:
    task: the experiment, which is the table it stands in.
    name: of its files.
    label: what the table calls it.
    config: the experiment with its variant.
    overrides: {path in the config: value}.
    note: what to expect of it, by what its parts declare; why there is no run
      if `refused`.
    refused: whether the model does not take it, or the run failed.
  """

  task: str
  name: str
  label: str
  config: str
  overrides: Mapping[str, str]
  note: str = ''
  refused: bool = False


def rows() -> list[Row]:
  """All runs, from the parts that there are."""
  from attnlab.report import parts

  found = [
    Row(
      TRANSLATION,
      'translation_no_attention',
      'no attention',
      'experiments/translation.py:no_attention',
      {},
    )
  ]
  for kind, path in parts.kinds().items():
    for name in parts.of_config(path).choices:
      if (kind, name) != ('normalizer', 'softmax'):  # additive has it
        found.append(_translation(kind, name))
  for name in parts.pools().choices:
    found.append(
      Row(
        SENTIMENT,
        f'sentiment_{name}',
        name,
        f'experiments/sentiment.py:{name}',
        {},
      )
    )
  return found


def _translation(kind: str, name: str) -> Row:
  """The model around a part, with the usual others or those it goes with."""
  from attnlab.report import support

  values: dict[str, str] = {}
  notes = []
  try:
    chosen = support.complete({kind: name})
    model = support.models()['luong']
    refusal = support.attempt(model, support.compose(chosen))
  except ValueError as error:
    chosen, refusal = {kind: name}, str(error)
  for part, other in chosen.items():
    values[f'attention.{part}.name'] = other
  usual = support.USUAL
  others = [o for k, o in chosen.items() if k != kind and o != usual[k]]
  if refusal.endswith('runs with model.bidirectional=False'):
    values['model.bidirectional'] = 'False'
    notes.append('an encoder of one direction, for equal depths')
    refusal = ''
  notes += [refusal] if refusal else _declared(chosen)
  return Row(
    TRANSLATION,
    f'translation_{kind}_{name}',
    ', '.join([name, *others]),
    'experiments/translation.py:luong',
    values,
    '; '.join(notes),
    bool(refusal),
  )


def _declared(chosen: Mapping[str, str]) -> list[str]:
  """What the parts of a mechanism say about learning it."""
  from attnlab.report import example, parts

  made = {
    kind: example.build(parts.of_config(f'attention.{kind}').choices[name])
    for kind, name in chosen.items()
  }
  notes = []
  if not made['score'].depends_on_query:
    notes.append('the query has no say')
  if made['score'].query_shifts:
    notes.append('the query adds the same to all scores of a row')
  if not made['normalizer'].differentiable:
    notes.append('no gradient reaches the scores')
  if 'locality' in made and not made['locality'].differentiable:
    notes.append('no gradient reaches the place of the window')
  return notes


def overrides(row: Row, steps: int) -> dict[str, str]:
  """The values of a row's config that are replaced; 0 steps are its own."""
  found = {**row.overrides, **_QUICK}
  if row.task == TRANSLATION:
    found['evaluation.beam_size'] = '1'
  if steps:
    keys = ('steps', 'eval_every', 'checkpoint_every')
    found |= {f'training.{key}': str(steps) for key in keys}
  return found


def run(row: Row, workdir: pathlib.Path, steps: int) -> str:
  """Trains a row unless it is finished; returns '' or the line of an error."""
  from attnlab import configs

  values = overrides(row, steps)
  if (workdir / 'summary.json').is_file():
    path = workdir / 'config.json'
    there = configs.from_json(path.read_text('utf-8'), name=str(path))
    wanted = configs.override(configs.load(row.config), values)
    if configs.to_data(there) == configs.to_data(wanted):
      return ''
  flags = [f'--config.{path}={value}' for path, value in values.items()]
  words = ['launch.py', f'--config={row.config}', *flags]
  done = subprocess.run(
    [sys.executable, *words, f'--workdir={workdir}'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  if not done.returncode:
    return ''
  lines = done.stderr.strip().splitlines() or [f'exit code {done.returncode}']
  return lines[-1]


def learned(row: Row, figures: Mapping[str, float], most: float) -> str:
  """What a run shows of its mechanism; '' where it has learned something.

  Args:
    row: the run.
    figures: of its entry.
    most: the entropy of equal weights on the same data.
  """
  entropy = figures.get('test/entropy', 0.0)
  if row.task != TRANSLATION or entropy < _UNIFORM * most:
    return ''
  if 'uniform' in row.label:
    return ''
  text = f'its weights stay equal, by an entropy of {entropy:.2f} nats'
  if 'inverse_euclidean' in row.label:
    text += ': in so many dimensions all inverse squares are near 0'
  return text


def page(found: Sequence[Row], entries: Mapping[str, Mapping]) -> str:
  """Returns docs/mechanisms.md from results/mechanisms/*.json."""
  from attnlab.report import results

  machines = dict.fromkeys(
    results.machine(entry['hardware']) for entry in entries.values()
  )
  notes = _NOTES.format(hardware=' and '.join(machines))
  blocks = [_MADE, '# Every mechanism at work', f'{_ABOUT} {notes}']
  uniform = entries.get('translation_normalizer_uniform', {'figures': {}})
  most = uniform['figures'].get('test/entropy', float('inf'))
  for task, columns in _COLUMNS.items():
    shown = [row for row in found if row.task == task]
    shown = [row for row in shown if row.refused or row.name in entries]
    if not shown:
      continue
    heads = [task, *(head for head, *_ in columns), 'note']
    lines = [heads, ['---', *('---:' for _ in columns), '---']]
    for row in shown:
      figures = dict(entries.get(row.name, {'figures': {}})['figures'])
      if 'train/steps_per_second' in figures:
        figures['train/seconds'] = (
          figures['train/steps'] / figures['train/steps_per_second']
        )
      label = row.label
      if row.name in entries:
        label = f'[{label}](../results/mechanisms/{row.name}.json)'
      cells = [
        format(figures[key] * scale, form) if key in figures else '–'
        for _, key, form, scale in columns
      ]
      note = '; '.join(filter(None, [row.note, learned(row, figures, most)]))
      lines.append([label, *cells, note.replace('|', '\\|')])
    blocks.append('\n'.join(f'| {" | ".join(line)} |' for line in lines))
  return '\n\n'.join(blocks) + '\n'


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs what is missing, and writes entries and page."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--only', help='names with commas between them')
  parser.add_argument('--steps', type=int, default=0, help='of each run')
  parser.add_argument(
    '--runs', type=pathlib.Path, default=ROOT / 'runs' / 'mechanisms'
  )
  parser.add_argument(
    '--out', type=pathlib.Path, default=ROOT, help='has docs/ and results/'
  )
  given = parser.parse_args(arguments)
  from attnlab import errors
  from attnlab.report import results

  found = rows()
  chosen = [row.name for row in found]
  if given.only is not None:
    chosen = list(filter(None, given.only.split(',')))
    for name in chosen:
      if name not in {row.name for row in found}:
        parser.error(str(errors.unknown('only', name, [r.name for r in found])))
  folder = given.out / 'results' / 'mechanisms'
  failed = 0
  for number, row in enumerate(found):
    if row.name not in chosen or row.refused:
      continue
    workdir = given.runs.resolve() / row.name
    if error := run(row, workdir, given.steps):
      print(f'{row.name}: {error}', file=sys.stderr, flush=True)
      found[number] = row._replace(note=error, refused=True)
      failed += 1
      continue
    entry: dict[str, Any] = results.collect(
      [workdir], name=row.name, label=row.label
    )
    results.write({**entry, 'note': row.note}, folder)
    _, key, form, scale = _COLUMNS[row.task][0]
    print(f'{row.name}: {entry["figures"][key] * scale:{form}}', flush=True)
  entries = {
    path.stem: json.loads(path.read_text('utf-8'))
    for path in folder.glob('*.json')
  }
  path = given.out / 'docs' / 'mechanisms.md'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(page(found, entries), encoding='utf-8')
  print(path)
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main())
