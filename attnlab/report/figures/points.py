"""Points: figures of settings, and figures over a size."""

from collections.abc import Mapping, Sequence
import typing

import numpy as np

from attnlab.report.figures import canvas, curves

if typing.TYPE_CHECKING:
  from matplotlib.figure import Figure


def dots(
  rows: Mapping[str, Sequence[float]],
  xlabel: str,
  *,
  line: float | None = None,
) -> 'Figure':
  """A row a setting: its seeds as rings, their mean ± one sd.

  Args:
    rows: label -> a value a seed.
    xlabel: what the values are, with unit.
    line: where an upright line marks what to compare with; None for none.

  Returns:
    The figure.

  Raises:
    ValueError: there are no rows.
  """
  if not rows:
    raise ValueError('rows is empty')
  with canvas.style():
    figure = canvas.blank(4.6, 0.23 * len(rows) + 0.75)
    axes = figure.subplots()
    for place, values in enumerate(rows.values()):
      spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
      axes.errorbar(
        [np.mean(values)],
        [place],
        xerr=[spread],
        marker='s',
        markersize=4,
        linewidth=1.0,
        capsize=2.5,
        color=canvas.COLOURS[0],
      )
      axes.plot(
        values,
        [place] * len(values),
        linestyle='',
        marker='o',
        markersize=3.5,
        markerfacecolor='none',
        markeredgecolor='#777777',
        markeredgewidth=0.7,
        zorder=3,
      )
    if line is not None:
      axes.axvline(line, color=canvas.GOLD, linestyle='--', linewidth=1.0)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis='y', length=0)
    axes.set_xlabel(xlabel)
    canvas.open_frame(axes)
    axes.grid(axis='x', color=canvas.FAINT, linewidth=0.6)
    axes.grid(axis='y', visible=False)
  return figure


def by_size(
  panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]],
  xlabel: str,
) -> 'Figure':
  """A panel a figure, a line a setting, over sizes: means over seeds ± one sd.

  Args:
    panels: what the values are, with unit -> label -> size -> a value a seed.
    xlabel: what the sizes are; their axis is logarithmic.

  Returns:
    The figure.

  Raises:
    ValueError: there are no panels.
  """
  if not panels:
    raise ValueError('panels is empty')
  with canvas.style():
    figure = canvas.blank(3.1 * len(panels), 2.7)
    grid = figure.subplots(1, len(panels), squeeze=False)
    for axes, (ylabel, series) in zip(grid.flat, panels.items(), strict=True):
      curves.over_sizes(axes, series)
      ticks = sorted({n for points in series.values() for n in points})
      axes.set_xscale('log')
      axes.set_xticks(ticks, [f'{n:,}' for n in ticks], minor=False)
      axes.set_xticks([], minor=True)
      axes.set_xlabel(xlabel)
      axes.set_ylabel(ylabel)
      canvas.open_frame(axes)
    curves.legend(
      figure, list(dict.fromkeys(k for p in panels.values() for k in p))
    )
  return figure
