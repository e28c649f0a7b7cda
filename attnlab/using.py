"""--mode=eval, measure, predict and export: what a run is good for."""

from collections.abc import Mapping
import functools
import json
import pathlib
import sys
from typing import Any

from absl import flags

from attnlab import asking, configs, errors, workdirs

SEVERAL = ('eval', 'measure')  # modes that take many runs in one command


def command(args: flags.FlagValues, overrides: Mapping[str, str]) -> int:
  """Runs `launch.py --mode=MODE --workdir=RUN`, and returns the exit code.

  Raises:
    UserError: there is no such run, or a flag does not fit it. Of several runs
      one that fails is a line on stderr, and the exit code is 2.
  """
  if not args.workdir and len(args.config) != 1:
    raise errors.UserError(
      f'workdir is missing: mode={args.mode} needs the directory of a run'
    )
  if args.workdir and args.config:
    raise errors.UserError(
      f'config={args.config[0]!r}: mode={args.mode} takes the config of '
      'the run in --workdir; change single values by --config.a.b=value'
    )
  if args.workdir:
    found = [pathlib.Path(args.workdir)]
  else:
    found = [*workdirs.directories('', args.config, overrides).values()]
    overrides = {}
  if args.mode in SEVERAL and not (found[0] / 'config.json').is_file():
    from attnlab.report import runs

    found = runs.find(found, flag='workdir')
  if len(found) == 1:
    _use(args, found[0], overrides, alone=True)
    return 0
  import jax

  failed = 0
  for workdir in found:
    # The programs of a run serve no other, and each has mappings of its own in
    # the memory, of which Linux grants 65,530: enough for some sixty runs.
    jax.clear_caches()
    try:
      _use(args, workdir, overrides, alone=False)
    except Exception as error:
      line = errors.line(error)
      if line is None:
        raise
      print(f'{workdir}: {line}', file=sys.stderr, flush=True)
      failed += 1
  if failed:
    print(f'{failed} of {len(found)} runs failed', file=sys.stderr)
  return 2 if failed else 0


def _use(
  args: flags.FlagValues,
  workdir: pathlib.Path,
  overrides: Mapping[str, str],
  *,
  alone: bool,
) -> None:
  config = _config(workdir, overrides)
  if args.print_config:
    if not alone:
      print(f'# {workdir}')
    print(configs.to_json(config))
    return
  predict = args.mode == 'predict'
  lines = asking.inputs(args.prompt, args.input) if predict else iter(())
  from attnlab import training
  from attnlab.training import export

  training.cache_compilations()
  if args.mode == 'export':
    step = export.run(
      config, workdir, args.output, step=args.step, average=args.average or 0
    )
    print(f'{workdir}, {_which(step, args.average)}: {args.output}')
    return
  # Prediction needs the run directory and nothing else.
  task, step = _restore(
    config, workdir, args.step, args.average, with_data=not predict
  )
  if predict:
    asking.predict(
      task,
      lines,
      typed=args.prompt is None and args.input is None and sys.stdin.isatty(),
      output=args.output,
      attention=args.attention,
    )
    return
  about = {
    'step': step,
    'average': args.average or 1,
    'overrides': dict(overrides),
  }
  own = args.step is None and not args.average and not overrides
  if args.mode == 'measure':
    path, text = _measure(args, config, task, workdir, about, own)
  else:
    path, text = _evaluate(task, workdir, about, own)
  title = f'{workdir}, {_which(step, args.average)}'
  print(f'{title}\n{text}\n{path}' if alone else f'{title}: {path}')


def _measure(
  args, config, task, workdir, about, own
) -> tuple[pathlib.Path, str]:
  from attnlab.report import measuring
  from attnlab.training import costs

  lengths = costs.lengths(args.lengths or ())
  other = None
  if args.reverse is not None:
    place = pathlib.Path(args.reverse)
    if args.alignments is None:
      raise errors.UserError(
        f'reverse={args.reverse!r} is for --alignments=DIR, which is missing'
      )
    back = _config(place, {}, 'reverse')
    other, _ = _restore(back, place, with_data=False)
    about = {**about, 'reverse': args.reverse}
  record = measuring.measure(
    task,
    workdir,
    splits=args.splits,
    examples=args.examples,
    alignments=args.alignments,
    other=other,
    costs=functools.partial(costs.by_length, config, task, lengths),
    predictions=workdir if own else None,
    **about,
  )
  values = {k: v for k, v in record.items() if '/' in k}
  return workdir / measuring.FILE, measuring.table(values, record['signatures'])


def _evaluate(task, workdir, about, own) -> tuple[pathlib.Path, str]:
  from attnlab import training

  # What lies in the directory itself is of summary.json.
  values = training.evaluate(task, workdir if own else workdir / 'evaluation')
  path = workdir / 'evaluation.json'
  record = {**values, **about, 'signatures': dict(task.signatures)}
  path.write_text(json.dumps(record, indent=2) + '\n')
  return path, training.figures(values)


def _config(
  workdir: pathlib.Path, overrides: Mapping[str, str], flag: str = 'workdir'
) -> Any:
  """The config of a run directory, with other values where they are given."""
  path = workdir / 'config.json'
  if not path.is_file():
    raise errors.UserError(
      f'{flag}={str(workdir)!r} is no run directory: it has no config.json'
    )
  saved = configs.from_json(asking.read_text(path, str(path)), name=str(path))
  return configs.override(saved, overrides)


def _restore(
  config: Any,
  workdir: pathlib.Path,
  step: int | None = None,
  average: int | None = None,
  *,
  with_data: bool,
) -> tuple[Any, int]:
  """The task of a run, or of an export, with its parameters; and their step."""
  from attnlab import tasks, training
  from attnlab.training import export

  # The parameters are restored: no file of vectors has to start them.
  config = {**configs.to_data(config), 'vectors': ''}
  task = tasks.build(config, None if with_data else workdir)
  if not export.is_export(workdir):
    return task, training.restore(
      task, workdir, step=step, average=average or 0
    )
  for name, value in (('step', step), ('average', average)):
    if value is not None:
      raise errors.UserError(
        f'{name}={value}: {workdir} is an export and holds no checkpoints'
      )
  return task, export.restore(task, workdir)


def _which(step: int, average: int | None) -> str:
  if not average:
    return f'step {step}'
  return f'mean of {average} checkpoints up to step {step}'
