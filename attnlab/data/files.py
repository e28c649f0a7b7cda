"""Text in files: two parallel files line by line, TSV, CSV, or JSON lines.

Plain, .gz or .xz; UTF-8; lines end at LF and nowhere else. Every complaint
names the file and the line.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import csv
import difflib
import gzip
import json
import logging
import lzma
import os
import pathlib
from typing import Any, TypeVar
import zlib

from attnlab import errors
from attnlab.errors import UserError

T = TypeVar('T')
Example = dict[str, str]
_PACKED = {'.gz': gzip.open, '.xz': lzma.open}


def expand(path: str | pathlib.Path) -> pathlib.Path:
  """Returns the path with the home directory in the place of '~'."""
  try:
    return pathlib.Path(path).expanduser()
  except RuntimeError as error:
    raise UserError(f'{str(path)!r}: no such home directory') from error


def folder(dir: str, setting: str = 'dir') -> pathlib.Path:
  """Returns the setting data.dir as a path, if there is such a folder."""
  path = expand(dir)
  if not os.path.isdir(path):  # where Path.is_dir raises, this is False
    raise UserError(f'data.{setting}={dir!r} is not a folder')
  return path


def shown(text: object) -> str:
  """Returns a text of unknown origin, fit for a message of one line."""
  text = str(text)[:300]
  return text if text.isprintable() else repr(text)


def stream(path: str | pathlib.Path) -> Iterator[bytes]:
  """Yields the lines of a file, undecoded, without their ends.

  Raises:
    UserError: no such file, an empty one, or one that cannot be unpacked.
  """
  path = pathlib.Path(path)
  count = 0
  try:
    with _PACKED.get(path.suffix, open)(path, 'rb') as file:
      for row in file:
        row = row if count else row.removeprefix(b'\xef\xbb\xbf')
        if row:
          yield row.removesuffix(b'\n')
          count += 1
  except FileNotFoundError as error:
    raise UserError(f'{shown(path)} does not exist{_near(path)}') from error
  except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
    raise UserError(f'{shown(path)} cannot be read: {error}') from error
  if not count:
    raise UserError(f'{path} is empty')


def lines(path: str | pathlib.Path) -> list[bytes]:
  """Returns the lines of a file as `stream` yields them."""
  return list(stream(path))


def _near(path: pathlib.Path) -> str:
  try:
    names = os.listdir(path.parent)
  except OSError:
    return f': there is no folder {shown(path.parent)}'
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


def _cells(
  cells: list[str], numbers: Mapping[str, int], width: int = 0
) -> Example:
  if width and len(cells) > width:
    raise ValueError(
      f'there are {len(cells)} columns, and names for {width}: a text that '
      'holds what separates columns needs a CSV file and double quotes'
    )
  if max(numbers.values()) >= len(cells):
    raise ValueError(
      f'column {max(numbers.values())} is missing: there are {len(cells)},'
      ' counted from 0'
    )
  return {side: cells[number].strip() for side, number in numbers.items()}


def _tsv(row: bytes) -> list[str]:
  return _decode(row).split('\t')


def _csv_rows(
  path: str, rows: list[bytes]
) -> Iterator[tuple[int, list[str] | csv.Error]]:
  """Yields the number of the first line and the cells of each record."""
  csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, is a long review
  text = (row.decode('utf-8', 'surrogateescape') + '\n' for row in rows)
  reader = csv.reader(text, strict=True)
  while True:
    start = reader.line_num + 1
    try:
      row = next(reader)
    except StopIteration:
      return
    except csv.Error as error:
      row = error
      if reader.line_num > start:  # nobody knows where the next record begins
        raise UserError(
          f'{path}:{start}: a quote that is not closed ({error})'
        ) from error
    yield start, row


def _csv(row: list[str] | csv.Error) -> list[str]:
  if isinstance(row, csv.Error):
    raise ValueError(f'invalid CSV ({row})')
  return [
    cell if cell.isascii() else _decode(cell.encode('utf-8', 'surrogateescape'))
    for cell in row
  ]


def _record(
  row: bytes, fields: Mapping[str, str], numbers: Iterable[str] = ()
) -> Example:
  """Reads a JSON object; the sides in `numbers` may be whole numbers."""
  try:
    record = json.loads(_decode(row))
  except (json.JSONDecodeError, RecursionError) as error:
    raise ValueError(f'invalid JSON ({error})') from error
  if not isinstance(record, dict):
    raise ValueError('not a JSON object')
  example = {}
  for side, field in fields.items():
    if field not in record:
      names = [shown(key) for key in record]
      raise errors.unknown(f'{side}_field', field, names[:20])
    value = record[field]
    if isinstance(value, int) and side in numbers:
      value = str(value)
    if not isinstance(value, str):
      whole = ' or a whole number' if side in numbers else ''
      raise ValueError(f'{field!r} is not a text{whole}')
    if not value.isascii():
      value.encode()  # half a surrogate pair ends here, not in a later write
    example[side] = value.strip()
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
    numbers = {side: int(field) for side, field in fields.items()}
    rows, parse = lines(path), lambda row: _cells(_tsv(row), numbers)
  elif plain.suffix == '.jsonl':
    fields = {
      'source': source_field or source_language,
      'target': target_field or target_language,
    }
    path = _packed(path)
    rows, parse = lines(path), lambda row: _record(row, fields)
  else:
    if plain.suffix.lower() in ('.csv', '.json', '.jsonl', '.tsv'):
      raise UserError(
        f'{shown(path)}: parallel text is .tsv, .jsonl, or two files such as '
        'train.{language}, packed or not'
      )
    if '{language}' not in path:
      path += '.{language}'
    path = _packed(path, source_language)
    rows = _pairs(path, languages)
    parse = _sides
  return _collect(path, enumerate(rows, 1), parse, _filled, on_bad)


def records(
  path: str | pathlib.Path,
  fields: Mapping[str, str],
  *,
  numbers: Iterable[str] = (),
  convert: Callable[[Example], T] | None = None,
  on_bad: str = '',
) -> list[T]:
  """Reads records of named texts.

  Args:
    path: 'x.tsv', 'x.csv' or 'x.jsonl', packed or not, as for `read`. TSV has
      no quotes; CSV has double quotes, in which a record may go over lines.
    fields: our name -> key of a JSON object, or column. Columns are given by
      the names that the first line has, or, all of them, by their numbers,
      counted from 0; then the first line is a record like the others.
    numbers: those of our names for which JSON may have a whole number.
    convert: makes of {our name: stripped text} what is returned, or raises
      ValueError to say what is wrong; otherwise no text may be empty.
    on_bad: what becomes of a record that cannot be read or converted: 'error'
      refuses the file, 'skip' counts and leaves out; '' is 'error' where the
      user has no choice.

  Raises:
    UserError: one line that names the file and the line.
  """
  if on_bad not in ('', 'error', 'skip'):
    raise errors.unknown('data.on_bad', on_bad, ('error', 'skip'))
  kind = pathlib.Path(str(path).removesuffix('.gz').removesuffix('.xz')).suffix
  if kind not in ('.tsv', '.csv', '.jsonl'):
    raise UserError(
      f'{shown(path)} is none of .tsv, .csv, .jsonl, packed or not'
    )
  path = _packed(str(path))
  rows = lines(path)
  rows = _csv_rows(path, rows) if kind == '.csv' else enumerate(rows, 1)
  if kind == '.jsonl':
    parse = lambda row: _record(row, fields, numbers)
  else:
    cells = _tsv if kind == '.tsv' else _csv
    columns, width = _columns(path, rows, cells, fields)
    parse = lambda row: _cells(cells(row), columns, width)
  return _collect(path, rows, parse, convert or _filled, on_bad)


def _columns(
  path: str,
  rows: Iterator[tuple[int, Any]],
  cells: Callable[[Any], list[str]],
  fields: Mapping[str, str],
) -> tuple[dict[str, int], int]:
  """The number of each column, and how many have a name, or 0.

  Takes the header, if any, off `rows`.
  """
  if all(field.isdecimal() for field in fields.values()):
    return {side: int(field) for side, field in fields.items()}, 0
  try:
    header = [cell.strip() for cell in cells(next(rows)[1])]
  except ValueError as error:
    raise UserError(f'{path}:1: {error}') from error
  for side, field in fields.items():
    if field not in header:
      names = [shown(cell) for cell in header[:20]]
      told = errors.unknown(f'data.{side}_field', field, names)
      raise UserError(
        f'{path}:1: {told}; without a header, give the numbers of the columns,'
        ' counted from 0'
      )
  numbers = {side: header.index(field) for side, field in fields.items()}
  return numbers, len(header)


def _filled(example: Example) -> Example:
  for side, text in example.items():
    if not text:
      raise ValueError(f'the {side} is empty')
  return example


def _collect(
  path: str,
  rows: Iterable[tuple[int, Any]],
  parse: Callable[[Any], Example],
  convert: Callable[[Example], T],
  on_bad: str,
) -> list[T]:
  """Parses (line number, row); refuses bad rows, or counts them."""
  examples, bad = [], []
  for number, row in rows:
    try:
      examples.append(convert(parse(row)))
    except ValueError as error:
      if on_bad != 'skip':
        hint = " (data.on_bad='skip' leaves such lines out)" if on_bad else ''
        raise UserError(f'{path}:{number}: {error}{hint}') from error
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


def text_lines(path: str | pathlib.Path) -> list[str]:
  """Returns the lines of a text, packed or not."""
  path = _packed(str(path))
  rows = enumerate(lines(path), 1)
  parse = lambda row: {'line': _decode(row)}
  return _collect(path, rows, parse, lambda example: example['line'], '')


def _packed(path: str, language: str = '') -> str:
  """Returns the path, or path.gz or path.xz where only that one exists."""
  for suffix in ('', *_PACKED):
    if os.path.exists((path + suffix).replace('{language}', language)):
      return path + suffix
  return path
