"""One trial: an ordinary run in its own directory, unless it is pruned.

What a trial is given is JSON data (`Job`), and what comes of it is
WORKDIR/trial.json, on whatever machine it ran.
"""

from collections.abc import Mapping
import fcntl
import functools
import json
import math
import os
import pathlib
import sys
import time
import traceback
from typing import Any, NamedTuple

from attnlab import configs, errors, workdirs
from attnlab.sweeps import search

_PATIENCE = 60.0  # seconds for an earlier attempt to leave the directory


class Job(NamedTuple):
  """What one trial needs.

  Attributes:
    spec: the experiment, 'translation:luong'.
    overrides: {setting: text}, of the sweep and of the point.
    workdir: the run directory.
    command: the words that run it alone.
    objective: the figure of summary.json that is the trial's value.
    watched: the figure that pruning looks at, by its name in metrics.jsonl.
    mode: whether 'max' or 'min' of `watched` is better.
    pruner: one of search.PRUNERS.
    others: of the trials that pruning compares with: [{'state', 'watched',
      'rungs'}].
  """

  spec: str
  overrides: dict[str, str]
  workdir: str
  command: list[str]
  objective: str
  watched: str = ''
  mode: str = 'max'
  pruner: str = 'none'
  others: tuple[Mapping[str, Any], ...] = ()


class Pruned(Exception):
  """The trial is behind the others, and ends here."""


class Watch:
  """Is told each evaluation, and raises `Pruned`."""

  def __init__(self, job: Job, config: Mapping[str, Any]):
    self.watched: dict[int, float] = {}
    self._key = job.watched
    self._steps = config['training']['steps']
    self._trial: Any = None
    if job.pruner != 'none':
      self._trial = _stand_in(job, config['training'].get('eval_every', 1))

  def __call__(self, step: int, values: Mapping[str, float]) -> None:
    """Takes the figures of an evaluation."""
    if self._key not in values or step in self.watched:
      return
    self.watched[step] = float(values[self._key])
    if self._trial is None or not math.isfinite(self.watched[step]):
      return
    self._trial.report(self.watched[step], step)
    # At the last step there is nothing left to save.
    if self._trial.should_prune() and step < self._steps:
      raise Pruned

  def again(self, workdir: pathlib.Path):
    """Takes what an attempt that was killed has evaluated."""
    from attnlab.training import logging

    path = workdir / 'metrics.jsonl'
    for line in logging.read(path) if path.exists() else ():
      self(line['step'], line)

  def rungs(self) -> dict[str, float]:
    """What the pruner wants to know of this trial later."""
    if self._trial is None:
      return {}
    return {
      name: value
      for name, value in self._trial.study.trials[-1].system_attrs.items()
      if name.startswith('completed_rung_')
    }


def run(job: Job) -> int:
  """Runs a trial in this process, and writes trial.json.

  Returns:
    0 where trial.json says what came of it, else 128 and the signal by which
    the trial was stopped; it goes on from there when it is run again.
  """
  began = time.monotonic()
  workdir = pathlib.Path(job.workdir)
  sys.argv = job.command[1:]
  watch = None
  outcome: dict[str, Any]
  try:
    from attnlab import tasks, training

    try:
      config = configs.override(configs.load(job.spec), job.overrides)
      watch = Watch(job, config)
      training.cache_compilations()
      _wait_for(workdir)
      watch.again(workdir)
      summary = training.fit(
        config, functools.partial(tasks.build, config), workdir, watch=watch
      )
      outcome = _complete(job, summary)
    except training.Stopped as stopped:
      return 128 + stopped.number
    except Pruned:
      last = watch.watched[max(watch.watched)] if watch else None
      print('pruned', flush=True)
      outcome = {'state': 'pruned', 'value': last}
    except errors.UserError as error:
      print(errors.one_line(error), file=sys.stderr, flush=True)
      outcome = _failed(errors.one_line(error))
  except Exception as error:
    traceback.print_exc()
    told = errors.of_the_system(error)
    outcome = _failed(
      told or errors.one_line(f'{type(error).__name__}: {error}')
    )
  outcome['seconds'] = round(time.monotonic() - began, 3)
  if watch is not None:
    outcome['watched'] = watch.watched
    outcome['rungs'] = watch.rungs()
  workdir.mkdir(parents=True, exist_ok=True)
  workdirs.write_json(workdir / 'trial.json', outcome)
  return 0


def to_json(job: Job) -> str:
  """Returns the job as one line."""
  return json.dumps(job._asdict())


def from_json(text: str) -> Job:
  """Returns the job that `to_json` wrote."""
  return Job(**json.loads(text))


def to_log(workdir: str):
  """Sends what this process prints to log.txt of a run directory."""
  path = pathlib.Path(workdir)
  path.mkdir(parents=True, exist_ok=True)
  with (path / 'log.txt').open('ab') as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)


def others(known: list[Any]) -> tuple[dict[str, Any], ...]:
  """Returns Optuna's trials as a job holds them."""
  return tuple(
    {
      'state': frozen.state.name,
      'watched': {str(k): v for k, v in frozen.intermediate_values.items()},
      'rungs': {
        k: v
        for k, v in frozen.system_attrs.items()
        if k.startswith('completed_rung_')
      },
    }
    for frozen in known
  )


def _stand_in(job: Job, every: int) -> Any:
  """A trial of a study in memory, among the others and with the pruner."""
  import optuna

  optuna.logging.set_verbosity(optuna.logging.WARNING)
  study = optuna.create_study(
    direction='maximize' if job.mode == 'max' else 'minimize',
    pruner=search.pruner(job.pruner, every),
  )
  for other in job.others:
    watched = {int(k): v for k, v in other['watched'].items()}
    if watched:
      study.add_trial(
        optuna.trial.create_trial(
          state=optuna.trial.TrialState[other['state']],
          value=watched[max(watched)],
          intermediate_values=watched,
          system_attrs=dict(other['rungs']),
        )
      )
  return study.ask()


def _complete(job: Job, summary: Mapping[str, Any]) -> dict[str, Any]:
  value = summary.get(job.objective)
  if not isinstance(value, (int, float)) or isinstance(value, bool):
    figures = [k for k, v in summary.items() if isinstance(v, (int, float))]
    return _failed(str(errors.unknown('objective', job.objective, figures)))
  if not math.isfinite(value):
    return _failed(f'{job.objective} is {value}')
  return {'state': 'complete', 'value': value}


def _failed(error: str) -> dict[str, Any]:
  return {'state': 'failed', 'error': error}


def _wait_for(workdir: pathlib.Path):
  """Waits until an earlier attempt has left the directory."""
  path = workdir / '.lock'
  until = time.monotonic() + _PATIENCE
  while path.exists() and time.monotonic() < until:
    with path.open('a+') as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
      except OSError:
        time.sleep(0.2)
