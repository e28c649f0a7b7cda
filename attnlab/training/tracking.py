"""The figures of a run in Weights & Biases, for those who want them there."""

from collections.abc import Mapping
import json
import os
import pathlib
import sys
from typing import Any
import uuid

from attnlab import errors


def load() -> Any:
  """Returns the package wandb.

  Raises:
    UserError: it is not installed.
  """
  try:
    import wandb
  except ImportError:
    wandb = None
  # A folder called wandb, such as the package leaves, is imported as well.
  if not hasattr(wandb, 'init'):
    raise errors.UserError(
      "wandb: the package is not installed: pip install -e '.[wandb]'"
    )
  return wandb


class Tracker:
  """One run of a project; the same run directory is the same run there."""

  def __init__(
    self, project: str, workdir: pathlib.Path, config: Mapping[str, Any]
  ):
    """Begins the run, or goes on with it.

    Args:
      project: its name.
      workdir: the run directory; wandb keeps its files there.
      config: of the run.

    Raises:
      UserError: wandb is not installed, or refuses.
    """
    wandb = load()
    # Such as {"id": "4f1c..."}: beside the run, so that it is found again.
    path = workdir / 'wandb.json'
    try:
      name = str(json.loads(path.read_text())['id'])
    except (OSError, ValueError, KeyError, TypeError):
      name = uuid.uuid4().hex[:16]
      path.write_text(json.dumps({'id': name}) + '\n')
    try:
      self._run = wandb.init(
        project=project,
        name=workdir.name,
        id=name,
        dir=os.fspath(workdir),
        config=dict(config),
        resume='allow',
        # What is printed stays on the terminal.
        settings=wandb.Settings(console='off'),
      )
    except Exception as error:
      text = errors.one_line(error) or type(error).__name__
      raise errors.UserError(
        f'wandb={project!r}: {text}; WANDB_MODE=offline needs no server'
      ) from error

  def write(self, step: int, values: Mapping[str, float]):
    """Adds the figures of a step."""
    self._run.log(dict(values), step=step)

  def finish(self, summary: Mapping[str, Any]):
    """Adds the final figures."""
    self._run.summary.update(
      {k: v for k, v in summary.items() if isinstance(v, (int, float))}
    )

  def close(self):
    """Ends the run there, as failed while an error is on its way up."""
    self._run.finish(exit_code=int(sys.exc_info()[0] is not None))
