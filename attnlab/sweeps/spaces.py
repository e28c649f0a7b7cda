"""The language of --sweep: a space of settings in one line, or in a file.

  attention.score.name=dot,additive; optimizer.learning_rate=log(1e-4,1e-2)

  a=1,2,x          these values; quote one that holds , ; or .. : 'a,b'
  a=0..5           whole numbers, both ends included; also among others: 0..3,9
  a=log(1e-4,1e-2)     a number from a range, evenly on a logarithmic scale
  a=uniform(0,0.5)     a number from a range, evenly
  a=log(1e-4,1e-2,5)   five values of it, both ends included; uniform likewise
  a=int(1,512)         a whole number from a range
  zip(a=1,2; b=3,4)    a and b change together: 1 with 3, 2 with 4

Items stand between semicolons or on lines of their own, # starts a comment in
a file. All items together are a product.
"""

from collections.abc import Iterator, Mapping, Sequence
import difflib
import itertools
import math
import pathlib
import re
from typing import Any, NamedTuple

from attnlab import configs, errors

MOST = 100_000  # values of one setting
_CHECKED = 2_000  # combinations that are checked; beyond, each value by itself
_QUOTES = '\'"'
_CALL = re.compile(r'([A-Za-z_]\w*)\s*\((.*)\)', re.DOTALL)
_FUNCTIONS = ('log', 'uniform', 'int')


class Choice(NamedTuple):
  """A list; each value has one text for each setting of its axis."""

  values: tuple[tuple[str, ...], ...]


class Real(NamedTuple):
  """Numbers from low to high."""

  low: float
  high: float
  log: bool


class Whole(NamedTuple):
  """Whole numbers from low to high."""

  low: int
  high: int


class Axis(NamedTuple):
  """Settings that change together, and what they may be."""

  paths: tuple[str, ...]
  domain: Choice | Real | Whole

  @property
  def name(self) -> str:
    """What the axis is called in the study: 'a', or 'a, b' for a zip."""
    return ', '.join(self.paths)


Space = tuple[Axis, ...]


def read(text: str) -> str:
  """Returns the text of a space: itself, or that of the file it names.

  Raises:
    UserError: it is neither.
  """
  if '=' in text:
    return text
  path = pathlib.Path(text)
  try:
    lines = path.read_text('utf-8-sig').splitlines()
  except OSError as error:
    raise errors.UserError(
      f'sweep={text!r} is neither setting=values, such as seed=0..5, nor a '
      f'file: {error.strerror}'
    ) from error
  except UnicodeDecodeError as error:
    raise errors.UserError(f'sweep={text!r} is not UTF-8') from error
  return '\n'.join(re.sub(r'(^|\s)#.*', '', line) for line in lines)


def parse(text: str) -> Space:
  """Returns the space of a text in the language of this module.

  Raises:
    UserError: names the first item that is wrong.
  """
  axes = []
  for item in _items(text):
    if match := re.fullmatch(r'zip\s*\((.*)\)', item, re.DOTALL):
      axes.append(_zip(item, match[1]))
    else:
      axes.append(_axis(item))
  if not axes:
    raise errors.UserError(f'sweep={text!r} names no setting')
  seen: set[str] = set()
  for path in itertools.chain.from_iterable(axis.paths for axis in axes):
    plain = _plain(path)
    if plain in seen:
      raise errors.UserError(f'sweep: {path} is given twice')
    seen.add(plain)
  return tuple(axes)


def size(space: Space) -> int | None:
  """Returns how many points there are; None where they cannot be counted."""
  total = 1
  for axis in space:
    if isinstance(axis.domain, Real):
      return None
    total *= _length(axis.domain)
  return total


def at(space: Space, index: int) -> dict[str, str]:
  """Returns a point of a countable space; the last axis changes first."""
  values = []
  for axis in reversed(space):
    index, i = divmod(index, _length(axis.domain))
    values.append(_value(axis.domain, i))
  return point(space, values[::-1])


def point(space: Space, values: Sequence[Sequence[str]]) -> dict[str, str]:
  """Returns {setting: text} of one value for each axis."""
  return {
    path: text
    for axis, texts in zip(space, values, strict=True)
    for path, text in zip(axis.paths, texts, strict=True)
  }


def uncountable(space: Space) -> str | None:
  """Returns the first setting that no grid can list."""
  for axis in space:
    if isinstance(axis.domain, Real):
      return axis.name
  return None


def describe(space: Space) -> list[Any]:
  """Returns the space as JSON data, to tell two sweeps apart."""
  return [
    [list(axis.paths), type(axis.domain).__name__, *_lists(axis.domain)]
    for axis in space
  ]


def check(
  space: Space, config: Mapping[str, Any], overrides: Mapping[str, str]
) -> None:
  """Tries every value on a config.

  Of a range both ends are tried; values are tried in all combinations, as some
  settings are there for some choices only, or one by one where there are more
  than 2,000 combinations.

  Args:
    space: the space.
    config: of the experiment, with the overrides applied.
    overrides: what --config.a.b=value set for all points.

  Raises:
    UserError: names the setting and the value that is wrong.
  """
  from attnlab.tasks import base

  fixed = {_plain(path): path for path in overrides}
  for axis in space:
    for path in axis.paths:
      if _plain(path) in fixed:
        raise errors.UserError(
          f'sweep: {path} is also set by --config.{fixed[_plain(path)]}'
        )
  tried = [_tried(axis.domain) for axis in space]
  if math.prod(map(len, tried)) <= _CHECKED:
    combinations: Iterator = itertools.product(*tried)
  else:
    first = [values[0] for values in tried]
    combinations = (
      [*first[:i], value, *first[i + 1 :]]
      for i, values in enumerate(tried)
      for value in values
    )
  for values in combinations:
    settings = point(space, values)
    try:
      base.check_numbers(configs.override(config, settings))
    except errors.UserError as error:
      shown = '; '.join(f'{path}={text}' for path, text in settings.items())
      raise errors.UserError(f'sweep: {error} [at {shown}]') from error


def _plain(path: str) -> str:
  """A part and its name are one setting."""
  return path.removesuffix('.name')


def _length(domain: Choice | Real | Whole) -> int:
  if isinstance(domain, Choice):
    return len(domain.values)
  return domain.high - domain.low + 1


def _value(domain: Choice | Real | Whole, index: int) -> tuple[str, ...]:
  if isinstance(domain, Choice):
    return domain.values[index]
  return (str(domain.low + index),)


def _tried(domain: Choice | Real | Whole) -> list[tuple[str, ...]]:
  if isinstance(domain, Choice):
    return list(domain.values)
  return [(repr(domain.low),), (repr(domain.high),)]


def _lists(domain: Choice | Real | Whole) -> list[Any]:
  if isinstance(domain, Choice):
    return [list(value) for value in domain.values]
  return list(domain)


def _items(text: str) -> list[str]:
  parts = [p for line in _split(text, ';\n', text) for p in [line.strip()]]
  return [part for part in parts if part]


def _zip(item: str, inside: str) -> Axis:
  axes = [_axis(part) for part in _items(inside)]
  if len(axes) < 2:
    raise errors.UserError(f'sweep: {item!r} needs two settings or more')
  lists: dict[str, Choice] = {}
  for axis in axes:
    if not isinstance(axis.domain, Choice):
      raise errors.UserError(
        f'sweep: {axis.name} in {item!r} must be a list of values'
      )
    lists[axis.name] = axis.domain
  if len({len(choice.values) for choice in lists.values()}) > 1:
    told = ', '.join(f'{name} {len(c.values)}' for name, c in lists.items())
    raise errors.UserError(
      f'sweep: {item!r} needs lists of one length, and they have: {told}'
    )
  columns = [axis.domain for axis in axes if isinstance(axis.domain, Choice)]
  rows = zip(*(column.values for column in columns), strict=True)
  paths = tuple(path for axis in axes for path in axis.paths)
  texts = (itertools.chain.from_iterable(row) for row in rows)
  return Axis(paths, Choice(tuple(map(tuple, texts))))


def _axis(item: str) -> Axis:
  path, given, text = item.partition('=')
  path, text = path.strip().removeprefix('config.'), text.strip()
  if not given or not re.fullmatch(r'[A-Za-z_][\w.]*', path):
    raise errors.UserError(
      f'sweep: {item!r} must be setting=values, such as seed=0..5'
    )
  shown = f'sweep: {path}={text!r}'
  if not text:
    raise errors.UserError(f'sweep: {path} has no values')
  match = _CALL.fullmatch(text)
  if match:
    domain = _call(shown, match[1], match[2])
  else:
    domain = Choice(tuple((value,) for value in _values(shown, text)))
  return Axis((path,), domain)


def _call(shown: str, name: str, inside: str) -> Choice | Real | Whole:
  if name not in _FUNCTIONS:
    near = difflib.get_close_matches(name, (*_FUNCTIONS, 'zip'), 1, 0.4)
    hint = f': did you mean {near[0]}?' if near else ''
    raise errors.UserError(
      f'{shown}: {name!r} is unknown{hint} (there are: '
      f'{", ".join(_FUNCTIONS)}; quote a text that looks like this)'
    )
  words = [word.strip() for word in inside.split(',')]
  if name == 'int':
    return _whole(shown, words)
  if len(words) not in (2, 3):
    raise errors.UserError(
      f'{shown} must be {name}(LOW,HIGH) or {name}(LOW,HIGH,COUNT)'
    )
  low, high = (_number(shown, word) for word in words[:2])
  if name == 'log' and low <= 0:
    raise errors.UserError(f'{shown}: a logarithm needs a LOW above 0')
  if not low < high:
    raise errors.UserError(f'{shown} is empty: LOW must be below HIGH')
  if len(words) == 2:
    return Real(low, high, name == 'log')
  count = _integer(shown, words[2])
  if not 2 <= count <= MOST:
    raise errors.UserError(f'{shown}: COUNT must be from 2 to {MOST:,}')
  return Choice(
    tuple((f'{v:.6g}',) for v in _spaced(low, high, count, name == 'log'))
  )


def _spaced(low: float, high: float, count: int, log: bool) -> list[float]:
  if log:
    return [
      math.exp(v) for v in _spaced(math.log(low), math.log(high), count, False)
    ]
  return [low + (high - low) * i / (count - 1) for i in range(count)]


def _whole(shown: str, words: Sequence[str]) -> Whole:
  if len(words) != 2:
    raise errors.UserError(f'{shown} must be int(LOW,HIGH)')
  low, high = (_integer(shown, word) for word in words)
  if low > high:
    raise errors.UserError(f'{shown} is empty: LOW must not be above HIGH')
  return Whole(low, high)


def _values(shown: str, text: str) -> list[str]:
  values: list[str] = []
  for part in _split(text, ',', shown):
    part = part.strip()
    if not part:
      raise errors.UserError(
        f"{shown} has a comma too many; an empty text is ''"
      )
    if part[0] in _QUOTES and part[-1] == part[0] and len(part) > 1:
      values.append(part[1:-1])
    elif re.fullmatch(r'[^/\s]+\.\.[^/\s]+', part):
      values += _range(shown, part)
    else:
      values.append(part)
    if len(values) > MOST:
      raise errors.UserError(f'{shown}: more than {MOST:,} values')
  if len(set(values)) < len(values):
    twice = next(v for v in values if values.count(v) > 1)
    raise errors.UserError(f'{shown}: {twice!r} is given twice')
  return values


def _range(shown: str, part: str) -> list[str]:
  low, high = (_integer(shown, word) for word in part.split('..', 1))
  if low > high:
    raise errors.UserError(
      f'{shown}: the range {part} is empty; did you mean {high}..{low}?'
    )
  if high - low >= MOST:
    raise errors.UserError(f'{shown}: more than {MOST:,} values')
  return [str(number) for number in range(low, high + 1)]


def _integer(shown: str, word: str) -> int:
  if not re.fullmatch(r'[+-]?[0-9]{1,18}', word):
    raise errors.UserError(f'{shown}: {word!r} must be a whole number')
  return int(word)


def _number(shown: str, word: str) -> float:
  try:
    value = float(word)
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    raise errors.UserError(f'{shown}: {word!r} must be a number')
  return value


def _split(text: str, marks: str, shown: str) -> list[str]:
  """Splits at marks outside of quotes and brackets."""
  parts, start, depth, quote = [], 0, 0, ''
  before = ''
  for i, letter in enumerate(text):
    if quote:
      quote = '' if letter == quote else quote
    elif letter in _QUOTES and before in ('', *',=([;'):
      # An apostrophe within a word is no quote.
      quote = letter
    elif letter in '([':
      depth += 1
    elif letter in ')]':
      depth -= 1
      if depth < 0:
        raise errors.UserError(f'{_shown(shown)}: {letter!r} opens nowhere')
    elif letter in marks and not depth:
      parts.append(text[start:i])
      start = i + 1
    if not letter.isspace():
      before = letter
  if quote or depth:
    what = f'the quote {quote}' if quote else 'a bracket'
    raise errors.UserError(f'{_shown(shown)}: {what} is not closed')
  return [*parts, text[start:]]


def _shown(text: str) -> str:
  return text if text.startswith('sweep') else f'sweep={text!r}'
