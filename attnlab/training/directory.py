"""A run directory: whether it is finished."""

import json
import pathlib
from typing import Any

from attnlab.training import settings as settings_lib


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
