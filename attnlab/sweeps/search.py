"""Which point comes n-th, as a function of n and of what is known by then.

Point n is drawn from a seed of its own, and may use the results of the points
0 .. n - lag, never of later ones. So it does not matter how many workers there
are, which trial ends first, or how often the sweep was stopped: the points, and
which of them are pruned, are the same.
"""

from collections.abc import Mapping, Sequence
import hashlib
import json
import random
from typing import Any, NamedTuple

from attnlab import errors
from attnlab.sweeps import spaces

SEARCHES = ('grid', 'random', 'tpe')
PRUNERS = ('none', 'median', 'asha')
LAG = 8
_TRIES = 50
_SMALL = 100_000  # a space whose unused points are listed


class Search(NamedTuple):
  """How a space is searched.

  Attributes:
    space: the space.
    kind: one of SEARCHES.
    trials: how many points.
    pruner: one of PRUNERS.
    seed: of the search; the trials' own seeds are settings like others.
    mode: 'max' or 'min'.
    lag: how many points behind the results are that a point is drawn from.
  """

  space: spaces.Space
  kind: str
  trials: int
  pruner: str
  seed: int
  mode: str
  lag: int = LAG

  @property
  def waits(self) -> bool:
    """Whether point n needs the results up to n - lag."""
    return self.kind == 'tpe' or self.pruner != 'none'


def choose(
  space: spaces.Space, kind: str | None, trials: int | None
) -> tuple[str, int]:
  """Returns the kind of search and the number of points.

  A space that can be listed is a grid unless another search is asked for. No
  point comes twice, so a small space ends a search.

  Raises:
    UserError: the kind is unknown, a grid cannot list the space, or the number
      is missing or below 1.
  """
  if kind is not None and kind not in SEARCHES:
    raise errors.unknown('search', kind, SEARCHES)
  if trials is not None and trials < 1:
    raise errors.UserError(f'trials={trials} must be 1 or more')
  size = spaces.size(space)
  kind = kind or ('random' if size is None else 'grid')
  if size is None and kind == 'grid':
    name = spaces.uncountable(space)
    raise errors.UserError(
      f"search='grid' cannot list {name}: give it a number of values, such as "
      'log(1e-4,1e-2,5), or use --search=random or --search=tpe'
    )
  if trials is None and (kind == 'tpe' or size is None):
    raise errors.UserError(
      f'trials is missing: search={kind!r} needs --trials=N'
    )
  if size is None:
    return kind, trials
  return kind, size if trials is None else min(trials, size)


def seed_of(*parts: object) -> int:
  """Returns a seed that is a function of these parts."""
  text = '/'.join(map(str, parts))
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], 'big')


def draw(
  search: Search,
  number: int,
  known: Sequence[Any],
  used: Sequence[Mapping[str, Any]],
) -> dict[str, Any] | None:
  """Returns point `number`, as {name of an axis: value in the study}.

  Args:
    search: how.
    number: which; the points before it are in `used`.
    known: the study's trials of the points 0 .. number - lag, in order.
    used: the points before this one.

  Returns:
    None when a countable space is used up.
  """
  size = spaces.size(search.space)
  if size is not None and number >= size:
    return None
  if search.kind == 'grid':
    return encode(search.space, spaces.at(search.space, number))
  if search.kind == 'random' and size is not None:
    return encode(search.space, spaces.at(search.space, _permuted(
      number, size, seed_of(search.seed, 'order')
    )))  # fmt: skip
  taken = {_key(point) for point in used}
  point: dict[str, Any] = {}
  for again in range(_TRIES):
    point = _suggest(search, seed_of(search.seed, number, again), known)
    if _key(point) not in taken:
      return point
  if size is None or size > _SMALL:
    return point
  # The search insists on points that are done: any other one instead.
  order = random.Random(seed_of(search.seed, number, 'other'))
  left = [
    point
    for i in range(size)
    if _key(point := encode(search.space, spaces.at(search.space, i)))
    not in taken
  ]
  return order.choice(left) if left else None


def distributions(space: spaces.Space) -> dict[str, Any]:
  """Returns the space as Optuna's distributions."""
  from optuna import distributions as kinds

  found: dict[str, Any] = {}
  for axis in space:
    domain = axis.domain
    if isinstance(domain, spaces.Real):
      found[axis.name] = kinds.FloatDistribution(
        domain.low, domain.high, log=domain.log
      )
    elif isinstance(domain, spaces.Whole):
      found[axis.name] = kinds.IntDistribution(domain.low, domain.high)
    else:
      found[axis.name] = kinds.CategoricalDistribution(_labels(domain))
  return found


def settings(space: spaces.Space, point: Mapping[str, Any]) -> dict[str, str]:
  """Returns a point as {setting: text}."""
  values = []
  for axis in space:
    value = point[axis.name]
    if isinstance(axis.domain, spaces.Choice):
      values.append(axis.domain.values[_labels(axis.domain).index(value)])
    else:
      values.append((repr(value),))
  return spaces.point(space, values)


def encode(space: spaces.Space, texts: Mapping[str, str]) -> dict[str, Any]:
  """Returns {setting: text} as a point of the study."""
  found: dict[str, Any] = {}
  for axis in space:
    value = tuple(texts[path] for path in axis.paths)
    whole = isinstance(axis.domain, spaces.Whole)
    found[axis.name] = int(value[0]) if whole else _label(value)
  return found


def pruner(kind: str, every: int) -> Any:
  """Returns Optuna's pruner.

  Args:
    kind: 'median' stops a trial that is behind the median of the others at that
      step, once five have ended; 'asha' lets the best third pass at 1, 3, 9 ...
      evaluations.
    every: steps between two evaluations.
  """
  from optuna import pruners

  if kind == 'median':
    return pruners.MedianPruner(n_startup_trials=5)
  return pruners.SuccessiveHalvingPruner(min_resource=every, reduction_factor=3)


def _suggest(search: Search, seed: int, known: Sequence[Any]) -> dict[str, Any]:
  import optuna

  if search.kind == 'tpe':
    sampler: Any = optuna.samplers.TPESampler(seed=seed)
  else:
    sampler, known = optuna.samplers.RandomSampler(seed=seed), ()
  direction = 'maximize' if search.mode == 'max' else 'minimize'
  study = optuna.create_study(sampler=sampler, direction=direction)
  study.add_trials(known)
  return dict(study.ask(distributions(search.space)).params)


def _permuted(index: int, size: int, seed: int) -> int:
  """The index-th of the numbers below `size` in a random order, unlisted.

  A Feistel network permutes the least power of four that holds them; what falls
  outside is permuted again.
  """
  half = max(1, ((size - 1).bit_length() + 1) // 2)
  mask = (1 << half) - 1
  while True:
    left, right = index >> half, index & mask
    for turn in range(6):
      left, right = right, left ^ (seed_of(seed, turn, right) & mask)
    index = left << half | right
    if index < size:
      return index


def _labels(domain: spaces.Choice) -> tuple[str, ...]:
  return tuple(map(_label, domain.values))


def _label(texts: Sequence[str]) -> str:
  return texts[0] if len(texts) == 1 else json.dumps(texts)


def _key(point: Mapping[str, Any]) -> tuple:
  return tuple(sorted((name, repr(value)) for name, value in point.items()))
