"""Training speed of attnlab beside JoeyNMT 2.3, measured in one run.

  python benchmarks/translation_speed.py --data=DIR [--joeynmt_python=PYTHON]

DIR holds Multi30k's train.en, train.de, val.en and val.de (or the same names
with .gz), tokenised. The model: a GRU of 256 both ways, additive attention, a
GRU decoder of 256 with input feeding, embeddings of 256, word vocabularies of
the words seen twice, batches of 64 sentences, float32, Adam. Both count target
tokens, the end of sentence included, per second of training steps with their
own data pipelines; start-up, compilation and the first steps are left out. The
two take turns, each in a process of its own on the same cores, and the median
over the rounds is reported.

JoeyNMT runs under --joeynmt_python; without it, a virtual environment is made
in --workdir (torch is pinned to 2.13.0). Hardware: 2 CPU cores. Time: about
three minutes, and one more to make the environment. Expect a ratio of 3.3.
"""

import argparse
from collections.abc import Sequence
import gzip
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from attnlab import allocator

LANGUAGES = ('en', 'de')
REQUIREMENTS = ('joeynmt==2.3', 'torch==2.13.0', 'importlib_metadata')
CONFIG = 'experiments/translation.py:luong,multi30k'
# Luong's order with input feeding is that of JoeyNMT's decoder, whichever of
# its two scores it takes.
OVERRIDES = {
  'data.max_length': '100',
  'data.buckets': '10',
  'data.share_vocabulary': 'False',
  'vocabulary.name': 'words',
  'vocabulary.min_freq': '2',
  'model.name': 'luong',
  'model.cell': 'gru',
  'model.embedding': '256',
  'model.hidden': '256',
  'model.dropout': '0.0',
  'attention.score.name': 'additive',
  'attention.score.hidden': '256',
  'optimizer.name': 'adam',
  'training.batch_size': '64',
  'training.precision': 'float32',
  'training.label_smoothing': '0.0',
}
# JoeyNMT 2.3 hands torch's plateau schedule an argument that torch 2.13 no
# longer has, so its schedule must be another one.
JOEYNMT = """\
name: speed
joeynmt_version: 2.3.0
model_dir: {folder}/model
use_cuda: False
random_seed: {seed}
data:
  train: {folder}/train
  dev: {folder}/val
  dataset_type: plain
  src: {{lang: en, max_length: 100, level: word, voc_min_freq: 2}}
  trg: {{lang: de, max_length: 100, level: word, voc_min_freq: 2}}
training:
  overwrite: True
  optimizer: adam
  learning_rate: 0.0005
  scheduling: exponential
  clip_grad_norm: 1.0
  batch_size: 64
  batch_type: sentence
  epochs: 100
  updates: {steps}
  logging_freq: 10
  validation_freq: 1000000
testing: {{beam_size: 1}}
model:
  encoder:
    type: recurrent
    rnn_type: gru
    embeddings: {{embedding_dim: 256}}
    hidden_size: 256
    bidirectional: True
    num_layers: 1
    dropout: 0.0
  decoder:
    type: recurrent
    rnn_type: gru
    embeddings: {{embedding_dim: 256}}
    hidden_size: 256
    num_layers: 1
    dropout: 0.0
    hidden_dropout: 0.0
    attention: bahdanau
    input_feeding: True
    init_hidden: bridge
"""
ROOT = pathlib.Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
  """Measures both, prints a table and writes the entry for results/."""
  options = _options(arguments)
  if options.measure:
    print(json.dumps(attnlab_speed(options)))
    return 0
  load = os.getloadavg()[0]
  if load > 0.3:
    print(
      f'warning: the load is {load:.1f}: other programs slow JoeyNMT, which'
      ' waits for its threads, more than attnlab. Repeat on an idle machine',
      file=sys.stderr,
    )
  # Both libraries take as many threads as there are cores to run on.
  cores = sorted(os.sched_getaffinity(0))[: options.threads]
  os.sched_setaffinity(0, cores)
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(options.workdir or folder)
    workdir.mkdir(parents=True, exist_ok=True)
    lay_out(pathlib.Path(options.data), workdir)
    python = options.joeynmt_python or joeynmt_environment(workdir)
    rounds = []
    for number in range(options.rounds):
      ours = run_attnlab(options)
      theirs = run_joeynmt(options, python, workdir)
      rounds.append((ours, theirs))
      print(
        f'round {number + 1}: attnlab {ours["tokens_per_second"]:,.0f}, '
        f'JoeyNMT {theirs["tokens_per_second"]:,.0f} target tokens/s',
        flush=True,
      )
    entry = describe(options, rounds, len(cores), joeynmt_versions(python))
    entry['load_before'] = round(load, 2)
  show(entry)
  if options.out:
    from attnlab.report import results

    print(results.write(entry, pathlib.Path(options.out)))
  return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--data', required=True, help='folder of Multi30k, tok')
  parser.add_argument('--joeynmt_python', help='a Python that has JoeyNMT 2.3')
  parser.add_argument('--workdir', help='where files of the benchmark are kept')
  parser.add_argument('--out', default=str(ROOT / 'results'))
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--steps', type=int, default=60, help='steps measured')
  parser.add_argument('--warm_up', type=int, default=20, help='steps left out')
  parser.add_argument('--threads', type=int, default=2)
  parser.add_argument('--seed', type=int, default=1)
  parser.add_argument('--measure', action='store_true', help=argparse.SUPPRESS)
  options = parser.parse_args(arguments)
  for name in ('steps', 'warm_up'):
    if getattr(options, name) % 10 or getattr(options, name) < 10:
      parser.error(f'--{name} must be a multiple of 10: JoeyNMT logs so')
  if options.rounds < 1:
    parser.error('--rounds must be 1 or more')
  return options


def lay_out(data: pathlib.Path, folder: pathlib.Path) -> None:
  """Writes the parallel text as plain files, which JoeyNMT needs."""
  for split in ('train', 'val'):
    for language in LANGUAGES:
      name = f'{split}.{language}'
      if (data / name).exists():
        shutil.copy(data / name, folder / name)
      elif (data / f'{name}.gz').exists():
        with gzip.open(data / f'{name}.gz') as packed:
          (folder / name).write_bytes(packed.read())
      else:
        sys.exit(f'error: --data={data} has neither {name} nor {name}.gz')


def joeynmt_environment(workdir: pathlib.Path) -> str:
  """Makes a virtual environment with JoeyNMT; returns its Python."""
  home = workdir / 'joeynmt'
  python = str(home / 'bin' / 'python')
  if not (home / 'ready').exists():
    print('installing JoeyNMT', flush=True)
    subprocess.run([sys.executable, '-m', 'venv', home], check=True)
    install = [python, '-m', 'pip', 'install', '-q', *REQUIREMENTS]
    subprocess.run(install, check=True)
    (home / 'ready').touch()
  return python


def joeynmt_versions(python: str) -> dict[str, str]:
  """Returns the versions of JoeyNMT and torch under that Python."""
  code = (
    'from importlib.metadata import version as v;'
    'print(v("joeynmt"), v("torch"))'
  )
  answer = subprocess.run(
    [python, '-c', code], check=True, capture_output=True, text=True
  )
  return dict(zip(('joeynmt', 'torch'), answer.stdout.split(), strict=True))


def run_joeynmt(
  options: argparse.Namespace, python: str, folder: pathlib.Path
) -> dict[str, float]:
  """Trains JoeyNMT and reads the speed from its own log."""
  config = folder / 'joeynmt.yaml'
  steps = options.warm_up + options.steps
  config.write_text(
    JOEYNMT.format(folder=folder.resolve(), steps=steps, seed=options.seed)
  )
  environment = os.environ | {'OMP_NUM_THREADS': str(options.threads)}
  command = [python, '-m', 'joeynmt', 'train', str(config), '--skip-test']
  done = subprocess.run(
    command, capture_output=True, text=True, env=environment, cwd=folder
  )
  if done.returncode:
    sys.exit(f'error: JoeyNMT failed:\n{done.stderr[-2000:]}')
  log = (folder / 'model' / 'train.log').read_text()
  return joeynmt_speed(log, options.warm_up)


def joeynmt_speed(log: str, warm_up: int) -> dict[str, float]:
  """Reads target tokens per second from JoeyNMT's log.

  Args:
    log: with a line for every ten steps.
    warm_up: the steps whose lines are left out.

  Returns:
    The median over the lines, 'tokens_per_second', and their 'parameters'.
  """
  lines = re.findall(r'Step:\s+(\d+),.*Tokens per Sec:\s+(\d+)', log)
  speeds = [float(speed) for step, speed in lines if int(step) > warm_up]
  parameters = re.findall(r'Total params: (\d+)', log)
  return {
    'tokens_per_second': statistics.median(speeds),
    'parameters': int(parameters[-1]),
  }


def run_attnlab(
  options: argparse.Namespace,
) -> dict[str, float]:
  """Measures attnlab in a fresh process, as JoeyNMT has one."""
  data = pathlib.Path(options.data).absolute()
  command = [sys.executable, __file__, '--measure', f'--data={data}']
  for name in ('steps', 'warm_up', 'seed'):
    command.append(f'--{name}={getattr(options, name)}')
  done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
  if done.returncode:
    sys.exit(f'error: attnlab failed:\n{done.stderr[-2000:]}')
  return json.loads(done.stdout.splitlines()[-1])


def attnlab_config(data: str, seed: int):
  """Returns the config that matches JoeyNMT's."""
  from attnlab import configs

  config = configs.load(str(ROOT / CONFIG))
  return configs.override(
    config, {**OVERRIDES, 'data.dir': data, 'seed': str(seed)}
  )


def attnlab_speed(options: argparse.Namespace) -> dict[str, float]:
  """Times attnlab's training steps, data pipeline included.

  A step that had to compile is left out, however late it comes.
  """
  import jax

  from attnlab import tasks
  from attnlab.training import environment, optimizers, state

  environment.cache_compilations()
  config = attnlab_config(options.data, options.seed)
  task = tasks.build(config)
  parts = state.take_apart(task.model)
  optimizer = optimizers.from_config(
    config.optimizer.to_dict(), config.training.steps
  )
  iterator = iter(task.train(options.seed))
  total = options.warm_up + options.steps
  # The sums are never started again, so that they count all tokens.
  step = state.make_step(
    task.loss, parts, optimizer, task.example, log_every=2**30
  )
  current = state.create(parts, optimizer, step, options.seed)
  tokens, seconds, counted, before, number = 0.0, 0.0, 0, 0.0, 0
  while counted < total:
    compiled = compilations(step.run)
    start = time.perf_counter()
    current, fault = step.run(current, next(iterator))
    jax.block_until_ready(fault)
    took = time.perf_counter() - start
    weight = float(current.sums['weight'])
    number += 1
    if compilations(step.run) == compiled:
      counted += 1
      if counted > options.warm_up:
        tokens += weight - before
        seconds += took
    before = weight
  return {
    'tokens_per_second': tokens / seconds,
    'parameters': sum(array.size for array in parts.params.values()),
    'compilations': number - counted,
  }


def compilations(function: Any) -> int:
  """Returns how many shapes a jitted function has been compiled for."""
  return function._cache_size()


def describe(
  options: argparse.Namespace,
  rounds: Sequence[tuple[dict, dict]],
  cores: int,
  versions: dict[str, str],
) -> dict:
  """Returns the entry for results/."""
  from attnlab.report import results

  origin = results.here('jax', 'flax')
  ours, theirs = (
    [pair[side]['tokens_per_second'] for pair in rounds] for side in (0, 1)
  )
  medians = statistics.median(ours), statistics.median(theirs)
  config = attnlab_config('multi30k/tok', options.seed).to_dict()
  return {
    'name': 'translation_speed',
    'label': 'GRU 256, additive, input feeding, Multi30k en-de',
    'command': 'python benchmarks/translation_speed.py --data=DIR',
    'seeds': [options.seed],
    'figures': {
      'attnlab/tokens_per_second': round(medians[0], 1),
      'joeynmt/tokens_per_second': round(medians[1], 1),
      'ratio': round(medians[0] / medians[1], 3),
      'attnlab/parameters': rounds[0][0]['parameters'],
      'joeynmt/parameters': rounds[0][1]['parameters'],
    },
    'rounds': {'attnlab': ours, 'joeynmt': theirs},
    'steps': {'warm_up': options.warm_up, 'measured': options.steps},
    **origin,
    'hardware': {**origin['hardware'], 'cores': cores},
    'versions': {**origin['versions'], **versions},
    'config': config,
  }


def show(entry: dict) -> None:
  """Prints the comparison as a table."""
  from rich.console import Console
  from rich.table import Table

  table = Table(title=entry['label'], caption='target tokens/s, training')
  for head in ('', 'median', 'lowest', 'highest', 'parameters'):
    table.add_column(head, justify='right' if head else 'left')
  for name, title in (('attnlab', 'attnlab'), ('joeynmt', 'JoeyNMT 2.3')):
    speeds = entry['rounds'][name]
    table.add_row(
      title,
      f'{statistics.median(speeds):,.0f}',
      f'{min(speeds):,.0f}',
      f'{max(speeds):,.0f}',
      f'{entry["figures"][f"{name}/parameters"]:,}',
    )
  table.add_row('ratio', f'{entry["figures"]["ratio"]:.2f}', '', '', '')
  Console().print(table)


if __name__ == '__main__':
  # As launch.py does; JoeyNMT is started without.
  if '--measure' in sys.argv:
    allocator.keep()
  sys.exit(main())
