"""Cells of a study as one sweep, and as entries of results/.

All cells of an experiment, with all their seeds, are the points of one sweep,
the first seeds first: it runs several at a time, goes on after any kill, and
repeats nothing.
"""

from collections.abc import Callable, Mapping, Sequence
import json
import pathlib
from typing import Any, NamedTuple

from attnlab import configs
from attnlab.report import results
from attnlab.sweeps import engines, live, search, spaces, sweep

_SEED = 'seed'


class Cell(NamedTuple):
  """One setting, and how often it is run.

  Attributes:
    name: of its file.
    label: what tables call it.
    settings: {path in the config: text}, the same paths in all cells of a grid.
    seeds: how many, from 0.
  """

  name: str
  label: str
  settings: Mapping[str, str]
  seeds: int


class Grid(NamedTuple):
  """The cells of one experiment.

  Attributes:
    name: of its folder.
    spec: the experiment with its variant.
    overrides: {path: text} of all cells.
    cells: the settings.
    seconds: what a run takes on one core, for the estimate.
  """

  name: str
  spec: str
  overrides: Mapping[str, str]
  cells: Sequence[Cell]
  seconds: float

  @property
  def points(self) -> list[tuple[Cell, int]]:
    """The runs in their order: (cell, seed)."""
    most = max((cell.seeds for cell in self.cells), default=0)
    return [
      (cell, seed)
      for seed in range(most)
      for cell in self.cells
      if seed < cell.seeds
    ]


def plan(grid: Grid) -> sweep.Plan:
  """The sweep of a grid.

  Raises:
    UserError: a setting is unknown or its value is wrong.
  """
  paths = (*grid.cells[0].settings, _SEED)
  rows = tuple(
    (*(cell.settings[path] for path in paths[:-1]), str(seed))
    for cell, seed in grid.points
  )
  space = (spaces.Axis(paths, spaces.Choice(rows)),)
  overrides = dict(grid.overrides)
  config = configs.override(configs.load(grid.spec), overrides)
  spaces.check(space, config, overrides)
  figure, mode, *_ = sweep.objective(None, config)
  return sweep.Plan(
    spec=grid.spec,
    overrides=overrides,
    text=f'the cells of {grid.name}',
    search=search.Search(space, 'grid', len(rows), 'none', 0, mode),
    objective=figure,
    watched=figure,
    watched_mode=mode,
  )


def run(grid: Grid, folder: pathlib.Path, workers: int) -> list[str]:
  """Trains what is missing.

  Args:
    grid: the cells.
    folder: of the sweep.
    workers: runs at a time.

  Returns:
    A line for each run that failed.

  Raises:
    UserError: a setting is wrong, or the folder holds another grid.
    sweep.Stopped: a signal came; the same call goes on.
  """
  sweep.check_extra()
  planned = plan(grid)
  view = live.View(planned.objective, workers)
  view.say(f'{grid.name}: {len(grid.points)} runs in {folder}')
  kept = sweep.run(planned, folder, lambda: engines.Local(workers), view)
  return [
    f'{grid.points[point.number][0].name}, seed '
    f'{grid.points[point.number][1]}: {point.error}'
    for point in kept.ordered()
    if point.state == 'failed'
  ]


def workdirs(grid: Grid, folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """The finished runs of each cell, by seed."""
  found: dict[str, list[pathlib.Path]] = {}
  for number, (cell, _) in enumerate(grid.points):
    path = folder / 'trials' / f'{number:04d}'
    if (path / 'summary.json').is_file():
      found.setdefault(cell.name, []).append(path)
  return found


def estimate(
  todo: Sequence[tuple[Grid, pathlib.Path]], workers: int
) -> tuple[int, int, float]:
  """How many runs there are and are finished, and the seconds that are left."""
  runs, done, left = 0, 0, 0.0
  for grid, folder in todo:
    finished = sum(map(len, workdirs(grid, folder).values()))
    runs, done = runs + len(grid.points), done + finished
    left += (len(grid.points) - finished) * grid.seconds
  return runs, done, left / workers


def collect(
  grid: Grid,
  folder: pathlib.Path,
  out: pathlib.Path,
  more: Callable[[Cell, Sequence[pathlib.Path]], Mapping[str, Any]],
) -> None:
  """Writes OUT/NAME.json for each cell that has finished runs.

  Args:
    grid: the cells.
    folder: of the sweep.
    out: the folder of the entries.
    more: (cell, its run directories) -> what an entry holds besides; what it
      has under 'values' is added to the figures, as {key: one a seed}.
  """
  found = workdirs(grid, folder)
  for cell in grid.cells:
    if cell.name not in found:
      continue
    entry: dict[str, Any] = results.collect(
      found[cell.name], name=cell.name, label=cell.label
    )
    added = dict(more(cell, found[cell.name]))
    for key, values in added.pop('values', {}).items():
      entry['figures'][key] = sum(values) / len(values)
      if len(values) > 1:
        entry['values'][key] = values
    results.write({**entry, **added}, out)


def read(out: pathlib.Path) -> dict[str, dict[str, Any]]:
  """The entries that `collect` wrote, by name."""
  return {
    path.stem: json.loads(path.read_text(encoding='utf-8'))
    for path in sorted(out.glob('*.json'))
  }
