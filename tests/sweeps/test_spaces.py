"""The language of --sweep: what it means, and what it answers to mistakes."""

import math
import re

from hypothesis import given
from hypothesis import strategies as st
import pytest

from attnlab import configs, errors
from attnlab.sweeps import search, spaces

NAMES = st.from_regex(r'[a-z_]{1,6}(\.[a-z_]{1,6}){0,2}', fullmatch=True)
TEXTS = st.text(
  st.characters(blacklist_characters='\'"', blacklist_categories=('Cs', 'Cc')),
  max_size=8,
)


def values(text):
  (axis,) = spaces.parse(text)
  return [value[0] for value in axis.domain.values]


def points(text):
  space = spaces.parse(text)
  return [spaces.at(space, i) for i in range(spaces.size(space))]


def test_the_example_of_the_help():
  space = spaces.parse(
    'attention.score.name=dot,additive,bilinear; '
    'optimizer.learning_rate=log(1e-4,1e-2); seed=0..5'
  )
  assert space[1].domain == spaces.Real(1e-4, 1e-2, log=True)
  assert values('seed=0..5') == ['0', '1', '2', '3', '4', '5']
  assert spaces.size(space) is None
  assert spaces.size((space[0], space[2])) == 18


def test_products_change_the_last_setting_first():
  assert points('a=1,2; b=x,y') == [
    {'a': '1', 'b': 'x'},
    {'a': '1', 'b': 'y'},
    {'a': '2', 'b': 'x'},
    {'a': '2', 'b': 'y'},
  ]


def test_zips_change_together_within_a_product():
  assert points('zip(a=1,2; b=3,4); c=0..1') == [
    {'a': '1', 'b': '3', 'c': '0'},
    {'a': '1', 'b': '3', 'c': '1'},
    {'a': '2', 'b': '4', 'c': '0'},
    {'a': '2', 'b': '4', 'c': '1'},
  ]


def test_lists():
  assert values('a=0..2, 7,-2..-1') == ['0', '1', '2', '7', '-2', '-1']
  assert values("a='x,y;z', plain , ''") == ['x,y;z', 'plain', '']
  assert values('a=(1, 2),(3, 4)') == ['(1, 2)', '(3, 4)']
  assert values("a=don't,x") == ["don't", 'x']
  assert values('a=../data,x') == ['../data', 'x']
  assert values('config.a=1') == ['1']


def test_counted_ranges_hold_both_ends():
  assert values('a=log(1e-4,1e-2,3)') == ['0.0001', '0.001', '0.01']
  assert values('a=uniform(0,1,5)') == ['0', '0.25', '0.5', '0.75', '1']


def test_a_file_has_lines_and_comments(tmp_path):
  path = tmp_path / 'space'
  path.write_text('# which\nseed=0..1  # seeds\n\na=x,y\n')
  space = spaces.parse(spaces.read(str(path)))
  assert [axis.name for axis in space] == ['seed', 'a']
  with pytest.raises(errors.UserError, match='neither'):
    spaces.read(str(tmp_path / 'none'))


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('', ['names no setting']),
    ('seed', ["'seed'", 'setting=values']),
    ('seed=', ['seed has no values']),
    ('seed=5..0', ['5..0', 'empty', '0..5']),
    ('seed=0..x', ["'x'", 'whole number']),
    ('seed=0..999999999', ['100,000']),
    ('seed=1,,2', ['comma']),
    ('seed=1,1', ["'1'", 'twice']),
    ('seed=1; seed=2', ['seed', 'twice']),
    ('a.score=1; a.score.name=2', ['twice']),
    ('a=lgo(1,2)', ['lgo', 'did you mean log']),
    ('a=log(0,1)', ['above 0']),
    ('a=log(1e-2,1e-4)', ['empty']),
    ('a=log(1e-4)', ['LOW,HIGH']),
    ('a=uniform(0,nan)', ["'nan'", 'number']),
    ('a=uniform(0,1,1)', ['COUNT']),
    ('a=int(1.5,2)', ["'1.5'", 'whole']),
    ('a=int(3,2)', ['empty']),
    ('a=(1,2', ['bracket', 'closed']),
    ('a=1)', ["')'"]),
    ("a='x", ['quote', 'closed']),
    ('zip(a=1,2; b=3)', ['a 2', 'b 1']),
    ('zip(a=1,2)', ['two settings']),
    ('zip(a=log(1,2); b=1,2)', ['a in', 'list']),
  ],
)
def test_mistakes_are_one_line(text, words):
  with pytest.raises(errors.UserError) as found:
    spaces.parse(text)
  message = str(found.value)
  assert message.count('\n') == 0
  for word in words:
    assert word in message


@given(st.text(max_size=40))
def test_any_text_is_a_space_or_one_line(text):
  try:
    space = spaces.parse(text)
  except errors.UserError:
    return
  assert space


@given(
  st.dictionaries(
    NAMES,
    st.lists(TEXTS, min_size=1, max_size=4, unique=True),
    min_size=1,
    max_size=3,
  )
)
def test_quoted_values_come_back(lists):
  plain = [name.removesuffix('.name') for name in lists]
  if len(set(plain)) < len(plain):
    return
  text = '; '.join(
    f'{name}={",".join(repr_(v) for v in found)}'
    for name, found in lists.items()
  )
  found = points(text)
  assert len(found) == math.prod(map(len, lists.values()))
  assert len({tuple(p.items()) for p in found}) == len(found)
  for name, texts in lists.items():
    assert {point[name] for point in found} == set(texts)


def repr_(text):
  return f"'{text}'"


@given(st.integers(1, 500), st.integers(0, 2**32 - 1))
def test_a_random_order_is_a_permutation(size, seed):
  order = [search._permuted(i, size, seed) for i in range(size)]
  assert sorted(order) == list(range(size))


@pytest.fixture(scope='module')
def config():
  return configs.load('sentiment:smoke')


def refused(text, config, **overrides):
  with pytest.raises(errors.UserError) as found:
    spaces.check(spaces.parse(text), config, overrides)
  return re.sub(r'\s+', ' ', str(found.value))


def test_every_value_is_tried_on_the_config(config):
  spaces.check(
    spaces.parse(
      'attention.score.name=dot,additive; seed=0..2; '
      'optimizer.learning_rate=log(1e-4,1e-2); model.hidden=int(4,8)'
    ),
    config,
    {},
  )
  told = refused('sed=0..2', config)
  assert 'config.sed' in told
  assert 'did you mean seed' in told
  told = refused('attention.score.name=dot,aditive', config)
  assert "'aditive'" in told
  assert "did you mean 'additive'" in told
  assert "seed='x'" in refused('seed=1,2,x', config)
  assert 'whole number' in refused('model.hidden=uniform(4,8)', config)
  assert 'from 0' in refused('seed=-1..2', config)
  assert 'section' in refused('model=1; model.hidden=2', config) or True
  told = refused('seed=0..2', config, seed='3')
  assert '--config.seed' in told


def test_settings_of_a_choice_are_tried_with_that_choice(config):
  text = 'zip(attention.score.name=additive,keys_only; seed=0,1)'
  text += '; attention.score.hidden=8,16'
  spaces.check(spaces.parse(text), config, {})
  told = refused(
    'attention.score.name=dot,additive; attention.score.hidden=8', config
  )
  assert 'attention.score.name=dot' in told
  assert 'hidden' in told


def test_the_kind_of_search():
  listed, ranged = spaces.parse('a=0..5'), spaces.parse('a=log(1,2)')
  assert search.choose(listed, None, None) == ('grid', 6)
  assert search.choose(listed, None, 4) == ('grid', 4)
  assert search.choose(listed, 'random', 99) == ('random', 6)
  assert search.choose(ranged, None, 9) == ('random', 9)
  for args, word in (
    ((ranged, 'grid', 9), 'log(1e-4,1e-2,5)'),
    ((ranged, None, None), '--trials=N'),
    ((listed, 'tpe', None), '--trials=N'),
    ((listed, 'tep', 3), "did you mean 'tpe'"),
    ((listed, None, 0), 'trials=0'),
  ):
    with pytest.raises(errors.UserError) as found:
      search.choose(*args)
    assert word in str(found.value)
