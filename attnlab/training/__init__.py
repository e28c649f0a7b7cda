"""The one loop, its state, checkpoints, schedules and devices."""

from attnlab.training.devices import is_first
from attnlab.training.dry_run import dry_run
from attnlab.training.environment import cache_compilations
from attnlab.training.evaluation import evaluate
from attnlab.training.loop import Diverged, figures, fit
from attnlab.training.restoring import restore
from attnlab.training.signals import Stopped

__all__ = [
  'Diverged',
  'Stopped',
  'cache_compilations',
  'dry_run',
  'evaluate',
  'figures',
  'fit',
  'is_first',
  'restore',
]
