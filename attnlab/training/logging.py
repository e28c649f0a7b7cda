"""Where the figures of a run go: metrics.jsonl, TensorBoard, the terminal."""

from collections.abc import Callable, Iterable, Mapping
import contextlib
import json
import os
import pathlib
import sys
import time
from typing import Any, TextIO

# Figures of the clock: two runs of one command differ in these alone.
TIMING = (
  'time',
  'train/steps_per_second',
  'train/tokens_per_second',
)


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the lines of a metrics.jsonl; a torn last line is left out."""
  lines = []
  for text in pathlib.Path(path).read_text().splitlines():
    try:
      lines.append(json.loads(text))
    except ValueError:
      break
  return lines


def without_timing(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Returns the lines without the figures of the clock."""
  return [{k: v for k, v in x.items() if k not in TIMING} for x in lines]


class Metrics:
  """Writes metrics.jsonl, the record, and TensorBoard's files beside it.

  Attributes:
    position: bytes of metrics.jsonl so far; a checkpoint remembers it.
    also: called as write is, with each line; None for nobody.
  """

  def __init__(
    self, workdir: pathlib.Path, *, position: int = 0, step: int = 0
  ):
    """Opens the record and cuts off what is after `position`.

    Args:
      workdir: the run directory.
      position: bytes to keep, those that the restored checkpoint knew.
      step: the restored step.
    """
    self._file = (workdir / 'metrics.jsonl').open('ab')
    if self._file.tell() > position:
      self._file.truncate(position)
      self._file.seek(position)
    self.position = self._file.tell()
    self._directory = workdir / 'tensorboard'
    self._step = step
    self._writer = None
    self.also: Callable[[int, Mapping[str, float]], None] | None = None

  def write(self, step: int, values: Mapping[str, float]):
    """Appends one line; figures of the clock are put last."""
    line = {'step': step, **values}
    for name in TIMING:
      if name in line:
        line[name] = round(line.pop(name), 3)
    self._file.write((json.dumps(line) + '\n').encode())
    self._file.flush()
    self.position = self._file.tell()
    if self._writer is None:
      self._writer = _Events(self._directory, self._step)
    for name, value in values.items():
      if name != 'time':
        self._writer.add(name, value, step)
    if self.also is not None:
      self.also(step, values)

  def sync(self):
    """Puts the record on the disk, before a checkpoint refers to it."""
    os.fsync(self._file.fileno())
    if self._writer is not None:
      self._writer.flush()

  def close(self):
    """Closes the files."""
    for file in (self._file, self._writer):
      # What a full disk refuses has been said already, by a line or a save.
      with contextlib.suppress(OSError):
        if file is not None:
          file.close()


class _Events:
  """A file of TensorBoard, written by this thread.

  tensorboardX's SummaryWriter hands events to a thread, which prints a
  traceback of its own when the disk is full, and loses two minutes of them when
  the process is killed.
  """

  def __init__(self, directory: pathlib.Path, step: int):
    # Late: the import would delay the first step.
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2

    protocol: Any = event_pb2
    self._make, self._event = summary.scalar, protocol.Event
    directory.mkdir(exist_ok=True)
    self._writer = event_file_writer.EventsWriter(str(directory / 'events'))
    if step:
      # What an earlier start wrote of later steps does not count.
      start = protocol.SessionLog(status=protocol.SessionLog.START)
      self._write(step=step + 1, session_log=start)

  def add(self, name: str, value: float, step: int):
    self._write(step=step, summary=self._make(name, value))

  def flush(self):
    self._writer.flush()

  def close(self):
    self._writer.close()

  def _write(self, **fields):
    self._writer.write_event(self._event(wall_time=time.time(), **fields))


class Silent:
  """Stands for `Metrics` and `Progress` where another process writes."""

  position = 0
  also: Callable[[int, Mapping[str, float]], None] | None = None

  def write(self, step: int, values: Mapping[str, float]):
    """Writes nothing."""

  def sync(self):
    """Has nothing to put anywhere."""

  def say(self, text: str):
    """Says nothing."""

  def at(self, step: int):
    """Moves nothing."""

  def report(self, step: int, values: Mapping[str, float], left: float):
    """Shows nothing."""

  def close(self):
    """Leaves all as it was."""


class Progress:
  """A progress bar on a terminal, plain lines elsewhere."""

  def __init__(self, steps: int, *, stream: TextIO | None = None):
    """Starts at step 0 of `steps`."""
    self._stream = stream or sys.stdout
    self._steps = steps
    self._bar = None
    if self._stream.isatty():
      self._bar, self._task = _bar(self._stream, steps)
      self._bar.start()

  def say(self, text: str):
    """Prints one line, above the bar where there is one."""
    if self._bar is None:
      print(text, file=self._stream, flush=True)
    else:
      self._bar.console.print(text, markup=False, highlight=False)

  def at(self, step: int):
    """Moves the bar."""
    if self._bar is not None:
      self._bar.update(self._task, completed=step)

  def report(self, step: int, values: Mapping[str, float], left: float):
    """Shows the figures of the last steps and the seconds that are left."""
    figures = '  '.join(
      f'{_short(name)} {_figure(value)}'
      for name, value in values.items()
      if name not in ('time', 'train/weight')
    )
    if self._bar is None:
      self.say(f'step {step}/{self._steps}  {figures}  left {clock(left)}')
    else:
      self._bar.update(
        self._task, completed=step, figures=figures, left=clock(left)
      )

  def close(self):
    """Leaves the terminal as it was."""
    if self._bar is not None:
      self._bar.stop()


def clock(seconds: float) -> str:
  """Returns '1:02:03', or '2:03' below an hour."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}:{minutes:02d}:{seconds:02d}'
  return f'{minutes}:{seconds:02d}'


def _bar(stream: TextIO, steps: int) -> tuple[Any, Any]:
  import rich.console
  import rich.progress as progress

  bar = progress.Progress(
    progress.BarColumn(bar_width=20),
    progress.MofNCompleteColumn(),
    progress.TextColumn('{task.fields[figures]}'),
    progress.TextColumn('left {task.fields[left]}'),
    console=rich.console.Console(file=stream),
    # Each refresh takes the interpreter's lock from the loop.
    refresh_per_second=2,
  )
  return bar, bar.add_task('', total=steps, figures='', left='-:--')


def _short(name: str) -> str:
  short = name.split('/', 1)[-1]
  return short.replace('_per_second', '/s').replace('_', ' ')


def _figure(value: float) -> str:
  if abs(value) >= 1000:
    return f'{value:,.0f}'
  return f'{value:.4g}'
