"""A worker: imports once, then forks for each trial.

It reads jobs from stdin, one JSON object a line, and answers each on stdout by
{"code": how the trial's process left}, negative for a signal; before the first
one it says {"ready": true}. A trial has a process of its own, as clean as that
of launch.py, so that a crash, a leak or a kill ends nothing else. When stdin
ends, the trial is asked to save and stop, and the worker leaves. When the
worker is killed, its trial is killed with it.

JAX allows a fork as long as no device was used, which a worker never does. On
other systems than Linux, the trials run in the worker itself.
"""

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from typing import Any

from attnlab.sweeps import trial

# What a run imports late, because launch.py has to start quickly.
_LATE = (
  'attnlab.tasks.classification',
  'attnlab.tasks.translation',
  'attnlab.models.classification',
  'attnlab.models.classifier',
  'attnlab.models.seq2seq',
  'attnlab.training',
  'grain',
  'optuna',
  'orbax.checkpoint',
  'sacrebleu',
  'attnlab.report.figures',
  'matplotlib.figure',
  'tensorboardX.event_file_writer',
)
_PATIENCE = 15.0
_DEATHSIG = 1  # PR_SET_PDEATHSIG


def main() -> int:
  """Runs jobs until stdin ends."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  jobs = os.fdopen(0, 'rb', buffering=0)
  for name in _LATE:
    try:
      importlib.import_module(name)
    except ImportError as error:
      print(f'worker: {name}: {error}', file=sys.stderr)
  gc.collect()
  gc.freeze()
  _say(answers, ready=True)
  rest = b''
  while True:
    line, mark, rest = rest.partition(b'\n')
    if mark:
      code = _run(trial.from_json(line.decode()), answers)
      _say(answers, code=code)
      continue
    rest = line
    more = jobs.read(65536)
    if not more:
      return 0
    rest += more


def _run(job: trial.Job, answers: Any) -> int:
  if not hasattr(os, 'pidfd_open'):
    trial.to_log(job.workdir)
    return trial.run(job)
  me = os.getpid()
  child = os.fork()
  if child == 0:
    _be_trial(job, me, answers)
  _say(answers, trial=child)
  watched = os.pidfd_open(child)
  try:
    _watch(child, watched)
  finally:
    os.close(watched)
  return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _watch(child: int, watched: int):
  """Waits for a trial, and stops it when nobody waits for the worker."""
  # No job comes before the answer to this one: what stdin has is its end.
  ready, _, _ = select.select([0, watched], [], [])
  if watched in ready:
    return
  os.kill(child, signal.SIGTERM)
  if not select.select([watched], [], [], _PATIENCE)[0]:
    os.kill(child, signal.SIGKILL)


def _be_trial(job: trial.Job, worker: int, answers: Any):
  """The trial's own process; never returns."""
  code = 70
  try:
    ctypes.CDLL(None).prctl(_DEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != worker:
      os._exit(code)
    answers.close()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    trial.to_log(job.workdir)
    code = trial.run(job)
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say(answers: Any, **words: Any):
  try:
    answers.write(json.dumps({**words, 'at': time.time()}) + '\n')
    answers.flush()
  except BrokenPipeError:
    os._exit(1)
