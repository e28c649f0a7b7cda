r"""Trains, evaluates and asks attention models.

  python launch.py
      the main job: translation with attention beside its twin without
  python launch.py --config=experiments/translation.py:bahdanau \
      --config.attention.score.name=bilinear --workdir=runs/bilinear
      one experiment, with a value of its config replaced
  python launch.py --mode=eval --workdir=runs/bilinear
  python launch.py --mode=measure --workdir=runs/bilinear
  python launch.py --mode=predict --workdir=runs/bilinear \
      --prompt='I love China'
      the best checkpoint of a run, evaluated, its attention measured, or asked;
      --workdir='runs/sst2/*' evaluates or measures many
  python launch.py --mode=export --workdir=runs/bilinear --output=model
      its parameters as safetensors, with config and vocabulary; --workdir=model
      is as good as the run for eval and predict
  python launch.py --mode=lr_find --config=experiments/translation.py:bahdanau
      which learning rate to start from
  python launch.py --config=experiments/sentiment.py --workers=2 \
      --sweep='attention.score.name=dot,additive; seed=0..5'
      a sweep: one trial for each point of a space
  python launch.py --config=experiments/sentiment.py --seeds=6
      six seeds side by side: six ordinary runs, and a table of their means
  python launch.py --report=runs/sst2 --out=report
      tables, figures, references and a page of examples of finished runs
  python launch.py --list
      experiments, mechanisms, data sets

The same command again goes on where it was stopped. Ctrl-C and SIGTERM save
first. --config.a.b=value sets a value of every config that is named;
--print_config shows which there are.
"""

from collections.abc import Sequence
import functools
import os
import pathlib
import sys
import textwrap
from typing import Any

from absl import flags

from attnlab import allocator, configs, errors, seeds, workdirs
from attnlab.sweeps import options as sweeps

MODES = ('train', 'lr_find', 'eval', 'measure', 'predict', 'export')
_MAIN = (
  'experiments/translation.py:luong',
  'experiments/translation.py:no_attention',
)

# Flags that name files and folders.
_PLACES = (
  'workdir',
  'report',
  'out',
  'input',
  'output',
  'attention',
  'alignments',
  'reverse',
)
_FLAGS = flags.FlagValues()
flags.DEFINE_multi_string(
  'config',
  [],
  'An experiment, "file.py:argument" or "name:argument". Several run one '
  'after the other into sub-directories of --workdir and are compared. '
  f'Default: {" and ".join(_MAIN)}.',
  flag_values=_FLAGS,
)
flags.DEFINE_string(
  'workdir',
  '',
  'The run directory. Default for training: runs/EXPERIMENT-VARIANT, with a '
  'hash of the overrides after it where there are some. eval and measure take '
  "a folder of runs as well, or a pattern such as 'runs/sst2/*'.",
  flag_values=_FLAGS,
)
flags.DEFINE_string(
  'mode', 'train', f'One of {", ".join(MODES)}.', flag_values=_FLAGS
)
flags.DEFINE_boolean(
  'dry_run',
  False,
  'Two steps, an evaluation, a checkpoint and its restoration; then stop.',
  flag_values=_FLAGS,
)
flags.DEFINE_boolean(
  'profile',
  False,
  'train: trace a few steps after the first ones into WORKDIR/profile.',
  flag_values=_FLAGS,
)
flags.DEFINE_string(
  'wandb',
  None,
  'train: a project of Weights & Biases that gets the figures as well; needs '
  'the extra wandb. WANDB_MODE=offline needs no account.',
  flag_values=_FLAGS,
)
flags.DEFINE_integer(
  'lr_steps',
  None,
  'lr_find: batches from the lowest rate to the highest. Default: 100.',
  flag_values=_FLAGS,
)
flags.DEFINE_list(
  'lr_range',
  None,
  'lr_find: the lowest and the highest rate. Default: 1e-7,10.',
  flag_values=_FLAGS,
)
flags.DEFINE_boolean(
    'print_config', False, 'Print the config as JSON and stop.',
    flag_values=_FLAGS,
)  # fmt: skip
flags.DEFINE_boolean(
  'list',
  False,
  'List experiments, mechanisms and data sets and stop.',
  flag_values=_FLAGS,
)
flags.DEFINE_multi_string(
  'report',
  [],
  'Write a report on finished runs and stop: run directories, folders of them, '
  "or patterns such as 'runs/sst2/*'.",
  flag_values=_FLAGS,
)
flags.DEFINE_string(
  'out', '', 'report: its folder, new or an earlier report.', flag_values=_FLAGS
)
flags.DEFINE_integer(
  'step',
  None,
  'eval, measure, predict, export: the checkpoint of this step instead of the '
  'best.',
  flag_values=_FLAGS,
)
flags.DEFINE_integer(
  'average',
  None,
  'eval, measure, predict, export: the mean of the parameters of this many '
  'checkpoints, the newest up to --step; training.keep says how many a run '
  'keeps.',
  flag_values=_FLAGS,
)
flags.DEFINE_string(
  'prompt', None, 'predict: one line of input.', flag_values=_FLAGS
)
flags.DEFINE_string(
  'input',
  None,
  'predict: a file with one input a line; without --prompt and --input they '
  'are read from stdin.',
  flag_values=_FLAGS,
)
flags.DEFINE_string(
  'output',
  None,
  'predict: a file for the results. export: the folder.',
  flag_values=_FLAGS,
)
flags.DEFINE_string(
  'attention',
  None,
  'predict: a directory for attention.jsonl and a figure of each line.',
  flag_values=_FLAGS,
)
flags.DEFINE_string(
  'alignments',
  None,
  'measure: a folder with gold word alignments of the languages of the run, '
  'such as en-fr.tsv.gz: words, words, sure links i-j, possible links.',
  flag_values=_FLAGS,
)
flags.DEFINE_string(
  'reverse',
  None,
  'measure: with --alignments, a run that translates the other way round: the '
  'links of both, and those that both have (Och and Ney 2003).',
  flag_values=_FLAGS,
)
flags.DEFINE_integer(
  'examples',
  None,
  'measure: how many of each split are read with other weights and without '
  'some words. Default: 128.',
  flag_values=_FLAGS,
)
flags.DEFINE_list(
  'splits',
  None,
  'measure: which splits. Default: all but train and validation.',
  flag_values=_FLAGS,
)
flags.DEFINE_list(
  'lengths',
  None,
  'measure: time a training step at these source lengths as well, such as '
  '16,64,256.',
  flag_values=_FLAGS,
)
flags.DEFINE_string(
  'coordinator',
  '',
  'train: several processes as one run. HOST:PORT is an address of process 0, '
  'the only one it listens on (127.0.0.1:PORT on one host); auto asks Slurm, '
  'Open MPI, Kubernetes or Cloud TPU, where it listens on all addresses but '
  'for JAX_COORDINATOR_BIND_ADDRESS=HOST:PORT.',
  flag_values=_FLAGS,
)
flags.DEFINE_integer(
  'process_count',
  None,
  'train: how many processes, with --coordinator=HOST:PORT.',
  flag_values=_FLAGS,
)
flags.DEFINE_integer(
  'process_index',
  None,
  'train: which of them this is, from 0, with --coordinator=HOST:PORT.',
  flag_values=_FLAGS,
)
sweeps.define(_FLAGS)
seeds.define(_FLAGS)
flags.DEFINE_boolean('help', False, 'Show this help.', flag_values=_FLAGS)


def main(argv: Sequence[str]) -> int:
  """Runs a command line and returns its exit code."""
  try:
    return _run(argv)
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    return 130
  except BrokenPipeError:
    # The reader of our output has gone, which is no news to anybody.
    sys.stderr.close()
    return 141
  except Exception as error:
    line = errors.line(error)
    if line is None:
      raise
    print(line, file=sys.stderr)
    return 2


def _run(argv: Sequence[str]) -> int:
  overrides, rest = split_overrides(argv[1:])
  args = _parse([argv[0], *rest])
  if args.help:
    print(__doc__)
    print(_FLAGS.get_help())
    return 0
  if args.mode not in MODES:
    raise errors.unknown('mode', args.mode, MODES)
  _check_flags(args)
  if args.list:
    _list()
    return 0
  if args.report:
    from attnlab.report import report

    return report.command(args, overrides)
  if args.mode in ('train', 'lr_find'):
    return _train(args, overrides)
  from attnlab import using

  return using.command(args, overrides)


def split_overrides(
  argv: Sequence[str],
) -> tuple[dict[str, str], list[str]]:
  """Takes --config.a.b=value and --config.a.b value out of a command line.

  Returns:
    {'a.b': 'value'} and the other arguments.

  Raises:
    UserError: one has no value, or is given twice with different values.
  """
  overrides: dict[str, str] = {}
  rest = []
  words = iter(argv)
  for word in words:
    if word == '--':
      rest += [word, *words]
      break
    name = word.removeprefix('--') if word.startswith('--') else word[1:]
    if not word.startswith('-') or not name.startswith('config.'):
      rest.append(word)
      continue
    path, given, value = name.removeprefix('config.').partition('=')
    if not given:
      value = next(words, None)
      if value is None or value.startswith('--'):
        raise errors.UserError(f'--config.{path} needs a value')
    if not path:
      raise errors.UserError(f'{word!r} names no value of the config')
    if overrides.get(path, value) != value:
      raise errors.UserError(
        f'--config.{path} is given twice: {overrides[path]!r} and {value!r}'
      )
    overrides[path] = value
  return overrides, rest


def _parse(argv: list[str]) -> flags.FlagValues:
  _FLAGS.unparse_flags()
  for name in _FLAGS:
    _FLAGS[name].unparse()
  try:
    rest = _FLAGS(argv)
  except flags.Error as error:
    raise errors.UserError(str(error)) from error
  if len(rest) > 1:
    raise errors.UserError(
      f'{rest[1]!r} is not a flag: flags start with -- (see --help)'
    )
  for name in _PLACES:  # a shell leaves the ~ of --workdir=~/runs as it is
    place = _FLAGS[name].value
    if isinstance(place, str):
      _FLAGS[name].value = os.path.expanduser(place)
    elif place:
      _FLAGS[name].value = [os.path.expanduser(each) for each in place]
  return _FLAGS


def _check_flags(args: flags.FlagValues):
  """Refuses flags that the mode would not read."""
  only = {
    'step': ('eval', 'measure', 'predict', 'export'),
    'average': ('eval', 'measure', 'predict', 'export'),
    'alignments': ('measure',),
    'reverse': ('measure',),
    'examples': ('measure',),
    'splits': ('measure',),
    'lengths': ('measure',),
    'prompt': ('predict',),
    'input': ('predict',),
    'output': ('predict', 'export'),
    'attention': ('predict',),
    'dry_run': ('train',),
    'profile': ('train',),
    'wandb': ('train',),
    'lr_steps': ('lr_find',),
    'lr_range': ('lr_find',),
    'coordinator': ('train',),
    'process_count': ('train',),
    'process_index': ('train',),
    'seeds': ('train',),
  }
  for name, modes in only.items():
    value = getattr(args, name)
    if value not in (None, False, '') and args.mode not in modes:
      raise errors.UserError(
        f'{name}={value!r} is for mode={" or ".join(modes)}, and mode is '
        f'{args.mode!r}'
      )
  if args.prompt is not None and args.input is not None:
    raise errors.UserError(
      f'prompt={args.prompt!r} and input={args.input!r}: give one of them'
    )
  if args.out and not args.report:
    raise errors.UserError(f'out={args.out!r}: --out is for --report')
  if args.average is not None and args.average < 1:
    raise errors.UserError(f'average={args.average} must be 1 or more')
  if args.mode == 'export' and not args.output:
    raise errors.UserError('output is missing: mode=export writes a folder')
  sweeps.check(args)
  seeds.check(args)
  for name in ('profile', 'wandb'):
    if args.dry_run and getattr(args, name):
      raise errors.UserError(
        f'{name}={getattr(args, name)!r}: a dry_run has nothing for it'
      )
  if args.dry_run and args.coordinator:
    raise errors.UserError(
      f'coordinator={args.coordinator!r}: --dry_run is for one process'
    )


def _train(args: flags.FlagValues, overrides: dict[str, str]) -> int:
  specs = args.config or list(_MAIN)
  loaded = configs.override_all(
    {spec: configs.load(spec) for spec in specs}, overrides
  )
  if args.print_config:
    for spec, config in loaded.items():
      if len(loaded) > 1:
        print(f'# {spec}')
      print(configs.to_json(config))
    return 0
  if args.sweep is not None:
    return sweeps.run(args, loaded[specs[0]], overrides)
  if args.seeds is not None:
    return seeds.run(args, loaded, overrides)
  runs = workdirs.directories(args.workdir, specs, overrides)
  from attnlab.training import devices

  with devices.joined(args.coordinator, args.process_count, args.process_index):
    return _fit(args, loaded, runs)


def _fit(
  args: flags.FlagValues,
  loaded: dict[str, Any],
  runs: dict[str, pathlib.Path],
) -> int:
  """Trains one config after the other, and compares them."""
  from attnlab import tasks, training

  training.cache_compilations()
  for spec, config in loaded.items():
    if len(loaded) > 1 and training.is_first():
      print(f'== {spec}', flush=True)
    if args.mode == 'lr_find':
      _find_rate(args, config, runs[spec])
      continue
    task = functools.partial(tasks.build, config)
    if args.dry_run:
      training.dry_run(config, task)
      continue
    try:
      training.fit(
        config,
        task,
        runs[spec],
        profile=args.profile,
        wandb=args.wandb,
      )
    except training.Stopped as stopped:
      return 128 + stopped.number
  trained = args.mode == 'train' and not args.dry_run
  if len(loaded) > 1 and trained and training.is_first():
    from attnlab.report import compare

    compare.compare(
      {run.name: run for run in runs.values()},
      next(iter(runs.values())).parent / 'figures',
    )
  return 0


def _find_rate(args: flags.FlagValues, config: Any, workdir: pathlib.Path):
  """Runs the learning-rate range test of one config."""
  from attnlab import tasks
  from attnlab.training import lr_find

  given: dict[str, Any] = {}
  if args.lr_steps is not None:
    given['steps'] = args.lr_steps
  if args.lr_range is not None:
    try:
      given['low'], given['high'] = map(float, args.lr_range)
    except ValueError:
      raise errors.UserError(
        f'lr_range={",".join(args.lr_range)!r} must be two numbers with a '
        "comma between them, such as '1e-7,10'"
      ) from None
  lr_find.run(config, functools.partial(tasks.build, config), workdir, **given)


def _list():
  """Prints what there is, with a line and the settings of each."""
  from attnlab.report import parts

  print('experiments')
  for name, path in configs.experiments().items():
    print(f'  experiments/{name}.py  {configs.docstring(path)}')
  for section in parts.everything():
    print(f'\n{section.title}')
    if section.shared:
      print(_indented(parts.call('all', section.shared), 2))
    width = max(map(len, section.choices))
    for name, choice in sorted(section.choices.items()):
      print(f'  {name:<{width}}  {choice.summary}'.rstrip())
      own = {
        key: value
        for key, value in choice.settings.items()
        if key not in section.shared
      }
      if own:
        print(_indented(parts.call('', own)[1:-1], width + 4))


def _indented(text: str, width: int) -> str:
  """A text of several lines of 80 columns, each with blanks before it."""
  before = ' ' * width
  return textwrap.fill(
    text,
    80,
    initial_indent=before,
    subsequent_indent=before,
    break_on_hyphens=False,
    break_long_words=False,
  )


if __name__ == '__main__':
  allocator.keep()
  sys.exit(main(sys.argv))
