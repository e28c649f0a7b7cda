"""`config.training`, as far as the loop reads it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from attnlab import errors


class Settings(NamedTuple):
  """How long a run is, and what is due when.

  Attributes:
    steps: batches to train on.
    log_every: steps between two lines of training metrics.
    eval_every: steps between two evaluations, see `evaluation.watched`.
    checkpoint_every: steps between two checkpoints. One is also written when
      the monitored metric is the best so far, at the end and on a signal.
    keep: how many of the newest checkpoints stay; the best one stays as well.
    patience: evaluations without improvement after which training ends; 0 off.
  """

  steps: int
  log_every: int = 100
  eval_every: int = 1000
  checkpoint_every: int = 1000
  keep: int = 2
  patience: int = 0


def read(config: Mapping[str, Any]) -> Settings:
  """Returns the settings of a config.

  Raises:
    UserError: one is missing, or out of its range.
  """
  section = config.get('training', {})
  if 'steps' not in section:
    raise errors.UserError('training.steps is missing from the config')
  given = {name: section[name] for name in Settings._fields if name in section}
  settings = Settings(**given)
  for name, value in settings._asdict().items():
    least = 0 if name == 'patience' else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
      raise errors.UserError(
        f'training.{name}={value!r} must be a whole number of {least} or more'
      )
    # Steps are counted by int32.
    errors.check_number(f'training.{name}', value, least, 2**31 - 1)
  return settings
