"""The paragraph on methods: what was trained, measured, with what and where.

Plain sentences made of configs, environments and summaries; Markdown.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from attnlab.measures import statistics
from attnlab.report import citations, groups, results, tables
from attnlab.report import runs as runs_lib

_MOST_COMMANDS = 60


def markdown(
  sections: Sequence[groups.Section], *, cite: Iterable[str] = ()
) -> str:
  """Returns the paragraphs, and a list of the commands, as Markdown.

  Args:
    sections: of the report.
    cite: keys of BibTeX that go with the text.
  """
  runs = [run for section in sections for run in section.runs]
  paragraphs = [
    *(_section(section) for section in sections),
    _statistics(sections),
    _tools(runs),
    _signatures(sections),
  ]
  if keys := list(cite):
    paragraphs.append(f'To cite (references.bib): {", ".join(keys)}.')
  blocks = ['## Methods', *(tables.markdown_text(p) for p in paragraphs if p)]
  blocks += ['## Commands', _commands(sections)]
  return '\n\n'.join(blocks) + '\n'


def _section(section: groups.Section) -> str:
  """What was trained on one data set."""
  config = section.settings[0].config
  runs = section.runs
  some = len(section.settings)
  seeds = sorted({len(setting.runs) for setting in section.settings})
  named = '; '.join(setting.label for setting in section.settings)
  text = f'{section.title}: {some} setting{"" if some == 1 else "s"}'
  text += f' ({named})' if some < 13 else ''
  text += f', {_range(seeds)} seed{"" if seeds == [1] else "s"} each.'
  same = lambda key: len({str(run.config.get(key)) for run in runs}) == 1
  told = []
  if same('optimizer.name') and config.get('optimizer.name'):
    optimizer = f'{config["optimizer.name"]}'
    if same('optimizer.learning_rate'):
      optimizer += (
        f' at a learning rate of {config.get("optimizer.learning_rate")}'
        f' ({config.get("optimizer.schedule", "constant")} schedule)'
      )
    told.append(f'trained with {optimizer}')
  if same('training.batch_size'):
    told.append(f'in batches of {config.get("training.batch_size")}')
  if same('training.steps'):
    told.append(f'for {config.get("training.steps")} steps')
  if same('training.precision'):
    told.append(f'in {config.get("training.precision")}')
  if told:
    text += f' All were {" ".join(told)}.'
  splits = str(config.get('evaluation.splits') or 'validation')
  if same('evaluation.splits'):
    first = splits.split(',')[0].strip()
    text += f' The checkpoint with the best {first} figure was evaluated.'
  if section.task == 'translation' and same('evaluation.beam_size'):
    text += (
      f' Translations were searched with a beam of '
      f'{config.get("evaluation.beam_size")}'
      f' (length penalty {config.get("evaluation.length_penalty")}).'
    )
  return text


def _statistics(sections: Sequence[groups.Section]) -> str:
  if all(len(s.runs) == 1 for section in sections for s in section.settings):
    return (
      'There is one seed of each setting, so that no interval and no test is '
      'possible.'
    )
  return (
    'Figures are means over seeds ± the standard deviation of the sample; '
    'intervals are 95 % BCa bootstrap intervals of the mean (Efron 1987).'
    f' Where settings share at least {statistics.FEWEST} seeds, differences'
    ' were tested by an exact permutation test over paired seeds (Fisher 1935)'
    " with Holm's correction over the table (Holm 1979)."
  )


def _tools(runs: Sequence[runs_lib.Run]) -> str:
  versions: dict[str, dict[str, None]] = {}
  for run in runs:
    for name, version in run.environment.get('versions', {}).items():
      versions.setdefault(str(name), {})[str(version)] = None
  shown = _list(f'{name} {" or ".join(v)}' for name, v in versions.items())
  python = _list(dict.fromkeys(str(r.environment.get('python')) for r in runs))
  commits = list(
    dict.fromkeys(
      str(c)[:10] + ('+changes' if str(c).endswith('+changes') else '')
      for run in runs
      if (c := run.environment.get('commit'))
    )
  )
  machines = _list(
    dict.fromkeys(results.machine(run.environment) for run in runs)
  )
  hours = sum(
    float(run.summary.get('seconds', 0))
    for run in runs
    if isinstance(run.summary.get('seconds'), int | float)
  )
  text = f'Python {python} with {shown}. Hardware: {machines}'
  text += f'; {hours / 3600:.1f} hours of training in all.'
  if commits:
    shown = ', '.join(commits[:6]) + (' and others' if commits[6:] else '')
    text += f' Commit{"" if len(commits) == 1 else "s"}: {shown}.'
  return text


def _signatures(sections: Sequence[groups.Section]) -> str:
  """How the figures that the tables show were computed."""
  found: dict[str, None] = {}
  for section in sections:
    shown = [*tables.columns(section)]
    if measures := tables.measures(section):
      shown += measures.columns
    names = {column.key.rpartition('/')[2] for column in shown}
    for run in section.runs:
      for name, signature in results._signatures(run.summary).items():
        if name in names:
          found[f'{name} is {signature}'] = None
  return f'Metrics: {"; ".join(found)}.' if found else ''


def _commands(sections: Sequence[groups.Section]) -> str:
  """One command a setting, in a block; seeds and folds are for the shell."""
  lines: dict[str, None] = {}
  for section in sections:
    for setting in section.settings:
      words = setting.runs[0].environment.get('command')
      if not isinstance(words, list) or not all(
        isinstance(word, str) for word in words
      ):
        continue
      several = len(setting.runs) > 1
      line = results.command_line(words, several=several)
      lines[tables.one_line(line)] = None
  shown = list(lines)[:_MOST_COMMANDS]
  if len(lines) > len(shown):
    shown.append(f'# and {len(lines) - len(shown)} more')
  # The longest fence that a command could hold is shorter than this one.
  fence = '`' * (3 + max((line.count('`') for line in shown), default=0))
  return '\n'.join([f'{fence}sh', *shown, fence])


def _range(counts: Sequence[int]) -> str:
  if len(counts) == 1:
    return str(counts[0])
  return f'{counts[0]} to {counts[-1]}'


def _list(words: Iterable[Any]) -> str:
  return ', '.join(map(str, words))


def keys(runs: Sequence[runs_lib.Run]) -> list[str]:
  """Keys of BibTeX that the runs call for and attnlab has."""
  known = citations.entries()
  return [key for key in citations.used(runs) if key in known]
