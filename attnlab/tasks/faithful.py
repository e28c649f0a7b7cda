"""Models with other weights than their own, for `measures.faithfulness`.

A model is copied, and its mechanisms read what they are told; the one that was
trained is never touched.
"""

from collections.abc import Mapping, Sequence
import functools
import sys
from typing import Any

from flax import nnx
import jax
import numpy as np

from attnlab import attention
from attnlab.layers import attend
from attnlab.measures import faithfulness

interventions = attention.interventions
PERMUTATIONS = 10
# Of the visible keys; 0 is the one with the largest weight.
ERASED = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
EPSILON = 0.05
SIGNATURES = {
  'uniform_accuracy': 'accuracy with the same weight for each visible key, '
  'without training (Jain & Wallace 2019)',
  'own_accuracy': 'accuracy of the same answers with its own weights',
  'permutation_tv': f'total variation of the answer, median over '
  f'{PERMUTATIONS} permutations of the weights, mean over answers (Jain & '
  'Wallace 2019)',
  'adversarial_jsd': 'nats, at most 0.693: the furthest weights found with a '
  f'total variation of the answer up to {EPSILON}, mean over answers (Jain & '
  'Wallace 2019)',
  'flips_without_largest': 'share of decisions that flip without the largest '
  'weight (Serrano & Smith 2019)',
  'flips_without_another': 'the same for a random other weight',
  'erased_until_flip': 'share of the keys erased from the largest weight down '
  'until the decision flips, 1 for never (Serrano & Smith 2019)',
  'erased_until_flip_random': 'the same in random order',
}


def sites(model: nnx.Module) -> tuple[str, ...]:
  """Where a model reads its source: its mechanisms but for self-attention.

  Those whose weights cannot be replaced are left out, with a warning.
  """
  found = []
  for name in attend.names(model):
    if name.endswith('self_attend'):
      continue
    try:
      attend.replaced(model, {name: interventions.own})
    except ValueError as error:
      text = f'warning: {name}: {error}: no figures with other weights'
      print(text, file=sys.stderr, flush=True)
      continue
    found.append(name)
  return tuple(found)


def figures(
  parts: tuple[Any, Any],
  where: tuple[str, ...],
  batches: Sequence[Mapping[str, np.ndarray]],
  *,
  rows: str,
  searched: int,
) -> dict[str, float]:
  """Faithfulness of the answers to some batches, by the names above.

  Args:
    parts: of a split model, whose logits are [B, C] or [B, T, C].
    where: of `sites`.
    batches: what the model reads, with 'label' [B] or [B, T] beside it and
      booleans 'real' of that shape: which answers count.
    rows: 'target' where an answer is a word of the target, '' where it is one
      of the whole.
    searched: how many of the batches get an adversary, which is what costs.
  """
  found: dict[str, list[np.ndarray]] = {}

  def add(name, values):
    found.setdefault(name, []).append(np.asarray(values, np.float64))

  for number, batch in enumerate(batches):
    real, labels = batch['real'], batch['label']
    inputs = {k: v for k, v in batch.items() if k not in ('real', 'label')}
    rng = jax.random.fold_in(jax.random.key(0), number)

    def ask(kind, share=0.0, rng=rng, inputs=inputs, real=real):
      number, share = np.int32(KINDS.index(kind)), np.float32(share)
      p, _ = _changed(*parts, inputs, where, number, share, rng)
      return np.asarray(p)[real]

    own, even = ask('own'), ask('even')
    add('own_accuracy', own.argmax(-1) == labels[real])
    add('uniform_accuracy', even.argmax(-1) == labels[real])
    rngs = jax.random.split(rng, PERMUTATIONS)
    moved = [
      faithfulness.total_variation(own, ask('permuted', rng=r)) for r in rngs
    ]
    add('permutation_tv', np.median(np.stack(moved), axis=0))
    largest = [ask('erased', share) for share in ERASED]
    random = [ask('drawn', share) for share in ERASED]
    add('flips_without_largest', faithfulness.flips(own, largest[0]))
    add('flips_without_another', faithfulness.flips(own, random[0]))
    # One key counts as half of the smallest share, whatever the length.
    shares = (ERASED[1] / 2, *ERASED[1:])
    for name, erased in (('', largest), ('_random', random)):
      until = faithfulness.share_until_flip(own, erased, shares)
      add(f'erased_until_flip{name}', until)
    if number < searched:
      starts = _starts(parts, inputs, where, rows, rng)
      p, weights = _changed(*parts, inputs, where, np.int32(0), 0.0, rng)
      best, _ = _adversary(*parts, inputs, where, starts, p, weights)
      add('adversarial_jsd', np.asarray(best)[real])
  return {
    name: float(np.concatenate(values).mean())
    for name, values in found.items()
    if sum(map(len, values))
  }


KINDS = ('own', 'even', 'permuted', 'erased', 'drawn')


@functools.partial(jax.jit, static_argnums=(0, 3))
def _changed(graph, state, inputs, where, kind, share, rng):
  """Probabilities [..., C] and weights, with the change KINDS[kind]."""
  changes = (
    interventions.own,
    interventions.even,
    interventions.permuted(rng),
    interventions.erased(share),
    interventions.erased(share, rng),
  )

  def change(weights, visible, place):
    # One program for all kinds: compiling is what costs.
    return jax.lax.switch(
      kind, [lambda c=c: c(weights, visible, place) for c in changes]
    )

  return _answers(graph, state, inputs, dict.fromkeys(where, change))


def _answers(graph, state, inputs, changes):
  """Probabilities [..., C], and weights with all words in the last axis."""
  model = attend.replaced(nnx.merge(graph, state), changes)
  logits, out = model(inputs, None)
  weights = out['weights'].reshape(*logits.shape[:-1], -1)
  return jax.nn.softmax(logits), weights


def _starts(parts, inputs, where, rows, rng):
  """Random slopes for each site, of the shape that `tilted` wants."""
  shapes: dict[str, tuple[int, ...]] = {}

  def noting(name):
    def change(weights, visible, place):
      shapes[name] = weights.shape[-2:]
      return interventions.own(weights, visible, place)

    return change

  def look(state):
    model = nnx.merge(parts[0], state)
    model = attend.replaced(model, {name: noting(name) for name in where})
    return model(inputs, None)[0]

  jax.eval_shape(look, parts[1])
  some = inputs[rows or 'tokens']
  # A level of sentences has fewer rows than its words: the rest is not read.
  lead = len(some) if rows else int(np.prod(some.shape[:-1]))
  found = {}
  for i, name in enumerate(where):
    length, size = shapes[name]
    if rows:
      length = some.shape[1]
    rng_of_site = jax.random.fold_in(rng, i)
    found[name] = jax.random.normal(rng_of_site, (lead, length, size))
  return found


@functools.partial(jax.jit, static_argnums=(0, 3))
def _adversary(graph, state, inputs, where, starts, p, weights):
  def forward(slopes):
    changes = {name: interventions.tilted(slopes[name]) for name in where}
    return _answers(graph, state, inputs, changes)

  return faithfulness.adversary(forward, starts, p, weights, epsilon=EPSILON)
