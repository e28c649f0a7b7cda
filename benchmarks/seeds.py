"""Six seeds side by side, against one seed and against one after another.

  python benchmarks/seeds.py

The sentiment experiment at its default size, whole commands from the start of
the process to the summary, each in a directory of its own: `one`, a run;
`apart`, launch.py --seeds=6 as a CPU trains it; `together`, the same as one
program, as a GPU trains it; `serial`, six runs one after another. They take
turns, --rounds of them after one that fills the cache of compilations. A figure
is the median over rounds. Two CPU cores, several minutes a round; on a GPU
launch.py and `together` are the same.

`apart` is to stay below four times `one`; what `together` costs on a CPU is why
it is left to other devices.
"""

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
WAYS = ('one', 'apart', 'together', 'serial')


def fit(spec: str, seeds: int, folder: pathlib.Path, together: bool):
  """What `launch.py --seeds` does, in the way that is asked for."""
  from attnlab import allocator, configs, tasks, training
  from attnlab import seeds as seeds_lib
  from attnlab.training import side_by_side

  allocator.keep()
  training.cache_compilations()
  config = configs.load(spec)
  side_by_side.fit(
    [seeds_lib.seeded(config, seed) for seed in range(seeds)],
    tasks.build,
    [folder / f'seed={seed}' for seed in range(seeds)],
    together=together,
  )


def measure(way: str, spec: str, seeds: int) -> dict[str, float]:
  """Runs one way in a new folder.

  Returns:
    seconds: from start to end.
    cpu_seconds: of all threads.
    memory: the largest resident set, bytes.
    step: seconds of a step of all its seeds, the median.
  """
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    if way in ('apart', 'together'):
      given = [f'--fit={way}', f'--workdir={folder}']
      given += [f'--config={spec}', f'--seeds={seeds}']
      commands = [[sys.executable, __file__, *given]]
    else:
      commands = [
        [
          sys.executable, str(ROOT / 'launch.py'), f'--config={spec}',
          f'--config.seed={seed}', f'--workdir={folder / f"seed={seed}"}',
        ]
        for seed in range(seeds if way == 'serial' else 1)
      ]  # fmt: skip
    found = [_timed(command) for command in commands]
    rates = [
      json.loads(path.read_text())['train/steps_per_second']
      for path in sorted(folder.glob('*/summary.json'))
    ]
  each = [1 / rate for rate in rates]
  return {
    'seconds': sum(seconds for seconds, _, _ in found),
    'cpu_seconds': sum(cpu for _, cpu, _ in found),
    'memory': max(memory for _, _, memory in found),
    'step': sum(each) if way == 'serial' else statistics.mean(each),
  }


def _timed(command: Sequence[str]) -> tuple[float, float, float]:
  """Seconds, seconds of all threads, and peak bytes of a command."""
  start = time.perf_counter()
  process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
  _, status, usage = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise SystemExit(f'{command} ended with {process.returncode}')
  seconds = time.perf_counter() - start
  return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0


def entry(
  taken: dict[str, list[dict[str, float]]], given: argparse.Namespace
) -> dict[str, Any]:
  """What is written: the figures, and how they came about."""
  from attnlab.report import results

  figures = {
    f'{way}/{name}': statistics.median(found[name] for found in rounds)
    for way, rounds in taken.items()
    for name in rounds[0]
  }
  for way in taken:
    for name in ('seconds', 'cpu_seconds', 'memory', 'step'):
      if way != 'one':
        ratios = [
          found[name] / one[name]
          for found, one in zip(taken[way], taken['one'], strict=True)
        ]
        figures[f'{way}/{name}_ratio'] = statistics.median(ratios)
  return {
    'name': 'seeds',
    'label': f'{given.seeds} seeds of {given.config}',
    'command': 'python benchmarks/seeds.py',
    'seeds': list(range(given.seeds)),
    'figures': figures,
    'rounds': taken,
    **results.here('jax', 'flax'),
  }


def main(arguments: Sequence[str] | None = None) -> int:
  """Measures all ways, prints the ratios and writes seeds.json."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--config', default='experiments/sentiment.py')
  parser.add_argument('--seeds', type=int, default=6)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--ways', default=','.join(WAYS))
  parser.add_argument(
    '--out', type=pathlib.Path, default=ROOT / 'results' / 'benchmarks'
  )
  parser.add_argument('--fit', help=argparse.SUPPRESS)
  parser.add_argument('--workdir', type=pathlib.Path, help=argparse.SUPPRESS)
  given = parser.parse_args(arguments)
  if given.fit:
    fit(given.config, given.seeds, given.workdir, given.fit == 'together')
    return 0
  ways = given.ways.split(',')
  for way in ways:
    if way not in WAYS:
      parser.error(f'--ways={way}: it must be of {", ".join(WAYS)}')
  if ways[0] != 'one' or given.rounds < 1:
    parser.error('--ways begins with one, and --rounds is 1 or more')
  taken: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
  for number in range(given.rounds + 1):
    for way in ways:
      if number == 0 and way == 'serial':
        continue  # compiles nothing that the others do not
      found = measure(way, given.config, given.seeds)
      line = ', '.join(f'{name} {value:.4g}' for name, value in found.items())
      print(f'round {number}: {way}: {line}', flush=True)
      if number:
        taken[way].append(found)
  from attnlab.report import results

  written = entry(taken, given)
  for name, value in written['figures'].items():
    print(f'{name:<28} {value:.4g}')
  print(results.write(written, given.out))
  return 0


if __name__ == '__main__':
  sys.exit(main())
