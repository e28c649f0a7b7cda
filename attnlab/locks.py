"""A folder that one process holds, and who it is for the others."""

from collections.abc import Iterator
import contextlib
import os
import pathlib

from attnlab import errors


@contextlib.contextmanager
def locked(folder: pathlib.Path, holder: str = 'process') -> Iterator[None]:
  """Holds a folder, made where it is missing, against every other process.

  Args:
    folder: a --workdir.
    holder: what another is told holds it, before the number of the process.

  Raises:
    UserError: another process holds it, or it cannot be written.
  """
  import fcntl

  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / '.lock').open('a+')
  except OSError as error:
    raise unwritable(folder, error) from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      file.seek(0)
      owner = file.read().strip() or 'unknown'
      raise errors.UserError(
        f'workdir={str(folder)!r} is in use by {holder} {owner}'
      ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    yield


def unwritable(folder: pathlib.Path, error: OSError) -> errors.UserError:
  """The one line for a folder that cannot be written."""
  return errors.UserError(
    f'workdir={str(folder)!r} cannot be written: {error.strerror or error}'
  )
