"""Kills workers of a sweep at random; nothing may be lost or come twice.

  python benchmarks/sweep_kills.py
  python benchmarks/sweep_kills.py --trials=40 --workers=2 --kills=8
  python benchmarks/sweep_kills.py --engine=ray --sweep_kills=2

A sweep of short trials runs twice: by one worker that nobody disturbs, and by
several, of which some are killed with -9 at random moments: half of them the
worker with its trial, half the trial alone. With --sweep_kills, the sweep
itself is killed as well, and started again. Then each trial has to have one
result, equal to the undisturbed one bit for bit; each killed one has been tried
again once; no process is left. Prints what was seen, and exits with 1 if
anything failed.

Moments are drawn while trials run, and a trial is killed once at most: the
second kill of a trial is its end.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import nothing_lost  # noqa: E402


def main() -> int:
  """Runs the campaign."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
  parser.add_argument('--trials', type=int, default=40)
  parser.add_argument('--workers', type=int, default=2)
  parser.add_argument('--kills', type=int, default=8)
  parser.add_argument('--sweep_kills', type=int, default=0)
  parser.add_argument('--engine', default='local')
  parser.add_argument('--config', default='sentiment:smoke')
  parser.add_argument('--steps', type=int, default=40)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--keep', help='a folder for both sweeps')
  args = parser.parse_args()
  with contextlib.ExitStack() as stack:
    folder = pathlib.Path(
      args.keep or stack.enter_context(tempfile.TemporaryDirectory())
    )
    try:
      campaign(args, folder)
    except nothing_lost.Failure as failure:
      print(f'FAILED: {failure}')
      return 1
  return 0


def campaign(args: argparse.Namespace, folder: pathlib.Path) -> None:
  """Runs both sweeps and compares them; raises Failure."""
  alone, killed = folder / 'alone', folder / 'killed'
  began = time.monotonic()
  finish(start(args, alone, workers=1), alone)
  one = time.monotonic() - began
  print(f'undisturbed, one worker: {one:.0f} s', flush=True)
  began = time.monotonic()
  victims, sweeps = disturb(args, killed)
  took = time.monotonic() - began
  print(
    f'{args.workers} workers, {len(victims)} killed, the sweep killed '
    f'{sweeps} times: {took:.0f} s',
    flush=True,
  )
  check(args, alone, killed, victims, sweeps)


def start(
  args: argparse.Namespace, folder: pathlib.Path, *, workers: int
) -> subprocess.Popen:
  """Starts the sweep."""
  engine = [] if workers == 1 else [f'--engine={args.engine}']
  # Seeds alone: another learning rate is another program to compile.
  space = f'seed=0..{args.trials - 1}'
  folder.parent.mkdir(parents=True, exist_ok=True)
  with folder.with_suffix('.log').open('a') as log:
    return subprocess.Popen(
      [
        sys.executable,
        str(ROOT / 'launch.py'),
        f'--config={args.config}',
        f'--config.training.steps={args.steps}',
        f'--sweep={space}',
        f'--trials={args.trials}',
        f'--workers={workers}',
        f'--workdir={folder}',
        *engine,
      ],
      stdout=log,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )


def finish(process: subprocess.Popen, folder: pathlib.Path) -> None:
  """Waits for the end of a sweep; raises Failure unless it is a good one."""
  if code := process.wait():
    told = folder.with_suffix('.log').read_text()[-1500:]
    raise nothing_lost.Failure(f'exit code {code}: {told}')


def disturb(
  args: argparse.Namespace, folder: pathlib.Path
) -> tuple[list[int], int]:
  """Runs the sweep to its end under kills; returns the points killed."""
  rng = random.Random(args.seed)
  victims: list[int] = []
  sweeps = 0
  # At which number of ended trials the next kill comes, spread over the sweep.
  at = sorted(rng.sample(range(args.trials - args.workers), args.kills))
  ends = sorted(rng.sample(range(2, args.trials - 2), args.sweep_kills))
  process = start(args, folder, workers=args.workers)
  family: set[int] = set()
  while process.poll() is None:
    family.update(descendants(process.pid))
    done = len(list(folder.glob('trials/*/trial.json')))
    if ends and done >= ends[0]:
      ends.pop(0)
      process.kill()
      process.wait()
      sweeps += 1
      gone(sorted(family))
      process = start(args, folder, workers=args.workers)
    elif at and done >= at[0]:
      running = [
        (point, trial, worker)
        for point, trial, worker in trials(process.pid, folder)
        if point not in victims
      ]
      if running:
        time.sleep(rng.uniform(0, 1.5))
        point, trial, worker = rng.choice(running)
        number = worker if len(victims) % 2 else trial
        ended = folder / 'trials' / f'{point:04d}' / 'trial.json'
        if at_work(trial, folder) == point and not ended.exists():
          with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
            victims.append(point)
            at.pop(0)
            print(
              f'  killed the {"worker" if number == worker else "trial"} of '
              f'{point:04d}',
              flush=True,
            )
    time.sleep(0.05)
  finish(process, folder)
  gone(sorted(family))
  return victims, sweeps


def trials(pid: int, folder: pathlib.Path) -> list[tuple[int, int, int]]:
  """(point, process, its worker) of all trials of this sweep."""
  found = []
  parents = processes()
  for child in descendants(pid):
    point = at_work(child, folder)
    if point is not None and child in parents:
      found.append((point, child, parents[child]))
  return found


def at_work(pid: int, folder: pathlib.Path) -> int | None:
  """The point whose log this process writes, by /proc."""
  try:
    log = os.readlink(f'/proc/{pid}/fd/1')
  except OSError:
    return None
  path = pathlib.Path(log)
  inside = path.name == 'log.txt' and path.is_relative_to(folder.resolve())
  return int(path.parent.name) if inside else None


def processes() -> dict[int, int]:
  """{process: its parent}."""
  found = {}
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    with contextlib.suppress(OSError, ValueError, IndexError):
      fields = (path / 'stat').read_text().rsplit(')', 1)[1].split()
      if fields[0] != 'Z':
        found[int(path.name)] = int(fields[1])
  return found


def descendants(pid: int) -> list[int]:
  """All processes below this one."""
  parents = processes()
  found, front = [], [pid]
  while front:
    front = [child for child, parent in parents.items() if parent in front]
    found += front
  return found


def gone(family: list[int], seconds: float = 30) -> None:
  """Waits until these processes have left; raises Failure if they stay."""
  until = time.monotonic() + seconds
  while left := set(family) & processes().keys():
    if time.monotonic() > until:
      raise nothing_lost.Failure(f'processes that stay: {sorted(left)}')
    time.sleep(0.1)


def check(
  args: argparse.Namespace,
  alone: pathlib.Path,
  killed: pathlib.Path,
  victims: list[int],
  sweeps: int,
) -> None:
  """Compares the sweeps; raises Failure."""
  if len(victims) != args.kills:
    raise nothing_lost.Failure(f'only {len(victims)} kills')
  one, other = (
    json.loads((folder / 'sweep.json').read_text())['points']
    for folder in (alone, killed)
  )
  for point, twin in zip(one, other, strict=True):
    for name in ('number', 'settings', 'state', 'value', 'error'):
      if point[name] != twin[name]:
        raise nothing_lost.Failure(
          f'{name} of {point["number"]}: {twin[name]} instead of {point[name]}'
        )
    if point['state'] != 'complete':
      raise nothing_lost.Failure(f'{point["number"]} is {point["state"]}')
    wanted = int(point['number'] in victims)
    if twin['kills'] != wanted or (
      not sweeps and twin['attempts'] != 1 + wanted
    ):
      raise nothing_lost.Failure(f'attempts at {point["number"]}: {twin}')
    run = pathlib.Path('trials') / f'{point["number"]:04d}'
    nothing_lost.assert_same(alone / run, killed / run)
  with contextlib.closing(
    sqlite3.connect(killed / 'study.sqlite3')
  ) as connection:
    states = dict(
      connection.execute('SELECT state, COUNT(*) FROM trials GROUP BY state')
    )
  if set(states) - {'COMPLETE', 'FAIL'} or states['COMPLETE'] != args.trials:
    raise nothing_lost.Failure(f'states in the study: {states}')
  print(
    f'{args.trials} trials, each with one result, bit for bit that of the '
    f'undisturbed sweep; {len(victims)} killed and tried again once; attempts '
    f'in the study: {states}; no process left'
  )


if __name__ == '__main__':
  sys.exit(main())
