"""Many devices, and many processes: one mesh, one program.

The devices of all processes form a mesh with two axes. Each batch is split over
`data`. Parameters are copies on every device, unless `model` is more than 1:
then the large arrays of the training state are split over that axis, along one
dimension that it divides. XLA inserts the communication (GSPMD, Xu et al.
2021).

Process 0 alone reads and writes the run directory, evaluates, and decides; the
others wait for what it found. It evaluates on as few of its devices as hold the
model: on one, where `model` is 1. With one device every function here hands
back what it was given.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import json
import os
import re
import socket
import sys
import traceback
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from attnlab import errors
from attnlab.training import checkpoints, logging
from attnlab.training import signals as signals_lib
from attnlab.training import state as states

# A process that is silent for so long is taken for dead, and all others end.
HEARTBEAT_SECONDS = 60
# How long a process that leaves waits for the others to leave as well.
_LEAVE_SECONDS = 20
# Smaller arrays are copies on all devices: to split them gains no memory.
_LARGE = 2**16
_AXES = ('data', 'model')


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where batches and states lie, and what the loop shares with others.

  Attributes:
    mesh: [data, model]; None for one device.
  """

  mesh: Mesh | None = None

  @property
  def processes(self) -> int:
    """How many processes train together."""
    return jax.process_count()

  @property
  def patience(self) -> float:
    """Seconds that a signal may wait for the step at which all stop."""
    # Slurm and Kubernetes kill after 30 by default.
    return signals_lib.SECONDS if self.processes == 1 else 25.0

  @property
  def ahead(self) -> int:
    """How many steps may be under way before the loop waits for the oldest."""
    # Several programs at once on emulated devices wait for each other's threads
    # for ever where there are fewer cores than devices.
    emulated = self.mesh is not None and jax.default_backend() == 'cpu'
    return 0 if emulated else 3

  def listening(self) -> contextlib.AbstractContextManager[Any]:
    """Within, the `Signals` that the loop asks between steps."""
    return signals_lib.Signals(self.patience).listening()

  def progress(self, steps: int) -> Any:
    """What is told to whoever watches the terminal."""
    return logging.Progress(steps) if is_first() else logging.Silent()

  def batch(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
    """Splits this process's rows of a batch over its devices."""
    if self.mesh is None:
      return batch
    rows = NamedSharding(self.mesh, PartitionSpec('data'))
    if jax.process_count() == 1:
      return jax.device_put(dict(batch), rows)
    return {
      name: jax.make_array_from_process_local_data(rows, np.asarray(array))
      for name, array in batch.items()
    }

  def shardings(self, tree: Any) -> Any:
    """Returns a sharding for each leaf of a tree with shapes."""
    return jax.tree.map(
      lambda x: NamedSharding(self.mesh, _spec(x.shape, self.mesh)), tree
    )

  def create(self, make: Callable, *args: Any) -> Any:
    """Returns `make(*args)`, made where it belongs."""
    if self.mesh is None:
      return make(*args)
    shardings = self.shardings(jax.eval_shape(make, *args))
    # NumPy arrays, since those of one process are nothing to a global program.
    return jax.jit(make, out_shardings=shardings)(*_same_everywhere(args))

  def put(self, tree: Any) -> Any:
    """Puts process 0's arrays where they belong, on all processes."""
    if self.mesh is None:
      return tree
    return jax.tree.map(
      lambda x, sharding: jax.make_array_from_callback(
        # A copy each: the step gives the buffers away.
        x.shape,
        sharding,
        lambda index: np.array(x[index]),
      ),
      _same_everywhere(tree),
      self.shardings(tree),
    )

  def restore(self, template: Any, checkpoint: Any) -> Any:
    """Returns the state of process 0's checkpoint, in the template's place."""
    if self.mesh is None:
      return checkpoints.fill(template, checkpoint)
    host = jax.tree.map(np.asarray, jax.device_get(self.local(template)))
    if checkpoint is not None:
      host = checkpoints.fill(host, checkpoint, np.asarray)
    return self.put(host)

  def compile(self, step: states.Step, state: states.TrainState) -> states.Step:
    """Returns the step for states that lie as this one does."""
    if self.mesh is None:
      return step
    run: Any = step.run
    scalar = NamedSharding(self.mesh, PartitionSpec())
    return step._replace(
      run=jax.jit(
        run.__wrapped__,
        donate_argnums=0,
        out_shardings=(self.shardings(state), scalar),
      )
    )

  def local(self, tree: Any) -> Any:
    """Returns the tree on as few of this process's devices as hold it whole."""
    if self.mesh is None:
      return tree
    model = self.mesh.shape['model']
    devices = self.mesh.local_devices[:model]
    if model == 1:
      return jax.tree.map(lambda x: x.addressable_data(0), tree)
    mesh = Mesh(np.reshape(devices, (1, model)), _AXES, axis_types=_AUTO)

    def whole(array):
      shards = {s.device: s.data for s in array.addressable_shards}
      return jax.make_array_from_single_device_arrays(
        array.shape,
        NamedSharding(mesh, array.sharding.spec),
        [shards[device] for device in devices],
      )

    return jax.tree.map(whole, tree)

  def heard(self, number: int | None) -> jax.Array | None:
    """Returns the largest signal number of all processes, 0 for none.

    None for one process, which needs nobody's consent. The array is not waited
    for: it arrives with the step after which it was asked for.
    """
    if self.mesh is None or jax.process_count() == 1:
      return None
    own = np.full(len(self.mesh.local_devices), number or 0, np.int32)
    everywhere = NamedSharding(self.mesh, PartitionSpec(_AXES))
    return _largest(jax.make_array_from_process_local_data(everywhere, own))


_AUTO = (AxisType.Auto, AxisType.Auto)


def layout(config: Mapping[str, Any]) -> Layout:
  """Returns the layout that `config.mesh` describes.

  Args:
    config: with the sections `mesh` (`data`: devices that share a batch, -1 for
      all; `model`: devices that share the large arrays) and `training`.

  Raises:
    UserError: there are not so many devices, or they do not divide the batch.
  """
  section = dict(config.get('mesh', {}))
  data, model = section.get('data', -1), section.get('model', 1)
  for name, value, least in (('data', data, -1), ('model', model, 1)):
    if (
      isinstance(value, bool)
      or not isinstance(value, int)
      or (value < least or not value)
    ):
      raise errors.UserError(
        f'mesh.{name}={value!r} must be a whole number of 1 or more'
        f'{", or -1 for all devices" if least < 0 else ""}'
      )
  devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
  processes = jax.process_count()
  each = len(devices) // processes
  if len(devices) % model or (processes > 1 and each % model):
    least = each if processes > 1 else len(devices)
    raise errors.UserError(
      f'mesh.model={model} does not divide the {least} devices'
      f'{" of a process" if processes > 1 else ""}; the nearest that does is '
      f'{_nearest_divisor(least, model)}'
    )
  most = len(devices) // model
  if data == -1:
    data = most
  if data > most or (processes > 1 and data != most):
    raise errors.UserError(
      f'mesh.data={data} with mesh.model={model} needs {data * model} devices, '
      f'and there are {len(devices)}; mesh.data=-1 takes them all'
    )
  rows = config.get('training', {}).get('batch_size', data)
  if isinstance(rows, int) and rows % data:
    nearest = max(round(rows / data), 1) * data
    raise errors.UserError(
      f'training.batch_size={rows} is not divisible by the {data} devices of '
      f'mesh.data; the nearest that is, is {nearest}'
    )
  if data * model == 1:
    return Layout()
  grid = np.reshape(devices[: data * model], (data, model))
  return Layout(Mesh(grid, _AXES, axis_types=_AUTO))


@contextlib.contextmanager
def joined(
  coordinator: str, count: int | None = None, index: int | None = None
) -> Iterator[None]:
  """Joins this process to the others for what is within.

  Must come before anything that asks JAX for its devices. When a process dies,
  each other one ends with a message: at once where its next step fails, after
  `HEARTBEAT_SECONDS` where it waits. On CPUs the steps talk by Gloo, which
  listens where the host's name leads.

  Args:
    coordinator: '' for a process of its own; HOST:PORT, an address of process
      0, which listens on no other address; 'auto' asks the cluster that JAX
      recognises (Slurm, Open MPI, Kubernetes, Cloud TPU) for all three.
    count: of processes, with HOST:PORT.
    index: of this process, with HOST:PORT.

  Raises:
    UserError: an argument is wrong, or there is nobody to join.
  """
  _check(coordinator, count, index)
  if not coordinator:
    yield
    return
  # Its handler of SIGTERM would take the place of our own.
  jax.config.update('jax_enable_preemption_service', False)
  given = {}
  if coordinator != 'auto':
    given = {
      'coordinator_address': coordinator,
      'coordinator_bind_address': coordinator,
      'num_processes': count,
      'process_id': index,
      'cluster_detection_method': 'deactivate',
    }
    if index == 0:
      _check_free(coordinator)
    print(f'process {index} of {count} joins at {coordinator}', flush=True)
  try:
    jax.distributed.initialize(
      **given,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=_LEAVE_SECONDS,
    )
  except (ValueError, RuntimeError) as error:
    text = errors.one_line(error).rstrip('.')
    hint = ''
    if coordinator == 'auto':
      hint = '; give HOST:PORT with --process_count and --process_index'
    raise errors.UserError(
      f'coordinator={coordinator!r}: cannot join: {text}{hint}'
    ) from error
  try:
    yield
  except (errors.UserError, signals_lib.Stopped):
    _leave()
    raise
  except BaseException as error:
    # No farewell: the others learn from the broken connection.
    _die(error)
  _leave()


def is_first() -> bool:
  """Whether this process is the one that reads, writes and decides."""
  return jax.process_index() == 0


def in_turn(make: Callable[[], Any]) -> Any:
  """Returns `make()`, called on process 0 before the others.

  They find the downloads and prepared data that it leaves on a shared disk.
  """
  made = []
  from_first(lambda: made.append(make()))
  return made[0] if made else make()


def share(train: Callable[..., Any], seed: int) -> Any:
  """Returns a task's iterator over this process's share of each batch."""
  index, count = jax.process_index(), jax.process_count()
  return train(seed) if count == 1 else train(seed, shard=(index, count))


def compare(**facts: Any):
  """Raises UserError, on all, where a process has other facts than the first.

  Args:
    **facts: JSON data by name: the config, the fingerprint of the data.
  """
  if jax.process_count() == 1:
    return
  own = {k: json.dumps(v, sort_keys=True) for k, v in facts.items()}
  first = from_first(lambda: own)
  names = sorted(own.keys() | first.keys())
  wrong = [i for i, k in enumerate(names) if own.get(k) != first.get(k)]
  number = np.int32(wrong[0] + 1 if wrong else 0)
  found = np.ravel(multihost_utils.process_allgather(number))
  if found.any():
    process = int(np.argmax(found > 0))
    raise errors.UserError(
      f'process {process} has another {names[found[process] - 1]} than '
      'process 0: start all with the same flags, code and data'
    )


def from_first(make: Callable[[], Any]) -> Any:
  """Returns on every process what `make()` returns on process 0.

  Args:
    make: is called on process 0 alone, and returns JSON data. What it raises of
      `UserError` and `Stopped` is raised on all.
  """
  if jax.process_count() == 1:
    return make()
  told, raised = {}, None
  if is_first():
    try:
      told = {'value': make()}
    except errors.UserError as error:
      told, raised = {'error': str(error)}, error
    except signals_lib.Stopped as error:
      told, raised = {'stopped': error.number}, error
  told = json.loads(
    _broadcast_bytes(json.dumps(told, default=checkpoints.plain).encode())
  )
  if raised is not None:
    raise raised
  if 'error' in told:
    raise errors.UserError(told['error'])
  if 'stopped' in told:
    raise signals_lib.Stopped(told['stopped'])
  return told['value']


def _check(coordinator: str, count: int | None, index: int | None):
  by_hand = coordinator not in ('', 'auto')
  for name, value in (('process_count', count), ('process_index', index)):
    if not by_hand and value is not None:
      raise errors.UserError(f'{name}={value} needs --coordinator=HOST:PORT')
    if by_hand and value is None:
      raise errors.UserError(
        f'coordinator={coordinator!r} needs --{name}, or be it '
        '--coordinator=auto on a cluster'
      )
  if not by_hand:
    return
  assert count is not None and index is not None
  host, _, port = coordinator.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise errors.UserError(
      f"coordinator={coordinator!r} must be HOST:PORT, such as '127.0.0.1:6543'"
      ", or 'auto'"
    )
  if count < 1:
    raise errors.UserError(f'process_count={count} must be 1 or more')
  if not 0 <= index < count:
    raise errors.UserError(
      f'process_index={index} must be from 0 to {count - 1}, below '
      f'process_count={count}'
    )


def _check_free(coordinator: str):
  """Raises UserError unless this process can listen there: gRPC crashes."""
  host, _, port = coordinator.rpartition(':')
  try:
    family, kind, _, _, address = socket.getaddrinfo(
      host.strip('[]'), int(port), type=socket.SOCK_STREAM
    )[0]
    with socket.socket(family, kind) as trial:
      trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      trial.bind(address)
  except OSError as error:
    raise errors.UserError(
      f'coordinator={coordinator!r}: process 0 cannot listen there: '
      f'{error.strerror or error}'
    ) from error


def _spec(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  """The largest dimension that `model` divides is split, if the array is big.

  A function of the shape alone, so that the optimiser's averages lie as their
  parameters do.
  """
  model = mesh.shape['model']
  fit = [i for i, size in enumerate(shape) if size and size % model == 0]
  if model == 1 or not fit or np.prod(shape) < _LARGE:
    return PartitionSpec()
  axis = max(fit, key=lambda i: (shape[i], i))
  return PartitionSpec(
    *('model' if i == axis else None for i in range(axis + 1))
  )


def _nearest_divisor(number: int, wanted: int) -> int:
  divisors = [d for d in range(1, number + 1) if number % d == 0]
  return min(divisors, key=lambda d: abs(d - wanted))


@jax.jit
def _largest(numbers: jax.Array) -> jax.Array:
  return jnp.max(numbers)


def _same_everywhere(tree: Any) -> Any:
  """Process 0's arrays as NumPy's, bit for bit, on every process."""
  tree = jax.tree.map(np.asarray, jax.device_get(tree))
  if jax.process_count() == 1:
    return tree
  # The broadcast is a sum: as floats, -0.0 would come out as 0.0.
  parts = jax.tree.map(lambda x: np.ravel(x).view(np.uint8), tree)
  found = multihost_utils.broadcast_one_to_all(parts)
  return jax.tree.map(
    lambda x, part: (
      np.asarray(part).astype(np.uint8).view(x.dtype).reshape(x.shape)
    ),
    tree,
    found,
  )


def _broadcast_bytes(data: bytes) -> bytes:
  """Process 0's bytes, in few shapes: each is compiled."""
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
  room = 1 << max(size - 1, 4095).bit_length()
  padded = np.zeros(room, np.uint8)
  if is_first():
    padded[:size] = np.frombuffer(data, np.uint8)
  found = np.asarray(multihost_utils.broadcast_one_to_all(padded))
  return found[:size].astype(np.uint8).tobytes()


def _leave():
  """Waits for the others to leave as well, for a while."""
  try:
    jax.distributed.shutdown()
  except RuntimeError as error:
    _die(error)


def _die(error: BaseException):
  """Ends the process without waiting for anybody."""
  sys.stdout.flush()
  text = errors.one_line(error)
  if re.search('gloo|nccl|connect|unavailable|heartbeat', text, re.IGNORECASE):
    print(
      f'process {jax.process_index()} ends: another has ended, or cannot be '
      f'reached ({text[:200]})',
      file=sys.stderr,
    )
  else:
    traceback.print_exception(error)
  sys.stderr.flush()
  os._exit(1)
