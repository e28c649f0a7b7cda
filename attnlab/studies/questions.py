"""Questions with one test each, and answers that the numbers write.

The test is the exact permutation test over paired seeds, with Holm's correction
over the questions of the study. What an answer says follows from the sign of
the effect and from p, never from what was expected.
"""

from collections.abc import Callable, Mapping, Sequence
import math
import re
from typing import Any, NamedTuple

import numpy as np

from attnlab.measures import statistics

# What a test can say of an effect.
LARGER, SMALLER, UNCLEAR, UNTESTED = 'larger', 'smaller', 'unclear', 'untested'

Entry = Mapping[str, Any]


class Finding(NamedTuple):
  """What was found of one paired difference.

  Attributes:
    seeds: how many pairs.
    effect: the mean difference; NaN without a pair.
    low: lower end of its 95 % interval, BCa bootstrap; NaN below three seeds.
    high: its upper end.
    differences: one a seed, sorted by seed.
    p: of the exact permutation test, two-sided; NaN below six seeds.
    corrected: that by Holm over the family.
    smallest: the effect that the design sees with a probability of 80 %.
  """

  seeds: int
  effect: float
  low: float
  high: float
  differences: tuple[float, ...]
  p: float
  corrected: float = math.nan
  smallest: float = math.nan

  @property
  def verdict(self) -> str:
    """LARGER or SMALLER than 0 if significant, UNCLEAR if not, or UNTESTED."""
    if math.isnan(self.p):
      return UNTESTED
    if not self.corrected < statistics.ALPHA:
      return UNCLEAR
    return LARGER if self.effect > 0 else SMALLER


class Question(NamedTuple):
  """What is asked, and how it will be answered: fixed before the runs.

  Attributes:
    title: the question.
    fixed: hypothesis and measure.
    unit: of the effect.
    digits: of the effect.
    find: (cells) -> the finding; a positive effect is the hypothesis.
    larger: (cells) -> the answer where the effect is above 0 ...
    smaller: ... and where it is below.
    numbers: (cells) -> the figures behind it.
  """

  title: str
  fixed: str
  unit: str
  digits: int
  find: Callable[[Any], Finding]
  larger: Callable[[Any], str]
  smaller: Callable[[Any], str]
  numbers: Callable[[Any], str]


class Answer(NamedTuple):
  """A question with what was found, and a sentence that says it."""

  question: Question
  finding: Finding
  text: str


def fixed(text: str) -> list[tuple[str, str]]:
  """(question, hypothesis and measure) of the numbered items of a docstring.

  An item is '  1. A question? Hypothesis: ... Measure: ...', and ends with the
  next one or an empty line.
  """
  items = re.findall(r'^ *\d\. (.+?)(?=^ *\d\. |^$)', text, re.M | re.S)
  parts = (' '.join(item.split()).partition('? ') for item in items)
  return [(f'{title}?', rest) for title, _, rest in parts]


def values(entry: Entry, key: str) -> dict[int, float]:
  """A figure of an entry of `report.results` by seed; {} if it has none."""
  seeds = entry['seeds']
  if len(seeds) == 1:
    found = [entry['figures'][key]] if key in entry['figures'] else []
  else:
    found = entry['values'].get(key, [])
  return dict(zip(seeds, found, strict=False))


def difference(
  first: Mapping[int, float], second: Mapping[int, float]
) -> dict[int, float]:
  """first - second, where both have the seed."""
  return {seed: first[seed] - second[seed] for seed in first if seed in second}


def test(differences: Mapping[int, float]) -> Finding:
  """Tests that paired differences are 0.

  Args:
    differences: by seed.
  """
  found = [differences[seed] for seed in sorted(differences)]
  if not found:
    return Finding(0, math.nan, math.nan, math.nan, (), math.nan)
  mean, _, low, high, count = statistics.summarise(found)
  p = math.nan
  if count >= statistics.FEWEST:
    p = statistics.permutation(found, np.zeros(count))
  return Finding(count, mean, low, high, tuple(found), p)


def weakest(findings: Sequence[Finding]) -> Finding:
  """One finding for 'above 0 in each': the least, with the largest p.

  An intersection-union test (Berger 1982): the claim that holds of all has the
  largest p of all, and needs no correction. Where some effects are above 0 and
  some are not, there is nothing that holds of all, and p is 1. One without a
  seed leaves nothing to test.
  """
  for each in findings:
    if not each.seeds:
      return each
  mixed = len({each.effect > 0 for each in findings}) > 1
  key = (lambda f: f.effect) if mixed else (lambda f: abs(f.effect))
  least = min(findings, key=key)
  p = max(each.p for each in findings)
  if any(math.isnan(each.p) for each in findings):
    p = math.nan
  elif mixed:
    p = 1.0
  return least._replace(p=p)


def family(findings: Sequence[Finding]) -> list[Finding]:
  """The findings of a study, corrected for there being several."""
  tested = [i for i, each in enumerate(findings) if not math.isnan(each.p)]
  corrected = statistics.holm([findings[i].p for i in tested])
  found = list(findings)
  for i, q in zip(tested, corrected, strict=True):
    least = statistics.smallest_effect(found[i].seeds, tests=len(tested))
    spread = float(np.std(found[i].differences, ddof=1))
    size = math.inf if math.isinf(least) else least * spread
    found[i] = found[i]._replace(corrected=q, smallest=size)
  return found


def answer(questions: Sequence[Question], cells: Any) -> list[Answer]:
  """Answers the questions of a study from its cells."""
  found = family([question.find(cells) for question in questions])
  return [
    Answer(question, finding, sentence(question, finding, cells))
    for question, finding in zip(questions, found, strict=True)
  ]


def sentence(question: Question, finding: Finding, cells: Any) -> str:
  """The answer in one sentence."""
  numbers = question.numbers(cells)
  if finding.verdict == UNTESTED:
    seeds = f'{finding.seeds} seed{"" if finding.seeds == 1 else "s"}'
    return (
      f'No test is possible with {seeds}, at least {statistics.FEWEST} are '
      f'needed: {numbers}.'
    )
  told = f'{numbers}; {effect(question, finding)}, p {p_text(finding)}'
  if finding.verdict == UNCLEAR:
    return f'Not shown: {told}.'
  make = question.larger if finding.verdict == LARGER else question.smaller
  return f'{make(cells)}: {told}.'


def effect(question: Question, finding: Finding) -> str:
  """'difference 61.3 [60.0, 62.4] BLEU'."""
  number = lambda value: f'{value:.{question.digits}f}'
  text = f'difference {number(finding.effect)}'
  if not math.isnan(finding.low):
    text += f' [{number(finding.low)}, {number(finding.high)}]'
  return f'{text} {question.unit}'.strip()


def p_text(finding: Finding) -> str:
  """'= 0.039' or '< 0.001', corrected."""
  p = finding.corrected
  return '< 0.001' if p < 0.001 else f'= {p:.3f}'
