"""Greedy and beam search, jitted and batched, for every decoder."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
PyTree = Any
PAD, BOS, EOS = 0, 1, 2
_NEVER = -1e9


class Decoded(NamedTuple):
  """What a search found.

  Attributes:
    tokens: [B, L] ids, with eos where there was room for it, then 0.
    score: [B] log-probability; a beam's is divided by the length penalty.
  """

  tokens: Array
  score: Array


def greedy(
  step: Callable[..., tuple[Array, PyTree, Array]],
  memory: PyTree,
  carry: PyTree,
  *,
  batch: int,
  length: int,
) -> Decoded:
  """Takes the likeliest word at every step.

  Args:
    step: (memory, carry, token [B], position) -> (logits [B, V], carry, ...).
    memory: of the source.
    carry: before the first word.
    batch: B.
    length: the most words, eos included.
  """

  def more(state):
    position, done, *_ = state
    return (position < length) & ~done.all()

  def advance(state):
    position, done, token, carry, tokens, score = state
    logits, carry, _ = step(memory, carry, token, position)
    logits = _forbid(logits)
    chosen = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    gain = jnp.max(jax.nn.log_softmax(logits), axis=-1)
    chosen = jnp.where(done, PAD, chosen)
    score = score + jnp.where(done, 0, gain)
    tokens = tokens.at[:, position].set(chosen)
    return position + 1, done | (chosen == EOS), chosen, carry, tokens, score

  state = (
    jnp.int32(0),
    jnp.zeros((batch,), bool),
    jnp.full((batch,), BOS, jnp.int32),
    carry,
    jnp.zeros((batch, length), jnp.int32),
    jnp.zeros((batch,), jnp.float32),
  )
  *_, tokens, score = jax.lax.while_loop(more, advance, state)
  return Decoded(tokens, score)


def beam(
  step: Callable[..., tuple[Array, PyTree, Array]],
  memory: PyTree,
  carry: PyTree,
  *,
  batch: int,
  length: int,
  size: int,
  length_penalty: float,
) -> Decoded:
  """Beam search; a hypothesis scores log p / ((5 + n) / 6)^a (Wu et al. 2016).

  Args:
    step: (memory, carry, token [N], position) -> (logits [N, V], carry, ...).
    memory: of the source, batch first in every leaf.
    carry: before the first word, likewise.
    batch: B.
    length: the most words, eos included.
    size: hypotheses kept.
    length_penalty: a; 0 compares plain log-probabilities.

  Returns:
    The best finished hypothesis, or the best unfinished where none has ended.
  """
  spread = lambda leaf: jnp.repeat(leaf, size, axis=0)
  memory, carry = jax.tree.map(spread, (memory, carry))

  def penalty(count):
    return ((5.0 + count) / 6.0) ** length_penalty

  def more(state):
    position, _, alive, _, _, ended_score, _ = state
    # The best that a living hypothesis can still score: it loses nothing more
    # and is as long as allowed.
    hope = jnp.max(alive, axis=1) / penalty(jnp.float32(length))
    return (position < length) & jnp.any(hope > ended_score[:, 0])

  def advance(state):
    position, tokens, alive, carry, ended, ended_score, last = state
    logits, carry, _ = step(memory, carry, last.reshape(-1), position)
    gains = jax.nn.log_softmax(_forbid(logits)).reshape(batch, size, -1)
    # Two candidates a place: if all of one half end, the other lives on.
    width = min(2 * size, gains.shape[-1])
    each, words = jax.lax.top_k(gains, width)
    totals = (alive[:, :, None] + each).reshape(batch, -1)
    totals, places = jax.lax.top_k(totals, 2 * size)
    words = jnp.take_along_axis(words.reshape(batch, -1), places, axis=1)
    parents = places // width
    grown = jnp.take_along_axis(tokens, parents[:, :, None], axis=1)
    grown = grown.at[:, :, position].set(words)
    ends = words == EOS

    count = (position + 1).astype(jnp.float32)
    # Divided by the penalty, what never was might pass for finished.
    real = ends & (totals > _NEVER / 2)
    scores = jnp.where(real, totals / penalty(count), _NEVER)
    ended_score, kept = jax.lax.top_k(
      jnp.concatenate([ended_score, scores], axis=1), size
    )
    ended = jnp.take_along_axis(
      jnp.concatenate([ended, grown], axis=1), kept[:, :, None], axis=1
    )

    alive, kept = jax.lax.top_k(jnp.where(ends, _NEVER, totals), size)
    tokens = jnp.take_along_axis(grown, kept[:, :, None], axis=1)
    parents = jnp.take_along_axis(parents, kept, axis=1)
    rows = (jnp.arange(batch)[:, None] * size + parents).reshape(-1)
    carry = jax.tree.map(lambda leaf: leaf[rows], carry)
    last = jnp.take_along_axis(words, kept, axis=1)
    return position + 1, tokens, alive, carry, ended, ended_score, last

  alone = jnp.where(jnp.arange(size) == 0, 0.0, _NEVER)  # one start, not `size`
  state = (
    jnp.int32(0),
    jnp.zeros((batch, size, length), jnp.int32),
    jnp.tile(alone, (batch, 1)),
    carry,
    jnp.zeros((batch, size, length), jnp.int32),
    jnp.full((batch, size), _NEVER),
    jnp.full((batch, size), BOS, jnp.int32),
  )
  state = jax.lax.while_loop(more, advance, state)
  _, tokens, alive, _, ended, ended_score, _ = state
  finished = ended_score[:, 0] > _NEVER
  return Decoded(
    jnp.where(finished[:, None], ended[:, 0], tokens[:, 0]),
    jnp.where(
      finished, ended_score[:, 0], alive[:, 0] / penalty(float(length))
    ),
  )


def _forbid(logits: Array) -> Array:
  """Padding and bos are never written."""
  never = jnp.arange(logits.shape[-1]) < EOS
  return jnp.where(never, _NEVER, logits)
