"""Checkpoints: written whole or not at all, read only if every byte is right.

    checkpoints/00000100/arrays/        by Orbax
    checkpoints/00000100/meta.json      step, iterator, metrics so far, shapes
    checkpoints/00000100/manifest.json  size and SHA-256 of each file

A checkpoint is written beside its place, its manifest last, and then renamed.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import errno
import hashlib
import json
import logging
import os
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attnlab import errors
from attnlab.training import state as states

_MANIFEST = 'manifest.json'
_SYSTEM = (
  errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES
)  # fmt: skip


class Checkpoint(NamedTuple):
  """What was saved at one step.

  Attributes:
    step: the batches seen.
    arrays: {name: array} of the state's leaves.
    meta: JSON data.
  """

  step: int
  arrays: dict[str, np.ndarray]
  meta: dict[str, Any]


def save(
  directory: pathlib.Path, step: int, tree: Any, meta: Mapping[str, Any]
) -> pathlib.Path:
  """Writes the checkpoint of `step` and returns its directory.

  Args:
    directory: the run's `checkpoints`.
    step: its name.
    tree: a pytree of arrays.
    meta: JSON data to keep beside it.

  Raises:
    UserError: the file system refuses. Earlier checkpoints are untouched.
  """
  directory = pathlib.Path(directory).absolute()
  place = directory / f'{step:08d}'
  draft = directory / f'{place.name}.draft-{os.getpid()}'
  arrays = to_arrays(tree)
  meta = {
    **meta,
    'step': step,
    'arrays': {n: [str(a.dtype), list(a.shape)] for n, a in arrays.items()},
  }
  try:
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    with _orbax() as (checkpointer, ocp):
      checkpointer.save(draft / 'arrays', args=ocp.args.PyTreeSave(arrays))
    (draft / 'meta.json').write_text(json.dumps(meta, indent=1, default=plain))
    files = {
      str(path.relative_to(draft)): [path.stat().st_size, _sha256(path)]
      for path in sorted(draft.rglob('*'))
      if path.is_file()
    }
    _write_synced(draft / _MANIFEST, json.dumps(files, indent=1))
    if place.exists():
      shutil.rmtree(place)
    os.rename(draft, place)
    _sync(directory)
  except Exception as error:
    shutil.rmtree(draft, ignore_errors=True)
    last = max(steps(directory), default=None)
    kept = 'nothing was saved' if last is None else f'step {last} remains'
    raise errors.UserError(
      f'workdir: cannot save step {step} in {directory} '
      f'({_one_line(error)}); {kept}'
    ) from error
  return place


def steps(directory: pathlib.Path) -> list[int]:
  """Returns the steps of which there is a checkpoint, oldest first."""
  if not directory.is_dir():
    return []
  return sorted(
    int(path.name)
    for path in directory.iterdir()
    if path.name.isdigit() and path.is_dir()
  )


def restore(directory: pathlib.Path, step: int) -> Checkpoint:
  """Reads one checkpoint.

  Raises:
    UserError: a file is missing, has another size or another checksum.
  """
  place = pathlib.Path(directory).absolute() / f'{step:08d}'
  _verify(place)
  try:
    meta = json.loads((place / 'meta.json').read_text())
    with _orbax() as (checkpointer, ocp):
      args = {
        name: ocp.RestoreArgs(restore_type=np.ndarray)
        for name in meta['arrays']
      }
      arrays = checkpointer.restore(
        place / 'arrays', args=ocp.args.PyTreeRestore(restore_args=args)
      )
  except Exception as error:
    raise errors.UserError(
      f'checkpoint {place} cannot be read: {_one_line(error)}'
    ) from error
  return Checkpoint(step, {n: np.asarray(a) for n, a in arrays.items()}, meta)


def restore_newest(
  directory: pathlib.Path,
  warn: Callable[[str], None],
  *,
  at_most: int | None = None,
) -> Checkpoint | None:
  """Reads the newest good checkpoint; None if none was ever written.

  Args:
    directory: the run's `checkpoints`.
    warn: is given one line for each that is not good.
    at_most: the newest step to consider.

  Raises:
    UserError: there are some, and none is good.
  """
  found = [s for s in steps(directory) if at_most is None or s <= at_most]
  for step in reversed(found):
    try:
      return restore(directory, step)
    except errors.UserError as error:
      warn(f'warning: {error}; taking the one before')
  if found:
    raise errors.UserError(
      f'workdir: none of the {len(found)} checkpoints in {directory} is good'
    )
  return None


def fill(
  template: Any,
  checkpoint: Checkpoint,
  # A copy of JAX's own, since the step gives its buffers away.
  place: Callable[[np.ndarray], Any] = lambda x: jnp.array(x, copy=True),
) -> Any:
  """Returns `template` with the checkpoint's arrays for its leaves.

  Args:
    template: a pytree of arrays.
    checkpoint: what was saved.
    place: puts an array where it is needed.

  Raises:
    UserError: names the first array that is missing, is left over, or has
      another shape or dtype. Nothing is cast.
  """
  expected = to_arrays(template)
  for name, array in expected.items():
    found = checkpoint.arrays.get(name)
    if found is None:
      raise errors.UserError(
        f'checkpoint of step {checkpoint.step} has no array {name!r}'
      )
    if (found.shape, found.dtype) != (array.shape, array.dtype):
      raise errors.UserError(
        f'checkpoint of step {checkpoint.step}: {name} is '
        f'{found.dtype}{list(found.shape)}, this model needs '
        f'{array.dtype}{list(array.shape)}'
      )
  for name in checkpoint.arrays:
    if name not in expected:
      raise errors.UserError(
        f'checkpoint of step {checkpoint.step} has an array {name!r} that '
        'this model has no place for'
      )
  leaves, treedef = jax.tree.flatten(template)
  new = []
  for name, leaf in zip(states.names(template), leaves, strict=True):
    array = place(checkpoint.arrays[name])
    if _is_key(leaf):
      array = jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))
    new.append(array)
  return jax.tree.unflatten(treedef, new)


def prune(directory: pathlib.Path, keep: int, best: int | None):
  """Removes all but the newest `keep` checkpoints and that of step `best`."""
  for step in steps(directory)[: -max(keep, 1)]:
    if step != best:
      # Renamed first: a kill in between leaves a draft, not half a checkpoint.
      place = directory / f'{step:08d}'
      doomed = directory / f'{place.name}.draft-{os.getpid()}'
      os.rename(place, doomed)
      shutil.rmtree(doomed, ignore_errors=True)


def sweep(directory: pathlib.Path, newest_good: int | None):
  """Removes drafts, and sets aside what is newer than the newest good one."""
  if not directory.is_dir():
    return
  for path in list(directory.iterdir()):
    if '.draft-' in path.name:
      shutil.rmtree(path, ignore_errors=True)
    elif path.name.isdigit() and int(path.name) > (newest_good or 0):
      aside = path.with_name(path.name + '.corrupt')
      shutil.rmtree(aside, ignore_errors=True)
      os.rename(path, aside)


def to_arrays(tree: Any) -> dict[str, np.ndarray]:
  """Returns the leaves by dotted name; random keys as their data."""
  leaves = jax.tree.leaves(tree)
  data = [jax.random.key_data(x) if _is_key(x) else x for x in leaves]
  arrays = [np.asarray(x) for x in jax.device_get(data)]
  return dict(zip(states.names(tree), arrays, strict=True))


def _is_key(leaf: Any) -> bool:
  return isinstance(leaf, jax.Array) and jnp.issubdtype(
    leaf.dtype, jax.dtypes.prng_key
  )


def _verify(place: pathlib.Path):
  """Raises UserError unless the files are those of the manifest."""
  manifest = place / _MANIFEST
  try:
    files = json.loads(manifest.read_text())
    wrong = [
      name
      for name, (size, digest) in files.items()
      # Nothing outside of its directory is a checkpoint's own.
      if os.path.isabs(name)
      or '..' in pathlib.PurePath(name).parts
      or not (place / name).is_file()
      or (place / name).stat().st_size != size
      or _sha256(place / name) != digest
    ]
  except (OSError, ValueError, AttributeError, TypeError) as error:
    raise errors.UserError(
      f'checkpoint {place} is corrupt: {_MANIFEST}: {_one_line(error)}'
    ) from error
  if wrong or 'meta.json' not in files:
    raise errors.UserError(
      f'checkpoint {place} is corrupt: {", ".join(wrong) or "no meta.json"}'
    )


def _sha256(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _write_synced(path: pathlib.Path, text: str):
  with path.open('w') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def _sync(directory: pathlib.Path):
  handle = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


@contextlib.contextmanager
def _orbax() -> Iterator[tuple[Any, Any]]:
  # Late, because the import takes as long as a small model's first step.
  import orbax.checkpoint as ocp

  # Orbax logs several lines for each save, and pages for a file it dislikes.
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.CRITICAL)
  # Only one process writes: it must not wait for the others.
  alone = ocp.options.MultiprocessingOptions(
    primary_host=jax.process_index(),
    active_processes={jax.process_index()},
    barrier_sync_key_prefix=f'attnlab{jax.process_index()}',
  )
  checkpointer = ocp.Checkpointer(
    ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
    multiprocessing_options=alone,
  )
  try:
    yield checkpointer, ocp
  finally:
    checkpointer.close()
    logger.setLevel(level)


def plain(value: Any) -> Any:
  """For json.dumps(default=...): the counters of an iterator may be NumPy's."""
  if isinstance(value, np.generic):
    return value.item()
  raise TypeError(f'{type(value).__name__} is no JSON data')


def _one_line(error: BaseException) -> str:
  text = errors.one_line(error) or type(error).__name__
  # What the system said may stand at the end of a long chain of libraries.
  for number in _SYSTEM:
    if os.strerror(number) in text:
      return os.strerror(number)
  return text if len(text) <= 200 else text[:197] + '...'
