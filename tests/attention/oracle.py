"""Attention in float64 NumPy, one query and one key at a time.

Written from the formulas of the papers, not from attnlab: it knows the names of
the parameters and shares no code. Slow, and easy to read.
"""

import inspect
import math
from typing import NamedTuple

import numpy as np


class Here(NamedTuple):
  """What a score may know besides one query and one key.

  Attributes:
    column: the position of the key.
    seen: the positions of the keys that this query may see.
    before: the weights of the queries before this one, a row each.
  """

  column: int
  seen: list
  before: list


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


def cosine(params, query, key):
  lengths = np.linalg.norm(query) * np.linalg.norm(key)
  return params['beta'] * (query @ key) / lengths if lengths else 0.0


def concat(params, query, key):
  weight = np.concatenate([params['query'], params['key']])
  return params['out'] @ np.tanh(weight.T @ np.concatenate([query, key]))


def concat_linear(params, query, key):
  weight = np.concatenate([params['query'], params['key']])
  return weight @ np.concatenate([query, key])


def mlp(params, query, key, *, widths, activation):
  function = {
    'tanh': np.tanh,
    'relu': lambda x: np.maximum(x, 0),
    'gelu': np.vectorize(lambda x: x * (1 + math.erf(x / 2**0.5)) / 2),
    'silu': lambda x: x / (1 + np.exp(-x)),
  }[activation]
  weight = np.concatenate([params['query'], params['key']])
  layer = weight.T @ np.concatenate([query, key]) + params['bias']
  for n in range(2, len(widths) + 1):
    layer = params[f'weight_{n}'].T @ function(layer) + params[f'bias_{n}']
  return params['out'] @ function(layer)


def euclidean(params, query, key, *, sigma):
  del params
  return -(np.linalg.norm(query - key) ** 2) / (2 * sigma**2)


def inverse_euclidean(params, query, key):
  del params
  return 1 / (1 + np.linalg.norm(query - key))


def location(params, query, key, here):
  del key
  return params['weight'][:, here.column] @ query


def kernel(params, query, key, *, features):
  del params
  phi = {
    'elu': lambda x: x + 1 if x > 0 else math.exp(x),
    'relu': lambda x: max(x, 0),
    'softplus': lambda x: math.log(1 + math.exp(x)),
  }[features]
  return sum(phi(a) * phi(b) for a, b in zip(query, key, strict=True))


def location_aware(params, query, key, here, *, start):
  table = params['filters']
  half = len(table) // 2
  if here.before:
    previous = dict(enumerate(here.before[-1]))
  elif start == 'uniform':
    previous = {s: 1 / len(here.seen) for s in here.seen}
  else:
    previous = {here.seen[0]: 1.0} if start == 'first' else {}
  found = sum(
    table[d] * previous.get(here.column + d - half, 0.0)
    for d in range(len(table))
  )
  inner = params['query'].T @ query + params['key'].T @ key + params['bias']
  return params['out'] @ np.tanh(inner + params['features'].T @ found)


def coverage_aware(params, query, key, here):
  coverage = sum(weights[here.column] for weights in here.before)
  inner = params['query'].T @ query + params['key'].T @ key + params['bias']
  return params['out'] @ np.tanh(inner + params['coverage'] * coverage)


def softmax(scores, *, temperature=1.0):
  powers = np.exp((scores - scores.max()) / temperature)
  return powers / powers.sum()


def uniform(scores):
  return np.full(len(scores), 1 / len(scores))


def sigmoid(scores):
  return 1 / (1 + np.exp(-scores))


def smooth(scores):
  return sigmoid(scores) / sigmoid(scores).sum()


def proportional(scores):
  return scores / scores.sum()


def sparsemax(scores):
  # Martins & Astudillo 2016, algorithm 1.
  ordered = sorted(scores, reverse=True)
  size = max(
    k
    for k in range(1, len(scores) + 1)
    if 1 + k * ordered[k - 1] > sum(ordered[:k])
  )
  return np.maximum(scores - (sum(ordered[:size]) - 1) / size, 0)


def entmax(scores, *, alpha):
  # Peters et al. 2019, algorithm 2: bisection.
  scores = (alpha - 1) * scores
  weigh = lambda tau: np.maximum(scores - tau, 0) ** (1 / (alpha - 1))
  low, high = scores.max() - 1, scores.max()
  for _ in range(100):
    middle = (low + high) / 2
    low, high = (middle, high) if weigh(middle).sum() > 1 else (low, middle)
  return weigh(low)


def topk(scores, *, k):
  order = sorted(range(len(scores)), key=lambda j: (-scores[j], j))[:k]
  weights = np.zeros(len(scores))
  weights[order] = softmax(scores[order])
  return weights


def hardmax(scores):
  weights = np.zeros(len(scores))
  weights[list(scores).index(max(scores))] = 1
  return weights


def straight_through(scores, *, temperature):
  del temperature
  return hardmax(scores)


def gumbel(scores, *, temperature):
  # Without random numbers.
  return softmax(scores, temperature=temperature)


def gumbel_st(scores, *, temperature):
  del temperature
  return hardmax(scores)


def sample(scores):
  # Without random numbers.
  return hardmax(scores)


def monotonic(scores, *, before):
  """One row after `before`; all keys, -inf for those that are not seen.

  Raffel et al. 2017, eq. 9: who took k before passes k .. j-1 and takes j.
  """
  take = np.array([sigmoid(e) if e > -np.inf else 0 for e in scores])
  weights = np.zeros(len(scores))
  for j in range(len(scores)):
    for k in range(j + 1):
      weights[j] += take[j] * before[k] * np.prod(1 - take[k:j])
  return weights


def monotonic_hard(scores, *, before):
  weights = np.zeros(len(scores))
  if any(before):
    for j in range(list(before).index(1), len(scores)):
      if scores[j] > -np.inf and sigmoid(scores[j]) >= 0.5:
        weights[j] = 1
        break
  return weights


def local_m(params, query, row, scores, *, half_width):
  """Returns (which keys are seen, factors) of one query at position `row`.

  `scores` has a number for each key that the mask shows and None for others.
  """
  del params, query
  size = len(scores)
  return [abs(j - row) <= half_width for j in range(size)], np.ones(size)


def local_p(params, query, row, scores, *, half_width):
  """p_t = S sigmoid(v' tanh(W q)), and a Gaussian about it."""
  del row
  size = len(scores)
  true = max((s + 1 for s in range(size) if scores[s] is not None), default=0)
  inner = params['out'] @ np.tanh(params['query'].T @ query)
  centre = true / (1 + np.exp(-inner))
  away = np.arange(size) - centre
  near = [abs(s - round(centre)) <= half_width for s in range(size)]
  return near, np.exp(-(away**2) / (2 * (half_width / 2) ** 2))


def local_hard(params, query, row, scores, *, half_width):
  """The window about the likeliest key."""
  del params, query, row
  seen = [s for s, score in enumerate(scores) if score is not None]
  centre = max(seen, key=lambda s: scores[s]) if seen else 0
  size = len(scores)
  return [abs(s - centre) <= half_width for s in range(size)], np.ones(size)


def relative_bias(params, row, column, head, heads, *, distance):
  del head, heads
  return params['bias'][max(-distance, min(distance, column - row)) + distance]


def alibi(params, row, column, head, heads):
  del params
  return -(2.0 ** (-8 * (head + 1) / heads)) * abs(row - column)


def attend(parts, params, query, key, value, mask, head=0, heads=1):
  """Returns context [T, V] and weights [T, S] of one example.

  Args:
    parts: {'score': (params, query, key, and `here` where it asks for it) ->
      number, 'normalizer': visible scores -> weights (or all scores, and the
      row `before`, where it asks for that), 'locality', 'position': as above,
      'heads', 'hops': as below}.
    params: of the mechanism.
    query: [T, Q].
    key: [S, K].
    value: [S, V].
    mask: booleans [T, S].
    head: index of the head.
    heads: how many there are.
  """
  for outer in ('hops', 'heads'):
    if outer in parts:
      rest = {kind: part for kind, part in parts.items() if kind != outer}
      return parts[outer](rest, params, query, key, value, mask)
  query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
  params = {
    kind: {name: np.asarray(x, np.float64) for name, x in inner.items()}
    for kind, inner in params.items()
  }
  size = len(key)
  asks = 'here' in inspect.signature(parts['score']).parameters
  before = []
  weights = np.zeros((len(query), size))
  normalizer = parts['normalizer']
  follows = 'before' in inspect.signature(normalizer).parameters
  last = np.eye(size)[0]
  for t, row in enumerate(query):
    visible = [s for s in range(size) if mask[t][s]]
    scores = [None] * size
    for s in visible:
      here = {'here': Here(s, visible, before)} if asks else {}
      scores[s] = parts['score'](params['score'], row, key[s], **here)
      if 'position' in parts:
        scores[s] += parts['position'](params['position'], t, s, head, heads)
    near, factors = [True] * size, np.ones(size)
    if 'locality' in parts:
      near, factors = parts['locality'](params['locality'], row, t, scores)
    seen = [s for s in visible if near[s]]
    found = np.array([scores[s] for s in seen])
    if follows:
      spread = np.full(size, -np.inf)
      spread[seen] = found
      # It follows what it gave; a score what was read, factors and all.
      last = normalizer(spread, before=last)
      weights[t] = last * factors
    elif seen:
      weights[t, seen] = normalizer(found) * factors[seen]
    before.append(weights[t])
  return weights @ value, weights


def multi_hop(parts, params, query, key, value, mask, *, hops):
  """Returns context [T, V] and weights [N, ..., T, S], hop after hop."""
  query = np.asarray(query, np.float64)
  maps = [np.asarray(params[x], np.float64) for x in ('query', 'context')]
  context, records = None, []
  for _ in range(hops):
    if context is not None:
      query = query @ maps[0] + context @ maps[1]
    context, weights = attend(parts, params['hop'], query, key, value, mask)
    records.append(weights)
  return context, np.stack(records)


def multi_head(
  parts, params, query, key, value, mask, *, num_heads, head_dim, out_dim
):
  """Returns context [T, D] and weights [H, T, S], one head after the other."""
  shares = np.ones(num_heads)
  return _heads(parts, params, query, key, value, mask, head_dim, shares)


def multi_head_weighted(
  parts, params, query, key, value, mask, *, num_heads, head_dim, out_dim
):
  """Head h counts softmax(w)_h."""
  shares = softmax(np.asarray(params['weight'], np.float64))
  return _heads(parts, params, query, key, value, mask, head_dim, shares)


def _heads(parts, params, query, key, value, mask, head_dim, shares):
  key, value = np.asarray(key, np.float64), np.asarray(value, np.float64)
  query = np.asarray(query, np.float64)
  split = {
    name: np.asarray(x, np.float64)
    for name, x in params.items()
    if name != 'heads'
  }
  total, records = 0, []
  for h, share in enumerate(shares):
    part = slice(h * head_dim, (h + 1) * head_dim)
    # A mechanism that asks for no query has no W_Q: any query will do.
    mapped = np.zeros((len(query), head_dim))
    if 'query' in split:
      mapped = query @ split['query'][:, part]
    context, weights = attend(
      parts,
      {
        kind: {name: np.asarray(x)[h] for name, x in inner.items()}
        for kind, inner in params['heads'].items()
      },
      mapped,
      key @ split['key'][:, part],
      value @ split['value'][:, part],
      mask,
      h,
      len(shares),
    )
    # concat(c_1 .. c_H) W_O = sum_h c_h W_O_h.
    total = total + share * (context @ split['out'][part])
    records.append(weights)
  return total, np.stack(records)
