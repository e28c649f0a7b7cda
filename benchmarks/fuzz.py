"""Fuzzing of the configuration: whatever is given, one line or a task.

`overrides` tries random values for the settings of the experiments in this
process: they are applied, and where they are taken, the task is built and its
training step traced, with the shapes of the model and without its numbers.
`commands` tries random command lines of launch.py. Both return what they saw
and raise AssertionError with what would repeat a failure.

`benchmarks/nothing_lost.py` runs them in full; the tests run a little of each.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import io
import logging
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import traceback
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from attnlab import configs, errors  # noqa: E402
import launch  # noqa: E402

SPECS = (
  'translation:luong,smoke',
  'translation:bahdanau,smoke',
  'translation:transformer,smoke',
  'translation:no_attention,smoke',
  'sentiment:attention,smoke',
  'sentiment:self_attention,smoke',
  'documents:attention,smoke',
  'documents:flat,smoke',
)
NUMBERS = (
  *map(str, (-(10**30), -(2**63), -(2**31), -7, -1, 0, 1, 2, 3, 5, 16)),
  *map(str, (2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 10**30, 10**400)),
  *'-0.0 1e-300 1e-9 0.1 0.5 0.999 1.0 1.5 2.0 1e9 1e38 1e300 1e999'.split(),
  *'nan -nan inf -inf 1_000 0x10 +3 -1e999 1e-400 ١٢'.split(),
)
TEXTS = (
  *' |\t|None|True|False|true|no|()|(1,)|[1|{}|{"a": 1}|1,2|a,b|-'.split('|'),
  *'__import__("os").system("true")|../x|..|/|.|~nobody/x|a.tsv'.split('|'),
  *'é|汉字|\u202e|\U0001f600|\udcff|a\nb|\x00|%s|{language}|\\'.split('|'),
  'x' * 3_000,
  '',
)
# One step of these takes long, and nothing else does: no use in waiting.
# Nothing here asks the network.
_DOWNLOADED = {'multi30k', 'tfds'}
_LIMIT = {'data.train_size': 500, 'model.layers': 3}


def cases(seed: int, count: int) -> Iterator[tuple[str, dict[str, str]]]:
  """Yields (experiment, overrides): one to three values that may be wrong."""
  rng = random.Random(seed)
  known = {spec: configs.load(spec) for spec in SPECS}
  for _ in range(count):
    spec = rng.choice(SPECS)
    paths = _paths(known[spec])
    chosen = {}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
      path = rng.choice(paths)
      text = value(rng, path, known[spec])
      if rng.random() < 0.1:
        path = _mangled(rng, path)
      chosen[path] = text
    yield spec, chosen


def value(rng: random.Random, path: str, config: Mapping) -> str:
  """A value for a setting: a number, a name, a text or near what is there."""
  part = path.removesuffix('.name')
  kinds = configs.parts(config['task'])
  if part in kinds and rng.random() < 0.7:
    names = configs.choices(kinds[part]).keys() - _DOWNLOADED
    return rng.choice([*sorted(names), 'None', ''])
  present = configs.flat(configs.to_data(config)).get(path)
  number = isinstance(present, (int, float))
  pool = NUMBERS if rng.random() < (0.85 if number else 0.3) else TEXTS
  text = rng.choice(pool)
  if rng.random() < 0.1:
    text = _mangled(rng, text)
  if rng.random() < 0.1:
    text = str(rng.randint(-50, 300))
  with contextlib.suppress(ValueError, OverflowError):
    if _LIMIT.get(path, 2**31) < int(text) < 2**31 - 1:
      text = str(_LIMIT[path])
  return text


def _paths(config: Any) -> list[str]:
  data = configs.to_data(config)
  sections = [name for name, part in data.items() if isinstance(part, dict)]
  more = ['attention.score', 'vocabulary', 'model', 'optimizer', 'data', '']
  return [*configs.flat(data)] * 4 + sections + more


def _mangled(rng: random.Random, text: str) -> str:
  at = rng.randint(0, len(text))
  kinds = ('', '.', ' ', '-', '=', '_', 'é', '"', text[at : at + 1] * 2)
  return text[:at] + rng.choice(kinds) + text[at + rng.randint(0, 1) :]


def outcome(spec: str, chosen: Mapping[str, str]) -> str:
  """Returns 'refused' or 'taken'.

  Raises:
    AssertionError: something else came of it, or a message has several lines.
  """
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      try_build(configs.override(configs.load(spec), chosen))
  except errors.UserError as error:
    text = errors.one_line(error)
    assert text, f'{spec} {chosen}: an empty message'
    assert len(text) < 8_000, f'{spec} {chosen}: {len(text)} characters'
    return 'refused'
  except Exception as error:
    trace = ''.join(traceback.format_exception(error)[-4:])
    raise AssertionError(f'{spec} {chosen}: {error!r}\n{trace}') from error
  return 'taken'


def try_build(config: Any) -> None:
  """Builds the task and traces the step; the model has shapes alone."""
  from flax import nnx

  from attnlab import tasks
  from attnlab.tasks import base
  from attnlab.training import optimizers
  from attnlab.training import settings as settings_lib
  from attnlab.training import state as states

  data = configs.to_data(config)
  settings = settings_lib.read(data)
  optimizer = optimizers.from_config(data['optimizer'], settings.steps)
  real = base.initialiser
  base.initialiser = lambda make: (
    lambda seed: base.shapes(lambda: make(nnx.Rngs(seed)))
  )
  try:
    task = tasks.build(config)
    parts = states.take_apart(task.model)
    states.make_step(
      task.loss, parts, optimizer, task.example, settings.log_every
    )
  finally:
    base.initialiser = real


def overrides(
  count: int, seed: int, fail: Callable[[str], None] | None = None
) -> dict[str, int]:
  """Tries `count` cases; returns how many were refused and taken.

  Args:
    count: how many.
    seed: of the cases.
    fail: is given each failure; None raises the first.
  """
  seen = {'refused': 0, 'taken': 0, 'failed': 0}
  with environment():
    for spec, chosen in cases(seed, count):
      try:
        seen[outcome(spec, chosen)] += 1
      except AssertionError as error:
        if fail is None:
          raise
        seen['failed'] += 1
        fail(str(error))
  return seen


@contextlib.contextmanager
def environment() -> Iterator[pathlib.Path]:
  """An empty working directory, data sets of its own, and no warnings."""
  disabled = logging.root.manager.disable
  logging.disable(logging.WARNING)
  with tempfile.TemporaryDirectory() as directory:
    before = os.getcwd(), os.environ.get('TFDS_DATA_DIR')
    os.chdir(directory)
    os.environ['TFDS_DATA_DIR'] = str(pathlib.Path(directory) / 'data')
    try:
      yield pathlib.Path(directory)
    finally:
      logging.disable(disabled)
      os.chdir(before[0])
      if before[1] is None:
        del os.environ['TFDS_DATA_DIR']
      else:
        os.environ['TFDS_DATA_DIR'] = before[1]


def command(rng: random.Random) -> list[str]:
  """A command line that may be wrong; it trains for two steps at most."""
  spec = rng.choice(SPECS)
  config = configs.load(spec)
  mode = rng.choice(('train', 'train', 'train', 'eval', 'predict', 'predict'))
  if mode == 'train':
    words = [f'--config={spec}', '--dry_run']
  else:
    words = [f'--mode={mode}', '--workdir=run']
  for _ in range(rng.choice((0, 1, 1, 2))):
    path = rng.choice(_paths(config))
    words.append(f'--config.{path}={value(rng, path, config)}')
  if mode == 'predict':
    words.append(f'--prompt={rng.choice(TEXTS)}')
  for _ in range(rng.choice((0, 0, 1, 2))):
    # Names in the working directory, so that nothing is written elsewhere.
    name = rng.choice(('out', 'run', 'in.txt', '', 'x' * 300, 'é', '\udcff'))
    text = rng.choice(TEXTS + NUMBERS)
    flag = rng.choice(
      (
        '--list --print_config --help --step --prompt -- -x --config --mode'
        f' --config= --mode= --step={text} --mode={text} --config={text}'
        ' --config.seed --config. --config.=1 --dry_run=maybe --nolist'
        f' --workdir={name} --input={name} --output={name}'
        f' --attention={name} --flagfile={name} --bogus={text} word'
      ).split(' ')
    )
    words.insert(rng.randint(0, len(words)), flag)
  if rng.random() < 0.2:
    at = rng.randrange(len(words))
    if words[at] != '--dry_run':
      words[at] = _mangled(rng, words[at])
  # The system lets no word of a command line hold a zero byte.
  return [word.replace('\0', '') for word in words]


def commands(
  count: int,
  seed: int,
  fail: Callable[[str], None] | None = None,
  processes: int = 20,
) -> dict[str, int]:
  """Tries `count` command lines; returns how often each exit code was seen.

  Args:
    count: how many.
    seed: of the command lines.
    fail: is given each failure; None raises the first.
    processes: every so many of them one is a process of its own.
  """
  rng = random.Random(seed)
  seen: dict[str, int] = {}
  with environment():
    pathlib.Path('in.txt').write_text('a b\n\nc\n')
    code, err = in_process(['--config=sentiment:smoke', '--workdir=run'])
    assert code == 0, err
    for number in range(count):
      words = command(rng)
      run = in_a_process if number % processes == processes - 1 else in_process
      try:
        code, err = run(words)
        _check_answer(words, code, err)
      except AssertionError as error:
        if fail is None:
          raise
        fail(str(error))
        continue
      seen[str(code)] = seen.get(str(code), 0) + 1
  return seen


def in_process(words: list[str]) -> tuple[int, str]:
  """Returns the exit code of launch.main and what it wrote to stderr."""
  err = io.StringIO()
  stdin = sys.stdin
  sys.stdin = io.StringIO('a b\n')
  try:
    with (
      contextlib.redirect_stdout(io.StringIO()),
      contextlib.redirect_stderr(err),
    ):
      return launch.main(['launch.py', *words]), err.getvalue()
  except BaseException as error:
    if isinstance(error, KeyboardInterrupt):
      raise
    trace = ''.join(traceback.format_exception(error)[-4:])
    raise AssertionError(f'{words}: {error!r}\n{trace}') from error
  finally:
    sys.stdin = stdin


def in_a_process(words: list[str]) -> tuple[int, str]:
  """The same as a process."""
  done = subprocess.run(
    [sys.executable, str(ROOT / 'launch.py'), *words],
    input='a b\n',
    capture_output=True,
    text=True,
    errors='surrogateescape',
  )
  return done.returncode, done.stderr


def _check_answer(words: list[str], code: int, err: str) -> None:
  assert code in (0, 2), f'{words}: exit code {code}: {err}'
  assert 'Traceback' not in err, f'{words}: {err}'
  if code == 2:
    # Warnings about the data may come before the one line.
    assert err.endswith('\n') and err.strip(), f'{words}: {err!r}'
    warned = ('skipped', ' are cut to ', 'are in ')
    lines = [
      line
      for line in err.strip().split('\n')
      if not any(word in line for word in warned)
    ]
    assert len(lines) == 1, f'{words}: {err}'
