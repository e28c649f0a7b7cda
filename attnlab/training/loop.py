"""The one training loop. It knows no task."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
import contextlib
import json
import math
import os
import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import numpy as np

from attnlab import configs, errors, locks, workdirs
from attnlab.training import (
  checkpoints,
  comparison,
  devices,
  directory,
  environment,
  evaluation,
  logging,
  optimizers,
  profiling,
  restoring,
  tracking,
)
from attnlab.training import settings as settings_lib
from attnlab.training import signals as signals_lib
from attnlab.training import state as states
from attnlab.training import summary as summaries


class Diverged(errors.UserError):
  """A loss, a metric or a gradient is no longer finite."""


def fit(
  config: Mapping[str, Any],
  task: Any,
  workdir: str | os.PathLike,
  *,
  profile: bool = False,
  wandb: str | None = None,
  watch: Callable[[int, Mapping[str, float]], None] | None = None,
  layout: devices.Layout | None = None,
) -> dict[str, Any]:
  """Trains, evaluates and writes the run directory.

  The same call again goes on where the last checkpoint is, bit for bit; when
  the run is finished it returns the summary.

  Args:
    config: with the sections `optimizer` and `training`, and `seed`.
    task: a `tasks.base.Task`, or a function that builds it when it is needed.
    workdir: the run directory.
    profile: trace a few steps into workdir/profile.
    wandb: a project of Weights & Biases that gets the figures as well.
    watch: is told (step, figures) of each evaluation; what it raises ends the
      run there.
    layout: where it runs; None for what `config.mesh` says.

  Returns:
    What summary.json holds.

  Raises:
    UserError: the directory is in use, belongs to another config, or cannot be
      written; a setting is wrong.
    Diverged: something is no longer finite.
    Stopped: a signal came; the state is saved.
  """
  data = configs.to_data(config)
  settings = settings_lib.read(data)
  layout = devices.layout(data) if layout is None else layout
  if wandb:
    tracking.load()
  workdir = pathlib.Path(workdir).absolute()
  with contextlib.ExitStack() as stack:

    def begin():
      stack.enter_context(locks.locked(workdir))
      comparison.configs(workdir, data)
      done = directory.finished(workdir, settings)
      if done is not None and profile:
        raise errors.UserError(
          f'profile=True: {workdir} is finished; give it more training.steps'
        )
      if done is not None:
        print(f'{workdir} is finished at step {done["train/steps"]}:')
        print(figures(done))
      return done

    done = devices.from_first(begin)
    if done is not None:
      return done
    task = devices.in_turn(task) if callable(task) else task
    devices.compare(config=data, **task.fingerprint)
    with layout.listening() as signals:
      run = _Run(data, task, workdir, settings, signals, layout, profile, wandb)
      run.watch = watch
      try:
        return run.fit()
      except OSError as error:
        raise locks.unwritable(workdir, error) from error


def figures(summary: Mapping[str, Any]) -> str:
  """Returns the figures of a summary, one to a line."""
  rows = {k: v for k, v in summary.items() if isinstance(v, (int, float))}
  width = max(map(len, rows), default=0)
  return '\n'.join(
    f'  {name:<{width}}  {_number(value)}' for name, value in rows.items()
  )


class _Run:
  """One start of one run."""

  def __init__(
    self, config, task, workdir, settings, signals, layout, profile, wandb
  ):
    self.config = config
    self.task = task
    self.workdir = workdir
    self.settings = settings
    self.signals = signals
    self.layout = layout
    self.agreed = 0  # the signal that all processes know of
    self.seed = int(config.get('seed', 0))
    self.directory = workdir / 'checkpoints'
    self.checkpoint = None
    self.progress = restoring.Progress()
    self.saved = 0
    self.pending: deque = deque()
    self.profile = profile
    self.wandb = wandb
    self.trace: profiling.Trace | None = None
    self.tracker: tracking.Tracker | None = None
    self.watch: Callable[[int, Mapping[str, float]], None] | None = None
    self.started = time.monotonic()

  def fit(self) -> dict[str, Any]:
    """Trains to the end."""
    self.watched = evaluation.watched(self.config, self.task)
    meta = devices.from_first(self._open)
    if meta is not None:
      self.progress = restoring.Progress(**meta['progress'])
    self.iterator = iter(devices.share(self.task.train, self.seed))
    if meta is not None:
      self.iterator.set_state(meta['iterator'])
    self.batch = self._next()
    self.parts = states.take_apart(self.task.model)
    optimizer = optimizers.from_config(
      self.config.get('optimizer', {}), self.settings.steps
    )
    self.compiled = states.make_step(
      self.task.loss,
      self.parts,
      optimizer,
      self.batch,
      self.settings.log_every,
    )
    self.state = states.create(
      self.parts, optimizer, self.compiled, self.seed, self.layout.create
    )
    self.compiled = self.layout.compile(self.compiled, self.state)
    self.step = 0
    if meta is not None:
      self.state = self.layout.restore(self.state, self.checkpoint)
      self.step = self.saved = meta['step']
      if meta.get('log_every', self.settings.log_every) != (
        self.settings.log_every
      ):
        zeros = {name: x - x for name, x in self.state.sums.items()}
        self.state = self.state._replace(sums=zeros)
        self.progress = self.progress._replace(summed=self.step)
    self.checkpoint = None
    self.parameters = sum(x.size for x in self.parts.params.values())
    self.metrics = logging.Silent()
    self.out = self.layout.progress(self.settings.steps)
    if devices.is_first():
      self.metrics = logging.Metrics(
        self.workdir, position=self.progress.position, step=self.step
      )
    if self.profile:
      folder = self.workdir / 'profile'
      self.trace = profiling.Trace(folder, self.step, self.out.say)
    try:
      if self.wandb and devices.is_first():
        self.tracker = tracking.Tracker(self.wandb, self.workdir, self.config)
        self.metrics.also = self.tracker.write
      if meta is not None:
        self.out.say(f'going on at step {self.step} of {self.workdir}')
      self._train()
      last = self.layout.local((states.used(self.state), self.state.rest))
      return devices.from_first(lambda: self._finish(*last))
    finally:
      if self.trace:
        self.trace.close(self.step)
      if self.tracker:
        self.tracker.close()
      self.out.close()
      self.metrics.close()

  def _open(self) -> dict[str, Any] | None:
    """Reads the newest checkpoint and makes the directory ready."""
    checkpoint = checkpoints.restore_newest(self.directory, _warn)
    fingerprint = dict(self.task.fingerprint)
    meta = None
    if checkpoint is not None:
      progress = restoring.progress(checkpoint)
      meta = {**checkpoint.meta, 'progress': progress._asdict()}
      comparison.fingerprints(meta['fingerprint'], fingerprint)
    checkpoints.sweep(self.directory, checkpoint and checkpoint.step)
    described = environment.describe(self.seed)
    described['fingerprint'] = fingerprint
    path = self.workdir / 'environment.json'
    self.versions = described['versions']
    try:
      (self.workdir / 'summary.json').unlink(missing_ok=True)
      if checkpoint is None:
        self.task.save_assets(self.workdir)
        workdirs.write_json(path, described)
      else:
        first = json.loads(path.read_text()) if path.exists() else {}
        first['resumed'] = [
            *first.get('resumed', []), {'step': checkpoint.step, **described}
        ]  # fmt: skip
        workdirs.write_json(path, first)
      # Last: a directory with a config.json has all that prediction needs.
      workdirs.write_json(self.workdir / 'config.json', self.config)
    except OSError as error:
      raise locks.unwritable(self.workdir, error) from error
    self.checkpoint = checkpoint
    return meta

  def _train(self):
    settings = self.settings
    self._start_window()
    self.first = self.step
    while True:
      # What is due at this step comes first, so that a run which was stopped
      # before it does it when it goes on.
      improved = False
      at_end = self.step >= settings.steps
      if (
          self.step > self.progress.evaluated
          and (self.step % settings.eval_every == 0 or at_end)
      ):  # fmt: skip
        try:
          improved = self._evaluate()
        except signals_lib.Stopped:
          self._save()
          raise
      stop = at_end or 0 < settings.patience <= self.progress.stale
      if (
        stop
        or improved
        or self._signal()
        or self.step % settings.checkpoint_every == 0
      ):
        self._save()
      if number := self._signal():
        self.out.say(f'stopped and saved at step {self.step}')
        raise signals_lib.Stopped(number)
      if stop:
        if not at_end:
          self.out.say(
            f'no improvement in {self.progress.stale} evaluations: stopped '
            f'at step {self.step}'
          )
        return
      self._advance()

  def _advance(self):
    batch = self._next() if self.batch is None else self.batch
    if self.step == self.first:
      self._introduce(batch)
    self.batch = None
    placed = self.layout.batch(batch)
    if self.trace:
      self.trace.before(self.step, self._drain)
    self.state, fault = self.compiled.run(self.state, placed)
    self.step += 1
    heard = self.layout.heard(self.signals.number)
    self.pending.append((self.step, fault, heard, batch.get('index')))
    if self.step == self.first + 1:
      self._drain()
      age = environment.process_seconds()
      if age is not None:
        self.out.say(f'first step done {age:.1f} s after the start')
    self._drain(self.layout.ahead)
    self.out.at(self.step)
    if self.step % self.settings.log_every == 0 or (
      self.step == self.settings.steps
    ):
      self._log()

  def _next(self) -> dict[str, np.ndarray]:
    try:
      return next(self.iterator)
    except StopIteration:
      raise ValueError('the training data came to an end') from None

  def _drain(self, ahead: int = 0):
    """Waits until at most `ahead` steps are under way; checks the others."""
    while len(self.pending) > ahead:
      step, fault, heard, index = self.pending.popleft()
      fault = int(fault)
      if heard is not None:
        self.agreed = max(self.agreed, int(heard))
      if fault:
        where = '' if index is None else f' in the batch of rows {rows(index)}'
        raise Diverged(
          f'step {step}: {self.compiled.culprit(fault)} is not finite{where}; '
          f'the last checkpoint is of step {self.saved}. A lower '
          'optimizer.learning_rate or an optimizer.clip_norm may help'
        )

  def _signal(self) -> int | None:
    """The signal to stop for; all processes learn of it at the same step."""
    alone = self.layout.processes == 1
    return self.signals.number if alone else self.agreed

  def _introduce(self, batch):
    """Prints what is about to be trained."""
    placed = self.layout.batch(batch)
    traced = self.compiled.run.trace(self.state, placed)
    self.flops = summaries.flops(traced.jaxpr)
    if self.first == 0:
      sizes = ', '.join(
        f'{name} {list(np.shape(array))}' for name, array in placed.items()
      )
      text = summaries.table(self.parts.params, self.flops, sizes)
      for line in text.splitlines():
        self.out.say(line)

  def _start_window(self):
    self.window = time.monotonic()
    self.window_step = self.step
    self.away = 0.0

  @contextlib.contextmanager
  def _aside(self) -> Iterator[None]:
    """Leaves the time within out of the steps' own."""
    start = time.monotonic()
    yield
    self.away += time.monotonic() - start

  def _seconds(self) -> float:
    return self.progress.seconds + time.monotonic() - self.started

  def _log(self):
    self._drain()
    sums = {k: float(v) for k, v in jax.device_get(self.state.sums).items()}
    count = (self.step - 1) % self.settings.log_every + 1
    count = min(count, self.step - self.progress.summed)
    weight = sums.pop('weight')
    tokens = sums.pop('tokens', weight)
    values = {
      'train/learning_rate': sums.pop('learning_rate'),
      'train/gradient_norm': sums.pop('gradient_norm') / count,
    }
    means = {f'train/{k}': v / (weight or 1.0) for k, v in sums.items()}
    values = {
      'train/loss': means.pop('train/loss'),
      **means,
      **values,
      'train/weight': weight,
    }
    now = time.monotonic()
    seconds = max(now - self.window - self.away, 1e-9)
    rate = (self.step - self.window_step) / seconds
    values['train/steps_per_second'] = rate
    values['train/tokens_per_second'] = rate * tokens / count
    values['time'] = self._seconds()
    self.metrics.write(self.step, values)
    done = self.step - self.first
    each = (now - self.started) / done
    left = (self.settings.steps - self.step) * each
    self.out.report(self.step, values, left)
    self._start_window()

  def _evaluate(self) -> bool:
    """Evaluates and returns whether it is the best so far."""
    self._drain()
    splits, metric, mode = self.watched
    params, rest = self.layout.local((states.used(self.state), self.state.rest))

    def measure():
      with self.signals.interruptible():
        self.parts.update(self.task.model, params, rest)
        return evaluation.evaluate(self.task, splits=splits, full=False)

    with self._aside():
      values = devices.from_first(measure)
    if metric not in values:
      raise errors.unknown('monitor', metric, values)
    value, old = values[metric], self.progress.best
    improved = math.isfinite(value) and (
      self.progress.best_step < 0
      or (value > old if mode == 'max' else value < old)
    )
    self.progress = self.progress._replace(
      evaluated=self.step,
      best_step=self.step if improved else self.progress.best_step,
      best=value if improved else old,
      stale=0 if improved else self.progress.stale + 1,
    )
    self.metrics.write(self.step, {**values, 'time': self._seconds()})
    if self.watch is not None:
      self.watch(self.step, values)
    shown = '  '.join(f'{name} {_number(v)}' for name, v in values.items())
    self.out.say(f'step {self.step}  {shown}{"  (best)" if improved else ""}')
    return improved

  def _save(self):
    if self.step <= self.saved:
      return
    self._drain()
    with self._aside():
      self.metrics.sync()
      progress = self.progress._replace(
        seconds=self._seconds(), position=self.metrics.position
      )
      meta = {
        'iterator': self.iterator.get_state(),
        'progress': progress._asdict(),
        'fingerprint': dict(self.task.fingerprint),
        'log_every': self.settings.log_every,
      }
      state = self.layout.local(self.state)

      def save():
        checkpoints.save(self.directory, self.step, state, meta)
        checkpoints.prune(
          self.directory, self.settings.keep, self.progress.best_step
        )

      devices.from_first(save)
      self.saved = self.step

  def _finish(self, params, rest) -> dict[str, Any]:
    """Evaluates the best checkpoint on every split and writes the summary."""
    best = self.progress.best_step
    used = self.step
    self.parts.update(self.task.model, params, rest)
    if best not in (-1, self.step):
      try:
        checkpoint = checkpoints.restore(self.directory, best)
        restoring.put(self.task.model, checkpoint)
        used = best
      except errors.UserError as error:
        self.out.say(f'warning: {error}; evaluating step {self.step} instead')
    with self.signals.interruptible():
      values = evaluation.evaluate(self.task, self.workdir)
    lines = logging.read(self.workdir / 'metrics.jsonl')
    logged = [line for line in lines if 'train/loss' in line]
    result = {
      **values,
      'train/loss': logged[-1]['train/loss'] if logged else None,
      # The median leaves out the compilations of the first windows.
      'train/tokens_per_second': _median(
        [line['train/tokens_per_second'] for line in logged]
      ),
      'train/steps_per_second': _median(
        [line['train/steps_per_second'] for line in logged]
      ),
      'train/compilations': compilations(self.compiled),
      'train/steps': self.step,
      'train/best_step': used,
      'train/stopped_early': self.step < self.settings.steps,
      'parameters': self.parameters,
      'seconds': round(self._seconds(), 3),
      'seed': self.seed,
      'signatures': dict(self.task.signatures),
      'versions': self.versions,
    }
    result = {k: v for k, v in result.items() if v is not None}
    try:
      workdirs.write_json(self.workdir / 'summary.json', result)
    except OSError as error:
      raise locks.unwritable(self.workdir, error) from error
    if self.tracker:
      self.tracker.finish(result)
    self.out.say(f'finished: {self.workdir}')
    for line in figures(result).splitlines():
      self.out.say(line)
    return result


def compilations(step: states.Step) -> int:
  """How many programs the step became: one for each shape of a batch."""
  run: Any = step.run
  return run._cache_size()


def rows(index: Any, most: int = 16) -> str:
  """Returns the rows of a batch as text, the first of many."""
  rows = [str(int(i)) for i in np.ravel(index)]
  more = f', ... ({len(rows)} in all)' if len(rows) > most else ''
  return ', '.join(rows[:most]) + more


def _median(values: list[float]) -> float | None:
  return round(statistics.median(values), 3) if values else None


def _number(value: float) -> str:
  if isinstance(value, int):
    return f'{value:,}' if abs(value) >= 10_000 else str(value)
  return f'{value:,.1f}' if abs(value) >= 1000 else f'{value:.4g}'


def _warn(text: str):
  print(text, file=sys.stderr, flush=True)
