"""Generated film reviews of one sentence, with the words that decide.

  i feared it would be silly , but the acting was not bad at all .   positive
                                                  ^^^ ^^^
  my sister loved the acting ; i did not think the plot was clever .  negative
                                     ^^^                    ^^^^^^

The rule: what the writer thinks of the film or of a part of it decides. A
negator turns it round, an intensifier changes nothing. What does not count,
though it uses the same words: the opinion of somebody else, an opinion about
another thing (the popcorn, the traffic), and what was expected before. Each of
these reaches to the next comma or semicolon. Where two opinions count, they
agree. Naive Bayes on the words of 10,000 sentences gets 67 % of the test split
right, logistic regression on 1- to 3-grams 81 %. The sentences are a pure
function of the seed.
"""

from collections.abc import Sequence

import numpy as np

from attnlab.data import draw as draw_lib
from attnlab.data.draw import Draw

LABELS = ('negative', 'positive')
SIZES = {'train': 10_000, 'validation': 500, 'test': 1_000}
WORDS = range(6, 26)  # in a sentence, marks included

# Words of each label, in this order.
_ADJECTIVES = (
  'bad awful boring dull terrible weak poor silly tedious ugly clumsy lazy flat'
  ' horrible dreadful annoying disappointing mediocre shallow stupid pointless'
  ' confusing unpleasant lifeless cold'.split(),
  'good great wonderful brilliant charming funny lovely clever beautiful fine'
  ' excellent superb delightful touching fresh strong gripping impressive'
  ' splendid memorable elegant warm witty exciting amazing'.split(),
)
_NOUNS = (
  'disaster mess failure disgrace bore letdown'.split(),
  'masterpiece triumph delight pleasure gem success'.split(),
)
_VERBS = (  # base and past
  'hate:hated dislike:disliked regret:regretted detest:detested'.split(),
  'love:loved like:liked enjoy:enjoyed admire:admired'.split(),
)

_FILMS = 'film movie picture'.split()
_PARTS = (
  'plot story acting music ending script dialogue beginning camera'
  ' direction'.split()
)
_OTHERS = (
  'popcorn seat weather coffee traffic pizza sofa parking hotel queue beer'
  ' train'.split()
)
_PEOPLE = (
  'my brother/my sister/a friend/our neighbour/his wife/tom/mary/my boss'
  '/her uncle/the teacher/our guests'.split('/')
)
_JUDGES = [*_PEOPLE, 'the critics', 'the newspaper']
_INTENSIFIERS = 'absolutely simply really truly very quite so rather'.split()
_DAYS = 'monday tuesday wednesday thursday friday saturday sunday'.split()
_CITIES = 'paris london rome vienna tokyo berlin lisbon cairo'.split()
_NUMBERS = 'two three four five six seven'.split()
# How often an opinion is negated, and how many clauses that do not count.
_NEGATED = 0.25
_OTHER_CLAUSES = (0, 0, 1, 1, 2)
_NEUTRAL_CLAUSES = (0, 0, 1, 1, 2)
_LINKS = (' , and ', ' , but ', ' , while ', ' ; ')


class _Writer:
  """Writes clauses; a star before a word says that it decides."""

  def __init__(self, draw: Draw):
    self.draw = draw
    self.pick = draw.pick
    self.chance = draw.chance

  def intensifier(self, choices: Sequence[str] = _INTENSIFIERS) -> str:
    return self.pick(choices) + ' ' if self.chance(0.35) else ''

  def film(self) -> str:
    draw = self.draw.random()
    if draw < 0.2:
      return 'it'
    article = self.pick(('the', 'this'))
    return f'{article} {self.pick(_FILMS if draw < 0.55 else _PARTS)}'

  def verdict(self, polarity: int) -> str:
    """What stands after 'the film was' and means the polarity."""
    negated = self.chance(_NEGATED)
    word = self.pick(_ADJECTIVES[polarity ^ negated])
    if self.chance(0.2):
      noun = f'a *{self.pick(_NOUNS[polarity ^ negated])}'
      return f'*not {noun}' if negated else noun
    if not negated:
      return f'{self.intensifier()}*{word}'
    return self.pick(
      (
        f'*not {self.intensifier(_INTENSIFIERS[2:7])}*{word}',
        f'*not {self.intensifier(_INTENSIFIERS[2:7])}*{word}',
        f'*not *{word} at all',
        f'*not at all *{word}',
        f'*hardly *{word}',
        f'*far *from *{word}',
        f'*anything *but *{word}',
      )
    )

  def felt(self, who: str, thing: str, polarity: int) -> str:
    """Somebody's opinion about a thing, as a clause."""
    kind = self.draw.random()
    negated = self.chance(_NEGATED)
    # 'did' is no sign of a negation: 'i did like it'.
    did = 'did *not' if negated else 'did' if self.chance(0.35) else ''
    word = '*' + self.pick(_ADJECTIVES[polarity ^ negated])
    if kind < 0.4:
      base, past = self.pick(_VERBS[polarity ^ negated]).split(':')
      if negated and self.chance(0.5):
        return f'{who} *never *{past} {thing}'
      if did:
        return f'{who} {did} *{base} {thing}'
      return f'{who} {self.intensifier(_INTENSIFIERS[:4])}*{past} {thing}'
    if kind < 0.7:
      verb = f'{did} find' if did else 'found'
      return f'{who} {verb} {thing} {self.intensifier()}{word}'
    if did:
      return f'{who} {did} think {thing} was {self.intensifier()}{word}'
    return f'{who} thought {thing} was {self.verdict(polarity)}'

  def own(self, polarity: int) -> str:
    """An opinion that counts."""
    if self.chance(0.4):
      return self.felt('i', self.film(), polarity)
    clause = f'{self.film()} was {self.verdict(polarity)}'
    return clause + ' if you ask me' if self.chance(0.1) else clause

  def other(self, polarity: int) -> str:
    """An opinion that does not count."""
    kind = self.draw.random()
    if kind < 0.25:
      clause = self.felt(self.pick(_JUDGES), self.film(), polarity)
    elif kind < 0.4:
      tail = self.pick(('if you ask', 'in the eyes of', 'according to'))
      verdict = f'{self.film()} was {self.verdict(polarity)}'
      clause = f'{verdict} {tail} {self.pick(_JUDGES)}'
    elif kind < 0.65:
      clause = f'the {self.pick(_OTHERS)} was {self.verdict(polarity)}'
    elif kind < 0.8:
      clause = self.felt('i', f'the {self.pick(_OTHERS)}', polarity)
    else:
      verb = self.pick(('had expected', 'feared', 'had hoped', 'was told'))
      clause = f'i {verb} {self.film()} would be {self.verdict(polarity)}'
    return clause.replace('*', '')

  def neutral(self) -> str:
    """A clause without an opinion."""
    pick = self.pick
    return pick(
      (
        f'we saw it on {pick(_DAYS)}',
        f'it runs for {pick(_NUMBERS)} hours',
        f'the story takes place in {pick(_CITIES)}',
        f'{pick(_PEOPLE)} came with us',
        f'we sat in row {pick(_NUMBERS)}',
        f'i went there on {pick(_DAYS)}',
        f'it was made in {pick(_CITIES)}',
        f'{pick(_PEOPLE)} bought {pick(_NUMBERS)} tickets',
        f'we drank a {pick(("coffee", "beer"))} after the {pick(_FILMS)}',
        f'we spoke about {pick(_CITIES)} and the {pick(_OTHERS)}',
      )
    )

  def sentence(self, label: int) -> list[str]:
    while True:
      clauses = [self.own(label) for _ in range(1 + self.chance(0.25))]
      for _ in range(self.pick(_OTHER_CLAUSES)):
        clauses.append(self.other(self.chance(0.5)))
      for _ in range(self.pick(_NEUTRAL_CLAUSES)):
        clauses.append(self.neutral())
      clauses = self.draw.shuffled(clauses)
      text = clauses[0]
      for clause in clauses[1:]:
        text += self.pick(_LINKS) + clause
      words = [*text.split(), self.pick(('.', '.', '.', '!'))]
      if len(words) in WORDS:
        return words


def _write(draw: Draw, label: int) -> dict:
  words = _Writer(draw).sentence(label)
  gold = [i for i, word in enumerate(words) if word[0] == '*']
  return {
    'text': ' '.join(words).replace('*', ''),
    'label': label,
    'gold': np.array(gold, np.int32),
  }


def generate(
  seed: int = 0, sizes: dict[str, int] | None = None
) -> dict[str, list[dict]]:
  """Returns the splits train, validation and test; no sentence is there twice.

  Args:
    seed: of the whole corpus.
    sizes: number of examples per split, where other than SIZES.

  Returns:
    Examples: 'text', words separated by blanks; 'label', of LABELS; 'gold',
    int32 [n], the sentiment words that count and their negators.
  """
  return draw_lib.splits(
    _write, classes=len(LABELS), seed=seed, sizes=SIZES | (sizes or {})
  )
