"""Run directories: their names, and files that are written whole."""

from collections.abc import Mapping, Sequence
import hashlib
import json
import os
import pathlib
from typing import Any

from attnlab import configs, errors


def directories(
  workdir: str, specs: Sequence[str], overrides: Mapping[str, str]
) -> dict[str, pathlib.Path]:
  """Returns the run directory of each config.

  One config has --workdir itself, several have sub-directories named by their
  variants. The default is runs/EXPERIMENT-VARIANT, or runs/EXPERIMENT for
  several, with a hash of the overrides after it: the same command finds its
  run again, and another override does not.
  """
  if len(set(specs)) < len(specs):
    twice = next(spec for spec in specs if specs.count(spec) > 1)
    raise errors.UserError(f'config={twice!r} is given twice')
  parts = [configs.split(spec) for spec in specs]
  names = {name for name, _ in parts}
  experiment = names.pop() if len(names) == 1 else 'comparison'
  variants = [arg.replace(',', '-').replace('/', '-') for _, arg in parts]
  if workdir:
    base = pathlib.Path(workdir)
  else:
    # A longer run is the same run, so its length is no part of the name.
    kept = {
      path: text
      for path, text in sorted(overrides.items())
      if path != 'training.steps'
    }
    digest = hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:8]
    words = [experiment]
    if len(specs) == 1 and variants[0]:
      words.append(variants[0])
    if kept:
      words.append(digest)
    base = pathlib.Path('runs') / '-'.join(words)
  if len(specs) == 1:
    return {specs[0]: base}
  names = [
    '-'.join(filter(None, (name if experiment == 'comparison' else '', arg)))
    or 'default'
    for (name, _), arg in zip(parts, variants, strict=True)
  ]
  return {
    spec: base / (name if names.count(name) == 1 else f'{name}-{i + 1}')
    for i, (spec, name) in enumerate(zip(specs, names, strict=True))
  }


def write_json(path: pathlib.Path, data: Any) -> None:
  """Writes JSON, all or nothing."""
  draft = path.with_name(f'{path.name}.draft-{os.getpid()}')
  draft.write_text(json.dumps(data, indent=2) + '\n', encoding='utf-8')
  os.replace(draft, path)
