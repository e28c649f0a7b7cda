"""Experiment files, overrides typed by what is there, parts by function."""

import json

import ml_collections
import pytest

from attnlab import configs, errors

EXPERIMENT = '''
"""A document."""
import ml_collections

def get_config(arg=''):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.arg = arg
  config.attention = {
      'score': {'name': 'additive'},
      'normalizer': {'name': 'softmax', 'temperature': 2},
      'locality': None,
  }
  config.optimizer = {'name': 'adam', 'learning_rate': 1e-3}
  config.training = {
      'steps': 10, 'precision': 'float32', 'shuffle': True,
      'sizes': (1, 2), 'rates': (0.5,), 'anything': None,
  }
  return config
'''


@pytest.fixture
def experiment(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(EXPERIMENT)
  return path


@pytest.fixture
def config(experiment):
  return configs.load(f'{experiment}:small')


def test_load_completes_parts_and_locks(config):
  assert config.arg == 'small'
  assert config.attention.score.hidden == 128
  assert config.attention.normalizer.temperature == 2.0
  assert isinstance(config.attention.normalizer.temperature, float)
  assert config.optimizer.b1 == 0.9
  assert config.optimizer.clip_norm == 0.0
  assert config.is_locked


def test_json_round_trip(config):
  text = configs.to_json(config)
  again = configs.from_json(text)
  assert configs.to_data(again) == configs.to_data(config)
  assert again.training.sizes == (1, 2)


@pytest.mark.parametrize(
  ('path', 'text', 'expected'),
  [
    ('seed', '7', 7),
    ('seed', '-7', -7),
    ('optimizer.learning_rate', '3e-4', 3e-4),
    ('optimizer.learning_rate', '1', 1.0),
    ('training.precision', 'bfloat16', 'bfloat16'),
    ('training.shuffle', 'false', False),
    ('training.shuffle', '1', True),
    ('training.sizes', '(3, 4, 5)', (3, 4, 5)),
    ('training.sizes', '3,4', (3, 4)),
    ('training.sizes', '[3]', (3,)),
    ('training.sizes', '3', (3,)),
    ('training.sizes', '()', ()),
    ('training.rates', '1, 0.5', (1.0, 0.5)),
    ('training.anything', '3', 3),
    ('training.anything', 'text', 'text'),
    ('training.anything', 'None', None),
    ('attention.score.hidden', '64', 64),
  ],
)
def test_override(config, path, text, expected):
  before = configs.to_json(config)
  new = configs.flat(configs.to_data(configs.override(config, {path: text})))
  assert new[path] == expected
  assert type(new[path]) is type(expected)
  assert configs.to_json(config) == before


def test_a_name_replaces_the_part_before_other_values(config):
  new = configs.override(
    config,
    {
      'attention.score.hidden': '32',
      'attention.score.name': 'keys_only',
      'attention.normalizer': 'uniform',
    },
  )
  assert new.attention.score.to_dict() == {'name': 'keys_only', 'hidden': 32}
  assert new.attention.normalizer.to_dict() == {'name': 'uniform'}


def test_another_optimizer_keeps_what_all_share(config):
  new = configs.override(config, {'optimizer.name': 'sgd'}).optimizer
  assert new.learning_rate == 1e-3
  assert new.momentum == 0.0
  assert 'b1' not in new


def test_a_part_can_be_switched_off(config):
  new = configs.override(config, {'attention.score': 'None'})
  assert new.attention.score is None


@pytest.mark.parametrize(
  ('path', 'text', 'message'),
  [
    ('sed', '1', r'config\.sed is unknown: did you mean seed\?'),
    ('optimizer.lr', '1', r'mean optimizer\.learning_rate\?'),
    ('optimiser.learning_rate', '1', r'mean optimizer\.learning_rate\?'),
    ('steps', '1', r'mean training\.steps\?'),
    ('training.steps', '1.5', r"training\.steps='1\.5' .* whole number"),
    ('training.steps', '', 'whole number'),
    ('training.steps', '1e3', 'whole number'),
    ('optimizer.learning_rate', 'fast', "'fast' must be a number"),
    ('optimizer.learning_rate', 'nan', "'nan' must be a number"),
    ('training.shuffle', 'maybe', r'choices: False, True'),
    ('training.sizes', 'a,b', 'must be a tuple'),
    ('training.sizes', '(1', 'must be a tuple'),
    ('training', '3', r'section; set .*training\.steps'),
    ('seed.x', '3', 'is unknown'),
    ('attention.score.name', 'aditive', "did you mean 'additive'"),
    ('attention.score', 'aditive', "did you mean 'additive'"),
    ('attention.score.name', 'Score', 'choices: additive'),
    ('attention.score.name', '__import__', 'choices: additive'),
    ('attention.score.hiden', '3', r'mean attention\.score\.hidden'),
    ('optimizer.name', 'build', 'choices: adadelta'),
    ('optimizer.momentum', '0.9', r'config\.optimizer has: accumulate'),
  ],
)
def test_wrong_overrides(config, path, text, message):
  with pytest.raises(errors.UserError, match=message) as caught:
    configs.override(config, {path: text})
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('x = 1', 'has no function get_config'),
    ('def get_config(arg=""): return {}', 'a dict, not a ConfigDict'),
    ('def get_config(:', r'line 1: '),
    (
      EXPERIMENT.replace("'additive'", "'additive', 'hiden': 3"),
      r"\(additive\)='hiden' is unknown: did you mean 'hidden'",
    ),
    (EXPERIMENT.replace("'name': 'adam', ", ''), r'optimizer\.name'),
  ],
)
def test_wrong_experiments(tmp_path, content, message):
  path = tmp_path / 'wrong.py'
  path.write_text(content)
  with pytest.raises(errors.UserError, match=message):
    configs.load(str(path))


def test_missing_experiment_names_the_nearest():
  with pytest.raises(errors.UserError, match=r"mean 'experiments/translation"):
    configs.load('experiments/translatoin.py:luong')


@pytest.mark.parametrize('text', ['', '[1]', '{', '{"a": 1', '[' * 10**5])
def test_wrong_json(text):
  with pytest.raises(errors.UserError):
    configs.from_json(text)


def test_json_names_nothing_outside_its_modules():
  data = {'attention': {'score': {'name': 'os.system'}}}
  with pytest.raises(errors.UserError, match=r"score\.name='os\.system'"):
    configs.from_json(json.dumps(data))


def test_data_keeps_the_keys_of_the_task():
  config = ml_collections.ConfigDict(
    {'data': {'name': 'synthetic_en_zh', 'seed': 3, 'max_length': 60}}
  )
  new = configs.override(config, {'data.name': 'tatoeba_en_zh'}).data
  assert new.max_length == 60
  assert new.dir == ''
  assert 'seed' not in new


@pytest.mark.parametrize('path', sorted(configs.PARTS))
def test_every_choice_has_a_line_and_defaults(path):
  for name, function in configs.choices(path).items():
    assert configs.first_line(function.__doc__), name
    configs.settings(path, name)


def test_two_tasks_have_parts_of_their_own(monkeypatch):
  part = configs.Part('attnlab.models', positional=True)
  monkeypatch.setitem(configs.PARTS, 'another:model', part)
  for task in ('classification', 'another'):
    assert configs.parts(task)['model'] == f'{task}:model'
  assert configs.parts('translation')['model'] == 'model'
