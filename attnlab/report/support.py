"""docs/support.md: what goes together, found by trying every pair.

Each cell is a composition that is built and run in shapes alone, on a tiny
example. What does not compose is refused with the nearest that does; its reason
is printed below the table.
"""

from collections.abc import Callable, Iterable, Mapping
import functools
import inspect
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from attnlab import attention
from attnlab.report import example, parts
from attnlab.tasks import base

_WIDTH = 8
_BATCH, _LENGTH, _WORDS = 2, 3, 11
# Of models, by the name of the setting.
_TINY = {
  'embedding': _WIDTH,
  'hidden': _WIDTH,
  'depth': _WIDTH,
  'heads': 2,
  'layers': 1,
}
# With what a part is tried, where it goes with that.
USUAL = {'score': 'additive', 'normalizer': 'softmax'}

_MADE = (
  '<!-- Written by python -m attnlab.report.catalogue, which tries every cell. '
  '-->'
)
_ABOUT = (
  'Every pair of parts is composed and run in shapes alone: ✓ runs, a number '
  'is refused with the reason below. A part that is not named in a table is '
  'softmax or additive, where the pair takes it, or else the first that it '
  'takes. [The catalogue](catalogue.md) says what the parts are.'
)

_WAYS = (
  'Which implementations of `attention.attend` a score takes with a '
  'normaliser: '
  f'{", ".join(f"{w[0].upper()} {w}" for w in attention.engine.WAYS[1:])}. '
  'What the others refuse they refuse by name, with the reason; `auto` takes '
  'everything.'
)

Table = dict[str, dict[str, str]]


def render() -> str:
  """Returns docs/support.md."""
  reasons: dict[str, int] = {}
  blocks = [
    _MADE,
    '# What goes together',
    _ABOUT,
    '## Score and normaliser',
    _markdown(pairs('score', 'normalizer'), reasons),
  ]
  for kind, title in (('score', 'Score'), ('normalizer', 'Normaliser')):
    table: Table = {name: {} for name in choices(kind)}
    for other in (k for k in parts.kinds() if k not in USUAL):
      for name, row in pairs(kind, other).items():
        table[name] |= row
    for name, row in with_masks(kind).items():
      table[name] |= row
    blocks += [
      f'## {title} with the other parts and masks',
      _markdown(table, reasons),
    ]
  blocks += ['## Part and model', _markdown(in_models(), reasons)]
  blocks += ['## Implementation', _WAYS, _letters(implementations())]
  if reasons:
    blocks += [
      '## Reasons',
      '\n'.join(f'{number}. {reason}' for reason, number in reasons.items()),
    ]
  return '\n\n'.join(blocks) + '\n'


def choices(kind: str) -> Mapping[str, parts.Choice]:
  """The choices of a kind: 'score', 'normalizer', 'locality' and so on."""
  return parts.of_config(parts.kinds()[kind]).choices


def pairs(kind: str, other: str) -> Table:
  """Tries every choice of a kind with every one of another.

  Args:
    kind: of the rows.
    other: of the columns.

  Returns:
    {row: {column: '' or why it is refused}}.
  """
  return {
    name: {
      column: attempt(lambda given={kind: name, other: column}: _run(given))
      for column in choices(other)
    }
    for name in choices(kind)
  }


def with_masks(kind: str) -> Table:
  """Tries every choice of a kind under every mask, as `pairs`."""
  masks = {
    name: example.build(choice)
    for name, choice in parts.of_library('masks').choices.items()
  }
  return {
    name: {
      column: attempt(lambda name=name, mask=mask: _run({kind: name}, mask))
      for column, mask in masks.items()
      if mask is not None
    }
    for name in choices(kind)
  }


def implementations() -> dict[str, dict[str, list[str]]]:
  """Returns {score: {normaliser: the implementations that take the two}}."""
  return {
    name: {
      other: [
        way
        for way in attention.engine.WAYS[1:]
        if not attempt(
          lambda given={'score': name, 'normalizer': other}, way=way: _run(
            given, implementation=way
          )
        )
      ]
      for other in choices('normalizer')
    }
    for name in choices('score')
  }


def in_models() -> Table:
  """Tries every part, and every paper, in every model that takes one."""
  columns = models()
  return {
    name: {column: in_model(run, mechanism) for column, run in columns.items()}
    for name, mechanism in mechanisms().items()
  }


def in_model(run: Callable, mechanism: attention.Attention | str) -> str:
  """Why a model refuses a mechanism, or '' if it runs; a str is a reason."""
  if isinstance(mechanism, str):
    return mechanism
  return attempt(lambda: run(mechanism))


def mechanisms() -> dict[str, attention.Attention | str]:
  """Returns {part or paper: a mechanism with it, or why there is none}."""
  found: dict[str, Any] = {}
  for kind in parts.kinds():
    for name in choices(kind):
      # A score and a normaliser may share a name.
      label = f'{name} ({kind})' if name in found else name
      try:
        found[label] = compose({kind: name})
      except ValueError as error:
        found[label] = _one_line(error)
  for name, choice in parts.of_library('papers').choices.items():
    mechanism = example.build(choice)
    if mechanism is not None:
      found[f'papers.{name}'] = mechanism
  return found


@functools.cache
def models() -> dict[str, Callable[[attention.Attention], Any]]:
  """Returns {model: runs it, tiny, around a mechanism}."""
  found = {}
  for task, run in (('model', _translate), ('classification:model', _classify)):
    for name, choice in parts.of_config(task).choices.items():
      tiny = {k: v for k, v in _TINY.items() if k in choice.settings}
      if 'pool' not in choice.settings:
        found[name] = _runner(run, choice, tiny)
        continue
      tiny.pop('heads', None)
      for pool, kind in parts.pools().choices.items():
        if 'mechanism' in inspect.signature(kind.make.__init__).parameters:
          settings = {**tiny, 'pool': pool}
          found[f'{name}, {pool}'] = _runner(run, choice, settings)
  # A model that runs without a mechanism holds none.
  return {name: run for name, run in found.items() if attempt(run, None)}


def compose(given: Mapping[str, str]) -> attention.Attention:
  """The mechanism of some parts, with others that go with them.

  Raises:
    ValueError: those given go with none; the message is that of the usual.
  """
  return _compose(complete(given))


def complete(given: Mapping[str, str]) -> dict[str, str]:
  """{'score': 'dot'} with the names of the others that go with it.

  Raises:
    ValueError: as `compose`.
  """
  free = [kind for kind in USUAL if kind not in given]
  first: ValueError | None = None
  for candidate in _candidates(free):
    try:
      _compose({**candidate, **given})
    except ValueError as error:
      first = first or error
    else:
      return {**candidate, **given}
  raise first or ValueError('there is nothing to compose')


def _compose(names: Mapping[str, str]) -> attention.Attention:
  """As a config does, with the settings that suit a tiny example."""
  section: dict[str, Any] = {}
  for kind, name in names.items():
    settings = example.arguments(choices(kind)[name]) or {}
    section[kind] = {'name': name, **settings}
  return base.mechanism(section)


def _candidates(free: list[str]) -> Iterable[dict[str, str]]:
  """The usual others first, and then each other one in turn."""
  usual = {kind: USUAL[kind] for kind in free}
  yield usual
  for kind in free:
    for name in choices(kind):
      if name != usual[kind]:
        yield {**usual, kind: name}


def attempt(run: Callable, *arguments: Any) -> str:
  """Traces a function; returns '', or why it is refused.

  A ValueError is a refusal. Anything else is a fault of ours, and its text
  begins with 'fails:'.
  """
  try:
    jax.eval_shape(lambda: run(*arguments))
  except ValueError as error:
    return _one_line(error)
  except Exception as error:  # It is what the page must show.
    return f'fails: {type(error).__name__}: {_one_line(error)}'
  return ''


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split())


def _run(given: Mapping[str, str], mask: Any = None, **more: Any) -> Any:
  """A mechanism on a batch of one example, as the library is used."""
  mechanism = compose(given)
  params = mechanism.init(
    jax.random.key(0), query_dim=_WIDTH, key_dim=_WIDTH, value_dim=_WIDTH
  )
  x = jnp.zeros((1, _LENGTH, _WIDTH))
  return attention.attend(
    mechanism, params, x, x, x, mask=mask, rng=jax.random.key(1), **more
  )


def _runner(run: Callable, choice: parts.Choice, settings: Mapping) -> Callable:
  def one(mechanism):
    try:
      return run(choice, settings, mechanism)
    except ValueError as error:
      if 'bidirectional' not in choice.settings:
        raise
      # States of both directions are twice as deep as a query.
      run(choice, {**settings, 'bidirectional': False}, mechanism)
      raise ValueError(
        f'{error}; runs with model.bidirectional=False'
      ) from error

  return one


def _translate(choice, settings, mechanism):
  """Teacher forcing, and one step of decoding."""
  model = choice.make(
    _WORDS, _WORDS, mechanism, nnx.Rngs(0), jnp.float32, **settings
  )
  words = jnp.ones((_BATCH, _LENGTH), jnp.int32)
  logits, _ = model({'source': words, 'target': words}, jax.random.key(0))
  memory = model.encode(words)
  carry = model.init_carry(memory, _LENGTH)
  step = model.step(memory, carry, words[:, 0], jnp.int32(0))
  return logits, step


def _classify(choice, settings, mechanism):
  """One forward pass of a classifier."""
  model = choice.make(
    _WORDS, 2, mechanism, nnx.Rngs(0), jnp.float32, **settings
  )
  shape = (_BATCH, *(_LENGTH,) * model.rank)
  logits, _ = model({'tokens': jnp.ones(shape, jnp.int32)}, jax.random.key(0))
  return logits


def _markdown(table: Table, reasons: dict[str, int]) -> str:
  """A table of marks; a reason that is new gets the next number."""
  columns = list(dict.fromkeys(c for row in table.values() for c in row))
  lines = [
    f'| | {" | ".join(columns)} |',
    f'| --- |{" :---: |" * len(columns)}',
  ]
  for name, row in table.items():
    cells = (_mark(row[column], reasons) for column in columns)
    lines.append(f'| {name} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def _letters(table: dict[str, dict[str, list[str]]]) -> str:
  """A table of first letters."""
  columns = list(next(iter(table.values())))
  lines = [
    f'| | {" | ".join(columns)} |',
    f'| --- |{" :---: |" * len(columns)}',
  ]
  for name, row in table.items():
    letters = (' '.join(w[0].upper() for w in ways) for ways in row.values())
    cells = ' | '.join(text or '–' for text in letters)
    lines.append(f'| {name} | {cells} |')
  return '\n'.join(lines)


def _mark(reason: str, reasons: dict[str, int]) -> str:
  if not reason:
    return '✓'
  return str(reasons.setdefault(reason, len(reasons) + 1))
