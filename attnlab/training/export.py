"""A trained model as a folder of plain data, and back; no pickle.

DIR/model.safetensors   parameters by dotted name; fingerprints, the step
DIR/config.json         the config
DIR/vocabulary/         as in the run directory

from attnlab.training import export

task = export.load('DIR')
[answer] = task.predict(task.model, ['I love China'])
"""

from collections.abc import Mapping
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np

import attnlab
from attnlab import configs, errors, tasks
from attnlab.training import checkpoints, restoring
from attnlab.training import state as states

FILE = 'model.safetensors'
_FORMAT = 'attnlab-1'


def save(
  config: Mapping[str, Any],
  task: Any,
  directory: str | os.PathLike,
  *,
  step: int = 0,
  fingerprint: Mapping[str, str] | None = None,
) -> pathlib.Path:
  """Writes `task.model` and what it takes to use it.

  Args:
    config: that the task was built from.
    task: a `tasks.base.Task`.
    directory: a new or empty folder, or an earlier export, which is replaced.
    step: of the training, for the record.
    fingerprint: what must be the same where it is evaluated; None is the
      task's own.

  Returns:
    The path of model.safetensors.

  Raises:
    UserError: the folder holds something else, or cannot be written.
  """
  import safetensors.numpy

  directory = pathlib.Path(directory)
  parts = states.take_apart(task.model)
  arrays = {
    **checkpoints.to_arrays(parts.params),
    **checkpoints.to_arrays(parts.rest),
  }
  if fingerprint is None:
    fingerprint = task.fingerprint
  try:
    if (
      directory.exists()
      and any(directory.iterdir())
      and not (directory / FILE).is_file()
    ):
      raise errors.UserError(
        f'output={str(directory)!r} is not empty and no earlier export'
      )
    directory.mkdir(parents=True, exist_ok=True)
    task.save_assets(directory)
    metadata = {
      'format': _FORMAT,
      'attnlab': attnlab.__version__,
      'step': str(step),
      'fingerprint': json.dumps(dict(fingerprint)),
      'files': json.dumps(_digests(directory)),
    }
    text = configs.to_json(config)
    (directory / 'config.json').write_text(text + '\n', encoding='utf-8')
    # Last and whole: with it, the folder is an export.
    draft = directory / f'{FILE}.draft-{os.getpid()}'
    safetensors.numpy.save_file(
      {name: np.ascontiguousarray(array) for name, array in arrays.items()},
      draft,
      metadata=metadata,
    )
    os.replace(draft, directory / FILE)
  except OSError as error:
    raise errors.UserError(
      f'output={str(directory)!r} cannot be written: {error.strerror or error}'
    ) from error
  return directory / FILE


def run(
  config: Mapping[str, Any],
  workdir: pathlib.Path,
  directory: str | os.PathLike,
  *,
  step: int | None = None,
  average: int = 0,
) -> int:
  """Exports a run and returns the step.

  Args:
    config: of the run.
    workdir: the run directory.
    directory: see `save`.
    step: see `restoring.restore`.
    average: see `restoring.restore`.
  """
  if pathlib.Path(directory).resolve() == pathlib.Path(workdir).resolve():
    raise errors.UserError(
      f'output={str(directory)!r} is the run directory itself'
    )
  checkpoint = restoring.find(workdir, step=step, average=average)
  task = tasks.build(config, workdir)
  restoring.adopt(task, checkpoint)
  save(
    config,
    task,
    directory,
    step=checkpoint.step,
    fingerprint=checkpoint.meta['fingerprint'],
  )
  return checkpoint.step


def load(directory: str | os.PathLike) -> Any:
  """Returns the task of an export, whose model predicts as it did.

  Args:
    directory: what `save` wrote.

  Raises:
    UserError: a file is missing or damaged, or does not belong to the others.
  """
  directory = pathlib.Path(directory)
  path = directory / 'config.json'
  try:
    config = configs.from_json(path.read_text('utf-8'), name=str(path))
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(f'{path} cannot be read: {error}') from error
  task = tasks.build(config, directory)
  restore(task, directory)
  return task


def is_export(directory: pathlib.Path) -> bool:
  """Whether `directory` is what `save` wrote."""
  return (pathlib.Path(directory) / FILE).is_file()


def restore(task: Any, directory: str | os.PathLike) -> int:
  """Puts an export's parameters into `task.model` and returns their step.

  Raises:
    UserError: the file is missing or damaged, or belongs to another model.
  """
  import safetensors

  path = pathlib.Path(directory) / FILE
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      metadata = file.metadata() or {}
      arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata.get('format') != _FORMAT:
      raise ValueError(f'it is not of the format {_FORMAT}')
    step = int(metadata['step'])
    meta = {'fingerprint': dict(json.loads(metadata['fingerprint']))}
    if json.loads(metadata['files']) != _digests(path.parent):
      raise ValueError('the vocabulary beside it is not the one it had')
  except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
    text = errors.one_line(error)
    raise errors.UserError(f'{path} cannot be read: {text}') from error
  rest = states.take_apart(task.model).rest
  named = {
    f'{"rest" if name in rest else "params"}.{name}': array
    for name, array in arrays.items()
  }
  restoring.adopt(task, checkpoints.Checkpoint(step, named, meta))
  return step


def _digests(directory: pathlib.Path) -> dict[str, str]:
  """SHA-256 of each file of the vocabulary."""
  return {
    path.relative_to(directory).as_posix(): hashlib.sha256(
      path.read_bytes()
    ).hexdigest()
    for path in sorted((directory / 'vocabulary').rglob('*'))
    if path.is_file()
  }
