"""A trace of a few steps."""

import gzip
import json

import pytest
import toy_task

from attnlab import errors, training


def fit(workdir, **changes):
  config = toy_task.config(**changes)
  return training.fit(config, toy_task.build(config), workdir, profile=True)


def test_a_few_steps_are_traced(tmp_path, capsys):
  fit(tmp_path)
  out = capsys.readouterr().out
  assert f'profile: steps 5 to 9 are in {tmp_path / "profile"}' in out
  (trace,) = (tmp_path / 'profile').rglob('*.trace.json.gz')
  assert str(trace) in out
  events = json.loads(gzip.decompress(trace.read_bytes()))['traceEvents']
  steps = [e for e in events if e.get('name') == 'PjitFunction(run)']
  # A call may be an event twice, one within the other.
  assert steps
  assert len(steps) % 5 == 0
  # A finished run has no steps left.
  with pytest.raises(errors.UserError, match=r'profile=True: .* is finished'):
    fit(tmp_path)


def test_a_training_too_short_says_so(tmp_path, capsys):
  fit(tmp_path, training__steps=3)
  assert 'nothing was traced' in capsys.readouterr().out
  # It can be had when the run goes on, and ends with the run at the latest.
  fit(tmp_path, training__steps=9)
  assert 'profile: steps 8 to 9 are in' in capsys.readouterr().out
