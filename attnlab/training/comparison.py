"""Whether a config, a run directory and a checkpoint belong together."""

from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any

from attnlab import errors
from attnlab.training import checkpoints

# What may change when a run goes on. All else would make another run of it.
MAY_CHANGE = frozenset(
  {
    'mesh.data',
    'mesh.model',
    'training.checkpoint_every',
    'training.eval_every',
    'training.keep',
    'training.log_every',
    'training.patience',
    'training.steps',
  }
)


def configs(workdir: pathlib.Path, config: Mapping[str, Any]):
  """Raises UserError if the directory belongs to another config, or to none.

  A setting that the directory's config does not know yet, and that is off
  here, is no difference.
  """
  path = workdir / 'config.json'
  finished = (workdir / 'summary.json').exists()
  if not finished and not checkpoints.steps(workdir / 'checkpoints'):
    return
  if not path.exists():  # It is there before the first checkpoint is.
    raise errors.UserError(
      f'workdir={str(workdir)!r} holds a run without a config.json, of which '
      'nobody knows what run it is; choose another --workdir'
    )
  try:
    old = _leaves(json.loads(path.read_text()))
  except ValueError as error:
    raise errors.UserError(f'{path} is not JSON: {error}') from error
  new = _leaves(json.loads(json.dumps(config)))
  nothing = 'nothing'
  changed = [
    f'{name}={_text(new.get(name, nothing))} (there: '
    f'{_text(old.get(name, nothing))})'
    for name in sorted(old.keys() | new.keys())
    if _place(name, old.get(name, nothing))
    != _place(name, new.get(name, nothing))
    and name not in MAY_CHANGE
    and (name in old or new[name])
  ]
  if changed:
    raise errors.UserError(
      f'workdir={str(workdir)!r} holds another run: {", ".join(changed[:4])}'
      f'{f" and {len(changed) - 4} more" if len(changed) > 4 else ""}; '
      'choose another --workdir'
    )


def _place(name: str, value: Any) -> Any:
  """A folder is the same however it is written."""
  known = name == 'data.dir' and isinstance(value, str) and value
  return os.path.normpath(value) if known else value


def fingerprints(old: Mapping[str, Any], new: Mapping[str, Any]):
  """Raises UserError if what was hashed differs; `old` is a checkpoint's."""
  for name in sorted(old.keys() | new.keys()):
    if old.get(name) != new.get(name):
      raise errors.UserError(
        f'the {name} differs from that of the checkpoint: '
        f'{new.get(name)} (there: {old.get(name)}); choose another --workdir'
      )


def _leaves(tree: Any, prefix: str = '') -> dict[str, Any]:
  if not isinstance(tree, dict) or not tree:
    return {prefix: tree}
  found = {}
  for name, value in tree.items():
    found |= _leaves(value, f'{prefix}.{name}' if prefix else name)
  return found


def _text(value: Any) -> str:
  return value if value == 'nothing' else repr(value)
