"""Attention in float64 NumPy, one query and one key at a time.

Written from the formulas of the papers, not from attnlab: it knows the names of
the parameters and shares no code. Slow, and easy to read.
"""

import numpy as np


def dot(params, query, key):
  del params
  return sum(a * b for a, b in zip(query, key, strict=True))


def scaled_dot(params, query, key):
  return dot(params, query, key) / len(query) ** 0.5


def bilinear(params, query, key):
  return query @ params['weight'] @ key


def additive(params, query, key):
  inner = params['query'].T @ query + params['key'].T @ key + params['bias']
  return params['out'] @ np.tanh(inner)


def keys_only(params, query, key):
  del query
  return params['out'] @ np.tanh(params['key'].T @ key + params['bias'])


def softmax(scores, *, temperature=1.0):
  powers = np.exp((scores - scores.max()) / temperature)
  return powers / powers.sum()


def uniform(scores):
  return np.full(len(scores), 1 / len(scores))


def hardmax(scores):
  weights = np.zeros(len(scores))
  weights[list(scores).index(max(scores))] = 1
  return weights


def attend(score, normalizer, params, query, key, value, mask, settings):
  """Returns context [T, V] and weights [T, S] of one example.

  Args:
    score: name of a function above: (params, query, key) -> number.
    normalizer: name of a function above: visible scores -> weights.
    params: a dict of arrays.
    query: [T, Q].
    key: [S, K].
    value: [S, V].
    mask: booleans [T, S].
    settings: keyword arguments of the normaliser.
  """
  query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
  params = {name: np.asarray(x, np.float64) for name, x in params.items()}
  weights = np.zeros((len(query), len(key)))
  for t, row in enumerate(query):
    seen = [s for s in range(len(key)) if mask[t][s]]
    if seen:
      scores = np.array([globals()[score](params, row, key[s]) for s in seen])
      weights[t, seen] = globals()[normalizer](scores, **settings)
  return weights @ value, weights


def multi_head(score, normalizer, params, query, key, value, mask, settings):
  """Returns context [T, D] and weights [H, T, S], one head after the other."""
  split = {
    name: np.asarray(params[name], np.float64)
    for name in ('query', 'key', 'value', 'out')
  }
  inner = {name: np.asarray(x) for name, x in params['heads'].items()}
  heads = len(next(iter(inner.values()))) if inner else 2
  depth = split['query'].shape[1] // heads
  total, records = 0, []
  for h in range(heads):
    part = slice(h * depth, (h + 1) * depth)
    context, weights = attend(
      score,
      normalizer,
      {name: x[h] for name, x in inner.items()},
      np.asarray(query, np.float64) @ split['query'][:, part],
      np.asarray(key, np.float64) @ split['key'][:, part],
      np.asarray(value, np.float64) @ split['value'][:, part],
      mask,
      settings,
    )
    # concat(c_1 .. c_H) W_O = sum_h c_h W_O_h.
    total = total + context @ split['out'][part]
    records.append(weights)
  return total, np.stack(records)
