"""A generated English-Chinese corpus with exact word alignments.

  I love China          我 爱 中国
  Tom chased the dog that Mary likes in the park yesterday
      汤姆 昨天 在 公园 里 追逐 了 玛丽 喜欢 的 狗

Every sentence has exactly one translation, so a perfect model scores 100 BLEU.
`lexicon` holds the words, `grammar` the rules, and this file says which
sentences are written: a pure function of the seed.
"""

from collections.abc import Iterator
import functools

import numpy as np

from attnlab.data import grammar, lexicon

SHORT = range(3, 16)  # English words in a sentence of train, validation, test
LONG = range(18, 41)  # and of the long split
SIZES = {'train': 20_000, 'validation': 500, 'test': 1_000, 'long': 500}

_STATEMENTS = (
  ['act'] * 46
  + ['transfer'] * 8
  + ['placement'] * 7
  + ['passive'] * 7
  + ['is_a'] * 7
  + ['is_so'] * 10
  + ['compare'] * 7
  + ['there_is'] * 8
)
_DEMONSTRATIVES = [
  d for d in lexicon.DETERMINERS if d.source in ('this', 'that')
]
_INDEFINITE = [
  d
  for d in lexicon.DETERMINERS
  if d.source not in ('this', 'that', 'these', 'those')
]
_QUESTIONS = ['question'] * 4 + ['who', 'whom', 'what', 'where']


@functools.cache
def _nouns(kind: str) -> list[lexicon.Noun]:
  return [noun for noun in lexicon.NOUNS if noun.kind == kind]


@functools.cache
def _verbs(subject: str, object_: str) -> list[lexicon.Verb]:
  """Verbs that go with these classes; '' matches every class."""
  return [
    verb
    for verb in lexicon.VERBS
    if subject in verb.subjects and object_ in verb.objects
  ]


@functools.cache
def _adjectives(kind: str, comparative: bool) -> list[lexicon.Adjective]:
  return [
    adjective
    for adjective in lexicon.ADJECTIVES
    if kind in adjective.kinds and (adjective.comparative or not comparative)
  ]


@functools.cache
def _tagged(table: str, *tags: str) -> list[lexicon.Entry]:
  return [entry for entry in getattr(lexicon, table) if entry.tag in tags]


class _Writer:
  """Draws derivations of the grammar."""

  def __init__(self, seed: int, stream: int):
    sequence = np.random.SeedSequence([seed, stream])
    self._random = np.random.Generator(np.random.PCG64(sequence)).random

  def chance(self, probability: float) -> bool:
    return self._random() < probability

  def pick(self, choices):
    return choices[int(self._random() * len(choices))]

  def noun_phrase(
    self,
    kind: str,
    depth: int,
    determiners: tuple[str, ...] = ('singular+', 'plural+', 'plural'),
  ) -> grammar.Phrase:
    noun = self.pick(_nouns(kind))
    determiner, number, adjective, relative = None, 'singular', None, None
    draw = self._random()
    if draw < 0.4:
      tag = self.pick(determiners)
      determiner = self.pick(_tagged('DETERMINERS', tag))
      number = tag.rstrip('+')
    elif draw < 0.6:
      owner = self.pick(lexicon.PRONOUNS)
      if self.chance(0.4):
        name = self.pick(_tagged('NAMES', 'N'))
        owner = grammar.lexical(name.source, name.target)
      determiner = grammar.possessive(owner)
    elif draw < 0.7:
      number = 'plural'
    if self.chance(0.3):
      adjective = self.pick(_adjectives(kind, False))
    if depth and not 0.4 <= draw < 0.6 and self.chance(0.25):
      relative = self.relative(kind, number, depth - 1)
    return grammar.noun_phrase(
      noun,
      determiner=determiner,
      number=number,
      adjective=adjective,
      relative=relative,
    )

  def relative(self, kind: str, number: str, depth: int) -> grammar.Phrase:
    tense = self.pick(('present', 'past'))
    if kind in 'PA' and self.chance(0.6):
      verb = self.pick(_verbs(kind, ''))
      return grammar.clause(
        None,
        verb,
        self.entity(verb.objects, 'object', depth) if verb.objects else None,
        form='subject relative',
        tense=tense,
        number=number,
        relative='who' if kind == 'P' else 'that',
      )
    verb = self.pick(_verbs('', kind))
    return grammar.clause(
      self.entity(verb.subjects, 'subject', depth),
      verb,
      form='object relative',
      tense=tense,
      relative='whom' if kind == 'P' else 'that',
    )

  def entity(self, kinds: str, case: str, depth: int) -> grammar.Phrase:
    """A name, a pronoun or a noun phrase of one of the classes."""
    kind = self.pick(kinds)
    if kind not in 'NC':
      phrase = self.noun_phrase(kind, depth)
    elif kind == 'N' and self.chance(0.4):
      phrase = grammar.pronoun(self.pick(lexicon.PRONOUNS), case)
    else:
      name = self.pick(_tagged('NAMES', kind))
      phrase = grammar.lexical(name.source, name.target, 'singular')
    if kind in 'NPC' and self.chance(0.06):
      other = self.pick(_tagged('NAMES', 'C' if kind == 'C' else 'N'))
      other = grammar.lexical(other.source, other.target, 'singular')
      simple = not {'who', 'whom', 'that'} & set(phrase.source)
      if simple and other != phrase:  # what 'and' joins has to be plain
        return grammar.both(other, phrase)
    return phrase

  def pair(
    self, subjects: str, objects: str, depth: int
  ) -> tuple[grammar.Phrase, grammar.Phrase]:
    """A subject and an object that differ."""
    subject = self.entity(subjects, 'subject', depth)
    while True:
      object_ = self.entity(objects, 'object', depth)
      if object_.target != subject.target:
        return subject, object_

  def time(self, tense: str) -> grammar.Phrase:
    if tense == 'past' and self.chance(0.15):
      return grammar.ago(self.pick(lexicon.NUMERALS), self.pick(lexicon.UNITS))
    tag = 'any' if self.chance(0.4) else tense
    entry = self.pick(_tagged('TIMES', tag))
    return grammar.lexical(entry.source, entry.target)

  def place(self) -> grammar.Phrase:
    if self.chance(0.2):
      return grammar.country(self.pick(_tagged('NAMES', 'C')))
    return grammar.place(*self.spot())

  def spot(self) -> tuple[str, lexicon.Entry]:
    noun = self.pick(lexicon.PLACES)
    if self.chance(0.6):
      return noun.tag, noun
    if noun.tag == 'on':
      return 'near', noun
    sides = ('behind', 'near', 'outside', 'next to', 'in front of')
    return self.pick(sides), noun

  def tense(self, verb: lexicon.Verb) -> str:
    # 'I read the book' has two translations: its past is never used.
    tenses = ('present', 'past') if verb.past != verb.base else ('present',)
    return self.pick(tenses)

  def act(self, depth: int, form: str = 'statement') -> grammar.Phrase:
    if form in ('whom', 'what'):  # who asks for persons, what for things
      verb = self.pick(_verbs('', 'N' if form == 'whom' else 'T'))
    else:
      intransitive = self.chance(0.15)
      verb = self.pick(
        [
          verb
          for verb in lexicon.VERBS
          if intransitive != bool(verb.objects)
          and not (verb.stative and form == 'where')
        ]
      )
    if not verb.objects:
      subject = self.entity(verb.subjects, 'subject', depth)
      return self.finish(subject, verb, None, form=form)
    subject, object_ = self.pair(verb.subjects, verb.objects, depth)
    return self.finish(subject, verb, object_, form=form)

  def finish(
    self, subject, verb, object_, *, form='statement', **parts
  ) -> grammar.Phrase:
    """Chooses tense, modal, negation and adverbials."""
    tense, when, modal = self.tense(verb), None, None
    negative = form == 'statement' and self.chance(0.12)
    if self.chance(0.18):
      modal = self.pick(lexicon.MODALS)
      tense = modal.tag
    plain = form == 'statement' and not modal and not negative
    if plain and tense == 'present' and self.chance(0.2):
      adverb = self.pick(lexicon.ADVERBS)
      parts['adverb'] = grammar.lexical(adverb.source, adverb.target)
    if not verb.stative:
      if 'adverb' not in parts and self.chance(0.4):
        when = self.time(tense)
      if form != 'where' and 'C' not in verb.objects and self.chance(0.3):
        parts['place'] = self.place()
    if form in ('who', 'whom', 'what'):
      object_ = object_ if form == 'who' else None
      subject = None if form == 'who' else subject
    return grammar.clause(
      subject,
      verb,
      object_,
      form=form,
      tense=tense,
      number='singular',
      negative=negative,
      modal=modal,
      time=when,
      **parts,
    )

  def transfer(self, depth: int) -> grammar.Phrase:
    verb = self.pick(lexicon.TRANSFERS)
    subject, recipient = self.pair('PN', 'PN', depth)
    thing = self.noun_phrase(self.pick(verb.objects), depth, ('singular+',))
    return self.finish(subject, verb, thing, recipient=recipient)

  def placement(self, depth: int) -> grammar.Phrase:
    verb = self.pick(lexicon.PLACEMENTS)
    thing = self.noun_phrase(self.pick(verb.objects), depth, ('singular+',))
    subject = self.entity('PN', 'subject', depth)
    noun = self.pick(lexicon.CONTAINERS)
    preposition = self.pick((noun.tag, noun.tag, 'under', 'next to'))
    return self.finish(
      subject,
      verb,
      thing,
      preposition=preposition,
      container=grammar.lexical(noun.source, noun.target),
      side=lexicon.PREPOSITIONS[preposition],
    )

  def passive(self, depth: int) -> grammar.Phrase:
    verb = self.pick([v for v in _verbs('', 'P') if not v.stative])
    return grammar.passive(
      self.entity('PNA', 'subject', depth),
      verb,
      self.entity(verb.subjects, 'object', depth),
      place=self.place() if self.chance(0.3) else None,
      time=self.time('past') if self.chance(0.4) else None,
    )

  def is_a(self, depth: int) -> grammar.Phrase:
    name = self.pick(_tagged('NAMES', 'N'))
    subject = grammar.lexical(name.source, name.target, 'singular')
    if self.chance(0.5):
      this = self.pick(_DEMONSTRATIVES)
      subject = grammar.noun_phrase(self.pick(_nouns('P')), determiner=this)
    adjective, relative = None, None
    if self.chance(0.4):
      adjective = self.pick(_adjectives('P', False))
    if depth and self.chance(0.3):
      relative = self.relative('P', 'singular', depth - 1)
    complement = grammar.noun_phrase(
      self.pick(_nouns('P')),
      determiner=lexicon.DETERMINERS[0],
      adjective=adjective,
      relative=relative,
    )
    return grammar.is_a(subject, complement, negative=self.chance(0.2))

  def is_so(self, depth: int) -> grammar.Phrase:
    kind = self.pick('PNPNATXFVGH')
    subject = self.entity(kind, 'subject', depth)
    tense = self.pick(('present', 'past'))
    return grammar.is_so(
      subject,
      self.pick(_adjectives('P' if kind == 'N' else kind, True)),
      degree=self.pick(('', 'very', 'quite', 'not')),
      tense=tense,
      time=self.time(tense) if self.chance(0.3) else None,
    )

  def compare(self, depth: int) -> grammar.Phrase:
    kind = self.pick('PNPNATXFVGH')
    subject, other = self.pair(kind, kind, depth)
    adjective = self.pick(_adjectives('P' if kind == 'N' else kind, True))
    return grammar.compare(subject, adjective, other)

  def there_is(self, depth: int) -> grammar.Phrase:
    noun = self.pick(_nouns(self.pick('PATXFV')))
    determiner = self.pick(_INDEFINITE)
    adjective = None
    if self.chance(0.3):
      adjective = self.pick(_adjectives(noun.kind, False))
    relative = None
    if depth and self.chance(0.15):
      number = determiner.tag.rstrip('+')
      relative = self.relative(noun.kind, number, depth - 1)
    thing = grammar.noun_phrase(
      noun, determiner=determiner, adjective=adjective, relative=relative
    )
    return grammar.there_is(thing, *self.spot())

  def statement(self, depth: int) -> grammar.Phrase:
    return getattr(self, self.pick(_STATEMENTS))(depth)

  def period(self, depth: int, linked: float) -> grammar.Phrase:
    """A statement, or two that because, when or if holds together."""
    first = self.statement(depth)
    if not self.chance(linked):
      return first
    conjunction = self.pick(('because', 'when', 'if'))
    return grammar.join(conjunction, first, self.statement(depth))

  def short(self) -> grammar.Phrase:
    while True:
      draw = self._random()
      if draw < 0.15:
        phrase = self.act(1, self.pick(_QUESTIONS))
      elif draw < 0.3:
        phrase = grammar.join(
          self.pick(tuple(grammar.CONJUNCTIONS)),
          self.statement(0),
          self.statement(0),
        )
      else:
        phrase = self.statement(1)
      if len(phrase.source) in SHORT:
        return phrase

  def long(self) -> grammar.Phrase:
    while True:
      wanted = self.pick(range(LONG.start, LONG.stop - 8))
      phrase = self.period(2, 0.3)
      while len(phrase.source) < wanted:
        conjunction = self.pick(('and', 'but', 'so'))
        phrase = grammar.join(conjunction, phrase, self.period(2, 0.3))
      if len(phrase.source) in LONG:
        return phrase


def example(phrase: grammar.Phrase) -> dict[str, str | np.ndarray]:
  """Returns a derivation as an example.

  Returns:
    source, target: text, words separated by blanks.
    sure, possible: int32 [n, 2] and [m, 2], pairs (source word, target word);
      no pair is in both.
  """
  source, target, tokens = grammar.sentence(phrase)
  links = {'sure': [], 'possible': []}
  for j, token in enumerate(tokens):
    links['sure'] += [(i, j) for i in token.sure]
    links['possible'] += [(i, j) for i in token.possible if i not in token.sure]
  arrays = {k: np.array(v, np.int32).reshape(-1, 2) for k, v in links.items()}
  return {'source': source, 'target': target, **arrays}


def generate(
  seed: int = 0, sizes: dict[str, int] | None = None
) -> dict[str, list[dict]]:
  """Returns the splits train, validation, test and long.

  No sentence is twice in a split or in two splits. The evaluation splits do
  not depend on the size of the training split, and a smaller training split is
  the beginning of a larger one.

  Args:
    seed: of the whole corpus.
    sizes: number of examples per split, where other than SIZES.
  """
  sizes = SIZES | (sizes or {})
  seen: set[str] = set()
  splits = {}
  for stream, split in enumerate(('test', 'validation', 'long', 'train')):
    splits[split] = list(_distinct(seed, stream, split, sizes[split], seen))
  return {split: splits[split] for split in SIZES}


def _distinct(
  seed: int, stream: int, split: str, size: int, seen: set[str]
) -> Iterator[dict]:
  writer = _Writer(seed, stream)
  write = writer.long if split == 'long' else writer.short
  while size:
    phrase = write()
    key = ' '.join(phrase.source)
    if key not in seen:
      seen.add(key)
      size -= 1
      yield example(phrase)
