"""The flag --seeds, and what launch.py calls for it."""

from collections.abc import Mapping
from typing import Any

from absl import flags

from attnlab import errors, workdirs

_MOST = 1000


def define(values: flags.FlagValues) -> None:
  """Defines the flag."""
  flags.DEFINE_integer(
    'seeds',
    None,
    'train: so many seeds side by side on one device, config.seed and those '
    'after it, into WORKDIR/seed=0 and so on: ordinary runs.',
    flag_values=values,
  )


def check(args: flags.FlagValues) -> None:
  """Refuses flags that do not go with it.

  Raises:
    UserError: names the first.
  """
  if args.seeds is None:
    return
  errors.check_number('seeds', args.seeds, 1, _MOST)
  for name in ('dry_run', 'profile', 'wandb', 'coordinator', 'sweep'):
    value = getattr(args, name)
    if value not in (None, False, ''):
      hint = ''
      if name == 'sweep':
        hint = f": write it as a part of the space, 'seed=0..{args.seeds - 1}'"
      raise errors.UserError(
        f'seeds={args.seeds} does not go with {name}={value!r}{hint}'
      )


def run(
  args: flags.FlagValues,
  loaded: Mapping[str, Any],
  overrides: Mapping[str, str],
) -> int:
  """Trains the seeds of one config after the other; a table for each.

  Args:
    args: the flags.
    loaded: configs by their names, with the overrides applied.
    overrides: of --config.a.b=value.

  Returns:
    The exit code.

  Raises:
    UserError: a setting is wrong, or a seed has failed.
  """
  for config in loaded.values():
    last = config.get('seed', 0) + args.seeds - 1
    errors.check_number('seed', last, 0, 2**31 - 1)
  folders = workdirs.directories(args.workdir, list(loaded), overrides)
  from attnlab import tasks, training
  from attnlab.report import compare
  from attnlab.training import side_by_side

  training.cache_compilations()
  for spec, config in loaded.items():
    if len(loaded) > 1:
      print(f'== {spec}', flush=True)
    seeds = [config.get('seed', 0) + n for n in range(args.seeds)]
    names = [f'seed={seed}' for seed in seeds]
    try:
      found = side_by_side.fit(
        [seeded(config, seed) for seed in seeds],
        tasks.build,
        [folders[spec] / name for name in names],
      )
    except training.Stopped as stopped:
      return 128 + stopped.number
    compare.show(compare.over_seeds(dict(zip(names, found, strict=True))))
  return 0


def seeded(config: Any, seed: int) -> Any:
  """A copy of a config, with another seed."""
  copied = config.copy_and_resolve_references()
  with copied.unlocked():
    copied.seed = seed
  return copied
