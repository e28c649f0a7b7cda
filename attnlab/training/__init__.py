"""The one loop, its state, checkpoints, schedules and devices."""

from attnlab.training.devices import is_first
from attnlab.training.environment import cache_compilations
from attnlab.training.loop import Diverged, evaluate, figures, fit, restore
from attnlab.training.signals import Stopped

__all__ = [
  'Diverged',
  'Stopped',
  'cache_compilations',
  'evaluate',
  'figures',
  'fit',
  'is_first',
  'restore',
]
