"""Where trials run: in processes here, on a Ray cluster, on Slurm.

An engine starts jobs and says which have ended, and how; what came of one is
in its run directory, which all machines have to see under the same path.
"""

from collections.abc import Callable, Mapping
import contextlib
import json
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple, Protocol

from attnlab import errors
from attnlab.sweeps import trial

ENGINES = ('local', 'ray', 'slurm')
_ROOT = str(pathlib.Path(__file__).resolve().parents[2])
_START = (
  'import sys; sys.path.insert(0, sys.argv.pop()); '
  'from attnlab.sweeps import worker; sys.exit(worker.main())'
)
_PATIENCE = 20.0


class Ended(NamedTuple):
  """A job that has ended.

  Attributes:
    number: of the point.
    how: '' where trial.json says what came of it, else how it was killed.
    started: whether it had begun; if not, the engine is at fault.
  """

  number: int
  how: str = ''
  started: bool = True


class Engine(Protocol):
  """Where trials run.

  Attributes:
    outlives: whether jobs go on when the sweep is stopped.
  """

  outlives: bool

  def free(self) -> int:
    """How many jobs can be started now."""

  def start(self, number: int, job: trial.Job) -> str:
    """Starts one; returns a name by which `attach` finds it, or ''."""

  def attach(self, number: int, handle: str) -> bool:
    """Whether a job that an earlier sweep started is still under way."""

  def wait(self, seconds: float) -> list[Ended]:
    """Returns what has ended, after that time at the latest."""

  def close(self) -> None:
    """Asks what runs to save and stop."""


class Worker:
  """A worker process as seen from outside: one job at a time."""

  def __init__(self, index: int = 0, environ: Mapping[str, str] | None = None):
    self.index = index
    self.ready = False
    self.busy = False
    self._errors = tempfile.TemporaryFile()  # noqa: SIM115
    self.process: Any = subprocess.Popen(
      [sys.executable, '-c', _START, _ROOT],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      env=dict(environ or os.environ),
      # Ctrl-C is for the sweep, which asks each trial once.
      start_new_session=True,
    )
    self._rest = b''

  def send(self, job: trial.Job):
    """Gives it a job; a worker that has died says so by its answer."""
    self.busy = True
    with contextlib.suppress(BrokenPipeError):
      self.process.stdin.write((trial.to_json(job) + '\n').encode())
      self.process.stdin.flush()

  def answers(self) -> list[dict[str, Any]] | None:
    """Reads what it says, waiting for something; None at its end."""
    more = os.read(self.process.stdout.fileno(), 65536)
    if not more:
      return None
    *lines, self._rest = (self._rest + more).split(b'\n')
    found = [json.loads(line) for line in lines]
    self.ready = self.ready or any('ready' in answer for answer in found)
    return found

  def told(self) -> str:
    """The last line of what it wrote to stderr."""
    self._errors.seek(0)
    lines = self._errors.read().decode(errors='replace').strip().splitlines()
    return lines[-1] if lines else 'no word'

  def stop(self):
    """Lets it go as soon as its trial has saved."""
    with contextlib.suppress(OSError):
      self.process.stdin.close()

  def leave(self, until: float):
    """Waits for its end; kills it when the time is over."""
    try:
      self.process.wait(max(0.1, until - time.monotonic()))
    except subprocess.TimeoutExpired:
      self.process.kill()
      self.process.wait()
    self.process.stdout.close()
    self._errors.close()


class Local:
  """Worker processes on this machine."""

  outlives = False

  def __init__(self, workers: int, make: Callable[..., Worker] = Worker):
    self._size = workers
    self._make = make
    self._workers: dict[int, Worker] = {}
    self._jobs: dict[int, int] = {}  # index of a worker -> point
    self._selector = selectors.DefaultSelector()
    self._faults = 0

  def free(self) -> int:
    return self._size - len(self._jobs)

  def start(self, number: int, job: trial.Job) -> str:
    index = next(i for i in range(self._size) if i not in self._jobs)
    worker = self._workers.get(index)
    if worker is None:
      environ = _environment(index, self._size)
      worker = self._workers[index] = self._make(index, environ)
      self._selector.register(
        worker.process.stdout, selectors.EVENT_READ, worker
      )
    self._jobs[index] = number
    worker.send(job)
    return ''

  def attach(self, number: int, handle: str) -> bool:
    # Workers leave with the sweep that started them.
    del number, handle
    return False

  def wait(self, seconds: float) -> list[Ended]:
    ended = []
    for key, _ in self._selector.select(seconds):
      worker: Worker = key.data
      answers = worker.answers()
      if answers is None:
        ended += self._gone(worker)
        continue
      for answer in answers:
        if 'code' in answer:
          self._faults = 0
          worker.busy = False
          number = self._jobs.pop(worker.index)
          ended.append(Ended(number, told(answer['code'])))
    return ended

  def close(self) -> None:
    until = time.monotonic() + _PATIENCE
    for worker in self._workers.values():
      worker.stop()
    for worker in self._workers.values():
      worker.leave(until)
    self._selector.close()

  def _gone(self, worker: Worker) -> list[Ended]:
    """A worker has died: another one takes its place at the next start."""
    self._selector.unregister(worker.process.stdout)
    del self._workers[worker.index]
    worker.stop()
    code = worker.process.wait()
    last = worker.told()
    worker.leave(0.0)
    if not worker.ready and code >= 0:
      self._faults += 1
      if self._faults > 2:
        raise errors.UserError(f'a worker does not start: {last}')
    if worker.index not in self._jobs:
      return []
    number = self._jobs.pop(worker.index)
    return [Ended(number, told(code) or 'the worker left', worker.ready)]


class Ray:
  """The same workers, each held by an actor of a Ray cluster."""

  outlives = False

  def __init__(self, workers: int, address: str = ''):
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    if not address:
      # Else all services of a node on Linux listen on all addresses, whatever
      # init is told. Read when ray is imported.
      os.environ['RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'] = '0'
    try:
      import ray
    except ModuleNotFoundError as error:
      raise errors.UserError(
        "engine='ray' needs the extra ray: pip install -e '.[sweep,ray]'"
      ) from error
    _importable()
    self._ray = ray
    self._size = workers
    self._jobs: dict[int, tuple[int, Any]] = {}
    self._actors: dict[int, Any] = {}
    self._faults = 0
    own: dict[str, Any] = {'address': address}
    if not address:
      # Ray takes an address from the environment, too; here none is none.
      own = {
        'address': 'local',
        'num_cpus': workers,
        'include_dashboard': False,
        '_node_ip_address': '127.0.0.1',
      }
    try:
      ray.init(
        **own,
        namespace='attnlab',
        log_to_driver=False,
        logging_level='ERROR',
        configure_logging=True,
      )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
      raise errors.UserError(
        f'ray_address={address!r}: {errors.one_line(error)[:200]}'
      ) from error
    gpus = ray.cluster_resources().get('GPU', 0)
    self._actor = ray.remote(
      num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=0
    )(_Held)

  def free(self) -> int:
    return self._size - len(self._jobs)

  def start(self, number: int, job: trial.Job) -> str:
    index = next(i for i in range(self._size) if i not in self._jobs)
    if index not in self._actors:
      self._actors[index] = self._actor.remote(os.getcwd())
    found = self._actors[index].run.remote(trial.to_json(job))
    self._jobs[index] = (number, found)
    return ''

  def attach(self, number: int, handle: str) -> bool:
    # Actors end with the driver that made them.
    del number, handle
    return False

  def wait(self, seconds: float) -> list[Ended]:
    if not self._jobs:
      time.sleep(seconds)
      return []
    running = {found: index for index, (_, found) in self._jobs.items()}
    done, _ = self._ray.wait(list(running), timeout=seconds)
    ended = []
    for found in done:
      index = running[found]
      number, _ = self._jobs.pop(index)
      try:
        how, started = self._ray.get(found)
        self._faults = 0
      except self._ray.exceptions.RayActorError:
        how, started = 'the worker on Ray died', True
        del self._actors[index]
      except self._ray.exceptions.RayError as error:
        raise errors.UserError(
          f"engine='ray': {errors.one_line(error)[-300:]}"
        ) from error
      if not started:
        self._faults += 1
        if self._faults > 2:
          raise errors.UserError(f'a worker on Ray does not start: {how}')
      ended.append(Ended(number, how, started))
    return ended

  def close(self) -> None:
    calls = [actor.stop.remote() for actor in self._actors.values()]
    with contextlib.suppress(Exception):
      self._ray.wait(calls, num_returns=len(calls), timeout=_PATIENCE)
    self._ray.shutdown()


class _Held:
  """What an actor holds: a worker on the machine where the actor is."""

  def __init__(self, folder: str):
    self._folder = folder
    self._worker: Any = None

  def run(self, text: str) -> tuple[str, bool]:
    """Runs a job to its end; returns what `Ended` says of it."""
    os.chdir(self._folder)
    if self._worker is None:
      # Ray allows its processes one thread; the trials are not its own.
      environ = {k: v for k, v in os.environ.items() if k != 'OMP_NUM_THREADS'}
      self._worker = Worker(0, environ)
    self._worker.send(trial.from_json(text))
    while (answers := self._worker.answers()) is not None:
      for answer in answers:
        if 'code' in answer:
          return told(answer['code']), True
    worker, self._worker = self._worker, None
    code = worker.process.wait()
    if not worker.ready:
      return worker.told(), False
    return told(code) or 'the worker left', True

  def stop(self):
    if self._worker is not None:
      self._worker.stop()
      self._worker.leave(time.monotonic() + _PATIENCE)


class Slurm:
  """Jobs of Slurm, one a trial, by submitit. They outlive the sweep."""

  outlives = True

  def __init__(
    self,
    workers: int,
    folder: pathlib.Path,
    options: Mapping[str, Any] | None = None,
    cluster: str | None = 'slurm',
  ):
    try:
      import submitit
    except ModuleNotFoundError as error:
      raise errors.UserError(
        "engine='slurm' needs the extra slurm: pip install -e '.[sweep,slurm]'"
      ) from error
    _importable()
    self._submitit = submitit
    self._size = workers
    self._folder = folder
    self._cluster = cluster
    self._jobs: dict[int, Any] = {}
    self._asked = 0.0
    try:
      self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
      self._executor.update_parameters(
        name='attnlab', **{'timeout_min': 24 * 60, **(options or {})}
      )
    except (RuntimeError, ValueError, TypeError, NameError) as error:
      raise errors.UserError(
        f"engine='slurm': {errors.one_line(error)[:300]}"
      ) from error

  def free(self) -> int:
    return self._size - len(self._jobs)

  def start(self, number: int, job: trial.Job) -> str:
    self._jobs[number] = self._executor.submit(
      submitted, os.getcwd(), trial.to_json(job)
    )
    return str(self._jobs[number].job_id)

  def attach(self, number: int, handle: str) -> bool:
    if not handle:
      return False
    kinds: dict[Any, Any] = {
      'local': self._submitit.LocalJob,
      'debug': self._submitit.DebugJob,
    }
    kind = kinds.get(self._cluster, self._submitit.SlurmJob)
    self._jobs[number] = kind(folder=self._folder, job_id=handle, tasks=[0])
    return True

  def wait(self, seconds: float) -> list[Ended]:
    time.sleep(seconds)
    ended = []
    for number, job in list(self._jobs.items()):
      if job.done():
        del self._jobs[number]
        try:
          how = told(job.result())
        except Exception as error:  # submitit's own, and the job's
          how = errors.one_line(error)[:200] or type(error).__name__
        ended.append(Ended(number, how))
    return ended

  def close(self) -> None:
    """Leaves them: the sweep finds them again when it goes on."""
    if self._jobs:
      names = ', '.join(str(job.job_id) for job in self._jobs.values())
      print(f'jobs that go on: {names}', file=sys.stderr)


def submitted(folder: str, text: str) -> int:
  """What a job of Slurm runs."""
  os.chdir(folder)
  job = trial.from_json(text)
  trial.to_log(job.workdir)
  return trial.run(job)


def told(code: int) -> str:
  """Returns how a process was killed, in words; '' for a proper end."""
  if code == 0:
    return ''
  number = -code if code < 0 else code - 128
  try:
    return f'killed by {signal.Signals(number).name}'
  except ValueError:
    return f'left with exit code {code}'


def _importable():
  """Lets the processes of others find attnlab where it is not installed."""
  paths = os.environ.get('PYTHONPATH', '').split(os.pathsep)
  paths = [path for path in paths if path]
  if _ROOT not in paths:
    os.environ['PYTHONPATH'] = os.pathsep.join([_ROOT, *paths])


def _environment(index: int, workers: int) -> dict[str, str]:
  """Gives each of several workers a graphics card of its own."""
  environ = dict(os.environ)
  cards = [
    card for card in environ.get('CUDA_VISIBLE_DEVICES', '').split(',') if card
  ]
  if 'CUDA_VISIBLE_DEVICES' not in environ:
    found = pathlib.Path('/dev').glob('nvidia[0-9]*')
    cards = [str(i) for i, _ in enumerate(found)]
  if workers > 1 and cards:
    environ['CUDA_VISIBLE_DEVICES'] = cards[index % len(cards)]
    if workers > len(cards):
      environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  return environ
