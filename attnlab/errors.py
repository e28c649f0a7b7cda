"""The one kind of error that a user's mistake raises."""

from collections.abc import Iterable
import difflib


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
