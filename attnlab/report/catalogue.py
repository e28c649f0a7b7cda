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

from attnlab import attention, configs
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
    kind: of the choices, and the name of its picture.
    title: its head.
    about: a sentence or two below it.
    section: its choices.
  """

  kind: str
  title: str
  about: str
  section: parts.Section


# How the choices of a kind are drawn.
_DRAWN = {
  'score': (
    'Those with parameters (*) are drawn after these were fitted to the '
    'outlined cells, and under softmax where it takes them.'
  ),
  'normalizer': (
    'All are drawn from the same scores, those of dot, but for what does not '
    'take them. What draws is drawn once.'
  ),
  'locality': 'Drawn around dot and softmax.',
  'position': 'Drawn with dot and softmax in the first of eight heads.',
  'heads': 'Drawn around dot and softmax: the mean over the heads, fitted (*).',
  'hops': 'Drawn around dot and softmax, fitted (*).',
  'masks': 'Dark is seen.',
}


def pages() -> list[Page]:
  """The sections that have a choice: parts of a config, then the library's."""
  sections = {
    kind: parts.of_config(path) for kind, path in parts.kinds().items()
  }
  for kind in parts.LIBRARY:
    if kind not in sections:
      sections[kind] = parts.of_library(kind)
  found = []
  for kind, section in sections.items():
    if section.choices:
      # 'Scores: how similar is a query to a key.' is the module's first line.
      first = next(iter(section.choices.values())).make.__module__
      line = configs.first_line(sys.modules[first].__doc__)
      title, _, about = line.partition(': ')
      about = ' '.join([about[:1].upper() + about[1:], _DRAWN.get(kind, '')])
      found.append(Page(kind, title.rstrip('.'), about.strip(), section))
  return found


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
    blocks += filter(None, [f'## {page.title}', page.about])
    if page.kind != 'estimators':
      picture = f'{IMAGES}/{page.kind}.png'
      blocks.append(f'![{page.title}: weights on the example]({picture})')
    for choice in page.section.choices.values():
      block = entry(choice, page.section.flag)
      cited |= references.cited(
        ' '.join([choice.summary, *choice.text, *choice.meanings.values()])
      )
      blocks.append(block)
  blocks += ['## References', bibliography(cited)]
  return '\n\n'.join(blocks) + '\n'


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
  if flag and 'mechanism' not in inspect.signature(choice.make).parameters:
    lines.append(
      f'- differentiable: {"yes" if differentiable(choice) else "no"}'
    )
  return '\n'.join(lines).rstrip()


def declarations(choice: parts.Choice) -> list[str]:
  """What a part declares of itself where that is not the ordinary."""
  if 'mechanism' in choice.settings:
    return []
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
      meaning = _text(meanings.get(name, ''))
      found.append(f'declares `{name}={value}`: {meaning}')
  return found


def differentiable(choice: parts.Choice) -> bool:
  """Whether a gradient comes through, by declaration or by its docstring."""
  text = ' '.join([choice.summary, *choice.text])
  smooth = 'Not differentiable' not in text
  return getattr(example.build(choice), 'differentiable', smooth)


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
  cite = re.search(r' \([^()]*\b\d{4}\b[^()]*\).*|\.$', line)
  start = cite.start() if cite else len(line)
  head, rest = line[:start], line[start:]
  name, *more = re.split(', |: ', head, maxsplit=1)
  if not more:
    return f'**{_text(head)}**{_text(rest)}'
  formula, colon, remark = more[0].partition(': ')
  if colon and not _formal(formula):
    return f'**{_text(name)}**, {_text(formula)}: {_code(remark)}{_text(rest)}'
  return (
    f'**{_text(name)}**, {_code(formula)}{colon}{_text(remark)}{_text(rest)}'
  )


def _formal(text: str) -> bool:
  """Whether a text is a formula: it has a sign that sentences have not."""
  return bool(re.search(r"[=<>/|^'+*()\[\]]|\w\.\w", text))


def _code(text: str) -> str:
  return f'`{text}`' if _formal(text) else _text(text)


def _text(text: str) -> str:
  """A docstring's text as Markdown, with links for citations."""
  pieces = text.split('`')
  for n in range(0, len(pieces), 2):
    escaped = re.sub(r'([\\*_<>|\[\]#~$])', r'\\\1', pieces[n])
    pieces[n] = references.linked(escaped)
  return '`'.join(pieces)


# Pictures.


def pictures() -> dict[str, dict[str, Any]]:
  """Returns {kind: {title of a panel: weights [T, S]}}."""
  return {page.kind: panels for page in pages() if (panels := _panels(page))}


def _panels(page: Page) -> dict[str, Any]:
  found: dict[str, Any] = {}
  for choice in page.section.choices.values():
    if page.kind == 'masks':
      if (mask := example.build(choice)) is not None:
        shape = len(example.TARGET), len(example.SOURCE)
        # Grey, so that a sheet of masks is not the blackest of all.
        found[_drawn(choice)] = 0.6 * attention.masks.dense(mask, (), *shape)
      continue
    mechanism, title = _mechanism(page.kind, choice)
    if isinstance(mechanism, attention.Attention):
      weights, fitted = example.weights(mechanism)
      found[title + ('*' if fitted else '')] = weights
  return found


def _drawn(choice: parts.Choice) -> str:
  """The title of a panel, with the arguments that are not the defaults."""
  given = {
    name: value
    for name, value in (example.arguments(choice) or {}).items()
    if not isinstance(value, tuple)
  }
  return parts.call(choice.name, given) if given else choice.name


def _mechanism(kind: str, choice: parts.Choice) -> tuple[Any, str]:
  """The mechanism that shows a choice, None if there is none, and its name."""
  name = choice.name
  given = {'score': 'dot', 'normalizer': 'softmax'}
  if kind not in parts.kinds():
    return example.build(choice, support.compose(given)), name
  try:
    return support.compose({**given, kind: name}), _drawn(choice)
  except ValueError:
    pass
  try:
    # Not everything goes with dot or softmax: what it goes with is said.
    names = support.complete({kind: name})
  except ValueError:
    return None, name
  other = names['normalizer' if kind == 'score' else 'score']
  return support.compose(names), f'{name}, {other}'


def draw(folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes the pictures as folder/KIND.png."""
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
