"""Tries to make runs lose something, or to get another answer than one line.

  python benchmarks/nothing_lost.py
  python benchmarks/nothing_lost.py --only=kills,corruptions --kills=5

  kills        kill -9 at random moments, each experiment, until the job ends
  signals      SIGTERM and SIGINT at random moments, likewise
  corruptions  a random file of the newest checkpoint flipped, cut or removed
  disk         a full disk, a lost permission, a read-only directory
  refusals     another batch size, seed, vocabulary, model, data, precision
  race         four starts at once in one directory
  overrides    random values for the settings, see fuzz.py
  commands     random command lines
  soak         many steps: memory that grows, compilations that go on

What ends is compared with a run that nobody disturbed: each parameter and each
line of metrics.jsonl, bit for bit, but for the figures of the clock. Prints a
table of what was tried and what was seen, and exits with 1 if anything failed.
In full it takes two hours on two CPU cores; the tests run a little of each.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from attnlab.training import checkpoints, logging, signals  # noqa: E402

_STEPS = (
  '--config.training.steps=120',
  '--config.training.log_every=10',
  '--config.training.eval_every=40',
  '--config.training.checkpoint_every=8',
)
JOBS = {
  'translation': ('--config=translation:luong,smoke', *_STEPS),
  'sentiment': ('--config=sentiment:smoke', *_STEPS),
  'documents': ('--config=documents:smoke', *_STEPS),
}


# Before a command: root, too, is refused what the permissions forbid. It takes
# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (1, 2) from the bounding set (24).
OBEY_PERMISSIONS = (
  sys.executable,
  '-c',
  """
import ctypes, os, sys
if os.geteuid() == 0:
  for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
""",
)


class Failure(Exception):
  """Something was lost, or the answer was not one line."""


# Runs.


def start(
  workdir: pathlib.Path, *words: str, prefix: tuple[str, ...] = ()
) -> subprocess.Popen:
  """Starts launch.py on a run directory, by another command if need be."""
  launch = [sys.executable, str(ROOT / 'launch.py'), f'--workdir={workdir}']
  return subprocess.Popen(
    [*prefix, *launch, *words],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def whole(workdir: pathlib.Path, *words: str) -> float:
  """Runs a job to its end; returns its seconds."""
  began = time.monotonic()
  process = start(workdir, *words)
  _, err = process.communicate()
  if process.returncode:
    raise Failure(f'exit code {process.returncode}: {err[-500:]}')
  return time.monotonic() - began


def assert_same(one: pathlib.Path, other: pathlib.Path) -> None:
  """Raises Failure unless two runs ended in the same place."""
  steps = [checkpoints.steps(run / 'checkpoints')[-1] for run in (one, other)]
  if steps[0] != steps[1]:
    raise Failure(f'ended at the steps {steps}')
  a, b = (
    checkpoints.restore(run / 'checkpoints', steps[0]).arrays
    for run in (one, other)
  )
  if a.keys() != b.keys():
    raise Failure('other arrays')
  for name in a:
    if a[name].dtype != b[name].dtype or a[name].tobytes() != b[name].tobytes():
      raise Failure(f'{name} differs')
  a, b = (
    json.dumps(logging.without_timing(logging.read(run / 'metrics.jsonl')))
    for run in (one, other)
  )
  if a != b:
    raise Failure('metrics.jsonl differs')


def refused(process: subprocess.Popen, *words: str) -> str:
  """Returns the one line with which a process left; it has to hold `words`."""
  _, err = process.communicate(timeout=120)
  if process.returncode != 2 or err.count('\n') != 1:
    raise Failure(f'exit code {process.returncode}: {err[-1500:]}')
  for word in words:
    if word not in err:
      raise Failure(f'{word!r} is not in {err!r}')
  return err.strip()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
  """Waits for a condition; raises Failure if the process ends before."""
  while not condition():
    if process.poll() is not None:
      raise Failure(f'ended early: {process.communicate()[1][-1500:]}')
    time.sleep(0.01)


# Campaigns. Each yields (what was tried, what was seen).


def kills(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
  """Kills each job at random moments until it ends; again, up to the count."""
  for name, words in JOBS.items():
    yield from _disturb(args, name, words, [signal.SIGKILL] * args.kills)


def interruptions(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
  """The same by signals that the run may answer."""
  both = [signal.SIGTERM, signal.SIGINT] * args.signals
  for name, words in JOBS.items():
    yield from _disturb(args, name, words, both)


def _disturb(args, name, words, numbers) -> Iterator[tuple[str, str]]:
  rng = random.Random(f'{args.seed}{name}')
  with tempfile.TemporaryDirectory() as directory:
    folder = pathlib.Path(directory)
    whole(folder / 'warm', *words)
    seconds = whole(folder / 'whole', *words)
    seen: Counter = Counter()
    slowest, run = 0.0, 0
    left = list(numbers)
    while left:
      run += 1
      while True:
        process = start(folder / f'{run}', *words)
        # Most of a start is imports, which have nothing to lose.
        delay = rng.uniform(0.3, 1.0) if rng.random() < 0.8 else rng.random()
        try:
          _, err = process.communicate(
            timeout=delay * seconds if left else None
          )
        except subprocess.TimeoutExpired:
          number = left.pop()
          process.send_signal(number)
          sent = time.monotonic()
          out, err = process.communicate()
          took = time.monotonic() - sent
          if number != signal.SIGKILL:
            slowest = max(slowest, took)
          ended = (folder / f'{run}' / 'summary.json').is_file()
          seen[_left(process.returncode, number, out, err, ended)] += 1
          if took > signals.SECONDS + 1:
            raise Failure(f'{name}: {took:.1f} s after {number}') from None
          continue
        if process.returncode:
          raise Failure(f'{name}: exit code {process.returncode}: {err[-900:]}')
        break
      assert_same(folder / 'whole', folder / f'{run}')
      shutil.rmtree(folder / f'{run}')
    told = ', '.join(f'{n} {what}' for what, n in seen.most_common())
    late = f', the slowest after {slowest:.1f} s' if slowest else ''
    yield (
      f'{name}: {len(numbers)} times',
      f'{told}{late}; {run} runs ended, each bit for bit the same',
    )


def _left(code: int, number: int, out: str, err: str, ended: bool) -> str:
  """How a process left after a signal."""
  if number == signal.SIGKILL:
    return 'killed'
  if code == 128 + number and 'stopped and saved at step' in out:
    return 'saved'
  # A run that has its summary listens no more.
  if code == 0 or (ended and code == -number):
    return 'ended just then'
  if code == 128 + number and 'left as last saved' in err:
    return 'left as last saved'
  # Before there is a run, nothing is saved; SIGINT may be within an import.
  if code in (-number, 128 + number, 1) and 'first step done' not in out:
    return 'before the first step'
  if code == 128 + number:
    return 'during an evaluation'
  raise Failure(f'exit code {code} after {number}: {err[-900:]}')


def corrupt(path: pathlib.Path, rng: random.Random) -> str:
  """Flips a bit of a file, cuts it, or removes it; returns what it did."""
  kind = rng.choice(('flipped', 'cut', 'removed'))
  content = bytearray(path.read_bytes())
  if kind == 'removed' or not content:
    path.unlink()
    return 'removed'
  if kind == 'cut':
    del content[rng.randrange(len(content)) :]
  else:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
  path.write_bytes(content)
  return kind


def try_corruptions(
  saved: pathlib.Path, count: int, rng: random.Random
) -> Counter:
  """Corrupts copies of a directory of two checkpoints or more.

  Raises:
    Failure: what is restored is not the step before, or not as it was; or more
      or less than one line is said.
  """
  *_, before, newest = checkpoints.steps(saved)
  expected = checkpoints.restore(saved, before)
  files = sorted(p for p in (saved / f'{newest:08d}').rglob('*') if p.is_file())
  seen: Counter = Counter()
  for _ in range(count):
    with tempfile.TemporaryDirectory() as directory:
      copy = pathlib.Path(directory) / 'checkpoints'
      shutil.copytree(saved, copy)
      file = rng.choice(files).relative_to(saved)
      kind = corrupt(copy / file, rng)
      told: list[str] = []
      found = checkpoints.restore_newest(copy, told.append)
      if found is None or found.step != before:
        raise Failure(f'{file} {kind}: step {found and found.step} was taken')
      if found.meta != expected.meta or any(
        found.arrays[name].tobytes() != array.tobytes()
        for name, array in expected.arrays.items()
      ):
        raise Failure(f'{file} {kind}: another step {before}')
      if len(told) != 1 or '\n' in told[0]:
        raise Failure(f'{file} {kind}: said {told}')
      seen[kind] += 1
  return seen


def corruptions(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
  """Corrupts the newest checkpoint of a run of each experiment."""
  rng = random.Random(args.seed)
  share = -(-args.corruptions // len(JOBS))
  for name, words in JOBS.items():
    with tempfile.TemporaryDirectory() as directory:
      workdir = pathlib.Path(directory) / 'run'
      whole(workdir, *words)
      seen = try_corruptions(workdir / 'checkpoints', share, rng)
      told = ', '.join(f'{n} {what}' for what, n in seen.most_common())
      yield f'{name}: {share}', f'{told}: the step before, after one line'


@contextlib.contextmanager
def small_disk(
  folder: pathlib.Path, size: str
) -> Iterator[pathlib.Path | None]:
  """A file system of that size, or None where it cannot be mounted."""
  folder.mkdir()
  words = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)]
  try:
    mounted = not subprocess.run(words, capture_output=True).returncode
  except OSError:
    mounted = False
  try:
    yield folder if mounted else None
  finally:
    if mounted:
      subprocess.run(['umount', '-l', str(folder)], check=True)


def fill(folder: pathlib.Path) -> pathlib.Path:
  """Fills a file system to the last byte; returns the file."""
  path = folder / 'filler'
  with contextlib.suppress(OSError), path.open('wb', 0) as file:
    while True:
      file.write(bytes(4096))
  return path


def disk(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
  """Takes the disk away while a job runs, and gives it back."""
  del args
  words = JOBS['sentiment']
  with tempfile.TemporaryDirectory() as directory:
    folder = pathlib.Path(directory)
    whole(folder / 'whole', *words)

    def going(workdir, **options):
      process = start(workdir, *words, **options)
      saved = workdir / 'checkpoints'
      wait_for(lambda: len(checkpoints.steps(saved)) > 1, process)
      return process

    def again(workdir, line):
      # A checkpoint that is good, and from it to the same end.
      newest = checkpoints.steps(workdir / 'checkpoints')[-1]
      checkpoints.restore(workdir / 'checkpoints', newest)
      whole(workdir, *words)
      assert_same(folder / 'whole', workdir)
      return f'{line[-150:]!r}; then the same end'

    with small_disk(folder / 'small', '24m') as small:
      if small is None:
        yield 'full disk (tmpfs)', 'left out: mounting is not allowed here'
      else:
        process = going(small / 'run')
        filler = fill(small)
        line = refused(process, 'No space left', str(small / 'run'))
        filler.unlink()
        yield 'full disk (tmpfs)', again(small / 'run', line)

    workdir = folder / 'limit'
    process = going(workdir)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
    line = refused(process, 'File too large', str(workdir))
    yield 'failing writes (RLIMIT_FSIZE 0)', again(workdir, line)

    workdir = folder / 'permission'
    process = going(workdir, prefix=OBEY_PERMISSIONS)
    (workdir / 'checkpoints').chmod(0o555)
    line = refused(process, 'Permission denied', str(workdir))
    (workdir / 'checkpoints').chmod(0o755)
    yield 'lost permission', again(workdir, line)

    workdir = folder / 'read_only'
    workdir.mkdir(mode=0o555)
    process = start(workdir, *words, prefix=OBEY_PERMISSIONS)
    line = refused(process, 'Permission denied', str(workdir))
    yield 'read-only directory', repr(line[-150:])


CHANGES = {
  'training.batch_size': '12',
  'seed': '1',
  'vocabulary.min_freq': '2',
  'model.hidden': '24',
  'data.seed': '1',
  'training.precision': 'bfloat16',
}


def refusals(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
  """Goes on with a run by another config, and with other data."""
  del args
  for name, words in JOBS.items():
    with tempfile.TemporaryDirectory() as directory:
      workdir = pathlib.Path(directory) / 'run'
      whole(workdir, *words)
      for path, value in CHANGES.items():
        process = start(workdir, *words, f'--config.{path}={value}')
        refused(process, path, value)
      yield name, f'refused by name: {", ".join(CHANGES)}'
  with tempfile.TemporaryDirectory() as directory:
    folder = pathlib.Path(directory)
    rows = [f'{"ab"[i % 2]}\tword{i % 7} {"xy"[i % 2]}\n' for i in range(60)]
    (folder / 'train.tsv').write_text(''.join(rows))
    words = (
      *JOBS['sentiment'],
      '--config.data=files',
      f'--config.data.train={folder}/train.tsv',
      '--config.data.text_field=1',
      '--config.data.label_field=0',
    )
    whole(folder / 'run', *words)
    longer = [word.replace('steps=120', 'steps=130') for word in words]
    (folder / 'train.tsv').write_text(''.join(reversed(rows)))
    refused(start(folder / 'run', *longer), 'the data differs')
    # The same ids, since the order of the words stays.
    (folder / 'train.tsv').write_text(''.join(rows).replace('word6', 'word65'))
    refused(start(folder / 'run', *longer), 'the vocabulary differs')
    yield 'files', 'refused by name: lines in another order, other words'


def race(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
  """Starts four at once in one directory; one wins."""
  rounds = 5
  with tempfile.TemporaryDirectory() as directory:
    folder = pathlib.Path(directory)
    words = JOBS['sentiment']
    whole(folder / 'whole', *words)
    for i in range(rounds):
      workdir = folder / f'run{i}'
      several = [start(workdir, *words) for _ in range(4)]
      said = [process.communicate() for process in several]
      codes = sorted(process.returncode for process in several)
      # A start may be so late that the winner has ended.
      late = sum('is finished at step' in out for out, _ in said)
      if codes != [0] * (1 + late) + [2] * (3 - late):
        raise Failure(f'exit codes {codes}: {said}')
      for process, (_, err) in zip(several, said, strict=True):
        if process.returncode and not (
          'is in use by process' in err and err.count('\n') == 1
        ):
          raise Failure(err)
      assert_same(folder / 'whole', workdir)
  yield f'{rounds} rounds of 4', 'one won, the others refused by one line'


def overrides(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
  """Random values for the settings."""
  from benchmarks import fuzz

  failed: list[str] = []
  seen = fuzz.overrides(args.overrides, args.seed, failed.append)
  if failed:
    raise Failure('\n'.join(failed[:20]))
  told = f'{seen["refused"]} refused by one line, {seen["taken"]} taken'
  yield f'{args.overrides} overrides', told


def commands(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
  """Random command lines."""
  from benchmarks import fuzz

  failed: list[str] = []
  seen = fuzz.commands(args.commands, args.seed, failed.append)
  if failed:
    raise Failure('\n'.join(failed[:20]))
  told = ', '.join(f'{n} exit code {code}' for code, n in seen.items())
  yield f'{args.commands} command lines', told


def soak(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
  """Trains for long; nothing may grow once everything has happened twice."""
  steps = args.soak
  every = steps // 10
  words = (
    f'--config.training.steps={steps}',
    f'--config.training.log_every={max(1, every // 10)}',
    f'--config.training.eval_every={every}',
    f'--config.training.checkpoint_every={every}',
  )
  for name, (config, *_) in JOBS.items():
    with tempfile.TemporaryDirectory() as directory:
      folder = pathlib.Path(directory)
      with (folder / 'err').open('w+') as err:
        process = subprocess.Popen(
          [
            *(sys.executable, str(ROOT / 'launch.py'), config, *words),
            f'--workdir={folder / "run"}',
          ],
          stdout=subprocess.DEVNULL,
          stderr=err,
          env={**os.environ, 'JAX_LOG_COMPILES': '1'},
        )
        seen = list(_watch(process, folder))
      if process.returncode:
        raise Failure(f'{name}: exit code {process.returncode}')
    # The last evaluation, over all splits with its pictures, is not training.
    settled = [row for row in seen if 0.25 * steps <= row[0] < 0.99 * steps]
    (_, before, compiled), (_, after, recompiled) = (
      [sorted(column)[len(rows) // 2] for column in zip(*rows, strict=True)]
      for rows in (settled[:10], settled[-10:])
    )
    growth = after / before - 1
    if growth >= 0.05 or recompiled != compiled:
      raise Failure(
        f'{name}: memory grew by {growth:.1%}, compilations from {compiled} '
        f'to {recompiled}'
      )
    told = f'{before / 2**20:,.0f} MiB at a quarter, {growth:+.1%} at the end'
    told += f'; {compiled} compilations, then none'
    yield f'{name}: {steps} steps', told


def _watch(
  process: subprocess.Popen, folder: pathlib.Path
) -> Iterator[tuple[int, int, int]]:
  """Yields the step, resident bytes and compilations until a process ends."""
  status = pathlib.Path(f'/proc/{process.pid}/statm')
  while process.poll() is None:
    time.sleep(0.1)
    with contextlib.suppress(OSError, ValueError, IndexError):
      rows = logging.read(folder / 'run' / 'metrics.jsonl')
      pages = int(status.read_text().split()[1])
      compiled = (folder / 'err').read_text().count('Finished XLA compilation')
      yield rows[-1]['step'], pages * resource.getpagesize(), compiled


CAMPAIGNS: dict[str, Callable[[Any], Iterator[tuple[str, str]]]] = {
  'kills': kills,
  'signals': interruptions,
  'corruptions': corruptions,
  'disk': disk,
  'refusals': refusals,
  'race': race,
  'overrides': overrides,
  'commands': commands,
  'soak': soak,
}


def main(argv: list[str]) -> int:
  """Runs the campaigns; returns 1 if anything failed."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--only', default=','.join(CAMPAIGNS))
  parser.add_argument('--kills', type=int, default=50, help='each experiment')
  parser.add_argument('--signals', type=int, default=20, help='each, of both')
  parser.add_argument('--corruptions', type=int, default=200)
  parser.add_argument('--overrides', type=int, default=10_000)
  parser.add_argument('--commands', type=int, default=300)
  parser.add_argument('--soak', type=int, default=2_000, help='steps')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args(argv)
  chosen = args.only.split(',')
  for name in chosen:
    if name not in CAMPAIGNS:
      parser.error(f'--only={name}: choose from {", ".join(CAMPAIGNS)}')
  failures = 0
  print('| campaign | tried | seen | seconds |\n| --- | --- | --- | ---: |')
  for name in chosen:
    began = time.monotonic()
    try:
      for tried, seen in CAMPAIGNS[name](args):
        took = time.monotonic() - began
        print(f'| {name} | {tried} | {seen} | {took:.0f} |', flush=True)
    except (Failure, AssertionError) as failure:
      failures += 1
      print(f'| {name} | FAILED | {failure} | |', flush=True)
  return 1 if failures else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
