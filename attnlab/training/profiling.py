"""A trace of a few training steps."""

from collections.abc import Callable
import pathlib

import jax

# Steps that compile, fill caches and are not typical; then those in the trace.
WARM_UP = 4
STEPS = 5


class Trace:
  """Traces STEPS steps into a folder after WARM_UP others."""

  def __init__(
    self, directory: pathlib.Path, first: int, say: Callable[[str], None]
  ):
    """Waits for its steps.

    Args:
      directory: where the trace goes.
      first: steps that were done before this start of the run.
      say: prints one line.
    """
    self._directory = directory
    self._begin = first + WARM_UP
    self._begun = False
    self._done = False
    self._say = say

  def before(self, step: int, wait: Callable[[], None]):
    """Is called when `step` steps are done, and before the next.

    Args:
      step: steps done so far.
      wait: waits until they are, so that the trace holds whole steps.
    """
    if step == self._begin:
      wait()
      options = jax.profiler.ProfileOptions()
      # Events of each Python call would bury those of the steps.
      options.python_tracer_level = 0
      jax.profiler.start_trace(str(self._directory), profiler_options=options)
      self._begun = True
    elif step == self._begin + STEPS:
      wait()
      self.close(step)

  def close(self, step: int):
    """Ends the trace, at the latest when the training ends."""
    if self._done:
      return
    self._done = True
    if not self._begun:
      self._say(
        f'profile: nothing was traced: the training ended before step '
        f'{self._begin + 1}'
      )
      return
    jax.profiler.stop_trace()
    traces = self._directory.rglob('*.trace.json.gz')
    newest = max(traces, key=lambda path: path.stat().st_mtime, default='')
    self._say(
      f'profile: steps {self._begin + 1} to {step} are in {self._directory}: '
      f'open {newest} at ui.perfetto.dev, or pip install xprof and '
      f'tensorboard --logdir={self._directory}'
    )
