"""Vocabularies: ids, round trips, files."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from attnlab.data import vocabulary
from attnlab.errors import UserError
from attnlab.measures import alignment

LINES = [
  'Tom chases Jerry',
  'the dog chases the cat that Mary likes',
  '汤姆 追逐 杰瑞',
  '玛丽 喜欢 的 猫 追逐 狗 吗 ？',
  'a “quoted” word , and 3 more .',
] * 20


def build(kind):
  if kind in ('unigram', 'bpe'):
    return vocabulary.subwords(LINES, size=90, model=kind)
  return {'words': vocabulary.words, 'characters': vocabulary.characters}[kind](
    LINES
  )


KINDS = ('words', 'characters', 'unigram', 'bpe')


@pytest.fixture(scope='module', params=KINDS)
def any_vocabulary(request):
  return build(request.param)


def test_special_ids(any_vocabulary):
  assert any_vocabulary.pieces(range(4)) == ['<pad>', '<s>', '</s>', '<unk>']
  assert any_vocabulary.encode('ß')[-1] == vocabulary.UNK
  # What a text calls '</s>' is not the end of the sentence.
  assert not {0, 1, 2} & set(any_vocabulary.encode('<pad> <s> </s>'))


@pytest.mark.parametrize('line', LINES[:5])
def test_round_trip(any_vocabulary, line):
  ids = any_vocabulary.encode(line)
  assert max(ids) < len(any_vocabulary)
  assert any_vocabulary.decode(ids) == line
  framed = [vocabulary.BOS, *ids, vocabulary.EOS, 0, 0, *ids]
  assert any_vocabulary.decode(framed) == line


@pytest.mark.parametrize('line', LINES[:5])
def test_word_of(any_vocabulary, line):
  ids = any_vocabulary.encode(line)
  numbers = any_vocabulary.word_of(ids)
  assert numbers == sorted(numbers)
  assert sorted(set(numbers)) == list(range(len(line.split())))
  pieces = any_vocabulary.pieces(ids)
  for n, word in enumerate(line.split()):
    spelt = ''.join(p for p, m in zip(pieces, numbers, strict=True) if m == n)
    assert spelt.replace('▁', '') == word


def test_files(any_vocabulary, tmp_path):
  path = tmp_path / 'vocabulary'
  any_vocabulary.save(path)
  again = vocabulary.load(path)
  assert again.fingerprint() == any_vocabulary.fingerprint()
  assert len(again) == len(any_vocabulary)
  for line in LINES[:5]:
    assert again.encode(line) == any_vocabulary.encode(line)


@pytest.mark.parametrize('kind', KINDS)
def test_the_same_text_gives_the_same_vocabulary(kind):
  assert build(kind).fingerprint() == build(kind).fingerprint()


def test_fingerprints_differ():
  assert len({build(kind).fingerprint() for kind in KINDS}) == len(KINDS)
  lower = vocabulary.words(LINES, lowercase=True)
  assert lower.fingerprint() != build('words').fingerprint()


def test_words_by_frequency():
  vocabulary_ = vocabulary.words(['b a b', 'c b a'])
  assert vocabulary_.pieces([4, 5, 6]) == ['b', 'a', 'c']
  assert len(vocabulary.words(['b a b', 'c b a'], min_freq=2)) == 6
  assert len(vocabulary.words(['b a b', 'c b a'], max_size=5)) == 5
  lower = vocabulary.words(['The the'], lowercase=True)
  assert lower.encode('THE') == [4]


@given(st.text(max_size=30))
def test_characters_spell_anything(text):
  characters = vocabulary.characters([text])
  assert characters.decode(characters.encode(text)).split() == (
    text.replace('▁', ' ').split()
  )


def test_text_is_not_normalised():
  line = 'Ａ ？ ﬁ ?'
  both = vocabulary.subwords([line] * 50, size=20)
  assert both.decode(both.encode(line)) == line


def test_errors(tmp_path):
  with pytest.raises(UserError, match=r'vocabulary.size=100000'):
    vocabulary.subwords(LINES, size=100_000, model='bpe')
  with pytest.raises(UserError, match=r'vocabulary.size=5'):
    vocabulary.subwords(LINES, size=5)
  with pytest.raises(UserError, match="model='bep'"):
    vocabulary.subwords(LINES, size=50, model='bep')
  with pytest.raises(UserError, match='does not exist'):
    vocabulary.load(tmp_path / 'none')
  for junk in (b'{"kind": "words"}', b'{}', b'junk', b'', b'{"kind": "x"}'):
    (tmp_path / 'junk').write_bytes(junk)
    with pytest.raises(UserError, match='is not a vocabulary') as error:
      vocabulary.load(tmp_path / 'junk')
    assert '\n' not in str(error.value)


@given(st.text(' \tabcßTom汤姆', max_size=30))
def test_spans_say_which_word_a_piece_is_of(any_vocabulary, text):
  spans = any_vocabulary.spans(text)
  ids = any_vocabulary.encode(text)
  assert len(spans) == len(ids)
  assert all(0 <= begin <= end <= len(text) for begin, end in spans)
  assert spans == sorted(spans)
  # The pieces together hold each character of each word.
  held = {i for begin, end in spans for i in range(begin, end)}
  assert {i for i, c in enumerate(text) if not c.isspace()} <= held
  line = ' '.join(text.split())
  words = alignment.overlaps(any_vocabulary.spans(line), line.split())
  # No piece has parts of two words, and none is of no word.
  assert words == [[w] for w in any_vocabulary.word_of(ids)]
