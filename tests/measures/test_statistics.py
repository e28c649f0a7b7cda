"""Statistics over seeds, against scipy, full enumeration and by hand."""

import itertools
import math
import statistics as plain

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import stats

from attnlab.measures import statistics

SIX = (36.1, 35.2, 37.0, 36.4, 35.9, 36.8)
numbers = st.integers(-20, 20).map(lambda n: n / 4)


def test_mean_deviation_and_interval():
  found = statistics.summarise(SIX)
  assert found.mean == pytest.approx(plain.fmean(SIX))
  assert found.deviation == pytest.approx(plain.stdev(SIX))
  own = stats.bootstrap(
    (np.array(SIX),),
    np.mean,
    n_resamples=50_000,
    method='BCa',
    rng=np.random.default_rng(7),
  ).confidence_interval
  assert found.low == pytest.approx(own.low, abs=0.05)
  assert found.high == pytest.approx(own.high, abs=0.05)
  assert found == statistics.summarise(SIX)


def test_few_seeds_and_equal_ones():
  one = statistics.summarise([2.0])
  assert one.mean == 2
  assert math.isnan(one.deviation)
  assert math.isnan(one.low)
  assert math.isnan(statistics.summarise([2.0, 3.0]).high)
  assert statistics.summarise([2.0] * 6) == (2, 0, 2, 2, 6)
  with pytest.raises(ValueError, match='finite'):
    statistics.summarise([1.0, math.nan])
  with pytest.raises(ValueError, match='finite'):
    statistics.summarise([])


@hypothesis.given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
def test_permutation_is_the_full_enumeration(pairs):
  one, two = np.array(pairs).T
  differences = one - two
  far = [
    abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
    >= abs(differences.sum()) - 1e-9
    for signs in itertools.product((1, -1), repeat=len(differences))
  ]
  assert statistics.permutation(one, two) == pytest.approx(np.mean(far))
  assert statistics.permutation(two, one) == pytest.approx(np.mean(far))


def test_permutation_against_scipy():
  other = np.array(SIX) - [0.3, -0.1, 0.6, 0.2, 0.4, 0.1]
  own = stats.permutation_test(
    (np.array(SIX), other),
    lambda a, b: np.mean(a - b),
    permutation_type='samples',
    n_resamples=np.inf,
  )
  found = statistics.permutation(SIX, other)
  assert found == pytest.approx(float(own.pvalue))


def test_five_seeds_never_reach_significance():
  assert statistics.permutation(range(5), range(-9, -4)) == 2 / 32
  assert statistics.permutation(range(6), range(-9, -3)) == 2 / 64
  rows = {'b': [9.0] * 5}
  found = statistics.compare([1.0, 2, 3, 4, 5], rows)['b']
  assert math.isnan(found.p)
  assert not found.significant
  assert found.smallest == math.inf
  assert 'No test is possible with 5 seeds' in statistics.note(5)
  assert 'with 1 seed:' in statistics.note(1)


def test_many_seeds_are_drawn():
  draw = np.random.default_rng(1)
  one = draw.normal(size=30)
  own = stats.ttest_1samp(one, 0.0).pvalue
  assert statistics.permutation(one, np.zeros(30)) == pytest.approx(
    float(own), abs=0.02
  )
  assert 0 < statistics.permutation(one + 9, np.zeros(30)) < 2e-5


def test_holm_by_hand():
  # Sorted 0.005, 0.01, 0.03, 0.04 by 4, 3, 2, 1, and never less than before.
  found = statistics.holm([0.01, 0.04, 0.03, 0.005])
  assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])
  assert statistics.holm([0.5, 0.6]) == [1.0, 1.0]
  assert statistics.holm([]) == []


@hypothesis.given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_none_and_bonferroni(p):
  found = statistics.holm(p)
  for one, corrected in zip(p, found, strict=True):
    assert one <= corrected <= min(1, len(p) * one) + 1e-12
  order = np.argsort(p, kind='stable')
  assert (np.diff(np.array(found)[order]) >= 0).all()


def test_fewest_seeds():
  # 2 / 2^n <= 0.05 / m.
  assert [statistics.fewest(m) for m in (1, 2, 3, 9)] == [6, 7, 7, 9]
  assert 'need 9 seeds' in statistics.note(6, 9)


def test_the_smallest_effect_that_six_seeds_see():
  # All six differences have one sign: Phi(d)^6 + Phi(-d)^6 = 0.8.
  d = statistics.smallest_effect(6)
  seen = stats.norm.cdf(d) ** 6 + stats.norm.cdf(-d) ** 6
  assert seen == pytest.approx(0.8, abs=0.02)
  assert statistics.smallest_effect(5) == math.inf
  assert statistics.smallest_effect(6, tests=2) == math.inf
  effects = [statistics.smallest_effect(n) for n in (6, 8, 12, 13, 30)]
  assert effects == sorted(effects, reverse=True)
  # Student's test, n = 30: by G*Power 0.53.
  assert effects[-1] == pytest.approx(0.53, abs=0.01)
  assert '1.8 standard deviations' in statistics.note(6)


def test_only_what_is_better_than_all_others_is_best():
  seeds = np.arange(8)
  rows = {'a': 5 + seeds, 'b': seeds, 'c': seeds - 1.5}
  assert statistics.best(rows) == 'a'
  assert statistics.best(rows, larger=False) == 'c'
  assert statistics.best({**rows, 'd': rows['a'] + (-1.0) ** seeds}) is None
  assert statistics.best({'a': seeds}) is None
  six = {name: values[:6] for name, values in rows.items()}
  assert statistics.best(six) is None  # two tests: 0.031 * 2
  found = statistics.compare(rows['b'], {'a': rows['a'], 'c': rows['c']})
  assert found['a'].difference == 5
  assert found['a'].p == 2 / 256
  assert found['a'].corrected == 4 / 256
  assert found['a'].significant
  with pytest.raises(ValueError, match='8 values and 7'):
    statistics.permutation(seeds, seeds[:7])


def test_paired_bootstrap_of_bleu():
  references = [f'the cat number {n} sat on the mat' for n in range(40)]
  worse = [
    line if n % 2 else 'a dog was here' for n, line in enumerate(references)
  ]
  found, signature = statistics.paired_bleu(
    {'good': references, 'same': list(references), 'worse': worse},
    references,
    samples=300,
  )
  assert found['good'].score == pytest.approx(100)
  assert math.isnan(found['good'].p)
  # sacrebleu itself says 1/301 here.
  assert found['same'].p == 1
  assert found['worse'].p < 0.01
  assert found['worse'].score < 60
  assert 'bs:300' in signature
  assert 'tok:none' in signature
  with pytest.raises(ValueError, match='39 lines and references 40'):
    statistics.paired_bleu({'a': references[1:]}, references)
