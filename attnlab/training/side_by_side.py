"""Several seeds of one config at once, on one device.

Each seed is an ordinary run of the one loop, in a thread of its own: a lane,
with its own directory, data order, dropout, checkpoints and end. The lanes
share the task's data and one compiled step:

- together: a step waits for all lanes, pads their batches to a common shape,
  and is one program, `jax.vmap` of the step over parameters, optimiser states,
  batches and random keys. Padding is masked everywhere, so each lane equals the
  run of its seed alone but for rounding: sums have other orders. Draws depend
  on shapes, those of dropout and of noise in the weights (gumbel, sample,
  monotonic): where a batch was padded, a lane is a run of its seed with other
  noise. data.buckets=1 gives all batches one shape, and so the same noise.
- apart: each lane runs the program of one seed when it has a batch, several at
  a time where there are cores for them. Each run is the run of its seed alone
  bit for bit.

A CPU is faster apart: XLA's batched products take three times as long there as
one after the other, and the padding comes on top. A GPU should be faster
together, where the launches of one seed serve all; that was not measured.

Only one lane is in Python at any time, the one that holds `_Shared.turn`; it
gives it away while the device works or another lane is waited for. So nothing
else here, nor in the loop, needs to be safe with threads.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import os
import pathlib
import sys
import threading
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from attnlab import configs as configs_lib
from attnlab import errors
from attnlab.training import devices, evaluation, logging, loop
from attnlab.training import signals as signals_lib
from attnlab.training import state as states

# Slurm and Kubernetes kill 30 seconds after their signal by default.
_PATIENCE = 25.0


def fit(
  configs: Sequence[Mapping[str, Any]],
  build_task: Callable[[Mapping[str, Any]], Any],
  workdirs: Sequence[str | os.PathLike],
  *,
  together: bool | None = None,
) -> list[dict[str, Any]]:
  """Trains all configs at once; each directory is that of an ordinary run.

  The same call again goes on where each of them was; those that are finished
  return their summaries. A lane that fails leaves, and the others go on.

  Args:
    configs: of runs that differ by their seeds alone.
    build_task: config -> `tasks.base.Task`; called once where the task has
      `fresh`, and for each config where it has not.
    workdirs: a run directory for each.
    together: one program for all; None: on anything but a CPU.

  Returns:
    What the summary.json of each holds.

  Raises:
    UserError: configs differ by more, or not at all; a setting is wrong; a lane
      has failed, and the others have come to their end.
    Stopped: a signal came; the states are saved.
  """
  data = [configs_lib.to_data(config) for config in configs]
  seeds = _check(data, workdirs)
  if together is None:
    together = jax.default_backend() != 'cpu'
  lanes = range(len(seeds))
  shared = _Together(lanes) if together else _Apart(lanes)
  tasks = _Tasks(build_task)
  found: dict[int, dict[str, Any]] = {}
  failed: dict[int, BaseException] = {}

  def run(lane: int):
    layout = Lane(shared=shared, number=lane, label=f'seed={seeds[lane]}')
    with shared.turn:
      try:
        found[lane] = loop.fit(
          data[lane],
          lambda: tasks.of(configs[lane]),
          workdirs[lane],
          watch=layout.told(data[lane], tasks),
          layout=layout,
        )
      except BaseException as error:
        failed[lane] = error
        # Before the first step the others will hardly fare better.
        if isinstance(error, errors.UserError) and shared.step is not None:
          line = errors.one_line(error)
          print(f'{layout.label}: {line}', file=sys.stderr, flush=True)
      finally:
        shared.leave(lane)

  with signals_lib.Signals(_PATIENCE).listening() as signals:
    shared.signals = signals
    threads = [
      threading.Thread(target=run, args=(lane,), daemon=True) for lane in lanes
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  _raise(failed, seeds)
  return [found[lane] for lane in lanes]


def _check(
  data: Sequence[Mapping[str, Any]], workdirs: Sequence[str | os.PathLike]
) -> list[int]:
  """Returns the seeds of configs that differ in nothing else."""
  if not data or len(data) != len(workdirs):
    raise errors.UserError(
      f'{len(data)} configs and {len(workdirs)} workdirs: give as many of both'
    )
  seeds = [config.get('seed', 0) for config in data]
  for name, values in (
    ('seed', seeds),
    ('workdir', [str(pathlib.Path(path).absolute()) for path in workdirs]),
  ):
    if len(set(values)) < len(values):
      twice = next(value for value in values if values.count(value) > 1)
      raise errors.UserError(f'{name}={twice!r} is given twice')
  first, *others = [configs_lib.flat({**c, 'seed': 0}) for c in data]
  for seed, other in zip(seeds[1:], others, strict=True):
    for key in sorted(first.keys() | other.keys()):
      if first.get(key) != other.get(key):
        raise errors.UserError(
          f'{key}={other.get(key)!r} of seed {seed} is {first.get(key)!r} of '
          f'seed {seeds[0]}: seeds side by side differ by nothing else'
        )
  mesh = devices.layout(data[0]).mesh
  if mesh is not None or jax.process_count() > 1:
    raise errors.UserError(
      f'seeds side by side run on one device, and mesh has '
      f'{jax.device_count() if mesh is None else mesh.size}: show the process '
      'one alone (CUDA_VISIBLE_DEVICES=0), or set mesh.data=1'
    )
  return seeds


def _raise(failed: Mapping[int, BaseException], seeds: Sequence[int]):
  """Raises what weighs most of what the lanes have raised."""
  stopped = [e for e in failed.values() if isinstance(e, signals_lib.Stopped)]
  wrong = {
    lane: error
    for lane, error in failed.items()
    if not isinstance(error, signals_lib.Stopped)
  }
  for error in wrong.values():
    if not isinstance(error, errors.UserError):
      raise error
  if stopped:
    raise stopped[0]
  if wrong:
    lane, error = min(wrong.items())
    if len(wrong) == len(seeds) and len(set(map(str, wrong.values()))) == 1:
      raise error
    more = f' (and {len(wrong) - 1} more)' if len(wrong) > 1 else ''
    raise errors.UserError(
      f'seed={seeds[lane]}{more}: {errors.one_line(error)}'
    ) from error


class _Tasks:
  """One task for all lanes; each has a model of its own."""

  def __init__(self, build: Callable[[Mapping[str, Any]], Any]):
    self._build = build
    self._failure: BaseException | None = None
    self.first: Any = None

  def of(self, config: Mapping[str, Any]) -> Any:
    """The task of a config."""
    if self._failure is not None:
      raise self._failure
    if self.first is None:
      try:
        self.first = self._build(config)
      except BaseException as error:
        self._failure = error
        raise
      return self.first
    if self.first.fresh is None:
      return self._build(config)
    # With the first one's graph, for which evaluation is compiled already.
    graph, _ = nnx.split(self.first.model)
    model = self.first.fresh(int(config.get('seed', 0)))
    return self.first._replace(model=nnx.merge(graph, nnx.state(model)))


class _Shared:
  """What the lanes have in common.

  Attributes:
    turn: is held by the one lane that is in Python.
    signals: of the main thread.
    stop: the signal that all lanes have heard of.
    step: the first lane's compiled step, which serves all.
    living: the lanes that have not come to their end.
    speaker: the lane that has the terminal.
  """

  def __init__(self, lanes: Sequence[int]):
    self.turn = threading.Condition(threading.Lock())
    self.signals: Any = None
    self.step: Any = None
    self.living = set(lanes)
    self.speaker: int | None = None

  @property
  def stop(self) -> int | None:
    return self.signals.number

  @contextlib.contextmanager
  def away(self) -> Iterator[None]:
    """Within, other lanes have the turn."""
    self.turn.release()
    try:
      yield
    finally:
      self.turn.acquire()

  def leave(self, lane: int):
    """Is called when a lane has come to its end, whatever that is."""
    self.living.discard(lane)

  def run(self, lane: int, state: Any, batch: Mapping[str, Any]) -> Any:
    """Returns the state after a step, and its fault."""
    raise NotImplementedError

  def compilations(self) -> int:
    return self.step.run._cache_size()


class _Apart(_Shared):
  """Each lane runs the program of one seed."""

  def __init__(self, lanes: Sequence[int]):
    super().__init__(lanes)
    self._compiled: set[Any] = set()

  def run(self, lane, state, batch):
    del lane
    shapes = tuple(sorted((k, np.shape(v)) for k, v in batch.items()))
    if shapes not in self._compiled:  # once, while the others wait
      self._compiled.add(shapes)
      return self.step.run(state, batch)
    with self.away():
      return self.step.run(state, batch)


class _Together(_Shared):
  """All lanes are one program; their states are stacked in here."""

  def __init__(self, lanes: Sequence[int]):
    super().__init__(lanes)
    self._arrived: dict[int, tuple[Any, Mapping[str, Any]]] = {}
    self._steps = 0
    self._stop: int | None = None
    self._failure: BaseException | None = None
    self._lanes: list[int] = []
    self._batches: list[Mapping[str, Any]] = []
    self.states: Any = None  # [lanes, ...] each
    self._faults: Any = None
    self._run: Any = None

  @property
  def stop(self) -> int | None:
    # Of the last step, so that all lanes stop after the same one.
    return self._stop

  def compilations(self) -> int:
    return self._run._cache_size()

  def leave(self, lane: int):
    super().leave(lane)
    self._stop = self.signals.number
    if self.living and self._arrived.keys() == self.living:
      self._advance()

  def run(self, lane, state, batch):
    self._arrived[lane] = (state, batch)
    steps = self._steps
    if self._arrived.keys() == self.living:
      self._advance()
    else:
      self.turn.wait_for(lambda: self._steps > steps)
    if self._failure is not None:
      raise self._failure
    slot = self._lanes.index(lane)
    return _Slot(self, slot), _Fault(self, self._faults, slot)

  def _advance(self):
    """One step of all lanes."""
    try:
      if self.states is None:
        self._lanes = sorted(self._arrived)
        self._run = jax.jit(
          jax.vmap(self.step.run.__wrapped__), donate_argnums=0
        )
        self.states = _stack([self._arrived[i][0] for i in self._lanes])
        self._batches = [self._arrived[i][1] for i in self._lanes]
      # The place of a lane that has left idles over its last batch: to close
      # the gap would compile each shape again.
      self._batches = [
        self._arrived[lane][1] if lane in self._arrived else old
        for lane, old in zip(self._lanes, self._batches, strict=True)
      ]
      self.states, self._faults = self._run(self.states, pad(self._batches))
    except BaseException as error:
      self._failure = error
    self._stop = self.signals.number
    self._arrived = {}
    self._steps += 1
    self.turn.notify_all()


def pad(batches: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
  """Stacks batches, each padded with 0 to the largest of them."""
  found = {}
  for name in batches[0]:
    arrays = [np.asarray(batch[name]) for batch in batches]
    shape = np.max([array.shape for array in arrays], axis=0)
    found[name] = np.zeros((len(arrays), *shape), arrays[0].dtype)
    for row, array in zip(found[name], arrays, strict=True):
      row[tuple(map(slice, array.shape))] = array
  return found


@jax.jit
def _stack(trees: Sequence[Any]) -> Any:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@jax.jit
def _take(tree: Any, slot: int) -> Any:
  return jax.tree.map(lambda x: x[slot], tree)


class _Slot:
  """A lane's place in the stacked states; reads as a `TrainState`."""

  def __init__(self, shared: _Together, slot: int):
    self._shared = shared
    self._slot = slot

  def __getattr__(self, name: str) -> Any:
    return _take(getattr(self._shared.states, name), self._slot)

  def whole(self) -> states.TrainState:
    return _take(self._shared.states, self._slot)


class _Fault:
  """The fault of a step; whoever reads it waits without the turn."""

  def __init__(self, shared: _Shared, array: Any, slot: int | None = None):
    self._shared = shared
    self._array = array
    self._slot = slot

  def __int__(self) -> int:
    with self._shared.away():
      found = np.asarray(self._array)
    return int(found if self._slot is None else found[self._slot])


class _Program:
  """Stands for the lane's own compiled step."""

  def __init__(self, shared: _Shared, lane: int):
    self._shared = shared
    self._lane = lane

  def __call__(self, state, batch):
    state, fault = self._shared.run(self._lane, state, batch)
    if not isinstance(fault, _Fault):
      fault = _Fault(self._shared, fault)
    return state, fault

  def trace(self, state, batch):
    return self._shared.step.run.trace(state, batch)

  def _cache_size(self) -> int:
    return self._shared.compilations()


class _Heard:
  """The main thread's signals, as all lanes have heard of them."""

  def __init__(self, shared: _Shared):
    self._shared = shared

  @property
  def number(self) -> int | None:
    return self._shared.stop

  @contextlib.contextmanager
  def interruptible(self) -> Iterator[None]:
    # A handler runs in the main thread, and cannot raise in this one.
    if self.number is not None:
      raise signals_lib.Stopped(self.number)
    yield


@dataclasses.dataclass(frozen=True)
class Lane(devices.Layout):
  """The layout of one of the seeds.

  Attributes:
    shared: what it has in common with the others.
    number: of the lane.
    label: stands before what it says.
  """

  shared: Any = None
  number: int = 0
  label: str = ''

  @contextlib.contextmanager
  def listening(self) -> Iterator[_Heard]:
    """See `Layout.listening`."""
    yield _Heard(self.shared)

  def progress(self, steps: int) -> Any:
    """The first lane that trains speaks for all."""
    if self.shared.speaker is None:
      self.shared.speaker = self.number
    speaks = self.number == self.shared.speaker
    return _Voice(steps, self.label) if speaks else logging.Silent()

  def told(
    self, config: Mapping[str, Any], tasks: _Tasks
  ) -> Callable[[int, Mapping[str, float]], None]:
    """Returns what says each evaluation of a lane that has no terminal."""

    def say(step: int, values: Mapping[str, float]):
      if self.number != self.shared.speaker:
        metric = evaluation.watched(config, tasks.first).metric
        line = f'{self.label}  step {step}  {metric} {values[metric]:.4g}'
        print(line, flush=True)

    return say

  def compile(self, step: states.Step, state: states.TrainState) -> states.Step:
    """See `Layout.compile`; the first lane's program serves all."""
    del state
    if self.shared.step is None:
      self.shared.step = step
    run: Any = _Program(self.shared, self.number)
    return step._replace(run=run)

  def local(self, tree: Any) -> Any:
    """See `Layout.local`."""
    return tree.whole() if isinstance(tree, _Slot) else tree


class _Voice(logging.Progress):
  """Says which of the seeds speaks."""

  def __init__(self, steps: int, label: str):
    super().__init__(steps)
    self._label = label

  def say(self, text: str):
    super().say(f'{self._label}  {text}')
