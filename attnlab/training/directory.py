"""A run directory: held by one process, written whole."""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
from typing import Any

from attnlab import errors
from attnlab.training import settings as settings_lib


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Holds the run directory against every other process."""
  import fcntl

  try:
    workdir.mkdir(parents=True, exist_ok=True)
    file = (workdir / '.lock').open('a+')
  except OSError as error:
    raise unwritable(workdir, error) from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      file.seek(0)
      owner = file.read().strip() or 'unknown'
      raise errors.UserError(
        f'workdir={str(workdir)!r} is in use by process {owner}'
      ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    yield


def finished(
  workdir: pathlib.Path, settings: settings_lib.Settings
) -> dict[str, Any] | None:
  """Returns the summary of a run that has nothing left to do."""
  try:
    summary = json.loads((workdir / 'summary.json').read_text())
    old = json.loads((workdir / 'config.json').read_text())['training']
    steps, early = summary['train/steps'], summary['train/stopped_early']
  except (OSError, ValueError, KeyError):
    return None
  if steps >= settings.steps:
    return summary
  same = old.get('patience', 0) == settings.patience
  return summary if early and same else None


def write_json(path: pathlib.Path, data: Any) -> None:
  """Writes JSON, all or nothing."""
  draft = path.with_name(f'{path.name}.draft-{os.getpid()}')
  draft.write_text(json.dumps(data, indent=2) + '\n')
  os.replace(draft, path)


def unwritable(workdir: pathlib.Path, error: OSError) -> errors.UserError:
  """Returns the one line for a directory that cannot be written."""
  return errors.UserError(
    f'workdir={str(workdir)!r} cannot be written: {error.strerror or error}'
  )
