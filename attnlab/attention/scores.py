"""Scores: how similar is a query to a key.

Each function returns a `Score`. Its keyword-only arguments are the settings
that a config may give: `attention.score.name=additive` is `additive(**rest)`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from attnlab.attention import arithmetic, pairs

Array = jax.Array
PyTree = Any

_glorot = jax.nn.initializers.glorot_uniform()
# What other parts and new scores need as well.
project, wide = arithmetic.project, arithmetic.wide


class Score(NamedTuple):
  """One score as pure functions.

  Attributes:
    init: (rng, query_dim, key_dim) -> params.
    prepare: (params, key [S, K]) -> what is computed once per source, a pytree
      of arrays [..., S, D] whose row s depends on key s alone.
    apply: (params, query [T, Q], prepared) -> scores [T, S], float32 (float64
      for queries and keys of float64). A score with a state takes one query,
      and after prepared the state and the mask ([1, S] or None).
    depends_on_query: False for attention pooling, which any query may ask.
    query_shifts: True where the query adds the same number to every key.
    nonnegative: True where no score is below zero.
    init_state: (source_length S) -> what a score that reads the alignments of
      earlier steps starts from; None for all others.
    update: (state, weights [S]) -> the next state.
    wide: above 0 where apply makes an array of [T, S, A], and A itself where
      that is more than the depth of what is prepared: the engine then builds
      scores by blocks of keys, which needs every leaf of prepared to be
      row-wise in s and scores of a key to depend on that key alone.
    scale: (depth) -> c, where the score is c q.k of queries and keys as they
      are, which kernels exist for; None for all others.
    features: phi, where the score is phi(q).prepared; None for all others.
    absolute: True where a score depends on the place of the key in the source,
      so that all keys must be there.
  """

  init: Callable[[Array, int, int], PyTree]
  prepare: Callable[[PyTree, Array], PyTree]
  apply: Callable[[PyTree, Array, PyTree], Array]
  depends_on_query: bool = True
  query_shifts: bool = False
  nonnegative: bool = False
  init_state: Callable[[int], PyTree] | None = None
  update: Callable[[PyTree, Array], PyTree] | None = None
  wide: int = 0
  scale: Callable[[int], float] | None = None
  features: Callable[[Array], Array] | None = None
  absolute: bool = False


class TooLong(ValueError):
  """A source is longer than what a score has parameters for."""


def _no_params(rng: Array, query_dim: int, key_dim: int) -> PyTree:
  del rng
  if query_dim != key_dim:
    raise ValueError(
      f'query_dim={query_dim} and key_dim={key_dim}: a dot product needs '
      'equal depths (bilinear does not)'
    )
  return {}


def _as_is(params: PyTree, key: Array) -> Array:
  del params
  return key


def dot() -> Score:
  """Dot product, q.k (Luong et al. 2015, "dot"). Equal depths.

  Cost: B T S Q products; memory B T S.
  """
  return Score(
    _no_params,
    _as_is,
    lambda params, q, k: arithmetic.products(q, k),
    scale=lambda depth: 1.0,
  )


def scaled_dot() -> Score:
  """Scaled dot product, q.k / sqrt(d) (Vaswani et al. 2017). Equal depths.

  Cost: B T S Q products; memory B T S.
  """

  def apply(params, query, key):
    del params
    return arithmetic.products(query, key) / query.shape[-1] ** 0.5

  return Score(_no_params, _as_is, apply, scale=lambda depth: depth**-0.5)


def bilinear() -> Score:
  """Bilinear form, q' W k (Luong et al. 2015, "general").

  W [Q, K] is folded into the query, and the rest runs as a dot product.

  Cost: B T K (Q + S) products; memory B T (S + K).
  """

  def init(rng, query_dim, key_dim):
    return {'weight': _glorot(rng, (query_dim, key_dim))}

  def apply(params, query, key):
    return arithmetic.products(
      arithmetic.project('query', query, params['weight']), key
    )

  return Score(init, _as_is, apply)


def additive(*, hidden: int = 128) -> Score:
  """Additive score, u' tanh(W_q q + W_k k + b) (Bahdanau et al. 2014).

  W_q [Q, A], W_k [K, A], b [A], u [A]; W_k k + b is computed once per source.

  Cost: B T S A tanh; memory B (T S + T A + S A). Above 2^17 tanh an example, it
  has first derivatives alone, in reverse mode.

  Args:
    hidden: A, the width of the hidden layer.
  """

  _check_width('additive', hidden)

  def init(rng, query_dim, key_dim):
    rng_query, rng_key, rng_out = jax.random.split(rng, 3)
    return {
      'query': _glorot(rng_query, (query_dim, hidden)),
      'key': _glorot(rng_key, (key_dim, hidden)),
      'bias': jnp.zeros((hidden,)),
      'out': _glorot(rng_out, (hidden, 1))[:, 0],
    }

  def apply(params, query, prepared):
    projected = arithmetic.project('query', query, params['query'])
    return _pair_scores(params, projected, prepared)

  return Score(init, _project_key, apply)


def keys_only(*, hidden: int = 128) -> Score:
  """Attention pooling, u' tanh(W k + b): no query (Yang et al. 2016, eq. 5).

  Every query gets the same weights; u is the "context vector" of the paper.

  W [K, A], b [A], u [A].

  Cost: B S A tanh and B S A K products, once per source; memory B S (A + T).

  Args:
    hidden: A, the width of the hidden layer.
  """

  _check_width('keys_only', hidden)

  def init(rng, query_dim, key_dim):
    del query_dim
    rng_key, rng_out = jax.random.split(rng)
    return {
      'key': _glorot(rng_key, (key_dim, hidden)),
      'bias': jnp.zeros((hidden,)),
      'out': _glorot(rng_out, (hidden, 1))[:, 0],
    }

  def prepare(params, key):
    return _hidden_layer(params, _project_key(params, key))[:, None]

  def apply(params, query, prepared):
    del params
    row = prepared[:, 0]
    return jnp.broadcast_to(row, (query.shape[0], *row.shape))

  return Score(init, prepare, apply, depends_on_query=False)


def cosine(*, beta: float = 1.0, learned: bool = True) -> Score:
  """Cosine, beta q.k / (|q| |k|) (Graves et al. 2014, eq. 5 and 6).

  With beta = 1 all scores lie between -1 and 1, and no weight of a softmax is
  more than e^2 = 7.4 times another: nearly uniform over a long source. Learn
  beta, or set it to 10 or more. A vector of length 0 scores 0, with gradient 0;
  other lengths count as 1e-8 at least. Equal depths.

  beta is one number, in the parameters where it is learned.

  Cost: B T S Q products; memory B T S.

  Args:
    beta: the sharpness; where it is learned, what it starts from.
    learned: whether beta is learned; in several heads, each has its own.
  """
  _check_positive('cosine', 'beta', beta)

  def init(rng, query_dim, key_dim):
    params = _no_params(rng, query_dim, key_dim)
    return {**params, 'beta': jnp.array(beta)} if learned else params

  def inverse(inputs):
    squares = arithmetic.squares(inputs)
    lengths = jnp.maximum(arithmetic.root(squares), 1e-8)
    return jnp.where(squares > 0, 1 / lengths, 0)

  def prepare(params, key):
    del params
    return key, inverse(key)

  def apply(params, query, prepared):
    key, over_length = prepared
    cosines = arithmetic.products(query, key) * inverse(query) * over_length.T
    scale = params['beta'].astype(cosines.dtype) if learned else beta
    return cosines * scale

  return Score(init, prepare, apply)


def concat(*, hidden: int = 128) -> Score:
  """Concatenation, u' tanh(W [q; k]) (Luong et al. 2015, "concat").

  The additive score without b, and one matrix W [Q + K, A] that is kept as
  W_q [Q, A] and W_k [K, A]; u [A]. W_k k is computed once per source.

  Keras calls another mechanism "concat": w sum_d tanh(c (q_d + k_d)), without
  a matrix and without concatenation.

  Cost: B T S A tanh; memory B (T S + T A + S A). Above 2^17 tanh an example, it
  has first derivatives alone, in reverse mode.

  Args:
    hidden: A, the width of the hidden layer.
  """
  _check_width('concat', hidden)

  def init(rng, query_dim, key_dim):
    rng_pair, rng_out = jax.random.split(rng)
    return {
      **_pair_layer(rng_pair, query_dim, key_dim, hidden),
      'out': _glorot(rng_out, (hidden, 1))[:, 0],
    }

  def prepare(params, key):
    return arithmetic.project('key', key, params['key'])

  def apply(params, query, prepared):
    projected = arithmetic.project('query', query, params['query'])
    return _pair_scores(params, projected, prepared)

  return Score(init, prepare, apply)


def concat_linear() -> Score:
  """Linear in the concatenation, w' [q; k] = w_q'q + w_k'k: no hidden layer.

  "Concatenate, then a linear layer", read to the letter. The query adds the
  same number to every key: a normaliser that no such number changes would
  never see the query, and is refused; sigmoid would.

  w_q [Q], w_k [K]; w_k'k is computed once per source.

  AllenNLP's "LinearAttention" is w'[q; k; q*k] (and no linear-time attention,
  see `kernel`): this score and a bilinear one with a diagonal matrix.

  Cost: B (T Q + S K) products; memory B T S.
  """

  def init(rng, query_dim, key_dim):
    pair = _pair_layer(rng, query_dim, key_dim, 1)
    return {name: weight[:, 0] for name, weight in pair.items()}

  def prepare(params, key):
    return arithmetic.project_wide('key', key, params['key'][:, None])

  def apply(params, query, prepared):
    shift = arithmetic.project_wide('query', query, params['query'][:, None])
    return shift + prepared.T

  return Score(init, prepare, apply, query_shifts=True)


def mlp(*, widths: tuple[int, ...] = (128,), activation: str = 'tanh') -> Score:
  """Multilayer perceptron of [q; k] to a number (Bahdanau et al. 2014, 3.1).

  h_1 = f(W_q q + W_k k + b), h_n = f(W_n h_{n-1} + b_n), e = u'h_N. With one
  hidden layer and tanh it is the additive score.

  W_q [Q, A_1], W_k [K, A_1], b [A_1], W_n [A_{n-1}, A_n], b_n [A_n], u [A_N];
  W_k k + b is computed once per source.

  Cost: B T S (A_1 A_2 + A_2 A_3 + ..) products; memory B T S max(A).

  Args:
    widths: A_1 .. A_N, the widths of the hidden layers, the first one first.
    activation: f: 'tanh', 'relu', 'gelu' or 'silu'.
  """
  if not widths:
    raise ValueError(f'mlp({widths=}): one hidden layer at least is needed')
  for width in widths:
    _check_width('mlp', width, 'widths')
  function = _choose('mlp', 'activation', activation, arithmetic.ACTIVATIONS)

  def init(rng, query_dim, key_dim):
    rng_pair, rng_out, rng_rest = jax.random.split(rng, 3)
    params = {
      **_pair_layer(rng_pair, query_dim, key_dim, widths[0]),
      'bias': jnp.zeros((widths[0],)),
      'out': _glorot(rng_out, (widths[-1], 1))[:, 0],
    }
    for n, width in enumerate(widths[1:], 2):
      rng_layer = jax.random.fold_in(rng_rest, n)
      params[f'weight_{n}'] = _glorot(rng_layer, (widths[n - 2], width))
      params[f'bias_{n}'] = jnp.zeros((width,))
    return params

  def apply(params, query, prepared):
    projected = arithmetic.project('query', query, params['query'])
    hidden = function(projected[:, None, :] + prepared[None, :, :])
    for n in range(2, len(widths) + 1):
      bias = params[f'bias_{n}'].astype(hidden.dtype)
      inputs = arithmetic.project('hidden', hidden, params[f'weight_{n}'])
      hidden = function(inputs + bias[None, None, :])
    return _readout(params, hidden)

  return Score(init, _project_key, apply, wide=max(widths))


def euclidean(*, sigma: float = 1.0) -> Score:
  """Euclidean distance, -|q - k|^2 / (2 sigma^2) (Nadaraya 1964, Watson 1964).

  With softmax it is Nadaraya-Watson regression with a Gaussian kernel: each
  value counts by its nearness. Equal depths.

  It runs as (2 q.k - |q|^2 - |k|^2) / (2 sigma^2), whose error in float32 is
  some 1e-7 of |q|^2 / sigma^2: centre inputs that lie far from 0.

  Cost: B T S Q products; memory B T S.

  Args:
    sigma: the standard deviation of the Gaussian, in the units of the keys.
  """
  _check_positive('euclidean', 'sigma', sigma)

  def prepare(params, key):
    del params
    return key, -arithmetic.squares(key) / (2 * sigma**2)

  def apply(params, query, prepared):
    del params
    key, bias = prepared
    # The large terms must cancel, so no product of less precision will do.
    products = (
      arithmetic.products(query, key, jax.lax.Precision.HIGHEST) / sigma**2
    )
    return products + (bias.T - arithmetic.squares(query) / (2 * sigma**2))

  return Score(_no_params, prepare, apply)


def inverse_euclidean() -> Score:
  """Inverse distance, 1 / (1 + |q - k|) (Yin et al. 2016, "match-score").

  From 0 to 1, and 1 where both are equal; there the gradient is set to 0. No
  weight of a softmax over it is more than e times another. Equal depths.

  Cost: B T S Q differences, taken one by one since at small distances nothing
  of |q|^2 - 2 q.k + |k|^2 would be left; memory B T S Q.
  """

  def apply(params, query, key):
    del params
    if query.shape[-1] != key.shape[-1]:
      raise ValueError(
        f'query has depth {query.shape[-1]} and key {key.shape[-1]}: a '
        'distance needs equal depths'
      )
    dtype = arithmetic.wide(query.dtype)
    apart = query.astype(dtype)[:, None, :] - key.astype(dtype)[None, :, :]
    return 1 / (1 + arithmetic.root(arithmetic.squares(apart)[..., 0]))

  return Score(_no_params, _as_is, apply, nonnegative=True, wide=1)


def location(*, max_length: int = 256) -> Score:
  """Location, e_t = W q_t: position s scores row s (Luong et al. 2015, eq. 8).

  The keys are not read: a query knows where it looks. W [Q, S_max], of which a
  source of S positions uses the first S columns.

  Cost: B T S Q products; memory B T S.

  Args:
    max_length: S_max, the length of the longest source.

  Raises:
    TooLong: where it is used, if the source is longer than S_max.
  """
  _check_width('location', max_length, 'max_length')

  def init(rng, query_dim, key_dim):
    del key_dim
    return {'weight': _glorot(rng, (query_dim, max_length))}

  def prepare(params, key):
    del params
    return key[:, :0]  # How many there are is all that matters.

  def apply(params, query, prepared):
    size = prepared.shape[0]
    if size > max_length:
      raise TooLong(
        f'location({max_length=}): the source has {size} positions, and those '
        f'from {max_length} on have no weights; the nearest right one is {size}'
      )
    return arithmetic.project_wide('query', query, params['weight'][:, :size])

  return Score(init, prepare, apply, absolute=True)


def kernel(*, features: str = 'elu') -> Score:
  """Kernel, phi(q).phi(k) >= 0 (Katharopoulos et al. 2020, eq. 4 and 7).

  With normalizer=proportional, which divides by the sum, it is the attention
  that can be computed in linear time: sum_s phi(k_s) v_s' is one matrix for
  all queries. No parameters; phi(k) is computed once per source. Equal depths.

  Cost: B T S Q products; memory B T S.

  Args:
    features: phi, by element: 'elu' is elu(x) + 1 as in the paper, always
      above 0; 'relu' needs no exp, and a query may find all its scores at 0;
      'softplus' is log(1 + e^x).
  """
  phi = _choose('kernel', 'features', features, arithmetic.FEATURES)

  def prepare(params, key):
    del params
    return phi(key)

  def apply(params, query, prepared):
    del params
    return arithmetic.products(phi(query), prepared)

  return Score(_no_params, prepare, apply, nonnegative=True, features=phi)


def location_aware(
  *,
  hidden: int = 128,
  filters: int = 10,
  width: int = 31,
  start: str = 'uniform',
) -> Score:
  """Location-aware, u' tanh(W_q q + W_k k + U f + b) (Chorowski et al. 2015).

  Section 2.2: f_j = sum_d F_d p_{j + d - r} convolves the weights p of the
  query before with filters of width 2 r + 1, zeros outside. The state is p,
  and how many queries there were: the queries are taken one after the other.

  W_q [Q, A], W_k [K, A], b [A], u [A], F [width, filters], U [filters, A];
  W_k k + b is computed once per source.

  Cost: for each of T queries in turn B S (A + filters (width + A)) operations;
  memory B S A a query, and for the gradients B T S A.

  Args:
    hidden: A, the width of the hidden layer.
    filters: how many features a position has of the weights around it.
    width: how many weights a feature sees, an odd number. The paper's speech
      has 10 filters of width 201.
    start: p before the first query, over the keys that it may see: 'uniform',
      'first' (all on the first of them) or 'zeros'.
  """
  _check_width('location_aware', hidden)
  _check_width('location_aware', filters, 'filters')
  _check_width('location_aware', width, 'width')
  if width % 2 == 0:
    raise ValueError(f'location_aware({width=}): it must be an odd number')
  begin = _choose('location_aware', 'start', start, _STARTS)
  inner = additive(hidden=hidden)

  def init(rng, query_dim, key_dim):
    rng_inner, rng_filters, rng_features = jax.random.split(rng, 3)
    return {
      **inner.init(rng_inner, query_dim, key_dim),
      'filters': _glorot(rng_filters, (width, filters)),
      'features': _glorot(rng_features, (filters, hidden)),
    }

  def apply(params, query, prepared, state, mask):
    dtype = arithmetic.wide(query.dtype)
    before = state['weights'].astype(dtype)
    seen = jnp.ones_like(before) if mask is None else mask[0].astype(dtype)
    # Here and not in init_state, which does not know the mask.
    before = jnp.where(state['queries'] == 0, begin(seen), before)
    found = jax.lax.conv_general_dilated(
      before[None, :, None],
      params['filters'].astype(dtype)[:, None, :],
      window_strides=(1,),
      padding='SAME',
      dimension_numbers=('NWC', 'WIO', 'NWC'),
    )
    extra = found[0] @ params['features'].astype(dtype)
    return _additive_row(params, query, prepared, extra)

  def init_state(size):
    return {'weights': jnp.zeros(size), 'queries': jnp.zeros((), jnp.int32)}

  def update(state, weights):
    return {
      'weights': weights.astype(state['weights'].dtype),
      'queries': state['queries'] + 1,
    }

  return Score(init, inner.prepare, apply, init_state=init_state, update=update)


def coverage_aware(*, hidden: int = 128) -> Score:
  """Coverage-aware, u' tanh(W_q q + W_k k + w_c c + b) (See et al. 2017, 2.3).

  Equation 11. Coverage c is the sum of the weights that a key got from all
  queries before, 0 at first: the queries are taken one after the other. Tu et
  al. 2016 have it as "linguistic coverage", divided by a fertility. Only the
  scores know it; the values stay as they are (OpenNMT-py's coverage changes
  both). `coverage_loss` is the loss that goes with it.

  W_q [Q, A], W_k [K, A], b [A], w_c [A], u [A]; W_k k + b is computed once per
  source.

  Cost: for each of T queries in turn B S A operations; memory B S A a query,
  and for the gradients B T S A.

  Args:
    hidden: A, the width of the hidden layer.
  """
  _check_width('coverage_aware', hidden)
  inner = additive(hidden=hidden)

  def init(rng, query_dim, key_dim):
    rng_inner, rng_coverage = jax.random.split(rng)
    return {
      **inner.init(rng_inner, query_dim, key_dim),
      'coverage': _glorot(rng_coverage, (1, hidden))[0],
    }

  def apply(params, query, prepared, state, mask):
    del mask
    dtype = arithmetic.wide(query.dtype)
    coverage = state.astype(dtype)[:, None]
    extra = coverage * params['coverage'].astype(dtype)[None, :]
    return _additive_row(params, query, prepared, extra)

  return Score(
    init,
    inner.prepare,
    apply,
    init_state=jnp.zeros,
    update=lambda state, weights: state + weights.astype(state.dtype),
  )


def coverage_loss(weights: Array, mask: Array | None = None) -> Array:
  """Coverage loss, sum_j min(p_tj, c_tj) (See et al. 2017, eq. 12).

  With c_t = sum_{i<t} p_i: what a query reads again of what those before it
  have read, from 0 to the sum of its weights, for any mechanism. Where p = c,
  the gradient goes half to each.

  Cost: B T S operations and memory.

  Args:
    weights: [..., T, S].
    mask: booleans that broadcast to [..., T], True for queries that count;
      others have loss 0 and add nothing to c. None: all count.

  Returns:
    [..., T], one number a query.
  """
  if mask is not None:
    weights = jnp.where(mask[..., None], weights, 0)
  total = jnp.cumsum(weights, axis=-2)
  start = jnp.zeros_like(total[..., :1, :])
  before = jnp.concatenate([start, total[..., :-1, :]], axis=-2)
  return jnp.sum(jnp.minimum(weights, before), axis=-1)


def _check_width(name: str, hidden: int, setting: str = 'hidden'):
  if not 1 <= hidden <= 2**24:
    raise ValueError(
      f'{name}({setting}={hidden!r}): it must be from 1 to {2**24}'
    )


def _check_positive(name: str, setting: str, value: float):
  # Its square is taken in float32.
  if not 1e-15 <= value <= 1e15:
    raise ValueError(
      f'{name}({setting}={value!r}): it must be from 1e-15 to 1e15'
    )


def _choose(name: str, setting: str, value: str, choices: Mapping) -> Any:
  """What a word stands for, or an error that lists the words."""
  if value not in choices:
    raise ValueError(
      f'{name}({setting}={value!r}): the choices are {", ".join(choices)}'
    )
  return choices[value]


def _pair_layer(rng: Array, query_dim: int, key_dim: int, width: int) -> PyTree:
  """One matrix over [q; k], kept as its two halves: W = [W_q W_k]."""
  weight = _glorot(rng, (query_dim + key_dim, width))
  return {'query': weight[:query_dim], 'key': weight[query_dim:]}


def _project_key(params: PyTree, key: Array) -> Array:
  """W_k k + b [S, A], in the keys' dtype."""
  bias = params['bias'].astype(key.dtype)
  return arithmetic.project('key', key, params['key']) + bias[None, :]


# The largest array [T, S, A] that is made for the sake of speed.
_SMALL = 2**17


def _pair_scores(params: PyTree, query: Array, key: Array) -> Array:
  """u' tanh(a + b), for a [T, A] and b [S, A] -> [T, S]."""
  dtype = arithmetic.wide(query.dtype)
  arrays = (query, key, params['out'].astype(query.dtype))
  query, key, out = (array.astype(dtype) for array in arrays)
  if query.shape[0] * key.size <= _SMALL:
    return jnp.tanh(query[:, None, :] + key[None, :, :]) @ out
  return pairs.tanh_sum(query, key, out)


def _hidden_layer(params: PyTree, inputs: Array) -> Array:
  """u' tanh(inputs): [..., A] -> [...], summed in float32 at least."""
  return _readout(params, jnp.tanh(inputs))


def _readout(params: PyTree, hidden: Array) -> Array:
  """u' h: [..., A] -> [...], summed in float32 at least."""
  out = params['out'].astype(hidden.dtype)
  return jnp.matmul(
    hidden, out, preferred_element_type=arithmetic.wide(hidden.dtype)
  )


def _additive_row(
  params: PyTree, query: Array, prepared: Array, extra: Array
) -> Array:
  """u' tanh(W_q q + prepared + extra) [1, S], for extra [S, A] in float32."""
  projected = arithmetic.project('query', query, params['query']).astype(
    extra.dtype
  )
  inputs = projected + prepared.astype(extra.dtype) + extra
  return _hidden_layer(params, inputs)[None, :]


# How `location_aware` begins.
_STARTS: Mapping[str, Callable[[Array], Array]] = {
  'uniform': lambda seen: seen / jnp.maximum(seen.sum(), 1),
  'first': lambda seen: jnp.where(jnp.cumsum(seen) == 1, seen, 0),
  'zeros': jnp.zeros_like,
}
