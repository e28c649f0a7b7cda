"""Papers: what each of them calls attention, as one composition.

Nothing else in attnlab knows these names: a flag for each part says the same.
Where a mechanism is asked, and with what, is the model's: `bahdanau()` with
s_{t-1} in the model of that name, `luong_dot()` with s_t, `yang()` in a pool.
"""

from attnlab.attention import (
  heads,
  hops,
  locality,
  normalizers,
  positions,
  scores,
)
from attnlab.attention.core import Attention, compose


def bahdanau(*, hidden: int = 128) -> Attention:
  """Additive attention (Bahdanau et al. 2014, sec. 3.1)."""
  return _softmax(scores.additive(hidden=hidden))


def graves(*, beta: float = 1.0) -> Attention:
  """Addressing by content, cosine by a key strength (Graves et al. 2014)."""
  return _softmax(scores.cosine(beta=beta))


def luong_dot() -> Attention:
  """Global attention with "dot" (Luong et al. 2015, sec. 3.1)."""
  return _softmax(scores.dot())


def luong_general() -> Attention:
  """Global attention with "general" (Luong et al. 2015, sec. 3.1)."""
  return _softmax(scores.bilinear())


def luong_concat(*, hidden: int = 128) -> Attention:
  """Global attention with "concat" (Luong et al. 2015, sec. 3.1)."""
  return _softmax(scores.concat(hidden=hidden))


def luong_location(*, max_length: int = 256) -> Attention:
  """Global attention by location alone (Luong et al. 2015, eq. 8)."""
  return _softmax(scores.location(max_length=max_length))


def luong_local_m(*, half_width: int = 10) -> Attention:
  """Local attention, monotonic, "general" (Luong et al. 2015, sec. 3.2)."""
  window = locality.local_m(half_width=half_width)
  return _softmax(scores.bilinear(), locality=window)


def luong_local_p(*, half_width: int = 10, hidden: int = 128) -> Attention:
  """Local attention, predictive, "general" (Luong et al. 2015, sec. 3.2)."""
  window = locality.local_p(half_width=half_width, hidden=hidden)
  return _softmax(scores.bilinear(), locality=window)


def chorowski(
  *, hidden: int = 128, filters: int = 10, width: int = 201
) -> Attention:
  """Location-aware attention (Chorowski et al. 2015, sec. 2.2)."""
  return _softmax(
    scores.location_aware(hidden=hidden, filters=filters, width=width)
  )


def chorowski_smooth(
  *, hidden: int = 128, filters: int = 10, width: int = 201
) -> Attention:
  """Location-aware, with smoothing (Chorowski et al. 2015, sec. 2.3)."""
  score = scores.location_aware(hidden=hidden, filters=filters, width=width)
  return compose(score=score, normalizer=normalizers.smooth())


def xu_hard(*, hidden: int = 128) -> Attention:
  """Stochastic "hard" attention (Xu et al. 2015, sec. 4.1)."""
  return compose(
    score=scores.additive(hidden=hidden), normalizer=normalizers.sample()
  )


def sukhbaatar(*, num_hops: int = 3) -> Attention:
  """Memory read in several hops, "layer-wise" (Sukhbaatar et al. 2015)."""
  return hops.multi_hop(_softmax(scores.dot()), hops=num_hops)


def yang(*, hidden: int = 128) -> Attention:
  """Pooling of words or sentences (Yang et al. 2016, eq. 5 to 7)."""
  return _softmax(scores.keys_only(hidden=hidden))


def martins(*, hidden: int = 128) -> Attention:
  """Additive scores and sparsemax (Martins & Astudillo 2016)."""
  return compose(
    score=scores.additive(hidden=hidden), normalizer=normalizers.sparsemax()
  )


def raffel(*, hidden: int = 128, noise: float = 1.0) -> Attention:
  """Monotonic attention in expectation (Raffel et al. 2017).

  The paper's energy has a gain and an offset besides.
  """
  return compose(
    score=scores.additive(hidden=hidden),
    normalizer=normalizers.monotonic(noise=noise),
  )


def see(*, hidden: int = 128) -> Attention:
  """Attention with coverage (See et al. 2017, eq. 11)."""
  return _softmax(scores.coverage_aware(hidden=hidden))


def vaswani(*, num_heads: int = 8) -> Attention:
  """Multi-head attention (Vaswani et al. 2017, sec. 3.2.2)."""
  return heads.multi_head(_softmax(scores.scaled_dot()), num_heads=num_heads)


def ahmed(*, num_heads: int = 8) -> Attention:
  """Weighted heads (after Ahmed et al. 2017)."""
  return heads.multi_head_weighted(
    _softmax(scores.scaled_dot()), num_heads=num_heads
  )


def shaw(*, num_heads: int = 8, distance: int = 16) -> Attention:
  """Heads with a number for each distance (after Shaw et al. 2018)."""
  bias = positions.relative_bias(distance=distance)
  inner = _softmax(scores.scaled_dot(), position=bias)
  return heads.multi_head(inner, num_heads=num_heads)


def peters(*, alpha: float = 1.5) -> Attention:
  """Bilinear scores and entmax (Peters et al. 2019)."""
  return compose(
    score=scores.bilinear(), normalizer=normalizers.entmax(alpha=alpha)
  )


def katharopoulos(*, num_heads: int = 8) -> Attention:
  """Heads of linear attention (Katharopoulos et al. 2020)."""
  inner = compose(score=scores.kernel(), normalizer=normalizers.proportional())
  return heads.multi_head(inner, num_heads=num_heads)


def press(*, num_heads: int = 8) -> Attention:
  """Heads with linear penalties of distance (Press et al. 2021)."""
  inner = _softmax(scores.scaled_dot(), position=positions.alibi())
  return heads.multi_head(inner, num_heads=num_heads)


def _softmax(score: scores.Score, **parts) -> Attention:
  return compose(score=score, normalizer=normalizers.softmax(), **parts)
