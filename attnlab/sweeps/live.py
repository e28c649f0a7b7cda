"""What a sweep shows: a live table on a terminal, plain lines elsewhere."""

from collections import Counter
from collections.abc import Iterator
import contextlib
import json
import shlex
import statistics
import time
from typing import Any

import rich.console
import rich.live
import rich.table
from rich.text import Text

from attnlab.sweeps import record
from attnlab.training import logging

_SHOWN = 20
_TAIL = 4096


class View:
  """Shows a sweep as it goes."""

  def __init__(
    self,
    objective: str,
    workers: int,
    console: rich.console.Console | None = None,
  ):
    self._objective = objective
    self._workers = workers
    self._console = console or rich.console.Console()
    self._live: rich.live.Live | None = None
    self._began: dict[int, float] = {}

  @contextlib.contextmanager
  def showing(self, kept: record.Record) -> Iterator[None]:
    """Shows the live table within, on a terminal."""
    if done := [point for point in kept.ordered() if point.ended]:
      self.say(
        f'going on: {len(done)} of {kept.search.trials} trials have ended'
      )
    if not self._console.is_terminal:
      yield
      return
    with rich.live.Live(
      self.table(kept), console=self._console, refresh_per_second=2
    ) as self._live:
      try:
        yield
      finally:
        self._live.update(self.table(kept))
    self._live = None

  def say(self, text: str):
    """Prints one line, above the table."""
    self._console.print(
      text, markup=False, highlight=False, soft_wrap=True, emoji=False
    )
    self._console.file.flush()

  def started(self, point: record.Trial):
    """Says by which command the trial runs alone."""
    self._began[point.number] = time.monotonic()
    again = f' (attempt {point.attempts})' if point.attempts > 1 else ''
    self.say(f'{point.number:04d}{again} {shlex.join(point.command)}')

  def ended(self, kept: record.Record, point: record.Trial, how: str):
    """Says what came of a trial."""
    seconds = time.monotonic() - self._began.pop(point.number, 0.0)
    if point.state == 'waiting':
      told = f'{how or "not started"}: it is tried again'
    elif point.state == 'failed':
      told = f'failed: {point.error}'
    else:
      told = f'{point.state}: {self._objective} {number(point.value)}'
    self.say(
      f'{point.number:04d} {told} ({seconds:.1f} s; {self.summary(kept)})'
    )
    self.show(kept)

  def show(self, kept: record.Record):
    """Draws the table anew."""
    if self._live is not None:
      self._live.update(self.table(kept))

  def summary(self, kept: record.Record) -> str:
    """Returns one line: counts, the best so far, the time left."""
    counts = Counter(point.state for point in kept.trials.values())
    ended = sum(point.ended for point in kept.trials.values())
    words = [f'{ended} of {kept.search.trials}']
    for state in ('failed', 'pruned'):
      if counts[state]:
        words.append(f'{counts[state]} {state}')
    if best := kept.best():
      words.append(f'best {number(best.value)} by {best.number:04d}')
    left = self.left(kept)
    if left is not None:
      words.append(f'left {logging.clock(left)}')
    return ', '.join(words)

  def left(self, kept: record.Record) -> float | None:
    """Returns the seconds that are left, from the mean of what has ended."""
    took = [p.seconds for p in kept.trials.values() if p.ended and p.seconds]
    if not took:
      return None
    ended = sum(point.ended for point in kept.trials.values())
    each = statistics.fmean(took)
    now = time.monotonic()
    gone = sum(min(now - began, each) for began in self._began.values())
    rest = (kept.search.trials - ended) * each - gone
    return max(rest, 0.0) / self._workers

  def table(self, kept: record.Record) -> rich.table.Table:
    """Returns what runs, and the best so far."""
    table = rich.table.Table(
      box=None,
      header_style='bold',
      pad_edge=False,
      caption=Text(self.summary(kept)),
      caption_justify='left',
    )
    for head in ('trial', 'state', 'step', self._objective, 'settings'):
      table.add_column(head, overflow='fold')
    for point in kept.ordered():
      if point.state == 'running':
        step, value = progress(point, self._objective)
        table.add_row(
          f'{point.number:04d}', 'running', step, value, _settings(point)
        )
    if best := kept.best():
      table.add_row(
        f'{best.number:04d}', 'best', '', number(best.value), _settings(best)
      )
    return table

  def result(self, kept: record.Record):
    """Prints the table of a sweep, the best first, and its commands."""
    sign = -1 if kept.search.mode == 'max' else 1
    order = {'complete': 0, 'pruned': 1, 'failed': 2}
    points = sorted(
      kept.ordered(),
      key=lambda p: (order.get(p.state, 3), sign * (p.value or 0.0), p.number),
    )
    table = rich.table.Table(box=None, header_style='bold', pad_edge=False)
    paths = list(dict.fromkeys(path for p in points for path in p.settings))
    table.add_column('trial')
    table.add_column(self._objective, justify='right')
    for path in paths:
      table.add_column(path, overflow='fold')
    table.add_column('seconds', justify='right')
    table.add_column('state', overflow='fold')
    for point in points[:_SHOWN]:
      told = point.state if not point.error else f'failed: {point.error}'
      table.add_row(
        f'{point.number:04d}',
        number(point.value),
        *(Text(_short(point.settings.get(path, ''))) for path in paths),
        '–' if point.seconds is None else f'{point.seconds:.1f}',
        Text(told),
      )
    self._console.print(table)
    if len(points) > _SHOWN:
      self.say(f'... and {len(points) - _SHOWN} more')
    if best := kept.best():
      self.say(f'best: {shlex.join(best.command)}')
    self.say(self.summary(kept))


def progress(point: record.Trial, objective: str) -> tuple[str, str]:
  """Returns the last step of a running trial, and its last figure."""
  step, value = '', ''
  try:
    with (point.workdir / 'metrics.jsonl').open('rb') as file:
      end = file.seek(0, 2)
      file.seek(max(0, end - _TAIL))
      lines = file.read().decode(errors='replace').splitlines()
  except OSError:
    return step, value
  for text in lines:
    with contextlib.suppress(ValueError):
      line: Any = json.loads(text)
      if isinstance(line, dict):
        step = str(line.get('step', step))
        if objective in line:
          value = number(line[objective])
  return step, value


def number(value: float | None) -> str:
  """Returns a figure with four digits, '–' for none."""
  return '–' if value is None else f'{value:.4g}'


def _settings(point: record.Trial) -> Text:
  return Text(
    ' '.join(f'{path}={_short(v)}' for path, v in point.settings.items())
  )


def _short(text: str) -> str:
  """A number with four digits, as a table has no room for more."""
  try:
    return f'{float(text):.4g}' if '.' in text or 'e' in text else text
  except ValueError:
    return text
