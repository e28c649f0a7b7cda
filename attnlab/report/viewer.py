"""One HTML page to browse examples, with all that it needs inside it.

The page asks nothing of any network, and its content security policy forbids
it to: one script and one style, each allowed by its hash, and nothing else.
Texts of runs are data, JSON in a block that is never run, and the script puts
them on the page as text. Weights are bytes, 255 of which are the largest weight
of an example. Examples are sampled so that the page stays below 5 MB.
"""

import base64
from collections.abc import Mapping, Sequence
import hashlib
import html
import json
import pathlib
import string
from typing import Any

import numpy as np

from attnlab.report import groups, tables
from attnlab.report import runs as runs_lib

BYTES = 4_300_000  # of data; the rest of the page is small
_MOST = 100  # examples of a split
_FEWEST = 8  # examples of a split; below that, one run of each setting
_LONGEST = 4_000  # characters of a text
_HERE = pathlib.Path(__file__).parent


def page(data: Mapping[str, Any], *, title: str = 'attnlab report') -> str:
  """Returns the HTML page of what `examples` made."""
  script, style = (
    (_HERE / name).read_text(encoding='utf-8')
    for name in ('viewer.js', 'viewer.css')
  )
  policy = '; '.join(
    [
      "default-src 'none'",
      f"script-src '{_hash(script)}'",
      f"style-src '{_hash(style)}'",
      "base-uri 'none'",
      "form-action 'none'",
      "require-trusted-types-for 'script'",
      "trusted-types 'none'",
    ]
  )
  template = (_HERE / 'viewer.html').read_text(encoding='utf-8')
  return string.Template(template).substitute(
    policy=policy,
    title=html.escape(title),
    style=style,
    data=embedded(data),
    script=script,
  )


def _hash(text: str) -> str:
  digest = hashlib.sha256(text.encode()).digest()
  return f'sha256-{base64.b64encode(digest).decode()}'


# Nothing that HTML reads, and no line end that JavaScript has and JSON has not.
_ESCAPED = {ord(c): f'\\u{ord(c):04x}' for c in '<>&\u2028\u2029'}


def embedded(data: Any) -> str:
  """JSON that may stand in a script block of HTML."""
  text = json.dumps(
    data, ensure_ascii=False, allow_nan=False, separators=(',', ':')
  )
  # Half characters cannot be written as UTF-8.
  text = text.encode('utf-8', 'replace').decode('utf-8')
  return text.translate(_ESCAPED)


def examples(
  sections: Sequence[groups.Section],
  *,
  limit: int = BYTES,
  say: runs_lib.Say = runs_lib.warn,
) -> dict[str, Any]:
  """The data of the page: a sample of what the runs answered and looked at.

  Args:
    sections: of the report.
    limit: bytes, roughly.
    say: is told of malformed records.
  """
  share = limit // max(1, len(sections))
  found = []
  for section in sections:
    record = _section(section, section.runs, share, say)
    firsts = [setting.runs[0] for setting in section.settings]
    few = any(len(s['examples']) < _FEWEST for s in record['splits'])
    if few and record['full'] and len(firsts) < len(section.runs):
      record = _section(section, firsts, share, lambda _: None)
      record['note'] += ', the first seed of each setting'
    del record['full']
    if record['splits']:
      found.append(record)
  return {'sections': found}


def _section(
  section: groups.Section,
  runs: Sequence[runs_lib.Run],
  limit: int,
  say: runs_lib.Say,
) -> dict[str, Any]:
  labels = {r.path: s.label for s in section.settings for r in s.runs}
  column = next((c for c in tables.columns(section) if '/' in c.key), None)
  looked = [runs_lib.attention(run, say=say) for run in runs]
  numbers = _numbers(runs, looked)
  pools = {
    split: _pool(runs, looked, split, ids) for split, ids in numbers.items()
  }
  chosen: dict[str, list[dict]] = {split: [] for split in pools}
  left, full = limit, False
  # One of each split in turn, so that none is starved.
  for turn in range(_MOST):
    for split, pool in pools.items():
      if turn >= len(pool) or full:
        continue
      left -= len(embedded(pool[turn]).encode())
      full = left < 0
      if not full:
        chosen[split].append(pool[turn])
  many = len({run.name for run in runs}) > 1
  return {
    'title': section.title,
    'task': section.task,
    'note': f'{len(runs)} run{"s" if many else ""}',
    'runs': [_run(run, labels[run.path], column) for run in runs],
    'splits': [
      {'name': split, 'examples': sorted(found, key=lambda e: e['id'])}
      for split, found in chosen.items()
      if found
    ],
    'full': full,
  }


def _run(
  run: runs_lib.Run, label: str, column: tables.Column | None
) -> dict[str, str]:
  seed = f'seed {run.config.get("seed", "?")}'
  if run.config.get('data.fold') is not None:
    seed += f', fold {run.config["data.fold"]}'
  figure = ''
  value = column and run.summary.get(column.key)
  if column and isinstance(value, int | float):
    figure = f'{column.head} {value * column.scale:.{column.digits}f}'
  return {
    'setting': tables.one_line(label),
    'seed': tables.one_line(seed),
    'figure': figure,
  }


def _numbers(
  runs: Sequence[runs_lib.Run], looked: Sequence[Mapping[str, Mapping]]
) -> dict[str, list[int]]:
  """Which examples of which splits, those that are recorded best first.

  That is with layers and heads, and then by most runs.
  """
  counts: dict[str, dict[int, int]] = {}
  whole: set[tuple[str, int]] = set()
  for run, records in zip(runs, looked, strict=True):
    for split in runs_lib.splits(run):
      counts.setdefault(split, {})
    for split, found in records.items():
      for number, record in found.items():
        split_counts = counts.setdefault(split, {})
        split_counts[number] = split_counts.get(number, 0) + 1
        if 'heads' in record:
          whole.add((split, number))
  tests = [split for split in counts if runs_lib.is_test(split)]
  splits = sorted(tests or counts, key=lambda s: (s != 'test', s))
  # A fixed disorder: an order by number would be one by source in some data.
  disorder = lambda n: n * 2654435761 % 2**32
  return {
    split: sorted(
      counts[split] or range(_MOST),
      key=lambda n: (
        (split, n) not in whole,
        -counts[split].get(n, 0),
        disorder(n),
      ),
    )[:_MOST]
    for split in splits
  }


def _pool(
  runs: Sequence[runs_lib.Run],
  looked: Sequence[Mapping[str, Mapping[int, dict]]],
  split: str,
  numbers: Sequence[int],
) -> list[dict[str, Any]]:
  """The examples with these numbers, as the page takes them."""
  found: dict[int, dict[str, Any]] = {}
  silent = lambda _: None  # it was said when the tables were made
  for place, (run, records) in enumerate(zip(runs, looked, strict=True)):
    said = runs_lib.predictions(run, split, say=silent)
    for number in numbers:
      record = said[number] if number < len(said) else None
      if record is None:
        continue
      first, second, third = list(record)[:3]
      text, gold = record[first], record[second]
      example = found.setdefault(
        number,
        {
          'id': number,
          'text': text[:_LONGEST],
          'gold': gold[:_LONGEST],
          'words': len(text.split()),
          'answers': {},
        },
      )
      if (
        example['text'] != text[:_LONGEST] or example['gold'] != gold[:_LONGEST]
      ):
        continue  # another data set under the same name
      attended = records.get(split, {}).get(number)
      example['answers'][str(place)] = _answer(
        record, record[third], gold, attended, example
      )
  return [found[number] for number in numbers if number in found]


def _answer(
  record: Mapping[str, Any],
  said: str,
  gold: str,
  attended: Mapping[str, Any] | None,
  example: dict[str, Any],
) -> dict[str, Any]:
  """What one run said and where it looked."""
  answer: dict[str, Any] = {'text': said[:_LONGEST], 'right': said == gold}
  if 'hypothesis' in record:
    answer['score'] = _score(said, gold)
    answer['say'] = f'chrF {answer["score"]:.0f}'
  elif 'probability' in record:
    sure = record['probability']
    answer['say'] = f'{100 * sure:.0f} %'
    answer['score'] = round(sure if said == gold else -sure, 4)
  if attended is None:
    return answer
  source = [token[:80] for token in attended['source']]
  target = [token[:80] for token in attended['target']]
  if 'hypothesis' not in record:
    lines = [len(line.split()) for line in record['text'].split('\n')]
    if sum(lines) != len(source):
      lines = [len(source)]
    example['lines'] = lines
    if 'gold' in attended:
      example['marked'] = attended['gold']
  if example.setdefault('source', source) != source:
    answer['source'] = source
  weights = attended.get('heads', attended['weights'][None, None])
  return {**answer, 'target': target, **_bytes(weights)}


def _bytes(weights: np.ndarray) -> dict[str, Any]:
  """[layers, heads, T, S] as base64, a byte each; 255 stands for `m`."""
  most = max(float(weights.max()), 1e-6)
  scaled = np.round(np.clip(weights, 0.0, most) * (255 / most))
  return {
    'w': base64.b64encode(scaled.astype(np.uint8).tobytes()).decode(),
    'm': round(most, 6),
    'shape': list(weights.shape),
  }


def _score(said: str, gold: str) -> float:
  from sacrebleu.metrics import CHRF

  return round(CHRF().sentence_score(said, [gold]).score, 1)
