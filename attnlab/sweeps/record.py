"""A sweep's folder: its lock, Optuna's study on SQLite, sweep.json.

  WORKDIR/study.sqlite3    every attempt at every point, as Optuna's trials
  WORKDIR/sweep.json       the same for readers, after each trial and at the end
  WORKDIR/trials/0007/     the run directory of point 7, and trial.json, log.txt

One process at a time writes here, which holds WORKDIR/.lock. What another one
left as RUNNING has therefore ended with it: it is failed as interrupted and
queued again, at once. The heartbeat says the same to other tools of Optuna that
look at the study.
"""

from collections.abc import Callable, Mapping
import dataclasses
import json
import math
import pathlib
import time
from typing import Any
import warnings

from attnlab import errors, workdirs
from attnlab.sweeps import search as searches

RETRIES = 1
HEARTBEAT = 30  # seconds
_NAME = 'sweep'


@dataclasses.dataclass
class Trial:
  """One point of a sweep.

  Attributes:
    number: of the point.
    values: {axis: value in the study}.
    settings: {setting: text}.
    workdir: the run directory.
    command: the words that run it alone.
    state: 'waiting', 'running', 'complete', 'pruned' or 'failed'.
    value: the objective; of a pruned trial, the last that was watched.
    error: one line, of a failed trial.
    kills: how many attempts were killed.
    attempts: how many there were, with those that stopped with the sweep.
    seconds: of the attempt that ended it.
    id: of the newest attempt, in the study.
    handle: what the engine calls the newest attempt.
  """

  number: int
  values: dict[str, Any]
  settings: dict[str, str]
  workdir: pathlib.Path
  command: list[str]
  state: str = 'waiting'
  value: float | None = None
  error: str = ''
  kills: int = 0
  attempts: int = 0
  seconds: float | None = None
  id: int = -1
  handle: str = ''

  @property
  def ended(self) -> bool:
    return self.state in ('complete', 'pruned', 'failed')


class Record:
  """All that is known of a sweep, in memory and on the disk."""

  def __init__(
    self,
    folder: pathlib.Path,
    search: searches.Search,
    definition: Mapping[str, Any],
    command: Callable[[Mapping[str, str], pathlib.Path], list[str]],
  ):
    """Opens the study, or makes it; queues again what was interrupted.

    Args:
      folder: the sweep's, locked.
      search: how points are drawn.
      definition: what may not change when a sweep goes on, as JSON data.
      command: (settings, run directory) -> the words that run a point alone.

    Raises:
      UserError: the folder holds another sweep, or a run.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    self.folder = folder
    self.search = search
    self._command = command
    self.trials: dict[int, Trial] = {}
    self._states = optuna.trial.TrialState
    self._make = optuna.trial.create_trial
    self._distributions = searches.distributions(search.space)
    self._ended: dict[int, Any] = {}
    if (folder / 'config.json').exists():
      raise errors.UserError(
        f'workdir={str(folder)!r} holds a run, no sweep; choose another one'
      )
    self._storage = _open(folder / 'study.sqlite3')
    direction = 'maximize' if search.mode == 'max' else 'minimize'
    study = optuna.create_study(
      study_name=_NAME,
      storage=self._storage,
      direction=direction,
      load_if_exists=True,
    )
    there = study.user_attrs.get('definition')
    if there is None:
      study.set_user_attr('definition', dict(definition))
    elif changed := _changed(there, definition):
      raise errors.UserError(
        f'workdir={str(folder)!r} holds another sweep: {changed}; choose '
        'another --workdir'
      )
    self._study = self._storage.get_study_id_from_name(_NAME)
    self._beaten = 0.0
    for frozen in self._storage.get_all_trials(self._study, deepcopy=False):
      self._load(frozen)
    for trial in self.trials.values():
      self._mend(trial)

  def add(self, number: int, values: Mapping[str, Any]) -> Trial:
    """Queues a new point."""
    trial = self._point(number, values)
    self._queue(trial)
    return trial

  def begin(self, trial: Trial):
    """Marks a waiting trial as running."""
    (trial.workdir / 'trial.json').unlink(missing_ok=True)
    trial.state = 'running'
    self._storage.set_trial_state_values(trial.id, self._states.RUNNING)
    self._storage.record_heartbeat(trial.id)

  def started(self, trial: Trial, handle: str):
    """Keeps what the engine calls the attempt."""
    trial.handle = handle
    self._storage.set_trial_user_attr(trial.id, 'handle', handle)

  def beat(self):
    """Records the heartbeat of what runs, now and then."""
    if time.monotonic() - self._beaten < HEARTBEAT / 2:
      return
    self._beaten = time.monotonic()
    for trial in self.trials.values():
      if trial.state == 'running':
        self._storage.record_heartbeat(trial.id)

  def end(self, trial: Trial, outcome: Mapping[str, Any]):
    """Records what trial.json says."""
    state, value = outcome['state'], outcome.get('value')
    for step, watched in outcome.get('watched', {}).items():
      if math.isfinite(watched):
        self._storage.set_trial_intermediate_value(
          trial.id, int(step), float(watched)
        )
    for name, rung in outcome.get('rungs', {}).items():
      self._storage.set_trial_system_attr(trial.id, name, rung)
    trial.seconds = outcome.get('seconds')
    if trial.seconds is not None:
      self._storage.set_trial_user_attr(trial.id, 'seconds', trial.seconds)
    if state == 'failed':
      self.fail(trial, outcome.get('error', ''), 'error')
      return
    trial.state, trial.value = state, value
    kind = self._states.COMPLETE if state == 'complete' else self._states.PRUNED
    values = None if value is None else [float(value)]
    self._storage.set_trial_state_values(trial.id, kind, values)

  def fail(self, trial: Trial, error: str, how: str):
    """Records a failure that is not tried again."""
    self._storage.set_trial_user_attr(trial.id, 'ended', how)
    self._storage.set_trial_user_attr(trial.id, 'error', error)
    self._storage.set_trial_state_values(trial.id, self._states.FAIL)
    trial.state, trial.error = 'failed', error

  def killed(self, trial: Trial, how: str):
    """Records a killed attempt, and queues another one unless it was that."""
    trial.kills += 1
    if trial.kills > RETRIES:
      times = 'twice' if trial.kills == 2 else f'{trial.kills} times'
      self.fail(trial, f'{how}; {times} in all', 'killed')
      return
    self._again(trial, 'killed')

  def interrupted(self, trial: Trial):
    """Queues again what ended through no fault of its own."""
    self._again(trial, 'interrupted')

  def known(self, number: int) -> list[Any] | None:
    """Returns Optuna's trials that point `number` is drawn from.

    None while one of them has not ended. Failed ones tell a search nothing.
    """
    last = number - self.search.lag
    before = [self.trials[n] for n in range(max(last + 1, 0))]
    if not all(trial.ended for trial in before):
      return None
    return [self._frozen(trial) for trial in before if trial.state != 'failed']

  def best(self) -> Trial | None:
    """Returns the best complete trial; the first among equals."""
    found = [
      t for t in self.ordered() if t.state == 'complete' and t.value is not None
    ]
    if not found:
      return None
    sign = -1 if self.search.mode == 'max' else 1
    return min(found, key=lambda trial: sign * (trial.value or 0.0))

  def ordered(self) -> list[Trial]:
    return [self.trials[number] for number in sorted(self.trials)]

  def write(self, definition: Mapping[str, Any]) -> pathlib.Path:
    """Writes sweep.json and returns its path."""
    best = self.best()
    workdirs.write_json(
      self.folder / 'sweep.json',
      {
        **definition,
        'trials': self.search.trials,
        'best': None if best is None else best.number,
        'points': [
          {
            'number': trial.number,
            'settings': trial.settings,
            'state': trial.state,
            'value': trial.value,
            'error': trial.error,
            'kills': trial.kills,
            'attempts': trial.attempts,
            'seconds': trial.seconds,
            'workdir': str(trial.workdir),
            'command': trial.command,
          }
          for trial in self.ordered()
        ],
      },
    )
    return self.folder / 'sweep.json'

  def _point(self, number: int, values: Mapping[str, Any]) -> Trial:
    settings = searches.settings(self.search.space, values)
    workdir = self.folder / 'trials' / f'{number:04d}'
    command = self._command(settings, workdir)
    trial = Trial(number, dict(values), settings, workdir, command)
    self.trials[number] = trial
    return trial

  def _queue(self, trial: Trial, history: tuple[int, ...] = ()):
    """Adds an attempt to the study, as Optuna's own retries do."""
    marks: dict[str, Any] = {'fixed_params': trial.values}
    if history:
      marks |= {'failed_trial': history[0], 'retry_history': list(history)}
    frozen = self._make(
      state=self._states.WAITING,
      params=trial.values,
      distributions=self._distributions,
      user_attrs={
        'point': trial.number,
        'workdir': str(trial.workdir),
        'command': trial.command,
      },
      system_attrs=marks,
    )
    trial.id = self._storage.create_new_trial(self._study, frozen)
    trial.state, trial.handle = 'waiting', ''
    trial.attempts += 1

  def _again(self, trial: Trial, how: str):
    # A process that dies between two of these lines is mended by the next one.
    self._storage.set_trial_user_attr(trial.id, 'ended', how)
    self._storage.set_trial_state_values(trial.id, self._states.FAIL)
    self._queue_after(trial)

  def _queue_after(self, trial: Trial):
    before = self._storage.get_trial(trial.id)
    history = before.system_attrs.get('retry_history', [])
    self._queue(trial, (*history, before.number))

  def _frozen(self, trial: Trial) -> Any:
    if trial.number not in self._ended:
      self._ended[trial.number] = self._storage.get_trial(trial.id)
    return self._ended[trial.number]

  def _load(self, frozen: Any):
    """Takes over one attempt; those of a point come in order."""
    marks = frozen.user_attrs
    number = marks['point']
    trial = self.trials.get(number)
    if trial is None:
      trial = self._point(number, frozen.params)
    trial.id = frozen._trial_id
    trial.attempts += 1
    trial.kills += marks.get('ended') == 'killed'
    trial.handle = marks.get('handle', '')
    trial.seconds = marks.get('seconds')
    trial.error = marks.get('error', '')
    trial.value = frozen.value
    trial.state = {'FAIL': 'failed'}.get(
      frozen.state.name, frozen.state.name.lower()
    )

  def _mend(self, trial: Trial):
    """Ends what a dead process left in the middle."""
    if trial.state == 'failed' and not trial.error:
      # Recorded as killed or interrupted, and not queued again yet.
      self._queue_after(trial)
    elif trial.state == 'failed':
      self._look_again(trial)
    elif trial.state == 'running' and (outcome := read_outcome(trial.workdir)):
      self.end(trial, outcome)

  def _look_again(self, trial: Trial):
    """A failed trial that somebody ran alone to its end has a result now."""
    outcome = read_outcome(trial.workdir)
    if outcome and outcome['state'] == 'complete':
      self._queue_after(trial)
      trial.error = ''
      self.end(trial, outcome)


def read_outcome(workdir: pathlib.Path) -> dict[str, Any] | None:
  """Returns trial.json; None where there is none."""
  try:
    outcome = json.loads((workdir / 'trial.json').read_text('utf-8'))
  except (OSError, ValueError):
    return None
  known = ('complete', 'pruned', 'failed')
  right = isinstance(outcome, dict) and outcome.get('state') in known
  return outcome if right else None


def _open(path: pathlib.Path) -> Any:
  import optuna
  import sqlalchemy

  url = sqlalchemy.URL.create('sqlite', database=str(path.absolute()))
  try:
    with warnings.catch_warnings():
      # The heartbeat is marked as experimental.
      warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
      storage = optuna.storages.RDBStorage(
        url.render_as_string(),
        heartbeat_interval=HEARTBEAT,
        grace_period=4 * HEARTBEAT,
        engine_kwargs={'connect_args': {'timeout': 60}},
      )
    sqlalchemy.event.listens_for(storage.engine, 'connect')(_quick)
    storage.engine.dispose()
    return storage
  except (sqlalchemy.exc.DatabaseError, AssertionError) as error:
    raise errors.UserError(
      f'{str(path)!r} is no study: {errors.one_line(error)[:160]}'
    ) from error


def _quick(connection: Any, _: Any):
  """Ten writes a trial need not wait for the disk ten times.

  What a kill leaves is whole; a power cut can take the last trials out of the
  study, and their run directories say then that they are finished.
  """
  connection.execute('PRAGMA journal_mode=WAL')
  connection.execute('PRAGMA synchronous=NORMAL')


def _changed(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
  """The first things that differ between two definitions."""
  here = json.loads(json.dumps(here))
  names = [
    name
    for name in sorted(there.keys() | here.keys())
    if there.get(name) != here.get(name)
  ]
  return ', '.join(
    f'{name}={errors.shortened(here.get(name))} (there: '
    f'{errors.shortened(there.get(name))})'
    for name in names[:3]
  )
