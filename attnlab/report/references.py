"""Citations in docstrings, and docs/references.bib.

A paper is cited as `Bahdanau et al. 2014`, `Martins & Astudillo 2016` or `Elman
1990`; its key is the first surname and the year: bahdanau2014.
"""

import pathlib
import re
import unicodedata

BIB = pathlib.Path(__file__).parents[2] / 'docs' / 'references.bib'

_NAME = r"(?:(?:van|von|de|der|den|la|le) )*[^\W\d_a-z][\w'’-]+"
_CITED = re.compile(
  rf'\b(?P<name>{_NAME})(?: et al\.| (?:&|and) {_NAME})? '
  r'(?P<year>(?:19|20)\d\d)(?!\d)'
)


def cited(text: str) -> dict[str, str]:
  """Returns {key: citation as it stands} of all papers that a text cites."""
  return {_key(found): found[0] for found in _CITED.finditer(text)}


def linked(text: str) -> str:
  """The text with a link to its reference around each citation."""
  return _CITED.sub(lambda found: f'[{found[0]}](#{_key(found)})', text)


def _key(found: re.Match) -> str:
  plain = unicodedata.normalize('NFKD', found['name'])
  return re.sub('[^a-z]', '', plain.lower()) + found['year']


def read(path: pathlib.Path = BIB) -> dict[str, dict[str, str]]:
  """Returns {key: {field: text}} of a BibTeX file with a field a line."""
  entries: dict[str, dict[str, str]] = {}
  fields: dict[str, str] = {}
  for number, line in enumerate(path.read_text('utf-8').splitlines(), 1):
    line = line.strip()
    if head := re.fullmatch(r'@\w+\{([\w-]+),', line):
      if head[1] in entries:
        raise ValueError(f'{path.name}, line {number}: {head[1]} stands twice')
      fields = entries[head[1]] = {}
    elif field := re.fullmatch(r'(\w+) = \{(.*)\},', line):
      fields[field[1]] = field[2]
    elif line not in ('', '}') and not line.startswith('%'):
      raise ValueError(f'{path.name}, line {number}: {line!r} is not a field')
  return entries


def sentence(fields: dict[str, str]) -> str:
  """An entry as one line of a list of references."""
  authors = fields['author'].split(' and ')
  names = [' '.join(reversed(a.split(', '))) for a in authors]
  if names[-1] == 'others':
    names[-1] = 'et al.'
  elif len(names) > 1:
    names[-1] = f'and {names[-1]}'
  title = re.sub(r'[{}$]', '', fields['title'])
  where = fields.get('journal') or fields.get('booktitle')
  where = where or f'arXiv:{fields["eprint"]}'
  note = f' {fields["note"]}.' if 'note' in fields else ''
  joined = (', ' if len(names) > 2 else ' ').join(names).rstrip('.')
  return f'{joined}. {title}. {where}, {fields["year"]}.{note}'
