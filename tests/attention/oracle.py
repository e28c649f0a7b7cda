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


def local_m(params, query, row, size, *, half_width):
  """Returns (which keys are seen, factors) of one query at position `row`."""
  del params, query
  return [abs(j - row) <= half_width for j in range(size)], np.ones(size)


def relative_bias(params, row, column, head, heads, *, distance):
  del head, heads
  return params['bias'][max(-distance, min(distance, column - row)) + distance]


def alibi(params, row, column, head, heads):
  del params
  return -(2.0 ** (-8 * (head + 1) / heads)) * abs(row - column)


def attend(parts, params, query, key, value, mask, head=0, heads=1):
  """Returns context [T, V] and weights [T, S] of one example.

  Args:
    parts: {'score': (params, query, key) -> number, 'normalizer': visible
      scores -> weights, 'locality', 'position', 'heads': as above}.
    params: of the mechanism.
    query: [T, Q].
    key: [S, K].
    value: [S, V].
    mask: booleans [T, S].
    head: index of the head.
    heads: how many there are.
  """
  if 'heads' in parts:
    rest = {kind: part for kind, part in parts.items() if kind != 'heads'}
    return parts['heads'](rest, params, query, key, value, mask)
  query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
  params = {
    kind: {name: np.asarray(x, np.float64) for name, x in inner.items()}
    for kind, inner in params.items()
  }
  size = len(key)
  weights = np.zeros((len(query), size))
  for t, row in enumerate(query):
    near, factors = [True] * size, np.ones(size)
    if 'locality' in parts:
      near, factors = parts['locality'](params['locality'], row, t, size)
    seen = [s for s in range(size) if mask[t][s] and near[s]]
    scores = [parts['score'](params['score'], row, key[s]) for s in seen]
    if 'position' in parts:
      scores = [
        e + parts['position'](params['position'], t, s, head, heads)
        for e, s in zip(scores, seen, strict=True)
      ]
    if seen:
      weights[t, seen] = parts['normalizer'](np.array(scores)) * factors[seen]
  return weights @ value, weights


def multi_head(
  parts, params, query, key, value, mask, *, num_heads, head_dim, out_dim
):
  """Returns context [T, D] and weights [H, T, S], one head after the other."""
  split = {
    name: np.asarray(params[name], np.float64)
    for name in ('query', 'key', 'value', 'out')
  }
  assert split['out'].shape == (num_heads * head_dim, out_dim)
  total, records = 0, []
  for h in range(num_heads):
    part = slice(h * head_dim, (h + 1) * head_dim)
    context, weights = attend(
      parts,
      {
        kind: {name: np.asarray(x)[h] for name, x in inner.items()}
        for kind, inner in params['heads'].items()
      },
      np.asarray(query, np.float64) @ split['query'][:, part],
      np.asarray(key, np.float64) @ split['key'][:, part],
      np.asarray(value, np.float64) @ split['value'][:, part],
      mask,
      h,
      num_heads,
    )
    # concat(c_1 .. c_H) W_O = sum_h c_h W_O_h.
    total = total + context @ split['out'][part]
    records.append(weights)
  return total, np.stack(records)
