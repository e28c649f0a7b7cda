"""The one kind of error that a user's mistake raises."""

from collections.abc import Iterable
import difflib
import errno
import math


class UserError(ValueError):
  """A mistake in a flag, a config or a file: one line that says what to mend.

  `launch.py` prints the line and exits with code 2; in a library call it is an
  ordinary ValueError.
  """


def unknown(field: str, value: object, choices: Iterable[str]) -> UserError:
  """Returns the error for a name that is not among `choices`.

  Args:
    field: what was set, e.g. 'attention.score.name'.
    value: what it was set to.
    choices: the names that would have been right.
  """
  choices = sorted(map(str, choices))
  near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
  hint = f'did you mean {near[0]!r}? ' if near else ''
  return UserError(
    f'{field}={value!r} is unknown: {hint}(choices: {", ".join(choices)})'
  )


def check_number(
  field: str, value: object, least: float, most: float = math.inf
) -> None:
  """Raises UserError unless least <= value <= most; NaN is never right.

  Args:
    field: what was set, e.g. 'model.dropout'.
    value: what it was set to.
    least: the smallest that is right.
    most: the greatest; infinity itself is never right.
  """
  right = isinstance(value, (int, float)) and not isinstance(value, bool)
  if right and least <= value <= most and abs(value) < math.inf:
    return
  wanted = f'{least:g} or more' if most == math.inf else _range(least, most)
  raise UserError(f'{field}={shortened(value)} must be {wanted}')


def one_line(error: object) -> str:
  """Returns what an error says with every run of white space as one blank."""
  return ' '.join(str(error).split())


def shortened(value: object, most: int = 80) -> str:
  """Returns a value as it stands in a message, cut in its middle."""
  text = repr(value)
  half = most // 2
  return text if len(text) <= most else f'{text[:half]}...{text[-half:]}'


def _range(least: float, most: float) -> str:
  return f'from {least:,} to {most:,}'


def line(error: BaseException) -> str | None:
  """Returns the one line for a user; None for our own mistakes."""
  if isinstance(error, UserError):
    return one_line(error)
  return of_the_system(error)


def of_the_system(error: BaseException) -> str | None:
  """Returns one line for what the system refuses; None for our own mistakes."""
  if isinstance(error, OSError):
    if error.filename is not None:
      return f'{shortened(str(error.filename))}: {error.strerror}'
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    return f'cannot write: {error.strerror}' if error.errno in full else None
  if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
    return (
      'the memory is full: lower training.batch_size, data.max_length or the '
      f'sizes of the model ({shortened(one_line(error))})'
    )
  return None
