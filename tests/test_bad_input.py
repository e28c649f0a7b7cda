"""Bad data and bad settings: one line that names the thing, or a task."""

import logging

import hypothesis
from hypothesis import strategies as st
import pytest

from attnlab import configs, errors, tasks
from benchmarks import fuzz
import launch

LONG = 'a ' * 100_000
PAIRS = 'a b\tA B\nb a\tB A\nc\tC\n' * 2
TEXTS = 'good\ta good film\nbad\ta bad film\n' * 3


def config_for(folder, task, contents, **overrides):
  """A config of files; `contents` replace the good train and validation."""
  good = PAIRS if task == 'translation' else TEXTS
  for split in ('train', 'validation'):
    content = contents.get(split, good)
    raw = content.encode() if isinstance(content, str) else content
    (folder / f'{split}.tsv').write_bytes(raw)
  fields = (
    {'source_field': '0', 'target_field': '1'}
    if task == 'translation'
    else {'label_field': '0', 'text_field': '1'}
  )
  spec = 'translation:luong' if task == 'translation' else 'sentiment'
  return configs.override(
    configs.load(f'{spec}{"," if ":" in spec else ":"}smoke'),
    {
      'data': 'files',
      'data.dir': str(folder),
      'data.train': 'train.tsv',
      'data.validation': 'validation.tsv',
      **{f'data.{key}': value for key, value in fields.items()},
      'training.batch_size': '2',
      'evaluation.batch_size': '2',
      **{key: str(value) for key, value in overrides.items()},
    },
  )


def build(config, shapes=True):
  """The task; with shapes alone where the numbers do not matter."""
  if shapes:
    return fuzz.try_build(config)
  return tasks.build(config)


# (task, {split: content}, overrides, what the line names)
REFUSED = [
  ('translation', {'train': 'a\tA\n\tB\n'}, {}, r'train\.tsv:2: the source is'),
  ('translation', {'train': 'a\tA\n\nb\tB\n'}, {}, r'tsv:2: column 1 is miss'),
  ('translation', {'train': b'a\tA\n\xff\tB\n'}, {}, r'tsv:2: invalid UTF-8'),
  ('translation', {'train': ''}, {}, r'train\.tsv is empty'),
  ('translation', {'validation': ''}, {}, r'validation\.tsv is empty'),
  (
    'translation', {'train': f'{LONG}\tA\n'}, {},
    r'data\.max_length=80 leaves no training example',
  ),
  ('translation', {}, {'data.train': 'trian.tsv'}, "did you mean 'train.tsv'"),
  ('translation', {}, {'data.dir': '/nowhere'}, 'there is no folder'),
  ('translation', {}, {'data.on_bad': 'skp'}, "did you mean 'skip'"),
  ('translation', {}, {'data.train': 'none'}, r'none\.en does not exist'),
  ('classification', {'train': 'good\tx\nbad\t\n'}, {}, r'tsv:2: the text is'),
  ('classification', {'train': 'good\tx\n\tx\n'}, {}, r'tsv:2: the label is'),
  ('classification', {'train': b'good\t\xff\n'}, {}, r'tsv:1: invalid UTF-8'),
  ('classification', {'train': ''}, {}, r'train\.tsv is empty'),
  ('classification', {'validation': ''}, {}, r'validation\.tsv is empty'),
  ('classification', {'train': 'good\tx\n'}, {}, "the only label is 'good'"),
  (
    'classification', {'validation': 'god\tx\n'}, {},
    "validation.tsv:1: label='god' is unknown: did you mean 'good'",
  ),
  ('classification', {}, {'data.train': 'trian.tsv'}, "mean 'train.tsv'"),
]  # fmt: skip


@pytest.mark.parametrize(('task', 'contents', 'overrides', 'words'), REFUSED)
def test_bad_data_is_one_line(tmp_path, task, contents, overrides, words):
  with pytest.raises(errors.UserError, match=words) as caught:
    build(config_for(tmp_path, task, contents, **overrides))
  assert '\n' not in str(caught.value)


def test_files_that_do_not_match_are_one_line(tmp_path, capsys):
  (tmp_path / 'train.en').write_text('a\nb\n')
  (tmp_path / 'train.de').write_text('A\n')
  words = (
    f'--config=translation:luong,smoke --config.data=files --dry_run '
    f'--config.data.dir={tmp_path} --config.data.train=train'
  )
  assert launch.main(['launch.py', *words.split()]) == 2
  err = capsys.readouterr().err
  assert 'train.en has 2 and' in err
  assert 'train.de has 1 lines' in err
  assert err.count('\n') == 1


COUNTED = [
  (
    'translation', PAIRS + f'{LONG}\tA\n', {},
    'data.train: skipped 1 of 7 examples longer than max_length=80',
  ),
  (
    'translation', PAIRS.encode() + b'\n\xff\ta\n', {'data.on_bad': 'skip'},
    'skipped 2 of 8 lines, the first: line 7',
  ),
  (
    'classification', TEXTS + f'good\t{LONG}\n', {},
    'data.train: 1 of 7 texts are cut to the lengths that data allows',
  ),
  (
    'classification', TEXTS.encode() + b'\n\xff\ta\n', {'data.on_bad': 'skip'},
    'skipped 2 of 8 lines, the first: line 7',
  ),
]  # fmt: skip


@pytest.mark.parametrize(('task', 'train', 'overrides', 'line'), COUNTED)
def test_what_is_left_out_is_counted(
  tmp_path, caplog, task, train, overrides, line
):
  config = config_for(tmp_path, task, {'train': train}, **overrides)
  with caplog.at_level(logging.WARNING):
    build(config)
  assert line in caplog.text


@pytest.mark.parametrize('task', ['translation', 'classification'])
def test_one_example_is_enough(tmp_path, task):
  one = {'validation': 'a\tA\n'} if task == 'translation' else {}
  if task == 'translation':
    one['train'] = 'a\tA\n'
  else:
    one['train'] = 'good\tx\nbad\ty\n'
    one['validation'] = 'good\tx\n'
  config = config_for(tmp_path, task, one)
  task = build(config, shapes=False)
  values = task.evaluate(task.model, 'validation', full=False, workdir=None)
  assert values['loss'] > 0
  batch = next(task.train(0))
  assert len(batch['index']) == 2


@pytest.mark.parametrize(
  ('spec', 'path', 'value', 'line'),
  [
    ('translation', 'training.batch_size', '0', 'batch_size=0 must be from 1'),
    ('translation', 'evaluation.batch_size', '0', 'batch_size=0 must be'),
    ('translation', 'evaluation.beam_size', '-1', 'beam_size=-1 must be from'),
    ('translation', 'evaluation.length_penalty', 'inf', '=inf must be from'),
    ('translation', 'training.label_smoothing', '1.5', '=1.5 must be from 0'),
    ('translation', 'training.steps', '0', 'steps=0 must be a whole number'),
    ('translation', 'training.steps', str(2**31), 'must be from 1 to'),
    ('translation', 'data.buckets', '0', 'data.buckets=0 must be from 1'),
    ('translation', 'data.examples', '-5', 'data.examples=-5 must be from 0'),
    ('translation', 'data.train_size', str(2**40), 'train_size=1099511627776'),
    ('translation', 'data.seed', '-1', 'data.seed=-1 must be from 0'),
    ('translation', 'seed', '-1', 'seed=-1 must be from 0'),
    ('translation', 'data', 'None', 'data=None'),
    ('translation', 'vocabulary', 'None', 'vocabulary=None is unknown'),
    ('translation', 'optimizer', 'None', 'optimizer=None is unknown'),
    ('translation', 'model.hidden', '0', 'model.hidden=0 must be at least 1'),
    ('translation', 'model.hidden', str(2**24), 'parameters take'),
    ('translation', 'model.layers', '101', 'model.layers=101 must be from 1'),
    ('translation', 'model.dropout', '2', 'model.dropout=2.0 must be from 0'),
    ('translation', 'model.dropout', '1.0', 'dropout=1.0 must be from 0'),
    ('translation', 'attention.score.hidden', '0', r'additive\(hidden=0\)'),
    ('translation', 'optimizer.learning_rate', 'inf', 'rate=inf must be'),
    ('translation', 'optimizer.learning_rate', 'nan', "='nan' must be a"),
    ('translation', 'optimizer.b1', '1.0', 'optimizer.b1=1.0 must be'),
    ('translation', 'optimizer.eps', '0.0', 'optimizer.eps=0.0 must be'),
    ('sentiment', 'model.dropout', '2', 'model.dropout=2.0 must be from 0'),
    (
      'sentiment:self_attention',
      'attention.heads.num_heads',
      '3',
      r'heads\(num_heads=3\) does not divide 32',
    ),
    (
      'sentiment:self_attention',
      'attention.heads.num_heads',
      '0',
      r'heads\(num_heads=0\): it must be from 1',
    ),
    (
      'translation:transformer',
      'attention.heads.out_dim',
      '5',
      'attention.heads.out_dim=5 does not fit',
    ),
    ('sentiment', 'attention.hops', 'multi_hop', 'asks for no query'),
    (
      'sentiment',
      'attention.normalizer.temperature',
      '1e300',
      r'softmax\(temperature=1e\+300\): it must be above 0',
    ),
    ('sentiment', 'data.max_length', '-1', 'data.max_length=-1 must be'),
    ('sentiment', 'evaluation.pictures', '-1', 'pictures=-1 must be from 0'),
    ('sentiment', 'training.loss.gamma', '-1', 'training.loss.gamma is unknow'),
    ('documents', 'data.max_words', '-1', 'data.max_words=-1 must be from 0'),
    ('documents', 'training.batch_size', str(2**17), 'must be from 1 to'),
  ],
)
def test_settings_out_of_range(spec, path, value, line):
  smoke = f'{spec},smoke' if ':' in spec else f'{spec}:smoke'
  with pytest.raises(errors.UserError, match=line) as caught:
    build(configs.override(configs.load(smoke), {path: value}))
  assert '\n' not in str(caught.value)


def test_a_message_does_not_repeat_a_number_of_a_thousand_digits():
  with pytest.raises(errors.UserError) as caught:
    errors.check_number('training.steps', 10**1000, 1, 2**31 - 1)
  assert len(str(caught.value)) < 200
  assert str(caught.value).startswith('training.steps=1000')


@pytest.mark.parametrize(
  ('error', 'line'),
  [
    (PermissionError(13, 'Permission denied', 'x'), "'x': Permission denied"),
    (OSError(28, 'No space left on device'), 'cannot write: No space left'),
    (MemoryError('96 GiB'), 'the memory is full: lower training.batch_size'),
    (RuntimeError('RESOURCE_EXHAUSTED: 9'), 'the memory is full'),
  ],
)
def test_what_the_system_refuses_is_one_line(monkeypatch, capsys, error, line):
  def refuse(config):
    raise error

  monkeypatch.setattr(tasks, 'build', refuse)
  assert (
    launch.main(['launch.py', '--config=sentiment:smoke', '--dry_run']) == 2
  )
  err = capsys.readouterr().err
  assert err.startswith(line)
  assert err.count('\n') == 1


@pytest.mark.parametrize(
  'words',
  [
    ['--mode=eval', '--workdir=' + 'x' * 300],
    ['--config=' + 'x' * 300],
    ['--mode=predict', '--workdir=\udcff', '--prompt=a'],
    ['--config=sentiment:smoke', '--config.seed=' + '9' * 5000],
    ['--config=sentiment:smoke', '--config.' + '.' * 50 + '=1'],
  ],
  ids=range(5),
)
def test_odd_command_lines(words, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  code, err = fuzz.in_process(words)
  assert code == 2
  assert err.count('\n') == 1


def test_a_source_beyond_the_positions_of_a_score_is_one_line(capsys):
  words = '--config.attention.score=location', '--dry_run'
  few = '--config.attention.score.max_length=4'
  code = launch.main(['launch.py', '--config=sentiment:smoke', *words, few])
  assert code == 2
  err = capsys.readouterr().err
  assert err.startswith('attention.score: location(max_length=4): the source ')
  assert err.endswith('the nearest right one is 20\n')


KNOWN = {spec: configs.load(spec) for spec in fuzz.SPECS}


@st.composite
def overrides(draw):
  spec = draw(st.sampled_from(fuzz.SPECS))
  paths = st.one_of(
    st.sampled_from(list(configs.flat(configs.to_data(KNOWN[spec])))),
    st.text(st.characters(exclude_categories=()), max_size=12),
  )
  texts = st.one_of(
    st.sampled_from(fuzz.NUMBERS + fuzz.TEXTS),
    st.text(st.characters(exclude_categories=()), max_size=12),
    st.integers().map(str),
    st.floats().map(str),
  )
  return spec, draw(st.dictionaries(paths, texts, min_size=1, max_size=3))


@hypothesis.settings(max_examples=200)
@hypothesis.given(overrides())
def test_any_override_is_taken_or_refused_by_one_line(case):
  spec, chosen = case
  try:
    configs.override(KNOWN[spec], chosen)
  except errors.UserError as error:
    assert str(error)


def test_what_is_taken_can_be_built():
  seen = fuzz.overrides(60, seed=1)
  assert seen['failed'] == 0
  assert seen['refused'] > seen['taken'] > 0


def test_fuzzing_notices_a_crash(monkeypatch):
  monkeypatch.setattr(configs, 'override', lambda config, values: 1 / 0)
  with pytest.raises(AssertionError, match='ZeroDivisionError'):
    fuzz.overrides(1, seed=0)
