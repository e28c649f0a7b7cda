"""docs/: the catalogue of mechanisms and the table of what goes together.

  python -m attnlab.report.catalogue

writes docs/catalogue.md with its pictures, and docs/support.md, from the code
alone: docstrings, settings, declarations and docs/references.bib.
"""

import argparse
from collections.abc import Mapping, Sequence
import inspect
import pathlib
import re
import sys
from typing import Any, NamedTuple

import numpy as np

from attnlab import attention
from attnlab.report import example, figures, parts, references, support

IMAGES = 'images/catalogue'
_MADE = (
  '<!-- Written by python -m attnlab.report.catalogue: change the docstrings, '
  'not this page. -->'
)
_ABOUT = (
  'A mechanism is a **score**, a **normaliser**, and, where it has them, a '
  '**locality**, a **position** and **heads**, under a **mask**. [What goes '
  'together](support.md) is a page of its own, and [the guide](guide.md) says '
  'how to write and add one.'
)
_EXAMPLE = (
  'All pictures show one example, the words of *{target}* (rows) asking those '
  'of *{source}* (columns). Darker is more; outlined cells are the links that '
  'are right. Equal words have equal keys, so that what looks at the words '
  'alone cannot tell the three articles apart.'
)


class Page(NamedTuple):
  """One section of the catalogue.

  Attributes:
    title: its head, and the name of its picture in small letters.
    about: a sentence or two below it.
    section: its choices.
  """

  title: str
  about: str
  section: parts.Section


def pages() -> list[Page]:
  """The sections that have a choice."""
  found = [
    Page(
      'Scores',
      'How similar is a query to a key. Those with parameters (*) are drawn '
      'after these were fitted to the outlined cells, under softmax where it '
      'takes them.',
      parts.of_config('attention.score'),
    ),
    Page(
      'Normalisers',
      'From scores to weights, all drawn from the same scores (dot), but for '
      'those that do not take them. One that draws is drawn once.',
      parts.of_config('attention.normalizer'),
    ),
    Page(
      'Localities',
      'A window over the keys that follows the query, drawn around dot and '
      'softmax.',
      parts.of_config('attention.locality'),
    ),
    Page(
      'Positions',
      'What the distance of query and key adds to any score, drawn with dot '
      'and softmax in the first of eight heads.',
      parts.of_config('attention.position'),
    ),
    Page(
      'Masks',
      'What may be seen (dark), as functions of positions; `&`, `|` and `~` '
      'combine them.',
      parts.of_library('masks'),
    ),
    Page(
      'Heads and hops',
      'A mechanism around any mechanism, here scaled_dot and softmax; the '
      'weights are the mean over heads.',
      parts.of_library('heads'),
    ),
    Page(
      'Papers',
      'The compositions of papers by name.',
      parts.of_library('papers'),
    ),
    Page(
      'Estimators',
      'Gradients through a hard choice.',
      parts.of_library('estimators'),
    ),
  ]
  return [page for page in found if page.section.choices]


def render() -> str:
  """Returns docs/catalogue.md."""
  found = pages()
  contents = ', '.join(
    f'[{page.title}](#{page.title.lower().replace(" ", "-")})' for page in found
  )
  words = {
    'source': ' '.join(example.SOURCE),
    'target': ' '.join(example.TARGET),
  }
  blocks = [
    _MADE,
    '# Catalogue of mechanisms',
    _ABOUT,
    _EXAMPLE.format(**words),
    f'{contents}.',
  ]
  cited: dict[str, str] = {}
  for page in found:
    blocks += [f'## {page.title}', page.about]
    if page.title != 'Estimators':
      picture = f'{IMAGES}/{stem(page)}.png'
      blocks.append(f'![{page.title}: weights on the example]({picture})')
    for choice in page.section.choices.values():
      block = entry(choice, page.section.flag)
      cited |= references.cited(
        ' '.join([choice.summary, *choice.text, *choice.meanings.values()])
      )
      blocks.append(block)
  blocks += ['## References', bibliography(cited)]
  return '\n\n'.join(blocks) + '\n'


def stem(page: Page) -> str:
  """The name of a page's picture."""
  return page.title.lower().replace(' ', '_')


def entry(choice: parts.Choice, flag: str) -> str:
  """One mechanism: its formula, text, declarations, settings and flag."""
  lines = [f'### {choice.name}', '', _summary(choice.summary), '']
  lines += [line for text in choice.text for line in (_text(text), '')]
  if flag:
    lines.append(f'- flag: `--config.{flag}={choice.name}`')
  elif isinstance(choice.make, type) is False:
    module = choice.make.__module__.rpartition('.')[2]
    call = parts.call(choice.name, choice.settings)
    lines.append(f'- call: `attention.{module}.{call}`')
  for name, default in choice.settings.items():
    shown = name if default is parts.REQUIRED else f'{name}={default!r}'
    meaning = choice.meanings.get(name, '')
    lines.append(f'- `{shown}`' + (f': {_text(meaning)}' if meaning else ''))
  lines += [f'- {line}' for line in declarations(choice)]
  return '\n'.join(lines).rstrip()


def declarations(choice: parts.Choice) -> list[str]:
  """What a part declares where that is not the ordinary, and its gradient."""
  made = example.build(choice)
  if not hasattr(made, '_field_defaults'):
    return []
  _, meanings = parts.read(inspect.getdoc(type(made)) or '')
  found = []
  for name, usual in made._field_defaults.items():
    value = getattr(made, name)
    if name == 'init_state' and value is not None:
      found.append('stateful: reads the alignments of the steps before')
    if name == 'differentiable' or not isinstance(usual, bool):
      continue
    if value != usual:
      found.append(f'`{name}={value}`: {_text(meanings.get(name, ""))}')
  text = ' '.join([choice.summary, *choice.text])
  smooth = getattr(made, 'differentiable', 'Not differentiable' not in text)
  return [*found, f'differentiable: {"yes" if smooth else "no"}']


def bibliography(keys: Mapping[str, str]) -> str:
  """The references of a page, one a line.

  Raises:
    ValueError: docs/references.bib has no entry for one.
  """
  entries = references.read()
  for key, citation in keys.items():
    if key not in entries:
      raise ValueError(
        f'{citation}: docs/references.bib has no entry {key}; add one'
      )
  return '\n'.join(
    f'- <a id="{key}"></a>`{key}`: {references.sentence(entries[key])}'
    for key in sorted(keys)
  )


def _summary(line: str) -> str:
  """'Name, formula: remark (Paper).' with the formula set as code."""
  cite = re.search(r' \([^()]*\b\d{4}\b[^()]*\).*|\.$|$', line)
  head, rest = line[: cite.start()], cite[0]
  name, separator, formula = re.fullmatch(
    r'(.*?)(?:(, |: )(.*))?', head
  ).groups()
  if not separator:
    return f'**{_text(head)}**{_text(rest)}'
  formula, colon, remark = formula.partition(': ')
  formal = re.search(r"[=/|^'+*()\[\]]|\w\.\w", formula)
  formula = f'`{formula}`' if formal else _text(formula)
  remark = f'{colon}{_text(remark)}'
  return f'**{_text(name)}**, {formula}{remark}{_text(rest)}'


def _text(text: str) -> str:
  """A docstring's text as Markdown, with links for citations."""
  pieces = text.split('`')
  for n in range(0, len(pieces), 2):
    escaped = re.sub(r'([\\*_<>|\[\]#~$])', r'\\\1', pieces[n])
    pieces[n] = references.linked(escaped)
  return '`'.join(pieces)


# Pictures.


def pictures() -> dict[str, dict[str, Any]]:
  """Returns {stem of a page: {title of a panel: weights [T, S]}}."""
  return {stem(page): panels for page in pages() if (panels := _panels(page))}


def _panels(page: Page) -> dict[str, Any]:
  found: dict[str, Any] = {}
  for name, choice in page.section.choices.items():
    if page.title == 'Masks':
      if (mask := example.build(choice)) is not None:
        shape = len(example.TARGET), len(example.SOURCE)
        # Grey, so that a sheet of masks is not the blackest of all.
        found[_drawn(choice)] = 0.6 * attention.masks.dense(mask, (), *shape)
      continue
    mechanism, title = _mechanism(page.title, choice)
    if mechanism is not None:
      weights, fitted = example.weights(mechanism)
      found[title + ('*' if fitted else '')] = weights
  return found


def _drawn(choice: parts.Choice) -> str:
  """The title of a panel, with the arguments that are not the defaults."""
  given = {
    name: value
    for name, value in (example.arguments(choice, {}) or {}).items()
    if choice.settings[name] != value and not isinstance(value, tuple)
  }
  return parts.call(choice.name, given) if given else choice.name


def _mechanism(title: str, choice: parts.Choice) -> tuple[Any, str]:
  """The mechanism that shows a choice, None if there is none, and its name."""
  name = choice.name
  if title == 'Papers':
    return example.build(choice), name
  if title == 'Heads and hops':
    inner = support.compose({'score': 'scaled_dot', 'normalizer': 'softmax'})
    return example.build(choice, mechanism=inner), name
  kinds = {
    'Scores': 'score',
    'Normalisers': 'normalizer',
    'Localities': 'locality',
    'Positions': 'position',
  }
  if title not in kinds:
    return None, name
  kind = kinds[title]
  given = {'score': 'dot', 'normalizer': 'softmax', kind: name}
  try:
    return support.compose(given), _drawn(choice)
  except ValueError:
    # Not everything goes with dot or softmax: what it goes with is said.
    names = support.complete({kind: name})
    other = names['normalizer' if kind == 'score' else 'score']
    return support.compose(names), f'{name}, {other}'


def draw(folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes the pictures as folder/STEM.png."""
  written = []
  for name, panels in pictures().items():
    gold = np.array(example.GOLD), np.zeros((0, 2), np.int32)
    figure = figures.sheet(
      panels,
      example.SOURCE,
      example.TARGET,
      gold=None if name == 'masks' else gold,
    )
    written.append(figures.save_png(figure, folder / name))
  return written


def main(arguments: Sequence[str] | None = None) -> int:
  """Writes the pages, and the pictures unless told not to."""
  parser = argparse.ArgumentParser(
    prog='python -m attnlab.report.catalogue',
    description=(__doc__ or '').splitlines()[0],
  )
  parser.add_argument('--out', type=pathlib.Path, default='docs')
  parser.add_argument(
    '--no_pictures', action='store_true', help='write the text alone'
  )
  options = parser.parse_args(arguments)
  options.out.mkdir(parents=True, exist_ok=True)
  for name, make in (('catalogue', render), ('support', support.render)):
    path = options.out / f'{name}.md'
    path.write_text(make(), encoding='utf-8')
    print(path)
  if not options.no_pictures:
    for path in draw(options.out / IMAGES):
      print(path)
  return 0


if __name__ == '__main__':
  sys.exit(main())
