"""Generated documents of a few topics, with gold sentences and words.

  the old train was late on monday .
  nobody said a word about the orchestra .
  my uncle saw how the goalkeeper dropped the ball near the station .   sport
                       ^^^^^^^^^^         ^^^^

The rule: one or two sentences carry the topic, by two or more of its words.
The other sentences are about nothing in particular, or say that there was no
talk of something: that may be a word of another topic, and does not count. All
sentences come in random order. On the words of 4,000 documents Naive Bayes gets
94 % of the test split right, logistic regression 90 %. The documents are a pure
function of the seed.
"""

import numpy as np

from attnlab.data import draw as draw_lib
from attnlab.data.draw import Draw

# Things, which stand after 'the', and verbs that go with them.
TOPICS = {
  'cooking': (
    'soup recipe oven spoon onion sauce pepper flour butter kitchen cheese'
    ' dough salad garlic pan noodle dessert cook'.split(),
    'boiled fried baked stirred tasted peeled'.split(),
  ),
  'medicine': (
    'doctor nurse patient fever vaccine surgeon clinic pill bandage virus'
    ' disease therapy hospital infection bone lung dentist wound'.split(),
    'cured healed treated vaccinated diagnosed infected'.split(),
  ),
  'money': (
    'bank loan price tax budget salary investor credit profit currency debt'
    ' invoice shareholder dollar account trader insurance coin'.split(),
    'paid invested borrowed earned taxed financed'.split(),
  ),
  'music': (
    'guitar piano orchestra singer melody drum violin concert choir trumpet'
    ' album rhythm flute composer chord opera conductor cello'.split(),
    'sang tuned composed rehearsed hummed conducted'.split(),
  ),
  'space': (
    'planet rocket telescope astronaut moon comet orbit galaxy satellite'
    ' asteroid meteor star spacecraft crater eclipse shuttle nebula'
    ' capsule'.split(),
    'orbited launched docked observed landed circled'.split(),
  ),
  'sport': (
    'goalkeeper ball referee stadium coach team striker trophy racket tennis'
    ' goal marathon athlete tournament swimmer league jersey hockey'.split(),
    'scored kicked dribbled trained tackled raced'.split(),
  ),
}
LABELS = tuple(TOPICS)
SIZES = {'train': 4_000, 'validation': 500, 'test': 1_000}
SENTENCES = range(4, 13)  # in a document
WORDS = range(5, 16)  # in a sentence, the full stop included

_PEOPLE = (
  'my uncle/our neighbour/her sister/the old man/his cousin/anna/peter/maria'
  '/a stranger/the young woman/my friend/our guest'.split('/')
)
_PLACES = (
  'station/bridge/garden/river/market/library/corner/window/door/tower/park'
  '/street'.split('/')
)
_THINGS = (
  'train letter bicycle umbrella chair question plan answer matter result'
  ' newspaper house road idea visit journey box clock'.split()
)
_SOME = (
  'old new small large quiet strange simple important common usual long'
  ' short'.split()
)
_DID = (
  'waited/walked/talked/slept/stood still/sat down/looked around/stayed'
  ' at home/came back/went away'.split('/')
)
_TOOK = 'found lost carried forgot remembered showed took kept'.split()
_TIMES = (
  'on monday/on friday/in the morning/last night/in spring/at noon/for a'
  ' while/every day/two days ago/in the end/once more/without a reason'
).split('/')


class _Writer:
  """Writes sentences; a star before a word says that it decides."""

  def __init__(self, draw: Draw):
    self.draw = draw
    self.pick = draw.pick

  def tail(self) -> str:
    """Nothing, a place, a time, or both."""
    place = f' near the {self.pick(_PLACES)}' if self.draw.chance(0.4) else ''
    time = f' {self.pick(_TIMES)}' if self.draw.chance(0.5) else ''
    return place + time

  def carrying(self, topic: int) -> str:
    """A sentence that carries the topic."""
    things, verbs = TOPICS[LABELS[topic]]
    one, two, *_ = (f'the *{t}' for t in self.draw.shuffled(things))
    verb = f'*{self.pick(verbs)}'
    who = self.pick(_PEOPLE)
    return self.pick(
      (
        f'{who} {verb} {one}',
        f'{who} {verb} and talked about {one}',
        f'{one} and {two} were all that {who} {self.pick(_TOOK)}',
        f'{who} {self.pick(_TOOK)} {one} for {two}',
        f'{one} was more {self.pick(_SOME)} than {two}',
        f'{who} came with {one} and then {verb}',
        f'{who} asked about {two} and {verb} {one}',
      )
    )

  def denying(self, topic: int) -> str:
    """A sentence that names words of a topic, and does not count."""
    one, two, *_ = self.draw.shuffled(TOPICS[LABELS[topic]][0])
    who = self.pick(_PEOPLE)
    return self.pick(
      (
        f'nobody said a word about the {one}',
        f'nobody said a word about the {one} or the {two}',
        f'{who} did not think of the {one} at all',
        f'there was no talk of the {one}',
        f'there was no talk of the {one} or the {two}',
        f'{who} never mentioned the {one} or the {two}',
        f'{who} had nothing to do with the {one}',
      )
    )

  def neutral(self) -> str:
    pick = self.pick
    return pick(
      (
        f'{pick(_PEOPLE)} {pick(_DID)}',
        f'{pick(_PEOPLE)} {pick(_DID)} and {pick(_DID)}',
        f'{pick(_PEOPLE)} {pick(_TOOK)} the {pick(_SOME)} {pick(_THINGS)}',
        f'the {pick(_THINGS)} was {pick(_SOME)} and {pick(_SOME)}',
        f'the {pick(_SOME)} {pick(_THINGS)} was not {pick(_SOME)}',
        f'there was no {pick(_THINGS)} in the {pick(_PLACES)}',
        f'{pick(_PEOPLE)} never {pick(_TOOK)} the {pick(_THINGS)}',
        f'{pick(_PEOPLE)} asked {pick(_PEOPLE)} about the {pick(_THINGS)}',
      )
    )

  def sentence(self, write, *topic: int) -> str:
    while True:
      text = write(*topic) + self.tail() + ' .'
      if len(text.split()) in WORDS:
        return text


def _write(draw: Draw, label: int) -> dict:
  writer = _Writer(draw)
  others = [topic for topic in range(len(LABELS)) if topic != label]
  sentences = [
    writer.sentence(writer.carrying, label) for _ in range(draw.pick((1, 2)))
  ]
  for _ in range(draw.pick((0, 1, 2, 2))):
    sentences.append(writer.sentence(writer.denying, draw.pick(others)))
  for _ in range(draw.pick(SENTENCES) - len(sentences)):
    sentences.append(writer.sentence(writer.neutral))
  sentences = draw.shuffled(sentences)
  gold = [
    (i, j)
    for i, sentence in enumerate(sentences)
    for j, word in enumerate(sentence.split())
    if word[0] == '*'
  ]
  return {
    'text': '\n'.join(sentences).replace('*', ''),
    'label': label,
    'gold_sentences': np.array(sorted({i for i, _ in gold}), np.int32),
    'gold': np.array(gold, np.int32),
  }


def generate(
  seed: int = 0, sizes: dict[str, int] | None = None
) -> dict[str, list[dict]]:
  """Returns the splits train, validation and test; no document is there twice.

  Args:
    seed: of the whole corpus.
    sizes: number of examples per split, where other than SIZES.

  Returns:
    Examples: 'text', sentences separated by line feeds, words by blanks;
    'label', of LABELS; 'gold_sentences', int32 [n], which carry the topic;
    'gold', int32 [m, 2], the words (sentence, word) by which they do.
  """
  return draw_lib.splits(
    _write, classes=len(LABELS), seed=seed, sizes=SIZES | (sizes or {})
  )
