"""The generated corpus: goldens written by hand, and properties."""

import collections

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from attnlab.data import grammar, lexicon, synthetic

# Chinese words that no English word stands for.
SOURCELESS = {'了', '吗', '把', '很', '的', '，', '所以'} | {
  noun.measure for noun in lexicon.NOUNS
}


def noun(word):
  return next(n for n in lexicon.NOUNS if n.singular == word)


def entry(table, word):
  return next(e for e in table if e.source == word)


def name(word):
  found = entry(lexicon.NAMES, word)
  return grammar.lexical(found.source, found.target, 'singular')


def verb(base, object_='', table=lexicon.VERBS):
  return next(v for v in table if v.base == base and object_ in v.objects)


def adjective(word, kind=''):
  return next(
    a for a in lexicon.ADJECTIVES if a.positive == word and kind in a.kinds
  )


def the(word, determiner='', **parts):
  found = entry(lexicon.DETERMINERS, determiner) if determiner else None
  return grammar.noun_phrase(noun(word), determiner=found, **parts)


def time(words):
  found = entry(lexicon.TIMES, words)
  return grammar.lexical(found.source, found.target)


def spot(preposition, word):
  return grammar.place(preposition, entry(lexicon.PLACES, word))


ME, HE = lexicon.PRONOUNS[0], lexicon.PRONOUNS[2]
BOUGHT = grammar.clause(
  name('Mary'),
  verb('buy'),
  form='object relative',
  tense='past',
  relative='that',
)
WHO_LOVES = grammar.clause(
  None,
  verb('love'),
  name('Tom'),
  form='subject relative',
  number='singular',
  relative='who',
)

# English, Chinese, sure links, possible links, derivation.
GOLDENS = [
  (
    'I love China',
    '我 爱 中国',
    '0-0 1-1 2-2',
    '',
    lambda: grammar.clause(
      grammar.pronoun(ME, 'subject'), verb('love'), name('China')
    ),
  ),
  (
    'Tom chases Jerry',
    '汤姆 追逐 杰瑞',
    '0-0 1-1 2-2',
    '',
    lambda: grammar.clause(name('Tom'), verb('chase'), name('Jerry')),
  ),
  (
    'Tom chased Jerry in the park yesterday',
    '汤姆 昨天 在 公园 里 追逐 了 杰瑞',
    '0-0 6-1 3-2 5-3 3-4 1-5 2-7',
    '1-6',
    lambda: grammar.clause(
      name('Tom'),
      verb('chase'),
      name('Jerry'),
      tense='past',
      place=spot('in', 'park'),
      time=time('yesterday'),
    ),
  ),
  (
    'The teacher who loves Tom eats a fresh apple',
    '爱 汤姆 的 老师 吃 一 个 新鲜 的 苹果',
    None,
    None,
    lambda: grammar.clause(
      the('teacher', relative=WHO_LOVES),
      verb('eat'),
      the('apple', 'a', adjective=adjective('fresh')),
    ),
  ),
  (
    'These old books that Mary bought are interesting',
    '玛丽 买 的 这些 旧 书 很 有趣',
    '4-0 5-1 3-2 0-3 1-4 2-5 7-7',
    '6-6',
    lambda: grammar.is_so(
      the('book', 'these', adjective=adjective('old', 'X'), relative=BOUGHT),
      adjective('interesting'),
    ),
  ),
  (
    'The old man does not drive three cars',
    '老 男人 不 开 三 辆 汽车',
    '1-0 2-1 4-2 5-3 6-4 7-6',
    '3-2 6-5 7-5',
    lambda: grammar.clause(
      the('man', adjective=adjective('old', 'P')),
      verb('drive'),
      the('car', 'three'),
      negative=True,
    ),
  ),
  (
    'Did he write two books ?',
    '他 写 了 两 本 书 吗 ？',
    '1-0 2-1 3-3 4-5 5-7',
    '0-2 2-2 3-4 4-4 0-6 5-6',
    lambda: grammar.clause(
      grammar.pronoun(HE, 'subject'),
      verb('write'),
      the('book', 'two'),
      form='question',
      tense='past',
    ),
  ),
  (
    'What will Tom buy tomorrow ?',
    '汤姆 明天 会 买 什么 ？',
    '2-0 4-1 1-2 3-3 0-4 5-5',
    '',
    lambda: grammar.clause(
      name('Tom'),
      verb('buy'),
      form='what',
      tense='future',
      modal=entry(lexicon.MODALS, 'will'),
      time=time('tomorrow'),
    ),
  ),
  (
    'I did not give the book to Mary',
    '我 没 把 书 送 给 玛丽',
    '0-0 2-1 5-3 3-4 6-5 7-6',
    '1-1 3-2',
    lambda: grammar.clause(
      grammar.pronoun(ME, 'subject'),
      verb('give', table=lexicon.TRANSFERS),
      the('book'),
      tense='past',
      negative=True,
      recipient=name('Mary'),
    ),
  ),
  (
    'He hid the key under the bed last night',
    '他 昨晚 把 钥匙 藏 在 了 床 下面',
    '0-0 7-1 8-1 3-3 1-4 4-5 6-7 4-8',
    '1-2 1-6',
    lambda: grammar.clause(
      grammar.pronoun(HE, 'subject'),
      verb('hide', table=lexicon.PLACEMENTS),
      the('key'),
      tense='past',
      preposition='under',
      side='下面',
      container=grammar.lexical('bed', '床'),
      time=time('last night'),
    ),
  ),
  (
    'Jerry was praised by his teacher two days ago',
    '杰瑞 两 天 前 被 他 的 老师 表扬 了',
    '0-0 6-1 7-2 8-3 3-4 4-5 4-6 5-7 2-8',
    '1-4 1-9 2-9',
    lambda: grammar.passive(
      name('Jerry'),
      verb('praise'),
      grammar.noun_phrase(noun('teacher'), determiner=grammar.possessive(HE)),
      time=grammar.ago(
        entry(lexicon.NUMERALS, 'two'), entry(lexicon.UNITS, 'days')
      ),
    ),
  ),
  (
    'Tom is taller than Mary',
    '汤姆 比 玛丽 高',
    '0-0 3-1 4-2 2-3',
    '1-1',
    lambda: grammar.compare(name('Tom'), adjective('tall'), name('Mary')),
  ),
  (
    "Tom 's friend is not an engineer",
    '汤姆 的 朋友 不 是 一 位 工程师',
    '0-0 1-1 2-2 4-3 3-4 5-5 6-7',
    '5-6 6-6',
    lambda: grammar.is_a(
      grammar.noun_phrase(
        noun('friend'), determiner=grammar.possessive(name('Tom'))
      ),
      the('engineer', 'a'),
      negative=True,
    ),
  ),
  (
    'There are two dogs in front of the hotel',
    '酒店 前面 有 两 只 狗',
    '8-0 4-1 5-1 6-1 1-2 2-3 3-5',
    '0-2 2-4 3-4',
    lambda: grammar.there_is(
      the('dog', 'two'), 'in front of', entry(lexicon.PLACES, 'hotel')
    ),
  ),
  (
    'Tom laughs because Mary and Jerry wear the hats',
    '因为 玛丽 和 杰瑞 戴 帽子 ， 所以 汤姆 笑',
    None,
    None,
    lambda: grammar.join(
      'because',
      grammar.clause(name('Tom'), verb('laugh')),
      grammar.clause(
        grammar.both(name('Mary'), name('Jerry')),
        verb('wear', 'H'),
        the('hat', number='plural'),
      ),
    ),
  ),
  (
    'When the girl plays the violin , I often play the guitar',
    '女孩 拉 小提琴 的 时候 ， 我 经常 弹 吉他',
    '2-0 3-1 5-2 0-3 0-4 6-5 7-6 8-7 9-8 11-9',
    '',
    lambda: grammar.join(
      'when',
      grammar.clause(the('girl'), verb('play', 'R'), the('violin')),
      grammar.clause(
        grammar.pronoun(ME, 'subject'),
        verb('play', 'M'),
        the('guitar'),
        adverb=grammar.lexical('often', '经常'),
      ),
    ),
  ),
]


def links(pairs):
  return {f'{i}-{j}' for i, j in pairs.tolist()}


@pytest.mark.parametrize('golden', GOLDENS, ids=lambda g: g[0])
def test_goldens(golden):
  english, chinese, sure, possible, derive = golden
  example = synthetic.example(derive())
  assert example['source'] == english
  assert example['target'] == chinese
  if sure is not None:
    assert links(example['sure']) == set(sure.split())
    assert links(example['possible']) == set(possible.split())


@pytest.fixture(scope='module')
def corpus():
  return synthetic.generate(0)


def test_sizes_and_lengths(corpus):
  assert {k: len(v) for k, v in corpus.items()} == synthetic.SIZES
  lengths = {
    split: [len(e['source'].split()) for e in examples]
    for split, examples in corpus.items()
  }
  assert max(lengths['train']) < min(lengths['long'])
  assert max(lengths['long']) >= 36
  assert np.quantile(lengths['train'], 0.05) >= 4
  assert np.quantile(lengths['train'], 0.95) <= 14
  assert abs(np.mean(lengths['train']) - np.mean(lengths['test'])) < 0.5


def test_at_least_300_words_a_side(corpus):
  for side in ('source', 'target'):
    counts = collections.Counter(
      word for e in corpus['train'] for word in e[side].lower().split()
    )
    assert len(counts) >= 300
    for split in ('validation', 'test', 'long'):
      unseen = {
        word for e in corpus[split] for word in e[side].lower().split()
      } - set(counts)
      assert not unseen


def test_no_sentence_is_in_two_splits_or_has_two_translations(corpus):
  examples = [e for split in corpus.values() for e in split]
  assert len({e['source'] for e in examples}) == len(examples)


def test_order_changes(corpus):
  """A good part of the links cross: a monotonic model cannot succeed."""
  crossing = 0
  for example in corpus['test']:
    sure = example['sure'][np.lexsort(example['sure'].T)]
    crossing += bool((np.diff(sure[:, 0]) < 0).any())
  assert crossing > len(corpus['test']) / 2


def test_alignments(corpus):
  for split in ('test', 'long'):
    for example in corpus[split]:
      source, target = (example[k].split() for k in ('source', 'target'))
      sure, possible = links(example['sure']), links(example['possible'])
      assert not sure & possible
      for kind in ('sure', 'possible'):
        pairs = example[kind]
        assert pairs.dtype == np.int32
        assert pairs.shape == (len(pairs), 2)
        assert (pairs >= 0).all()
        assert (pairs < [len(source), len(target)]).all()
      linked = set(example['sure'][:, 1].tolist())
      for j, word in enumerate(target):
        assert j in linked or word in SOURCELESS, (example, word)
      assert not {'the'} & {source[i] for i in example['sure'][:, 0]}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_a_function_of_the_seed(seed, size):
  sizes = {'train': size, 'validation': 5, 'test': 5, 'long': 5}
  first, again = (synthetic.generate(seed, sizes) for _ in range(2))
  for split in sizes:
    for a, b in zip(first[split], again[split], strict=True):
      assert a['source'] == b['source'] and a['target'] == b['target']
      np.testing.assert_array_equal(a['sure'], b['sure'])
  # A larger training split begins with the smaller and leaves the rest alone.
  more = synthetic.generate(seed, sizes | {'train': size + 7})

  def text(examples):
    return [e['source'] for e in examples]

  assert text(more['train'][:size]) == text(first['train'])
  assert text(more['test']) == text(first['test'])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32))
def test_one_translation_each(seed):
  writer = synthetic._Writer(seed, 0)
  seen = {}
  for _ in range(1500):
    english, *chinese = grammar.sentence(writer.short())
    assert seen.setdefault(english, chinese) == chinese


def test_seeds_differ():
  sizes = {'train': 20, 'validation': 1, 'test': 1, 'long': 1}
  a, b = (synthetic.generate(seed, sizes)['train'] for seed in (0, 1))
  assert [e['source'] for e in a] != [e['source'] for e in b]


def test_parts_that_are_absent_leave_no_word():
  bare = grammar.clause(name('Tom'), verb('sleep'))
  assert grammar.sentence(bare)[:2] == ('Tom sleeps', '汤姆 睡觉')


@pytest.mark.parametrize(
  ('base', 'third', 'past'),
  [
    ('chase', 'chases', 'chased'),
    ('teach', 'teaches', 'taught'),
    ('wash', 'washes', 'washed'),
    ('study', 'studies', 'studied'),
    ('play', 'plays', 'played'),
    ('buy', 'buys', 'bought'),
    ('look for', 'looks for', 'looked for'),
    ('criticize', 'criticizes', 'criticized'),
  ],
)
def test_inflection(base, third, past):
  assert verb(base)[:3] == (base, third, past)
