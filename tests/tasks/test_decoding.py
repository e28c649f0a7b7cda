"""Greedy and beam search against loops over a random table of words."""

import functools
import itertools

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab.tasks import decoding
from attnlab.tasks.decoding import BOS, EOS, PAD

B, V, LENGTH, STATES = 3, 5, 3, 11
WORDS = range(EOS, V)
seeds = hypothesis.given(st.integers(0, 10_000), st.sampled_from([0.0, 0.6, 2]))
few = hypothesis.settings(max_examples=10)


def advance(state, token, position):
  """A state that depends on all words so far, and on their order."""
  return (4 * state + 2 * token + position + 1) % STATES


def step(memory, carry, token, position):
  """A language model without weights: memory [N, STATES, V] is its table."""
  state = advance(carry['state'], token, position)
  logits = jnp.take_along_axis(memory, state[:, None, None], axis=1)[:, 0]
  # A second leaf with another rank is reordered along with the first.
  past = carry['past'].at[:, position].set(token)
  return logits, {'state': state, 'past': past}, None


def start(rows, length):
  return {
    'state': jnp.zeros(rows, jnp.int32),
    'past': jnp.zeros((rows, length), jnp.int32),
  }


@functools.partial(jax.jit, static_argnums=(1, 2))
def beam(table, size, length, penalty):
  rows = len(table)
  return decoding.beam(
    step,
    table,
    start(rows, length),
    batch=rows,
    length=length,
    size=size,
    length_penalty=penalty,
  )


@functools.partial(jax.jit, static_argnums=1)
def greedy(table, length):
  rows = len(table)
  return decoding.greedy(
    step, table, start(rows, length), batch=rows, length=length
  )


def random_table(seed, eos=0.0):
  table = 2 * np.random.default_rng(seed).normal(size=(B, STATES, V))
  table[..., EOS] += eos
  return table.astype(np.float32)


def next_words(table, words):
  """log p of each next word after `words`, as a dict; pad and bos are none."""
  state = 0
  for position, token in enumerate((BOS, *words)):
    state = advance(state, token, position)
  logits = np.array([table[state, w] for w in WORDS], np.float64)
  return dict(zip(WORDS, logits - np.logaddexp.reduce(logits), strict=True))


def log_probability(table, words):
  return sum(next_words(table, words[:t])[w] for t, w in enumerate(words))


def normalized(total, count, penalty):
  return total / ((5 + count) / 6) ** penalty


def best_of_all(table, length, penalty):
  """Every sentence there is; unfinished ones only if none can end."""
  found = []
  for count in range(1, length + 1):
    for start in itertools.product(WORDS[1:], repeat=count - 1):
      words = (*start, EOS)
      total = log_probability(table, words)
      found.append((normalized(total, count, penalty), words))
  return max(found)


def beam_by_loops(table, size, length, penalty):
  """Beam search with lists, never stopping early."""
  alive, ended = [(0.0, ())], []
  for count in range(1, length + 1):
    candidates = sorted(
      (
        (total + gain, (*words, word))
        for total, words in alive
        for word, gain in next_words(table, words).items()
      ),
      reverse=True,
    )[: 2 * size]
    for total, words in candidates:
      if words[-1] == EOS:
        ended.append((normalized(total, count, penalty), words))
    alive = [c for c in candidates if c[1][-1] != EOS][:size]
  if ended:
    return max(ended)
  total, words = max(alive)
  return normalized(total, length, penalty), words


def greedy_by_loops(table, length):
  words, total = (), 0.0
  while len(words) < length and EOS not in words:
    gains = next_words(table, words)
    word = max(gains, key=gains.get)
    words, total = (*words, word), total + gains[word]
  return total, words


def same(decoded, expected, length=LENGTH):
  """Compares a batch with a (score, words) a row."""
  assert decoded.tokens.dtype == np.int32
  for tokens, score, (wanted, words) in zip(
    np.asarray(decoded.tokens), decoded.score, expected, strict=True
  ):
    padded = (*words, *[PAD] * (length - len(words)))
    np.testing.assert_array_equal(tokens, padded)
    np.testing.assert_allclose(score, wanted, rtol=1e-5, atol=1e-5)


@few
@seeds
def test_a_beam_as_wide_as_all_sentences_finds_the_best(seed, penalty):
  table = random_table(seed)
  found = beam(table, 2**LENGTH, LENGTH, penalty)
  same(found, [best_of_all(row, LENGTH, penalty) for row in table])


@pytest.mark.parametrize('size', [1, 2])
@few
@seeds
def test_beam_agrees_with_loops(size, seed, penalty):
  table, length = random_table(seed, eos=-1), 5
  found = beam(table, size, length, penalty)
  expected = [beam_by_loops(row, size, length, penalty) for row in table]
  same(found, expected, length)


@few
@seeds
def test_greedy_agrees_with_loops(seed, penalty):
  del penalty
  table = random_table(seed)
  same(greedy(table, 5), [greedy_by_loops(row, 5) for row in table], 5)


@few
@seeds
def test_a_beam_of_one_is_greedy_but_for_an_early_end(seed, penalty):
  # A beam also remembers that the sentence could have ended: where it could
  # not, or that was no better, it takes the greedy way.
  del penalty
  table = random_table(seed, eos=-60)
  one, words = beam(table, 1, 5, 0.0), greedy(table, 5)
  np.testing.assert_array_equal(one.tokens[:, :4], words.tokens[:, :4])
  table = random_table(seed, eos=1)
  one, words = beam(table, 1, 5, 0.0), greedy(table, 5)
  ended = np.asarray(words.tokens == EOS).any(axis=1)
  assert (np.asarray(one.score - words.score)[ended] > -1e-5).all()


def test_length_penalty_lengthens():
  # p(eos) = .5 at once; otherwise word 3, sure, then eos, nearly sure.
  probabilities = np.full((STATES, V), 1e-9)
  first = advance(0, BOS, 0)
  second = advance(first, 3, 1)
  third = advance(second, 3, 2)
  assert len({first, second, third}) == 3
  probabilities[first, [EOS, 3]] = 0.5, 0.45
  probabilities[second, 3] = 1
  probabilities[third, EOS] = 1
  table = np.log(np.broadcast_to(probabilities, (B, STATES, V)))
  table = table.astype(np.float32)
  short, long = (EOS, PAD, PAD), (3, 3, EOS)
  for penalty, words in ((0.0, short), (1.0, long)):
    found = beam(table, 2**LENGTH, LENGTH, penalty)
    np.testing.assert_array_equal(found.tokens, [words] * B)


@pytest.mark.parametrize('penalty', [0.0, 2.0])
def test_what_never_ends_is_the_best_unfinished(penalty):
  # More places than sentences: those that stay empty must not pass for ended.
  table = random_table(0)
  table[..., EOS] = -1e9
  found = beam(table, 2**LENGTH, LENGTH, penalty)
  expected = [
    max(
      (normalized(log_probability(row, words), LENGTH, penalty), words)
      for words in itertools.product(WORDS[1:], repeat=LENGTH)
    )
    for row in table
  ]
  same(found, expected)
  assert not (np.asarray(greedy(table, 5).tokens) == EOS).any()


def test_all_end_early_and_nothing_is_written_after():
  table = random_table(0, eos=50)
  for found in (beam(table, 2, 5, 0.6), greedy(table, 5)):
    np.testing.assert_array_equal(found.tokens, [[EOS, 0, 0, 0, 0]] * B)
    np.testing.assert_allclose(found.score, 0, atol=1e-5)


def test_a_vocabulary_smaller_than_the_beam():
  # Padding, bos and eos alone: the only sentence is the empty one, p = 1.
  table = np.zeros((B, STATES, 3), np.float32)
  for found in (beam(table, 4, 3, 0.6), greedy(table, 3)):
    np.testing.assert_array_equal(found.tokens, [[EOS, 0, 0]] * B)
    np.testing.assert_allclose(found.score, 0, atol=1e-6)


def test_padding_and_bos_are_never_written():
  table = random_table(3)
  plain = beam(table, 2, 5, 0.6), greedy(table, 5)
  table[..., [PAD, BOS]] = 50
  wild = beam(table, 2, 5, 0.6), greedy(table, 5)
  for a, b in zip(plain, wild, strict=True):
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_allclose(a.score, b.score, atol=1e-5)


def test_rows_of_a_batch_are_independent():
  table, other = random_table(4), random_table(5, eos=3)
  other[0] = table[0]
  for search in (lambda t: beam(t, 2, 5, 0.6), lambda t: greedy(t, 5)):
    a, b = search(table), search(other)
    np.testing.assert_array_equal(a.tokens[0], b.tokens[0])
    assert a.score[0] == b.score[0]
