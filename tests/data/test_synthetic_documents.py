"""The generated documents: shapes, balance, gold, and what does not count."""

import collections
import hashlib
import json
import time

import numpy as np
import pytest

from attnlab.data import synthetic_documents as lib

TOPIC_OF = {
  word: i
  for i, words in enumerate(lib.TOPICS.values())
  for group in words
  for word in group
}
DENIALS = ('nobody said a word about', 'did not think of', 'was no talk of')
DENIALS = (*DENIALS, 'never mentioned', 'had nothing to do with')


@pytest.fixture(scope='module')
def splits():
  return lib.generate()


def test_words_belong_to_one_topic():
  groups = [word for pair in lib.TOPICS.values() for g in pair for word in g]
  assert len(set(groups)) == len(groups)
  other = ' '.join(
    w for t in (lib._PLACES, lib._THINGS, lib._SOME, lib._DID) for w in t
  )
  assert not set(groups) & set(other.split())


def test_sizes_shapes_and_balance(splits):
  assert {k: len(v) for k, v in splits.items()} == lib.SIZES
  sentences, words = set(), set()
  for examples in splits.values():
    counts = collections.Counter(e['label'] for e in examples)
    assert len(counts) == len(lib.LABELS) >= 5
    assert max(counts.values()) - min(counts.values()) <= 1
    for example in examples:
      rows = example['text'].split('\n')
      sentences.add(len(rows))
      words |= {len(row.split()) for row in rows}
      assert all(
        row.endswith(' .') and ' '.join(row.split()) == row for row in rows
      )
  assert sentences == set(lib.SENTENCES)
  assert words == set(lib.WORDS)


def test_no_text_is_there_twice(splits):
  texts = [e['text'] for examples in splits.values() for e in examples]
  assert len(set(texts)) == len(texts)
  assert not any('*' in text for text in texts)


def test_a_pure_function_of_the_seed(splits):
  sizes = {'train': 60}
  again, other = lib.generate(0, sizes), lib.generate(1, sizes)
  for split in ('validation', 'test'):
    assert [e['text'] for e in again[split]] == [
      e['text'] for e in splits[split]
    ]
  texts = [e['text'] for e in again['train']]
  assert texts == [e['text'] for e in splits['train'][:60]]
  assert texts != [e['text'] for e in other['train']]
  data = json.dumps([[e['text'], e['label']] for e in again['train']])
  assert hashlib.sha256(data.encode()).hexdigest()[:16] == 'aa181d99f4d60310'


def test_gold_is_what_the_rule_says(splits):
  misled = 0
  for example in splits['train']:
    rows = [row.split() for row in example['text'].split('\n')]
    gold, sentences = example['gold'], example['gold_sentences']
    assert gold.dtype == sentences.dtype == np.int32
    assert gold.ndim == 2 and sentences.tolist() == sorted(
      {*gold[:, 0].tolist()}
    )
    assert len(sentences) in (1, 2)
    want = []
    for i, row in enumerate(rows):
      topics = [
        (j, TOPIC_OF[word]) for j, word in enumerate(row) if word in TOPIC_OF
      ]
      if any(denial in ' '.join(row) for denial in DENIALS):
        misled += len(topics)
        assert all(topic != example['label'] for _, topic in topics)
        continue
      assert all(topic == example['label'] for _, topic in topics)
      assert not topics or len(topics) >= 2
      want += [[i, j] for j, _ in topics]
    assert gold.tolist() == want
  assert misled > len(splits['train'])


def test_it_is_quick():
  start = time.process_time()
  lib.generate(7)
  assert time.process_time() - start < 3
