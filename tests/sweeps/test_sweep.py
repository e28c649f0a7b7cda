"""A sweep's loop, on an engine that runs nothing: order, kills, going on."""

import collections
import itertools
import json
import pathlib
import random

import pytest

from attnlab import errors, locks, workdirs
from attnlab.sweeps import engines, live, record, search, spaces, sweep, trial

pytest.importorskip('optuna')


class Crash(BaseException):
  """Stands for kill -9 of the sweep."""


class Engine:
  """Runs trials by a formula; ends them in any order, and kills some."""

  outlives = False

  def __init__(self, workers, *, seed=0, kill=(), crash=None, faults=()):
    self.workers, self.rng = workers, random.Random(seed)
    self.kill = collections.Counter(kill)
    self.crash, self.faults = crash, collections.Counter(faults)
    self.jobs = {}
    self.ran = []

  def free(self):
    return self.workers - len(self.jobs)

  def start(self, number, job):
    assert number not in self.jobs
    self.jobs[number] = job
    return ''

  def attach(self, number, handle):
    return False

  def wait(self, seconds):
    if self.crash is not None:
      self.crash -= 1
      if self.crash < 0:
        raise Crash
    number = self.rng.choice(sorted(self.jobs))
    job = self.jobs.pop(number)
    if self.faults[number]:
      self.faults[number] -= 1
      return [engines.Ended(number, 'fault', started=False)]
    if self.kill[number]:
      self.kill[number] -= 1
      return [engines.Ended(number, 'killed by SIGKILL')]
    self.ran.append(number)
    workdirs.write_json(pathlib.Path(job.workdir) / 'trial.json', result(job))
    return [engines.Ended(number)]

  def close(self):
    self.jobs.clear()


def result(job):
  """What a trial of these settings ends with, through the real pruner."""
  x, y = float(job.overrides['x']), job.overrides['y']
  if y == 'bad':
    return {'state': 'failed', 'error': 'ValueError: y is bad', 'seconds': 1.0}
  watch = trial.Watch(job, {'training': {'steps': 4, 'eval_every': 1}})
  value = -((x - 0.3) ** 2) - (y == 'b')
  try:
    for step in range(1, 5):
      watch(step, {'validation/accuracy': value * (1 + 1 / step)})
  except trial.Pruned:
    last = watch.watched[max(watch.watched)]
    state, value = 'pruned', last
  else:
    state = 'complete'
  return {
    'state': state,
    'value': value,
    'seconds': 1.0,
    'watched': watch.watched,
    'rungs': watch.rungs(),
  }


def plan(text='x=uniform(0,1); y=a,b', kind='random', trials=12, **settings):
  space = spaces.parse(text)
  settings = {'pruner': 'none', 'seed': 0, 'mode': 'max', **settings}
  return sweep.Plan(
    spec='sentiment:smoke',
    overrides={},
    text=text,
    search=search.Search(space, kind, trials, **settings),
    objective='test/accuracy',
    watched='validation/accuracy',
    watched_mode='max',
  )


def run(folder, engine, what):
  view = live.View('test/accuracy', engine.workers)
  return sweep.run(what, folder, lambda: engine, view)


def told(folder):
  """sweep.json without what is not the same for every run of it."""
  data = json.loads((folder / 'sweep.json').read_text())
  for point in data['points']:
    for name in ('workdir', 'command', 'attempts', 'kills'):
      del point[name]
  return data


def attempts(kept):
  """{point: states of its attempts}, as Optuna has them."""
  found = collections.defaultdict(list)
  for frozen in kept._storage.get_all_trials(kept._study):
    found[frozen.user_attrs['point']].append(frozen.state.name)
  return dict(found)


@pytest.mark.parametrize(
  ('kind', 'pruner'),
  [('random', 'none'), ('tpe', 'none'), ('tpe', 'median'), ('random', 'asha')],
)
def test_workers_kills_and_crashes_change_nothing(tmp_path, kind, pruner):
  what = plan(kind=kind, pruner=pruner, trials=24)
  run(tmp_path / 'serial', Engine(1), what)
  serial = told(tmp_path / 'serial')
  assert len(serial['points']) == 24
  if pruner != 'none':
    states = {point['state'] for point in serial['points']}
    assert states == {'complete', 'pruned'}
  run(tmp_path / 'parallel', Engine(5, seed=1, kill=(3, 9, 20)), what)
  assert told(tmp_path / 'parallel') == serial
  folder = tmp_path / 'crashed'
  kept = None
  ran = []
  for seed in range(99):
    engine = Engine(3, seed=seed, crash=9)
    try:
      kept = run(folder, engine, what)
      break
    except Crash:
      pass
    finally:
      ran += engine.ran
  assert told(folder) == serial
  assert sorted(ran) == list(range(24))
  assert all(
    states.count('RUNNING') + states.count('WAITING') == 0
    and states[-1] in ('COMPLETE', 'PRUNED')
    for states in attempts(kept).values()
  )


def test_a_search_learns(tmp_path):
  kept = run(tmp_path, Engine(1), plan(kind='tpe', trials=40))
  late = [kept.trials[n] for n in range(25, 40)]
  assert sum(point.settings['y'] == 'a' for point in late) > 11
  assert kept.best().value > -0.01


def test_other_seeds_draw_other_points(tmp_path):
  one = run(tmp_path / 'a', Engine(1), plan(seed=0))
  two = run(tmp_path / 'b', Engine(1), plan(seed=1))
  assert one.trials[0].settings != two.trials[0].settings


def test_a_killed_trial_is_tried_once_again(tmp_path):
  what = plan('x=0..3; y=a', 'grid', 4)
  engine = Engine(2, kill=(0, 2, 2), faults=(1, 1, 1))
  kept = run(tmp_path, engine, what)
  zero, one, two, three = kept.ordered()
  assert (zero.state, zero.kills, zero.attempts) == ('complete', 1, 2)
  # What the engine is at fault for is not counted.
  assert (one.state, one.kills, one.attempts) == ('complete', 0, 4)
  assert (two.state, two.kills) == ('failed', 2)
  assert 'SIGKILL; twice' in two.error
  assert three.state == 'complete'
  assert attempts(kept)[2] == ['FAIL', 'FAIL']
  # The next start leaves it at that.
  engine = Engine(2)
  again = run(tmp_path, engine, what)
  assert engine.ran == []
  assert again.trials[2].error == two.error


def test_a_failing_trial_is_recorded_and_the_sweep_goes_on(tmp_path):
  what = plan('x=0..1; y=a,bad', 'grid', 4)
  kept = run(tmp_path, Engine(2), what)
  assert [p.state for p in kept.ordered()] == ['complete', 'failed'] * 2
  assert kept.trials[1].error == 'ValueError: y is bad'
  data = json.loads((tmp_path / 'sweep.json').read_text())
  assert data['points'][1]['error'] == 'ValueError: y is bad'
  assert data['best'] == 0
  # Somebody mended it and ran it alone to its end.
  workdirs.write_json(
    kept.trials[1].workdir / 'trial.json', {'state': 'complete', 'value': 7.0}
  )
  kept = run(tmp_path, Engine(2), what)
  assert kept.best().number == 1
  assert kept.trials[3].state == 'failed'


@pytest.mark.parametrize('moment', range(1, 12))
def test_a_crash_between_any_two_writes_is_mended(
  tmp_path, monkeypatch, moment
):
  """The sweep dies at its n-th write to the study while trials are killed."""
  what = plan('x=0..3; y=a', 'grid', 4)
  storage = None
  left = [moment]
  names = (
    'create_new_trial',
    'set_trial_state_values',
    'set_trial_user_attr',
  )
  opened = record._open

  def fragile(path):
    nonlocal storage
    storage = opened(path)
    for name in names:
      method = getattr(storage, name)

      def dying(*args, method=method, **kwargs):
        left[0] -= 1
        if left[0] == 0:
          raise Crash
        return method(*args, **kwargs)

      setattr(storage, name, dying)
    return storage

  monkeypatch.setattr(record, '_open', fragile)
  engine = Engine(1, kill=(1,))
  with pytest.raises(Crash):
    run(tmp_path, engine, what)
  monkeypatch.setattr(record, '_open', opened)
  second = Engine(1)
  kept = run(tmp_path, second, what)
  assert [p.state for p in kept.ordered()] == ['complete'] * 4
  assert sorted(engine.ran + second.ran) == [0, 1, 2, 3]
  states = list(itertools.chain(*attempts(kept).values()))
  assert not {'RUNNING', 'WAITING'} & set(states)
  assert states.count('COMPLETE') == 4


def test_more_trials_go_on_with_the_same_points(tmp_path):
  whole = run(tmp_path / 'a', Engine(1), plan(kind='tpe', trials=20))
  run(tmp_path / 'b', Engine(2), plan(kind='tpe', trials=12))
  engine = Engine(2)
  more = run(tmp_path / 'b', engine, plan(kind='tpe', trials=20))
  assert sorted(engine.ran) == list(range(12, 20))
  assert [p.settings for p in more.ordered()] == [
    p.settings for p in whole.ordered()
  ]


def test_no_point_comes_twice(tmp_path):
  for kind in ('random', 'tpe'):
    what = plan('x=0..2; y=a,b', kind, 99 if kind == 'tpe' else 6)
    kept = run(tmp_path / kind, Engine(1), what)
    found = {tuple(p.settings.items()) for p in kept.ordered()}
    assert len(found) == len(kept.trials) == 6


def test_a_folder_of_something_else_is_refused(tmp_path):
  run(tmp_path / 'a', Engine(1), plan(trials=2))
  with pytest.raises(errors.UserError, match=r'search_seed=1 \(there: 0\)'):
    run(tmp_path / 'a', Engine(1), plan(trials=2, seed=1))
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text('{}')
  with pytest.raises(errors.UserError, match='holds a run'):
    run(tmp_path / 'run', Engine(1), plan(trials=2))
  (tmp_path / 'torn').mkdir()
  (tmp_path / 'torn' / 'study.sqlite3').write_text('nonsense' * 99)
  with pytest.raises(errors.UserError, match='no study'):
    run(tmp_path / 'torn', Engine(1), plan(trials=2))
  with (
    locks.locked(tmp_path / 'a', 'the sweep of process'),
    pytest.raises(errors.UserError, match='in use'),
  ):
    run(tmp_path / 'a', Engine(1), plan(trials=2))


def test_odd_folders(tmp_path):
  folder = tmp_path / 'a b {x} %41?#'
  kept = run(folder, Engine(1), plan(trials=2))
  assert (folder / 'study.sqlite3').is_file()
  assert len(kept.trials) == 2


def test_the_command_runs_the_point_alone(tmp_path):
  what = plan('seed=3,4; zip(attention.score.name=dot; model.hidden=8)', 'grid')
  settings = spaces.at(what.search.space, 1)
  assert what.command(settings, pathlib.Path('w')) == [
    'python',
    'launch.py',
    '--config=sentiment:smoke',
    '--config.seed=4',
    '--config.attention.score.name=dot',
    '--config.model.hidden=8',
    '--workdir=w',
  ]


def test_the_view(tmp_path, capsys):
  import io

  import rich.console

  file = io.StringIO()
  console = rich.console.Console(file=file, force_terminal=True, width=90)
  view = live.View('test/accuracy', 2, console)
  what = plan('x=0..3; y=a,bad', 'grid', 8)
  kept = sweep.run(what, tmp_path, lambda: Engine(2, kill=(0,)), view)
  view.result(kept)
  shown = file.getvalue()
  assert 'left 0:0' in shown
  assert 'killed by SIGKILL: it is tried again' in shown
  assert 'failed: ValueError: y is bad' in shown
  assert '--config.x=0' in shown
  assert '8 of 8, 4 failed, best' in shown


def test_objectives():
  from attnlab import configs

  config = configs.load('sentiment:smoke')
  watched = ('validation/accuracy', 'max')
  assert sweep.objective(None, config) == (*watched, *watched)
  assert sweep.objective('test/loss', config)[:2] == ('test/loss', 'min')
  assert sweep.objective('max:test/loss', config)[:2] == ('test/loss', 'max')
  with pytest.raises(errors.UserError, match='max:validation/accuracy'):
    sweep.objective('best:test/loss', config)
