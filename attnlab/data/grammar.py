"""A synchronous grammar: one derivation writes English and Chinese at once.

A rule is a pair of templates. `{name}` stands for a part; in the Chinese
template a word may name the English words it comes from:

  没<not~do    没 is a sure translation of 'not', possibly of the part {do}
  {measure}~determiner+noun    a measure word: no sure link, two possible ones

A part that is None or '' leaves both sides, and takes along every Chinese word
that is linked to nothing but absent parts.
"""

from collections.abc import Sequence
import functools
import re
from typing import NamedTuple

from attnlab.data import lexicon


class Token(NamedTuple):
  """A Chinese word and the positions of the English words it renders."""

  word: str
  sure: tuple[int, ...] = ()
  possible: tuple[int, ...] = ()


class Phrase(NamedTuple):
  """A constituent in both languages; token links count from source[0]."""

  source: tuple[str, ...]
  target: tuple[Token, ...]
  number: str = ''  # of a noun phrase: 'singular', 'plural', or 'I'


_TOKEN = re.compile(r'(?:\{(\w+)\}|([^<~]+))(?:<([^~]*))?(?:~(.*))?')


@functools.cache
def _compile(template: str) -> tuple:
  """Returns (part, word, sure, possible) for each token of a template."""
  rows = []
  for token in template.split():
    match = _TOKEN.fullmatch(token)
    assert match, template
    part, word, sure, possible = match.groups()
    names = [tuple(x.split('+')) if x else () for x in (sure, possible)]
    rows.append((part, word, *names))
  return tuple(rows)


def rule(
  source: str, target: str, number: str = '', /, **parts: Phrase | str | None
) -> Phrase:
  """Fills a pair of templates.

  Args:
    source: English template.
    target: Chinese template, with links.
    number: grammatical number of the result.
    **parts: what the slots hold: a phrase, or a bare word without links of its
      own (a word of one language only).

  Returns:
    The phrase, whose links count from its own first English word.
  """
  words: list[str] = []
  spans: dict[str, range] = {}
  for part, word, _, _ in _compile(source):
    value = parts.get(part) if part else word
    if value:
      start = len(words)
      words += value.source if isinstance(value, Phrase) else value.split()
      spans[part or word] = range(start, len(words))
  tokens = []
  for part, word, sure, possible in _compile(target):
    value = word if part is None else parts.get(part)
    if not value:
      continue
    if isinstance(value, Phrase):
      shift = spans[part].start
      for text, s, p in value.target:
        shifted = (tuple(shift + i for i in links) for links in (s, p))
        tokens.append(Token(text, *shifted))
      continue
    links = [
      tuple(i for name in names for i in spans.get(name, ()))
      for names in (sure, possible)
    ]
    if any(links) or not (sure or possible):
      tokens.append(Token(value, *links))
  return Phrase(tuple(words), tuple(tokens), number)


_LIGHT = {'on', 'in', 'at', 'for', 'more', 'the'}


@functools.cache
def lexical(source: str, target: str, number: str = '') -> Phrase:
  """A dictionary entry: its content words are sure, its small ones possible."""
  words = tuple(source.split())
  light = tuple(i for i, w in enumerate(words[:-1]) if w in _LIGHT)
  if words[-1] in _LIGHT and len(words) > 1:  # look for
    light += (len(words) - 1,)
  sure = tuple(i for i in range(len(words)) if i not in light)
  return Phrase(
    words, tuple(Token(t, sure, light) for t in target.split()), number
  )


def silent(source: str) -> Phrase:
  """English words without a Chinese counterpart."""
  return Phrase(tuple(source.split()), ())


# Noun phrases.


def pronoun(row: Sequence[str], case: str) -> Phrase:
  """'I' and 'me', of a row of lexicon.PRONOUNS."""
  subject, object_, _, target = row
  number = 'singular' if subject in ('he', 'she') else 'plural'
  number = 'I' if subject == 'I' else number
  return lexical(subject if case == 'subject' else object_, target, number)


def possessive(owner: Phrase | Sequence[str]) -> Phrase:
  """`my` -> 我 的, `Tom 's` -> 汤姆 的."""
  if isinstance(owner, Phrase):
    return rule("{owner} 's", "{owner} 的<'s", owner=owner)
  return lexical(owner[2], f'{owner[3]} 的')


def _is_vocalic(word: str) -> bool:
  return word == 'honest' or (word[0] in 'aeiou' and word != 'useful')


def noun_phrase(
  noun: lexicon.Noun,
  *,
  determiner: lexicon.Entry | Phrase | None = None,
  number: str = 'singular',
  adjective: lexicon.Adjective | None = None,
  relative: Phrase | None = None,
) -> Phrase:
  """`this old book that Mary bought` -> 玛丽 买 的 这 本 旧 书.

  Args:
    noun: the head.
    determiner: a determiner (which sets the number), a possessive, or None for
      'the'.
    number: 'singular' or 'plural'.
    adjective: stands before the noun.
    relative: a relative clause; it moves to the front in Chinese.
  """
  measure = ''
  if isinstance(determiner, lexicon.Entry):
    number = determiner.tag.rstrip('+')
    measure = noun.measure if determiner.tag.endswith('+') else ''
    article = determiner.source
    first = adjective.positive if adjective else noun.singular
    if article == 'a' and _is_vocalic(first):
      article = 'an'
    determiner = lexical(article, determiner.target)
  described = None
  if adjective:
    described = lexical(adjective.positive, adjective.target)
  head = noun.singular if number == 'singular' else noun.plural
  return rule(
    '{determiner} {adjective} {noun} {relative}',
    '{relative} {determiner} {measure}~determiner+noun {adjective}'
    ' {linker}~adjective {noun}',
    number,
    determiner=determiner or silent('the'),
    measure=measure,
    adjective=described,
    linker=adjective.linker if adjective else '',
    noun=lexical(head, noun.target),
    relative=relative,
  )


def both(first: Phrase, second: Phrase) -> Phrase:
  """Tom and Mary -> 汤姆 和 玛丽."""
  return rule(
    '{first} and {second}',
    '{first} 和<and {second}',
    'plural',
    first=first,
    second=second,
  )


# Adverbials: Chinese has them before the verb.


def place(preposition: str, noun: lexicon.Entry) -> Phrase:
  """`in the park` -> 在 公园 里."""
  return rule(
    '{preposition} the {noun}',
    '在<preposition {noun} {side}<preposition',
    preposition=preposition,
    noun=lexical(noun.source, noun.target),
    side=lexicon.PREPOSITIONS[preposition],
  )


def country(noun: lexicon.Entry) -> Phrase:
  """`in China` -> 在 中国."""
  return rule(
    'in {noun}', '在<in {noun}', noun=lexical(noun.source, noun.target)
  )


def ago(numeral: lexicon.Entry, unit: lexicon.Entry) -> Phrase:
  """`two days ago` -> 两 天 前."""
  return rule(
    '{numeral} {unit} ago',
    '{numeral} {unit} 前<ago',
    numeral=lexical(numeral.source, numeral.target),
    unit=lexical(unit.source, unit.target),
  )


# Clauses. The predicate's templates are put into the clause's.

_PREDICATES = {
  'plain': ('{verb} {object}', '{verb} {le}~verb+aux {object}'),
  'transfer': (
    '{verb} {object} to {recipient}',
    '把~verb {object} {verb} 给<to {le}~verb+aux {recipient}',
  ),
  'placement': (
    '{verb} {object} {preposition} the {container}',
    (
      '把~verb {object} {verb} 在<preposition {le}~verb+aux'
      ' {container} {side}<preposition'
    ),
  ),
}
_CLAUSES = {
  'statement': (
    '{subject} {adverb} {aux} PREDICATE {place} {time}',
    '{subject} {time} {adverb} {aux} {place} PREDICATE',
  ),
  'question': (
    '{aux} {subject} PREDICATE {place} {time} ?',
    '{subject} {time} {aux} {place} PREDICATE 吗~aux+? ？<?',
  ),
  'who': (
    'who {aux} PREDICATE {place} {time} ?',
    '谁<who {time} {aux} {place} PREDICATE ？<?',
  ),
  'whom': (
    'who {aux} {subject} {verb} {place} {time} ?',
    '{subject} {time} {aux} {place} {verb} {le}~verb+aux 谁<who ？<?',
  ),
  'what': (
    'what {aux} {subject} {verb} {place} {time} ?',
    '{subject} {time} {aux} {place} {verb} {le}~verb+aux 什么<what ？<?',
  ),
  'where': (
    'where {aux} {subject} PREDICATE {time} ?',
    '{subject} {time} {aux} 在<where 哪里<where PREDICATE ？<?',
  ),
  'subject relative': ('{relative} PREDICATE', 'PREDICATE 的<relative'),
  'object relative': (
    '{relative} {subject} {verb}',
    '{subject} {verb} 的<relative',
  ),
}
_INVERTED = ('question', 'whom', 'what', 'where')


def clause(
  subject: Phrase | None,
  verb: lexicon.Verb,
  object_: Phrase | None = None,
  *,
  form: str = 'statement',
  tense: str = 'present',
  number: str = '',
  negative: bool = False,
  modal: lexicon.Entry | None = None,
  **parts: Phrase | str | None,
) -> Phrase:
  """Tom bought a book in London yesterday -> 汤姆 昨天 在 伦敦 买 了 一 本 书.

  Args:
    subject: None in a subject relative and in a who-question.
    verb: is inflected here.
    object_: None where there is none.
    form: a key of _CLAUSES.
    tense: 'present', 'past', or anything else with a modal.
    number: the subject's where there is no subject.
    negative: with not.
    modal: before the verb.
    **parts: adverb, place, time; recipient; preposition, container, side;
      relative (the pronoun).
  """
  past = tense == 'past'
  singular = (subject.number if subject else number) == 'singular'
  perfective = past and not verb.stative and not modal
  inverted = form in _INVERTED
  word = verb.base
  aux = lexical(modal.source, modal.target) if modal else None
  if aux and negative:
    aux = rule('{aux} not', '不<not {aux}', aux=aux)
  elif not aux and (negative or inverted):
    do = 'did' if past else 'does' if singular else 'do'
    aux = silent(do)
    if negative:
      no = '没' if perfective else '不'
      aux = rule('{do} not', '{no}<not~do', do=do, no=no)
  elif not aux:
    word = verb.past if past else verb.third if singular else verb.base
  le = perfective and not negative and 'relative' not in form
  predicate = (
    'transfer'
    if 'recipient' in parts
    else 'placement'
    if 'container' in parts
    else 'plain'
  )
  source, target = (
    c.replace('PREDICATE', p)
    for c, p in zip(_CLAUSES[form], _PREDICATES[predicate], strict=True)
  )
  return rule(
    source,
    target,
    '',
    subject=subject,
    verb=lexical(word, verb.target),
    object=object_,
    aux=aux,
    le='了' if le else '',
    **parts,
  )


def _be(number: str, tense: str) -> str:
  if tense == 'past':
    return 'were' if number == 'plural' else 'was'
  return {'plural': 'are', 'singular': 'is', 'I': 'am'}[number]


def passive(
  subject: Phrase,
  verb: lexicon.Verb,
  agent: Phrase,
  *,
  place: Phrase | None = None,
  time: Phrase | None = None,
) -> Phrase:
  """Jerry was chased by Tom -> 杰瑞 被 汤姆 追逐 了."""
  return rule(
    '{subject} {be} {verb} by {agent} {place} {time}',
    '{subject} {time} {place} 被<by~be {agent} {verb} 了~be+verb',
    subject=subject,
    be=_be(subject.number, 'past'),
    verb=lexical(verb.past, verb.target),
    agent=agent,
    place=place,
    time=time,
  )


def is_a(
  subject: Phrase, complement: Phrase, *, negative: bool = False
) -> Phrase:
  """Tom is a teacher -> 汤姆 是 一 位 老师."""
  return rule(
    '{subject} {be} {no} {complement}',
    '{subject} 不<no 是<be {complement}',
    subject=subject,
    be=_be(subject.number, 'present'),
    no='not' if negative else '',
    complement=complement,
  )


def is_so(
  subject: Phrase,
  adjective: lexicon.Adjective,
  *,
  degree: str = '',
  tense: str = 'present',
  time: Phrase | None = None,
) -> Phrase:
  """Tom was happy yesterday -> 汤姆 昨天 很 快乐.

  Args:
    subject: who.
    adjective: what.
    degree: '', 'very', 'quite' or 'not'.
    tense: 'present' or 'past'; Chinese does not tell.
    time: adverbial.
  """
  return rule(
    '{subject} {be} {degree} {adjective} {time}',
    '{subject} {time} {much}<degree~be {adjective}',
    subject=subject,
    be=_be(subject.number, tense),
    degree=degree,
    much={'': '很', 'very': '非常', 'quite': '相当', 'not': '不'}[degree],
    adjective=lexical(adjective.positive, adjective.target),
    time=time,
  )


def compare(
  subject: Phrase, adjective: lexicon.Adjective, other: Phrase
) -> Phrase:
  """Tom is taller than Mary -> 汤姆 比 玛丽 高."""
  return rule(
    '{subject} {be} {adjective} than {other}',
    '{subject} 比<than~be {other} {adjective}',
    subject=subject,
    be=_be(subject.number, 'present'),
    adjective=lexical(adjective.comparative, adjective.target),
    other=other,
  )


def there_is(thing: Phrase, preposition: str, noun: lexicon.Entry) -> Phrase:
  """`there are two dogs in the park` -> 公园 里 有 两 只 狗."""
  return rule(
    'there {be} {thing} {preposition} the {noun}',
    '{noun} {side}<preposition 有<be~there {thing}',
    be=_be(thing.number, 'present'),
    thing=thing,
    preposition=preposition,
    side=lexicon.PREPOSITIONS[preposition],
    noun=lexical(noun.source, noun.target),
  )


CONJUNCTIONS = {
  'and': ('{first} , and {second}', '{first} ，<, 而<and {second}'),
  'but': ('{first} , but {second}', '{first} ，<, 但是<but {second}'),
  'so': ('{first} , so {second}', '{first} ，<, 所以<so {second}'),
  'because': (
    '{first} because {second}',
    '因为<because {second} ，~because 所以~because {first}',
  ),
  'when': (
    'when {first} , {second}',
    '{first} 的<when 时候<when ，<, {second}',
  ),
  'if': ('if {first} , {second}', '如果<if {first} ，<, {second}'),
}


def join(conjunction: str, first: Phrase, second: Phrase) -> Phrase:
  """Two clauses under a key of CONJUNCTIONS; 'because' changes their order."""
  return rule(*CONJUNCTIONS[conjunction], first=first, second=second)


def sentence(phrase: Phrase) -> tuple[str, str, tuple[Token, ...]]:
  """Returns the English and the Chinese text, and the Chinese tokens."""
  english = ' '.join(phrase.source)
  chinese = ' '.join(token.word for token in phrase.target)
  return english[0].upper() + english[1:], chinese, phrase.target
