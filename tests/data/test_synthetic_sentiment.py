"""The generated reviews: lengths, balance, gold, and that counts fall short."""

import hashlib
import json
import math
import time

import numpy as np
import pytest

from attnlab.data import synthetic_sentiment as lib

NEGATORS = set('not never hardly far from anything but'.split())
OPINIONS = [
  {
    form
    for entry in (*lib._ADJECTIVES[k], *lib._NOUNS[k], *lib._VERBS[k])
    for form in entry.split(':')
  }
  for k in (0, 1)
]


@pytest.fixture(scope='module')
def splits():
  return lib.generate()


def test_sizes_lengths_and_balance(splits):
  assert {k: len(v) for k, v in splits.items()} == lib.SIZES
  for examples in splits.values():
    labels = [e['label'] for e in examples]
    assert 2 * sum(labels) == len(labels)
    assert all(sum(labels[i : i + 2]) == 1 for i in range(0, len(labels), 2))
  lengths = {len(e['text'].split()) for s in splits.values() for e in s}
  assert lengths == set(lib.WORDS)


def test_no_text_is_there_twice(splits):
  texts = [e['text'] for examples in splits.values() for e in examples]
  assert len(set(texts)) == len(texts)
  assert all(' '.join(t.split()) == t and '*' not in t for t in texts)


def test_a_pure_function_of_the_seed(splits):
  sizes = {'train': 200}
  again, other = lib.generate(0, sizes), lib.generate(1, sizes)
  for split in ('validation', 'test'):
    assert [e['text'] for e in again[split]] == [
      e['text'] for e in splits[split]
    ]
  texts = [e['text'] for e in again['train']]
  assert texts == [e['text'] for e in splits['train'][:200]]
  assert texts != [e['text'] for e in other['train']]
  data = json.dumps([[e['text'], e['label']] for e in again['train']])
  assert hashlib.sha256(data.encode()).hexdigest()[:16] == '7a3ed86800369344'


def test_gold_gives_the_label(splits):
  """Opinion words turned round by their negators: no other word is needed."""
  negated = 0
  for example in splits['train']:
    words, gold = example['text'].split(), example['gold']
    assert gold.dtype == np.int32 and list(gold) == sorted(set(gold.tolist()))
    polarity, found = 0, 0
    for word in (words[i] for i in gold):
      if word in NEGATORS:
        polarity, negated = 1, negated + 1
        continue
      assert word in OPINIONS[0] | OPINIONS[1], word
      assert (word in OPINIONS[1]) ^ polarity == example['label']
      polarity, found = 0, found + 1
    assert found in (1, 2) and not polarity
  assert negated > 2000


def test_what_does_not_count_is_in_clauses_of_its_own(splits):
  """A clause with gold is the writer's, and is about the film."""
  others = {*lib._OTHERS}
  judges = {name.split()[-1] for name in lib._JUDGES}
  distracted = 0
  for example in splits['test']:
    words, gold = example['text'].split(), set(example['gold'].tolist())
    clause, counts = [], False
    for i, word in enumerate(words):
      if word in (',', ';', '.', '!'):
        opinion = set(clause) & (OPINIONS[0] | OPINIONS[1])
        if counts:
          assert not set(clause) & (others | judges), clause
        elif opinion:
          assert set(clause) & (others | judges | {'would'}), clause
          distracted += 1
        clause, counts = [], False
      else:
        clause.append(word)
        counts = counts or i in gold
  assert distracted > 400


def test_counts_of_words_fall_short(splits):
  """Naive Bayes on words: the bar of the experiment is 0.97."""
  counts = [{}, {}]
  for example in splits['train']:
    row = counts[example['label']]
    for word in set(example['text'].split()):
      row[word] = row.get(word, 1) + 1
  totals = [sum(row.values()) for row in counts]
  right = 0
  for example in splits['test']:
    scores = [
      sum(math.log(row.get(w, 1) / n) for w in set(example['text'].split()))
      for row, n in zip(counts, totals, strict=True)
    ]
    right += int(scores[1] > scores[0]) == example['label']
  assert 550 < right < 750


def test_it_is_quick():
  start = time.process_time()
  lib.generate(7)
  assert time.process_time() - start < 3
