"""Statistics over seeds: spread, intervals, tests, and what they could see.

Five paired seeds can never reach p < 0.05 (the smallest p of an exact test is
2/2^5 = 0.06), so that below FEWEST seeds nothing here is called significant.
"""

from collections.abc import Mapping, Sequence
import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

FEWEST = 6  # seeds
ALPHA = 0.05
_EXACT = 16  # seeds whose sign flips are all tried; beyond, they are drawn
_DRAWS = 100_000
_RESAMPLES = 9_999


class Summary(NamedTuple):
  """One figure over seeds.

  Attributes:
    mean: over the seeds.
    deviation: of a sample (n - 1); NaN for one seed.
    low: lower end of the 95 % interval of the mean, BCa bootstrap (Efron 1987);
      NaN below three seeds.
    high: its upper end.
    count: how many seeds.
  """

  mean: float
  deviation: float
  low: float
  high: float
  count: int


def summarise(
  values: Sequence[float], *, confidence: float = 1 - ALPHA
) -> Summary:
  """Mean, standard deviation and BCa interval of a figure over seeds.

  Args:
    values: one a seed.
    confidence: of the interval.

  Raises:
    ValueError: there are none.
  """
  array = _finite('values', values)
  mean, count = float(array.mean()), len(array)
  if count < 2:
    return Summary(mean, math.nan, math.nan, math.nan, count)
  deviation = float(array.std(ddof=1))
  if count < 3:
    return Summary(mean, deviation, math.nan, math.nan, count)
  if np.ptp(array) == 0:
    return Summary(mean, 0.0, mean, mean, count)
  from scipy import stats

  found = stats.bootstrap(
    (array,),
    np.mean,
    confidence_level=confidence,
    n_resamples=_RESAMPLES,
    method='BCa',
    rng=np.random.default_rng(0),
  ).confidence_interval
  return Summary(mean, deviation, float(found.low), float(found.high), count)


def permutation(first: Sequence[float], second: Sequence[float]) -> float:
  """Exact permutation test over paired seeds (Fisher 1935), two-sided.

  Under the hypothesis that nothing differs each difference could as well have
  the other sign; p is the share of the 2^n signs whose mean is as far from 0
  as the one that was found. Beyond 16 seeds 100,000 signs are drawn.

  Args:
    first: a figure by seed.
    second: that of the same seeds.

  Returns:
    p, at least 2/2^n.

  Raises:
    ValueError: the numbers of seeds differ, or there are none.
  """
  differences = _paired(first, second)
  found = abs(differences.sum())
  # Sums of the same numbers in another order differ by rounding.
  near = found - 1e-9 * max(np.abs(differences).sum(), 1e-300)
  signs = _signs(len(differences))
  as_far = np.abs(signs @ differences) >= near
  if len(differences) <= _EXACT:
    return float(as_far.mean())
  return float((as_far.sum() + 1) / (len(signs) + 1))


@functools.cache
def _signs(count: int) -> np.ndarray:
  """All signs of n differences but for a sign of all: [2^(n-1), n]."""
  if count > _EXACT:
    draw = np.random.default_rng(0)
    return draw.choice(np.array([-1, 1], np.int8), (_DRAWS, count))
  rest = itertools.product((1, -1), repeat=count - 1)
  return np.array([(1, *row) for row in rest], np.int8)


def holm(values: Sequence[float]) -> list[float]:
  """Holm's correction (Holm 1979): p of several tests, none of them by chance.

  Sorted ascending, p_(i) becomes the largest of (m - j + 1) p_(j), j <= i, and
  1 at most.

  Args:
    values: p of each test of a table.

  Returns:
    The corrected ones in the same order.
  """
  count, largest = len(values), 0.0
  corrected = [0.0] * count
  for rank, place in enumerate(np.argsort(values, kind='stable')):
    largest = max(largest, min(1.0, (count - rank) * float(values[place])))
    corrected[int(place)] = largest
  return corrected


def fewest(tests: int = 1, alpha: float = ALPHA) -> int:
  """The seeds without which no test of a table can ever be significant.

  2/2^n must reach alpha/m, which is what Holm asks of the smallest p.
  """
  return max(FEWEST, math.ceil(1 + math.log2(max(tests, 1) / alpha)))


def smallest_effect(
  count: int, *, tests: int = 1, alpha: float = ALPHA, power: float = 0.8
) -> float:
  """The smallest difference that a design sees, in standard deviations.

  That is the true mean of the paired differences over their deviation, normally
  distributed, at which `permutation` over `count` seeds falls to alpha / tests
  (Holm's first step) with a probability of `power`; by simulation. Infinite
  where it never can.

  Args:
    count: seeds.
    tests: how many tests the table holds.
    alpha: level of the table.
    power: probability of seeing it.
  """
  if count < fewest(tests, alpha):
    return math.inf
  return _smallest(count, alpha / max(tests, 1), power)


@functools.cache
def _smallest(count: int, level: float, power: float) -> float:
  if count > 12:
    from scipy import optimize, stats

    # The permutation test is as strong as Student's there.
    freedom = count - 1
    edge = stats.t.ppf(1 - level / 2, freedom)
    seen = lambda d: stats.nct.sf(edge, freedom, d * math.sqrt(count)) - power
    return float(optimize.brentq(seen, 0.0, 100.0))
  noise = np.random.default_rng(0).standard_normal((count, 2_000))
  signs = _signs(count)
  of_noise, of_effect = signs @ noise, signs.sum(axis=1, keepdims=True)

  def seen(effect: float) -> float:
    far = np.abs(of_noise + effect * of_effect)
    share = np.mean(far >= far[:1] * (1 - 1e-9), axis=0)
    return float(np.mean(share <= level + 1e-12))

  low, high = 0.0, 20.0
  for _ in range(30):
    middle = (low + high) / 2
    low, high = (low, middle) if seen(middle) >= power else (middle, high)
  return high


class Comparison(NamedTuple):
  """One row of a table against the row that it is compared with.

  Attributes:
    difference: mean of the paired differences.
    p: of `permutation`; NaN below FEWEST seeds, or where seeds are not paired.
    corrected: that by Holm over the table.
    significant: whether it is below 0.05.
    smallest: `smallest_effect` in the unit of the figure.
  """

  difference: float
  p: float
  corrected: float
  significant: bool
  smallest: float


def compare(
  base: Sequence[float], others: Mapping[str, Sequence[float]]
) -> dict[str, Comparison]:
  """Tests each row of a table against one, Holm's correction over all.

  Args:
    base: a figure by seed.
    others: name -> that figure of the same seeds in the same order.

  Returns:
    name -> the comparison; with too few seeds p is NaN and nothing is
    significant.
  """
  pairs = {name: _paired(values, base) for name, values in others.items()}
  p = {
    name: permutation(values, base) if len(base) >= FEWEST else math.nan
    for name, values in others.items()
  }
  corrected = (
    holm(list(p.values())) if len(base) >= FEWEST else list(p.values())
  )
  effect = smallest_effect(len(base), tests=len(others))
  found = {}
  for (name, differences), q in zip(pairs.items(), corrected, strict=True):
    spread = differences.std(ddof=1) if len(differences) > 1 else math.nan
    found[name] = Comparison(
      float(differences.mean()),
      p[name],
      q,
      bool(q < ALPHA),
      # No spread and too few seeds is still nothing that could be seen.
      math.inf if math.isinf(effect) else float(effect * spread),
    )
  return found


def note(seeds: int, tests: int = 1) -> str:
  """What the caption of a table has to say of its number of seeds."""
  some = f'{seeds} seed{"" if seeds == 1 else "s"}'
  if seeds < FEWEST:
    return (
      f'No test is possible with {some}: at least {FEWEST} are needed, since '
      f'the smallest p that {FEWEST - 1} can reach is '
      f'{2 / 2 ** (FEWEST - 1):.3f}.'
    )
  text = (
    f'{some}: mean ± standard deviation; exact permutation test over paired '
    "seeds, Holm's correction"
  )
  if tests:
    text += f' over {tests} test{"" if tests == 1 else "s"}'
  needed = fewest(tests)
  if seeds < needed:
    return f'{text}; as many need {needed} seeds: none can be significant.'
  effect = smallest_effect(seeds, tests=tests)
  return (
    f'{text}; bold is the best where it is better than each other (p < '
    f'{ALPHA:g}). Seen with a probability of 80 %: {effect:.1f} standard '
    'deviations of the differences.'
  )


def best(
  rows: Mapping[str, Sequence[float]], *, larger: bool = True
) -> str | None:
  """The row that is significantly better than every other one, or None.

  Args:
    rows: name -> a figure by seed, of the same seeds in the same order.
    larger: whether larger is better.
  """
  if len(rows) < 2:
    return None
  pick = max if larger else min
  name = pick(rows, key=lambda row: float(np.mean(rows[row])))
  others = {key: values for key, values in rows.items() if key != name}
  found = compare(rows[name], others)
  return name if all(each.significant for each in found.values()) else None


class Bleu(NamedTuple):
  """BLEU of one system, and against the first one.

  Attributes:
    score: corpus BLEU.
    mean: of the bootstrap.
    interval: half of the 95 % interval.
    p: that the difference to the first system is by chance; NaN for itself,
      and 1 where there is no difference, of which sacrebleu makes 1/samples.
  """

  score: float
  mean: float
  interval: float
  p: float


def paired_bleu(
  systems: Mapping[str, Sequence[str]],
  references: Sequence[str],
  *,
  tokenize: str = 'none',
  samples: int = 1_000,
) -> tuple[dict[str, Bleu], str]:
  """Paired bootstrap of BLEU by sacrebleu (Koehn 2004; Post 2018).

  It is over sentences: whether these two translations of this text differ, and
  nothing about other seeds.

  Args:
    systems: name -> a translation a sentence; the first is the baseline.
    references: one a sentence.
    tokenize: of sacrebleu.
    samples: of the bootstrap.

  Returns:
    name -> what was found, and sacrebleu's signature.
  """
  from sacrebleu import significance
  from sacrebleu.metrics import BLEU

  for name, lines in systems.items():
    if len(lines) != len(references):
      raise ValueError(
        f'systems[{name!r}] has {len(lines)} lines and references '
        f'{len(references)}'
      )
  metric = BLEU(references=[list(references)], tokenize=tokenize, force=True)
  test = significance.PairedTest(
    [(name, list(lines)) for name, lines in systems.items()],
    {'BLEU': metric},
    references=None,
    test_type='bs',
    n_samples=samples,
  )
  signatures, scores = test()
  results: Sequence[Any] = scores['BLEU']
  found = {
    name: Bleu(
      float(result.score),
      float(result.mean),
      float(result.ci),
      _p(result, results[0]),
    )
    for name, result in zip(scores['System'], results, strict=True)
  }
  return found, str(signatures['BLEU'])


def _p(result: Any, base: Any) -> float:
  if result.p_value is None:
    return math.nan
  return 1.0 if result.score == base.score else float(result.p_value)


def _finite(name: str, values: Sequence[float]) -> np.ndarray:
  array = np.asarray(values, np.float64)
  if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
    raise ValueError(f'{name}={values!r} must be one or more finite numbers')
  return array


def _paired(first: Sequence[float], second: Sequence[float]) -> np.ndarray:
  one, two = _finite('first', first), _finite('second', second)
  if len(one) != len(two):
    raise ValueError(
      f'{len(one)} values and {len(two)}: paired seeds are as many'
    )
  return one - two
