"""The loop of a sweep: hands out points, takes results, tries again."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import pathlib
import signal
import threading
from typing import Any, NamedTuple

from attnlab import errors, locks
from attnlab.sweeps import engines, live, record, search, trial

_TICK = 0.5  # seconds


class Stopped(Exception):
  """A signal came. What ran has been saved, and goes on the next time."""

  def __init__(self, number: int):
    super().__init__(signal.Signals(number).name)
    self.number = number


class Plan(NamedTuple):
  """What every trial of a sweep shares.

  Attributes:
    spec: the experiment.
    overrides: {setting: text} of --config.a.b=value.
    text: of the space, as it was given.
    search: how points are drawn.
    objective: the figure that is a trial's value.
    watched: the figure that pruning looks at.
    watched_mode: whether 'max' or 'min' of it is better.
  """

  spec: str
  overrides: dict[str, str]
  text: str
  search: search.Search
  objective: str
  watched: str
  watched_mode: str

  def definition(self) -> dict[str, Any]:
    """Returns what may not change when the sweep goes on, as JSON data."""
    from attnlab.sweeps import spaces

    return {
      'config': self.spec,
      'overrides': self.overrides,
      'space': spaces.describe(self.search.space),
      'search': self.search.kind,
      'search_seed': self.search.seed,
      'pruner': self.search.pruner,
      'lag': self.search.lag,
      'objective': self.objective,
      'mode': self.search.mode,
    }

  def command(
    self, settings: Mapping[str, str], workdir: pathlib.Path
  ) -> list[str]:
    """Returns the words that run a point alone."""
    values = {**self.overrides, **settings}
    words = [f'--config.{path}={text}' for path, text in values.items()]
    return [
      'python', 'launch.py', f'--config={self.spec}', *words,
      f'--workdir={workdir}',
    ]  # fmt: skip

  def job(self, point: record.Trial, known: list[Any]) -> trial.Job:
    """Returns what the trial of a point is given."""
    pruned = self.search.pruner != 'none'
    return trial.Job(
      spec=self.spec,
      overrides={**self.overrides, **point.settings},
      workdir=str(point.workdir),
      command=point.command,
      objective=self.objective,
      watched=self.watched,
      mode=self.watched_mode,
      pruner=self.search.pruner,
      others=trial.others(known) if pruned else (),
    )


def check_extra() -> None:
  """Raises UserError where Optuna is not installed."""
  try:
    import optuna  # noqa: F401
  except ModuleNotFoundError as error:
    raise errors.UserError(
      "sweep needs the extra sweep: pip install -e '.[sweep]'"
    ) from error


def run(
  plan: Plan,
  folder: pathlib.Path,
  make_engine: Callable[[], engines.Engine],
  view: live.View,
) -> record.Record:
  """Runs a sweep, or goes on with it.

  Args:
    plan: what to run.
    folder: the sweep's.
    make_engine: called once the folder is ours.
    view: what shows it.

  Raises:
    UserError: the folder is in use or holds something else; a worker does not
      start.
    Stopped: a signal came.
  """
  definition = plan.definition()
  extra = {'sweep': plan.text, **definition}
  with locks.locked(folder, 'the sweep of process'):
    kept = record.Record(folder, plan.search, definition, plan.command)
    if all_ended(kept):
      kept.write(extra)
      return kept
    engine = make_engine()
    try:
      try:
        with _signals(), view.showing(kept):
          _Loop(plan, kept, engine, view, extra).run()
      finally:
        engine.close()
    except (Stopped, errors.UserError):
      for point in kept.ordered():
        if point.state == 'running' and not engine.outlives:
          _settle(kept, point, None)
      kept.write(extra)
      raise
    kept.write(extra)
  return kept


def all_ended(kept: record.Record) -> bool:
  """Whether nothing is left to do, as far as can be seen at the start."""
  ended = all(point.ended for point in kept.trials.values())
  return ended and len(kept.trials) >= kept.search.trials


class _Loop:
  """One start of one sweep."""

  def __init__(self, plan, kept, engine, view, extra):
    self.plan = plan
    self.kept: record.Record = kept
    self.engine: engines.Engine = engine
    self.view: live.View = view
    self.extra = extra
    self.used_up = False

  def run(self):
    for point in self.kept.ordered():
      if point.state == 'running' and not self.engine.attach(
        point.number, point.handle
      ):
        self.kept.interrupted(point)
    while True:
      while self.engine.free() > 0 and (point := self._next()):
        self._start(point)
      if all(p.ended for p in self.kept.trials.values()):
        return
      for ended in self.engine.wait(_TICK):
        self._end(ended)
      self.kept.beat()
      self.view.show(self.kept)

  def _next(self) -> record.Trial | None:
    """The next point: one that waits, else a new one; None for now."""
    kept, search_ = self.kept, self.plan.search
    for point in kept.ordered():
      if point.state == 'waiting':
        return point
    number = len(kept.trials)
    if number >= search_.trials or self.used_up:
      return None
    known = kept.known(number) if search_.waits else []
    if known is None:
      return None
    used = [point.values for point in kept.ordered()]
    values = search.draw(search_, number, known, used)
    if values is None:
      self.used_up = True
      return None
    return kept.add(number, values)

  def _start(self, point: record.Trial):
    known: list[Any] | None = []
    if self.plan.search.pruner != 'none':
      known = self.kept.known(point.number)
    point.workdir.mkdir(parents=True, exist_ok=True)
    self.kept.begin(point)
    job = self.plan.job(point, known or [])
    handle = self.engine.start(point.number, job)
    if handle:
      self.kept.started(point, handle)
    self.view.started(point)

  def _end(self, ended: engines.Ended):
    point = self.kept.trials[ended.number]
    _settle(self.kept, point, ended)
    self.kept.write(self.extra)
    self.view.ended(self.kept, point, ended.how)


def _settle(
  kept: record.Record, point: record.Trial, ended: engines.Ended | None
):
  """Records how an attempt ended; None: with the sweep."""
  if outcome := record.read_outcome(point.workdir):
    kept.end(point, outcome)
  elif ended is None or not ended.started:
    kept.interrupted(point)
  else:
    kept.killed(point, ended.how or 'left without a result')


@contextlib.contextmanager
def _signals() -> Iterator[None]:
  """Raises `Stopped` for SIGTERM and SIGINT, in the main thread."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  def stop(number: int, frame: object):
    del frame
    raise Stopped(number)

  before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def objective(given: str | None, config: Any) -> tuple[str, str, str, str]:
  """Reads --objective, which is FIGURE, max:FIGURE or min:FIGURE.

  Returns:
    The objective and its mode, the watched figure and its mode. Without an
    objective it is the figure that the task watches.

  Raises:
    UserError: the word before the colon is neither max nor min, or the figure
      says by no name which is better.
  """
  from attnlab.tasks import base

  watched, watched_mode = base.monitor(config)
  if given is None:
    return watched, watched_mode, watched, watched_mode
  mode, colon, figure = given.rpartition(':')
  if not figure or (colon and mode not in ('max', 'min')):
    raise errors.UserError(
      f'objective={given!r} must be FIGURE, max:FIGURE or min:FIGURE, such as '
      f'{watched_mode}:{watched}'
    )
  if not mode:
    low = ('loss', 'perplexity', 'aer', 'error', 'seconds', 'parameters')
    mode = 'min' if figure.rpartition('/')[2] in low else 'max'
  return figure, mode, watched, watched_mode
