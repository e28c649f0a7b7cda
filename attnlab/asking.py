"""--mode=predict: lines in, answers out, and where the model looked."""

from collections.abc import Iterator
import contextlib
import itertools
import json
import pathlib
import sys
from typing import Any, TextIO

from attnlab import errors


def predict(
  task: Any,
  lines: Iterator[str],
  *,
  typed: bool = False,
  output: str | None = None,
  attention: str | None = None,
) -> None:
  """Writes a line of answer for each line.

  Args:
    task: with the parameters of a run.
    lines: what is asked.
    typed: somebody is typing: each line is answered, not a batch of them.
    output: a file for the answers instead of stdout.
    attention: a directory for attention.jsonl and a figure of each line.

  Raises:
    UserError: a file cannot be written.
  """
  directory = pathlib.Path(attention) if attention else None
  with contextlib.ExitStack() as stack:
    out = sys.stdout
    record = None
    if output:
      out = stack.enter_context(_open_to_write(pathlib.Path(output)))
    if directory:
      record = stack.enter_context(
        _open_to_write(directory / 'attention.jsonl')
      )
    answers = task.predict(task.model, lines)
    if typed:
      one = lambda line: task.predict(task.model, [line])
      answers = itertools.chain.from_iterable(map(one, lines))
    for number, prediction in enumerate(answers, 1):
      print(prediction.text, file=out, flush=out is sys.stdout)
      if record is not None:
        _record(record, directory, number, prediction)


def _record(record: Any, directory: pathlib.Path, number: int, prediction: Any):
  """Writes the attention of one prediction as data and as a picture."""
  weights = prediction.weights
  line = {
    'text': prediction.text,
    'source': list(prediction.source_tokens),
    'tokens': list(prediction.tokens),
    'weights': None
    if weights is None
    else [[round(float(w), 6) for w in row] for row in weights],
  }
  record.write(json.dumps(line, ensure_ascii=False) + '\n')
  record.flush()
  if weights is None or not len(weights):
    return
  from attnlab.report import figures

  figure = figures.alignment(
    weights, list(prediction.source_tokens), list(prediction.tokens)
  )
  figures.save(figure, directory / f'{number:04d}')


def inputs(prompt: str | None, path: str | None) -> Iterator[str]:
  """What is asked: one prompt, the lines of a file, or those of stdin.

  Raises:
    UserError: the file cannot be read.
  """
  if prompt is not None:
    if not prompt.isascii() and any('\ud800' <= c <= '\udfff' for c in prompt):
      raise errors.UserError('prompt is not UTF-8')
    return iter([prompt])
  if path is None:
    if sys.stdin.isatty():
      print('one input a line; Ctrl-D ends', file=sys.stderr)
    return _typed(sys.stdin)
  text = read_text(pathlib.Path(path), f'input={path!r}')
  return iter(text.removesuffix('\n').split('\n')) if text else iter(())


def _typed(file: TextIO) -> Iterator[str]:
  try:
    for number, line in enumerate(file):
      line = line.rstrip('\r\n')
      yield line if number else line.removeprefix('\ufeff')
  except UnicodeDecodeError as error:
    raise errors.UserError(f'stdin is not UTF-8: {error.reason}') from error


def read_text(path: pathlib.Path, name: str) -> str:
  """Returns the text of a file that the user named, or raises UserError."""
  try:
    return path.read_text('utf-8-sig')
  except OSError as error:
    raise errors.UserError(
      f'{name} cannot be read: {error.strerror or error}'
    ) from error
  except UnicodeDecodeError as error:
    raise errors.UserError(
      f'{name} is not UTF-8 at byte {error.start}'
    ) from error


def _open_to_write(path: pathlib.Path) -> Any:
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open('w', encoding='utf-8')
  except OSError as error:
    raise errors.UserError(
      f'{str(path)!r} cannot be written: {error.strerror or error}'
    ) from error
