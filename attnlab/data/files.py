"""Parallel text in files: two files line by line, TSV, or JSON lines.

Plain, .gz or .xz; UTF-8; lines end at LF and nowhere else. Every complaint
names the file and the line.
"""

from collections.abc import Iterator, Mapping
import difflib
import gzip
import json
import logging
import lzma
import pathlib
from typing import Any
import zlib

from attnlab import errors
from attnlab.errors import UserError

Example = dict[str, str]
_PACKED = {'.gz': gzip.open, '.xz': lzma.open}


def lines(path: str | pathlib.Path) -> list[bytes]:
  """Returns the lines of a file, undecoded, without their ends.

  Raises:
    UserError: no such file, an empty one, or one that cannot be unpacked.
  """
  path = pathlib.Path(path)
  try:
    with _PACKED.get(path.suffix, open)(path, 'rb') as file:
      data = file.read()
  except FileNotFoundError as error:
    raise UserError(f'{path} does not exist{_near(path)}') from error
  except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
    raise UserError(f'{path} cannot be read: {error}') from error
  rows = data.removeprefix(b'\xef\xbb\xbf').split(b'\n')
  if not rows[-1]:
    rows.pop()
  if not rows:
    raise UserError(f'{path} is empty')
  return rows


def _near(path: pathlib.Path) -> str:
  if not path.parent.is_dir():
    return f': there is no folder {path.parent}'
  names = [entry.name for entry in path.parent.iterdir()]
  near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
  return f': did you mean {near[0]!r}?' if near else ''


def _decode(row: bytes) -> str:
  try:
    return row.decode('utf-8').rstrip('\r')
  except UnicodeDecodeError as error:
    raise ValueError(
      f'invalid UTF-8 (byte {error.object[error.start]:#04x} at column'
      f' {error.start + 1})'
    ) from error


def _cells(row: bytes, fields: Mapping[str, str]) -> Example:
  cells = _decode(row).split('\t')
  numbers = {side: int(field) for side, field in fields.items()}
  if max(numbers.values()) >= len(cells):
    raise ValueError(
      f'column {max(numbers.values())} is missing: there are {len(cells)},'
      ' counted from 0'
    )
  return {side: cells[number].strip() for side, number in numbers.items()}


def _record(row: bytes, fields: Mapping[str, str]) -> Example:
  try:
    record = json.loads(_decode(row))
  except json.JSONDecodeError as error:
    raise ValueError(f'invalid JSON ({error})') from error
  if not isinstance(record, dict):
    raise ValueError('not a JSON object')
  example = {}
  for side, field in fields.items():
    if field not in record:
      raise errors.unknown(f'{side}_field', field, record)
    if not isinstance(record[field], str):
      raise ValueError(f'{field!r} is not a text')
    example[side] = record[field].strip()
  return example


def _sides(row: Any) -> Example:
  return {side: _decode(text).strip() for side, text in row.items()}


def _pairs(path: str, languages: Mapping[str, str]) -> Iterator[Mapping]:
  """Yields, line by line, side -> undecoded text."""
  columns = {}
  for side, language in languages.items():
    columns[side] = lines(path.replace('{language}', language))
  counts = {
    path.replace('{language}', languages[side]): len(column)
    for side, column in columns.items()
  }
  if len(set(counts.values())) > 1:
    told = ' and '.join(f'{name} has {n}' for name, n in counts.items())
    raise UserError(f'the files do not match line by line: {told} lines')
  for row in zip(*columns.values(), strict=True):
    yield dict(zip(columns, row, strict=True))


def read(
  path: str | pathlib.Path,
  *,
  source_language: str = 'en',
  target_language: str = 'de',
  source_field: str = '',
  target_field: str = '',
  on_bad: str = 'error',
) -> list[Example]:
  """Reads parallel text.

  Args:
    path: 'x.tsv' and 'x.jsonl' hold both languages; any other path is two
      files, with '{language}' where their names differ ('train.{language}' is
      meant if it is left out). A packed file ends in .gz or .xz; where the
      plain one is missing, the packed one is taken.
    source_language: replaces '{language}'.
    target_language: likewise.
    source_field: column of a TSV file, counted from 0 (default 0), or key of a
      JSON object (default: the language).
    target_field: likewise (default column 1).
    on_bad: what becomes of a line with an empty side, a missing column, or
      invalid text: 'error' refuses the file, 'skip' counts and leaves out.

  Returns:
    Dicts with 'source' and 'target'.

  Raises:
    UserError: one line that names the file and the line.
  """
  if on_bad not in ('error', 'skip'):
    raise errors.unknown('data.on_bad', on_bad, ('error', 'skip'))
  path = str(path)
  plain = pathlib.Path(path.removesuffix('.gz').removesuffix('.xz'))
  languages = {'source': source_language, 'target': target_language}
  if plain.suffix == '.tsv':
    fields = {'source': source_field or '0', 'target': target_field or '1'}
    for side, field in fields.items():
      if not field.isdecimal():
        raise UserError(
          f'data.{side}_field={field!r} is no column of {path}: give its'
          ' number, counted from 0'
        )
    path = _packed(path)
    rows, parse = lines(path), lambda row: _cells(row, fields)
  elif plain.suffix == '.jsonl':
    fields = {
      'source': source_field or source_language,
      'target': target_field or target_language,
    }
    path = _packed(path)
    rows, parse = lines(path), lambda row: _record(row, fields)
  else:
    if '{language}' not in path:
      path += '.{language}'
    path = _packed(path, source_language)
    rows = _pairs(path, languages)
    parse = _sides
  examples, bad = [], []
  for number, row in enumerate(rows, 1):
    try:
      example = parse(row)
      for side, text in example.items():
        if not text:
          raise ValueError(f'the {side} is empty')
      examples.append(example)
    except ValueError as error:
      if on_bad == 'error':
        raise UserError(
          f"{path}:{number}: {error} (data.on_bad='skip' leaves such lines out)"
        ) from error
      bad.append(f'line {number}: {error}')
  if bad:
    logging.warning(
      '%s: skipped %d of %d lines, the first: %s',
      path,
      len(bad),
      len(bad) + len(examples),
      bad[0],
    )
  if not examples:
    raise UserError(f'{path} has no usable line')
  return examples


def _packed(path: str, language: str = '') -> str:
  """Returns the path, or path.gz or path.xz where only that one exists."""
  for suffix in ('', *_PACKED):
    if pathlib.Path((path + suffix).replace('{language}', language)).exists():
      return path + suffix
  return path
