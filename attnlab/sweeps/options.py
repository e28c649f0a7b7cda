"""The flags of a sweep, and what launch.py calls."""

from collections.abc import Mapping
import hashlib
import json
import pathlib
from typing import Any

from absl import flags

from attnlab import errors


def define(values: flags.FlagValues) -> None:
  """Defines the flags; they say nothing without --sweep."""
  flags.DEFINE_string(
    'sweep',
    None,
    'Trains at many points of a space, such as "seed=0..5; '
    'attention.score.name=dot,additive; optimizer.learning_rate=log(1e-4,1e-2)"'
    ', or a file of such lines. Also uniform(a,b), int(a,b), log(a,b,COUNT), '
    'and zip(a=1,2; b=3,4) for settings that change together. The same command '
    'again goes on; with --dry_run it lists the points.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'search',
    None,
    'sweep: grid, random or tpe. Default: grid where the space can be listed, '
    'else random.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'trials', None, 'sweep: how many points.', flag_values=values
  )
  flags.DEFINE_string(
    'pruner',
    None,
    'sweep: none, median or asha: stops trials that are behind. Default: '
    'median for tpe, else none.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'objective',
    None,
    'sweep: the figure of summary.json that makes one trial better than '
    'another, such as min:test/loss. Default: what the task watches.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'search_seed',
    None,
    'sweep: draws other points. Default: 0.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'workers',
    None,
    'sweep: trials at a time. Default: 1.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'engine',
    None,
    'sweep: local (processes here), ray or slurm, which are extras. Default: '
    'local.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'ray_address',
    None,
    'sweep: of a Ray cluster, such as auto or HOST:PORT. Default: one is '
    'started here, which listens on loopback alone.',
    flag_values=values,
  )
  flags.DEFINE_list(
    'slurm',
    None,
    "sweep: submitit's parameters, such as "
    'timeout_min=240,slurm_partition=gpu,gpus_per_node=1.',
    flag_values=values,
  )


NAMES = (
  'search', 'trials', 'pruner', 'objective', 'search_seed', 'workers', 'engine',
  'ray_address', 'slurm',
)  # fmt: skip


def check(args: flags.FlagValues) -> None:
  """Refuses flags that do not go together.

  Raises:
    UserError: names the first.
  """
  if args.sweep is None:
    for name in NAMES:
      if getattr(args, name) is not None:
        raise errors.UserError(
          f'{name}={getattr(args, name)!r} is for --sweep, which is missing'
        )
    return
  for name, empty in (
    ('profile', False), ('wandb', None), ('coordinator', ''),
  ):  # fmt: skip
    if getattr(args, name) != empty:
      raise errors.UserError(
        f'{name}={getattr(args, name)!r} is for a single run, not for --sweep'
      )
  if args.mode != 'train':
    raise errors.UserError(
      f"sweep={args.sweep!r} is for mode=train, and mode is '{args.mode}'"
    )
  if len(args.config) != 1:
    raise errors.UserError(
      f'sweep={args.sweep!r} needs one --config, and {len(args.config)} are '
      'given'
    )
  if args.workers is not None:
    errors.check_number('workers', args.workers, 1, 10_000)
  engine = args.engine or 'local'
  for name, wanted in (('ray_address', 'ray'), ('slurm', 'slurm')):
    if getattr(args, name) is not None and engine != wanted:
      raise errors.UserError(
        f'{name}={getattr(args, name)!r} is for engine={wanted!r}, and engine '
        f'is {engine!r}'
      )


def run(
  args: flags.FlagValues, config: Any, overrides: Mapping[str, str]
) -> int:
  """Runs the sweep of a command line.

  Args:
    args: the flags.
    config: of the experiment, with the overrides applied.
    overrides: of --config.a.b=value.

  Returns:
    The exit code: 1 where a trial has failed.

  Raises:
    UserError: a flag or a value of the space is wrong.
  """
  from attnlab import configs
  from attnlab.sweeps import engines, search, spaces, sweep

  engine = args.engine or 'local'
  if engine not in engines.ENGINES:
    raise errors.unknown('engine', engine, engines.ENGINES)
  text = spaces.read(args.sweep)
  space = spaces.parse(text)
  kind, trials = search.choose(space, args.search, args.trials)
  pruner = args.pruner or ('median' if kind == 'tpe' else 'none')
  if pruner not in search.PRUNERS:
    raise errors.unknown('pruner', pruner, search.PRUNERS)
  spaces.check(space, config, overrides)
  figure, mode, watched, watched_mode = sweep.objective(args.objective, config)
  workers = args.workers or 1
  plan = sweep.Plan(
    spec=args.config[0],
    overrides=dict(overrides),
    text='; '.join(line for line in text.splitlines() if line.strip()),
    search=search.Search(
      space, kind, trials, pruner, args.search_seed or 0, mode
    ),
    objective=figure,
    watched=watched,
    watched_mode=watched_mode,
  )
  if args.workdir:
    folder = pathlib.Path(args.workdir)
  else:
    # More trials are the same sweep, as more steps are the same run.
    told = json.dumps(plan.definition(), sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    name, variant = configs.split(args.config[0])
    words = [name, variant.replace(',', '-').replace('/', '-'), digest]
    folder = pathlib.Path('runs') / '-'.join(['sweep', *filter(None, words)])
  if args.dry_run:
    return _list(plan, folder)
  sweep.check_extra()
  from attnlab.sweeps import live

  def make():
    if engine == 'ray':
      return engines.Ray(workers, args.ray_address or '')
    if engine == 'slurm':
      return engines.Slurm(workers, folder / 'slurm', _options(args.slurm))
    return engines.Local(workers)

  view = live.View(figure, workers)
  view.say(f'{kind}: {trials} trials in {folder}')
  try:
    kept = sweep.run(plan, folder, make, view)
  except sweep.Stopped as stopped:
    view.say('stopped: the same command goes on')
    return 128 + stopped.number
  view.result(kept)
  view.say(str(folder / 'sweep.json'))
  failed = sum(point.state == 'failed' for point in kept.trials.values())
  return 1 if failed else 0


def _list(plan: Any, folder: pathlib.Path) -> int:
  """Prints the command of each point that can be known beforehand."""
  import shlex

  from attnlab.sweeps import search

  kind = plan.search.kind
  if kind == 'tpe':
    raise errors.UserError(
      "dry_run=True: the points of search='tpe' depend on results"
    )
  used: list[Any] = []
  for number in range(plan.search.trials):
    values = search.draw(plan.search, number, (), used)
    if values is None:
      break
    used.append(values)
    settings = search.settings(plan.search.space, values)
    workdir = folder / 'trials' / f'{number:04d}'
    print(shlex.join(plan.command(settings, workdir)))
  return 0


def _options(given: list[str] | None) -> dict[str, Any]:
  """Reads --slurm=a=1,b=x; whole numbers are numbers."""
  found: dict[str, Any] = {}
  for item in given or ():
    name, equals, value = item.partition('=')
    if not equals or not name:
      raise errors.UserError(f'slurm={item!r} must be NAME=VALUE')
    found[name] = int(value) if value.isdigit() else value
  return found
