"""A run directory: whether it is finished, and files written whole."""

import json
import os
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


def write_json(path: pathlib.Path, data: Any) -> None:
  """Writes JSON, all or nothing."""
  draft = path.with_name(f'{path.name}.draft-{os.getpid()}')
  draft.write_text(json.dumps(data, indent=2) + '\n')
  os.replace(draft, path)
