"""Does attention help? What the runs of the study answer."""

from collections.abc import Mapping

import numpy as np

from attnlab.studies import questions

SHARES = (10, 30)  # per cent of the training set
RIVALS = ('mean', 'max', 'last')
TRAINED = 15  # words of the longest source that was trained on
_KEEPS = 5.0  # BLEU: a fall below it is none


def name_of(task: str, label: str, share: int = 100) -> str:
  """The name of a cell: 'translation_no_attention_10'."""
  words = [task, label.replace(' ', '_').replace('-', '_')]
  return '_'.join(words if share == 100 else [*words, str(share)])


class Cells:
  """The entries of a study, by cell."""

  def __init__(self, entries: Mapping[str, Mapping]):
    self.entries = {k: v for k, v in entries.items() if k != 'about'}
    self.about = entries['about']

  def values(
    self, task: str, label: str, key: str, share: int = 100, scale: float = 1
  ) -> dict[int, float]:
    """A figure by seed; {} where there is none."""
    entry = self.entries.get(name_of(task, label, share))
    found = questions.values(entry, key) if entry else {}
    return {seed: value * scale for seed, value in found.items()}

  def mean(self, *args, **kwargs) -> float:
    found = self.values(*args, **kwargs)
    return float(np.mean(list(found.values()))) if found else float('nan')

  def bins(self) -> list[str]:
    """Bins of source length, the shortest first."""
    entry = self.entries.get('translation_additive', {})
    return list(entry.get('lengths', {}))

  def trained(self) -> list[str]:
    """Those of lengths that were trained on."""
    return [b for b in self.bins() if int(b.split('–')[1]) <= TRAINED]

  def ends(self) -> list[str]:
    """The shortest and the longest of them."""
    bins = self.trained()
    return [bins[0], bins[-1]] if bins else []

  def fall(self, label: str) -> dict[int, float]:
    """BLEU of the shortest minus that of the longest trained lengths."""
    if not self.ends():
      return {}
    first, last = (
      self.values('translation', label, f'bleu/{b}') for b in self.ends()
    )
    return questions.difference(first, last)

  def gap(self, label: str, share: int = 100) -> dict[int, float]:
    """Accuracy on trained texts minus that of the test split, in points."""
    return questions.difference(
      self.values('sentiment', label, 'fitted/accuracy', share, 100),
      self.values('sentiment', label, 'test/accuracy', share, 100),
    )


def _mean(values: Mapping[int, float]) -> float:
  return float(np.mean(list(values.values()))) if values else float('nan')


def _losing(cells: Cells) -> str:
  one, other = _mean(cells.fall('no attention')), _mean(cells.fall('additive'))
  if one < _KEEPS:
    return 'Neither loses long sentences, one fixed vector falls a little more'
  if other < _KEEPS:
    return (
      'Yes: of the lengths that were trained, one fixed vector loses the long '
      'ones and attention does not'
    )
  return 'In part: both lose long sentences, one fixed vector more of them'


def _pools(cells: Cells) -> questions.Finding:
  own = cells.values('sentiment', 'additive', 'test/accuracy', scale=100)
  rivals = [
    cells.values('sentiment', rival, 'test/accuracy', scale=100)
    for rival in RIVALS
    if name_of('sentiment', rival) in cells.about['order']
  ]
  return questions.weakest(
    [questions.test(questions.difference(own, rival)) for rival in rivals]
  )


def slower(cells: Cells, task: str, label: str, base: str) -> dict[int, float]:
  """How much more time a step takes than that of `base`, in per cent."""
  key = 'train/steps_per_second'
  fast, slow = cells.values(task, base, key), cells.values(task, label, key)
  return {s: 100 * (fast[s] / slow[s] - 1) for s in fast if s in slow}


def _more(cells: Cells) -> str:
  found = _mean(slower(cells, 'translation', 'additive', 'no attention'))
  return f'{abs(found):.1f} % {"less" if found < 0 else "more"}'


def asked(docstring: str) -> list[questions.Question]:
  """The five questions.

  Args:
    docstring: of the study, which fixes hypotheses and measures.
  """
  t = questions.test
  parts = (
    dict(
      unit='BLEU',
      digits=1,
      find=lambda c: t(
        questions.difference(c.fall('no attention'), c.fall('additive'))
      ),
      larger=_losing,
      smaller=lambda c: 'No, the other way round: attention loses more',
      numbers=lambda c: (
        f'from {" to ".join(c.ends())} source words BLEU falls by '
        f'{_mean(c.fall("no attention")):.1f} without attention and by '
        f'{_mean(c.fall("additive")):.1f} with it; on sentences longer than '
        'any in training it is '
        f'{c.mean("translation", "no attention", "long/bleu"):.1f} and '
        f'{c.mean("translation", "additive", "long/bleu"):.1f}'
      ),
    ),
    dict(
      unit='AER',
      digits=3,
      find=lambda c: t(
        {
          seed: c.about['aer_diagonal'] - aer
          for seed, aer in c.values(
            'translation', 'additive', 'test/aer'
          ).items()
        }
      ),
      larger=lambda c: 'Yes, more often than the diagonal does',
      smaller=lambda c: 'No: the diagonal points better',
      numbers=lambda c: (
        f'AER is {c.mean("translation", "additive", "test/aer"):.3f} and that '
        f'of the diagonal {c.about["aer_diagonal"]:.3f}; of the links, '
        + format(
          c.mean('translation', 'additive', 'test/alignment_precision'), '.0%'
        )
        + ' are right'
      ),
    ),
    dict(
      unit='points',
      digits=2,
      find=_pools,
      larger=lambda c: 'Yes: attention is better than each of them',
      smaller=lambda c: 'No: attention is worse than each of them',
      numbers=lambda c: (
        'accuracy is '
        + ', '.join(
          f'{c.mean("sentiment", k, "test/accuracy", scale=100):.1f} with {k}'
          for k in ('additive', *RIVALS)
          if c.values('sentiment', k, 'test/accuracy')
        )
      ),
    ),
    dict(
      unit='points',
      digits=2,
      find=lambda c: t(
        questions.difference(
          c.gap('additive', SHARES[0]), c.gap('mean', SHARES[0])
        )
      ),
      larger=lambda c: 'Yes: attention over-fits more than the mean does',
      smaller=lambda c: 'No: attention over-fits less than the mean does',
      numbers=lambda c: (
        f'with {SHARES[0]} % of the texts, accuracy on those is above that of '
        f'the test split by {_mean(c.gap("additive", SHARES[0])):.1f} points '
        f'with attention and by {_mean(c.gap("mean", SHARES[0])):.1f} with '
        f'the mean, with all texts by {_mean(c.gap("additive")):.1f} and '
        f'{_mean(c.gap("mean")):.1f}'
      ),
    ),
    dict(
      unit='%',
      digits=1,
      find=lambda c: t(slower(c, 'translation', 'additive', 'no attention')),
      larger=lambda c: 'Time: a training step with attention takes longer',
      smaller=lambda c: 'No time: a training step with attention is shorter',
      numbers=lambda c: (
        f'a step of the translator takes {_more(c)} time with attention, and '
        f'{c.mean("translation", "additive", "parameters"):,.0f} parameters '
        'stand against '
        f'{c.mean("translation", "no attention", "parameters"):,.0f}'
      ),
    ),
  )
  fixed = questions.fixed(docstring)
  return [
    questions.Question(title, text, **each)
    for (title, text), each in zip(fixed, parts, strict=True)
  ]
