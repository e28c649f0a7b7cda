"""Figures over several runs: spread over seeds, mechanisms side by side.

They look like those of `figures`, whose style they share, and like those return
a Matplotlib figure that belongs to nobody.
"""

from collections.abc import Mapping, Sequence
import typing
from typing import NamedTuple

import numpy as np

from attnlab.report import figures

if typing.TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

_FILL = 0.16  # opacity of a band
_CELL_INCHES = 0.19
_PANEL_INCHES = 4.6  # no grid is larger, so that two stand side by side
_PAGE_INCHES = 11.6
_BESIDE = 4  # more series have their legend to the right


class Panel(NamedTuple):
  """Weights [T, S] of one mechanism, with its words."""

  title: str
  weights: np.ndarray
  source: Sequence[str]
  target: Sequence[str]


def learning_curves(
  settings: Mapping[str, Sequence[Sequence[Mapping[str, float]]]],
  keys: Sequence[str],
) -> 'Figure':
  """One panel a metric, one line a setting: the mean over seeds, ± one sd.

  Args:
    settings: label -> for each seed the lines of its metrics.jsonl.
    keys: the metrics to draw, those that no run has left out.

  Returns:
    The figure.

  Raises:
    ValueError: no run has any of the metrics.
  """
  curves = {
    key: {label: pooled(seeds, key) for label, seeds in settings.items()}
    for key in keys
  }
  curves = {
    key: lines
    for key, lines in curves.items()
    if any(len(steps) for steps, _, _ in lines.values())
  }
  if not curves:
    raise ValueError(f'no run has any of the metrics {", ".join(keys)}')
  columns = min(len(curves), 3)
  rows = -(-len(curves) // columns)
  with figures._style():
    figure = figures._figure(3.3 * columns, 2.5 * rows + 0.3)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (key, lines) in zip(panels, curves.items(), strict=False):
      for number, (label, (steps, mean, spread)) in enumerate(lines.items()):
        if not len(steps):
          continue
        _band(axes, number, steps, mean, spread)
        series = figures._series(number, len(steps) <= 25)
        axes.plot(steps, mean, label=label, **series)
      axes.set_xlabel('training step')
      axes.set_ylabel(figures._metric_name(key))
      axes.xaxis.get_major_locator().set_params(nbins=5, integer=True)
      figures._open_frame(axes)
    for axes in panels[len(curves) :]:
      axes.set_axis_off()
    _legend(figure, list(settings))
  return figure


def pooled(
  seeds: Sequence[Sequence[Mapping[str, float]]], key: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Steps, mean and standard deviation over the seeds that got that far.

  The deviation is NaN where one seed alone did.
  """
  values: dict[float, list[float]] = {}
  for lines in seeds:
    # A resumed run may have logged a step twice: the last one counts.
    for step, value in {x['step']: x[key] for x in lines if key in x}.items():
      if isinstance(value, int | float):
        values.setdefault(step, []).append(float(value))
  steps = np.array(sorted(values))
  mean = np.array([np.mean(values[step]) for step in steps])
  spread = np.array(
    [
      np.std(values[step], ddof=1) if len(values[step]) > 1 else np.nan
      for step in steps
    ]
  )
  return steps, mean, spread


def metric_by_length(
  series: Mapping[str, np.ndarray],
  names: Sequence[str],
  counts: Sequence[int],
  *,
  ylabel: str,
  xlabel: str = 'source length (words)',
) -> 'Figure':
  """A metric over bins of length: means over seeds ± one sd, and the counts.

  Args:
    series: label -> [seeds, bins] values; NaN for a bin without examples.
    names: of the bins.
    counts: examples in each bin.
    ylabel: what the values are, with unit.
    xlabel: what the bins are.

  Returns:
    The figure.

  Raises:
    ValueError: there is no series, or one has not as many bins as names.
  """
  if not series:
    raise ValueError('series is empty')
  for label, values in series.items():
    if np.shape(values)[1:] != (len(names),):
      raise ValueError(f'series[{label!r}] has shape {np.shape(values)}')
  places = np.arange(len(names))
  with figures._style():
    width = max(4.6, 0.62 * len(names) + 1.2)
    if len(series) > _BESIDE:
      width += figures._inches(list(series), 8) + 0.6
    figure = figures._figure(width, 3.2)
    axes, below = figure.subplots(
      2, 1, sharex=True, gridspec_kw={'height_ratios': (5, 1)}
    )
    for number, (label, values) in enumerate(series.items()):
      mean = np.mean(values, axis=0)
      many = len(values) > 1
      spread = np.std(values, axis=0, ddof=1) if many else mean * np.nan
      _band(axes, number, places, mean, spread)
      axes.plot(places, mean, label=label, **figures._series(number, True))
    axes.set_ylabel(ylabel)
    axes.tick_params(axis='x', length=0)
    figures._open_frame(axes)
    below.bar(places, counts, width=0.7, color='#BBBBBB')
    for place, count in zip(places, counts, strict=True):
      below.annotate(
        f'{count:,}',
        (place, count),
        xytext=(0, 1.5),
        textcoords='offset points',
        ha='center',
        fontsize=6.5,
      )
    below.set_ylim(0, 1.6 * max([*counts, 1]))
    below.set_yticks([])
    below.set_ylabel('examples', fontsize=7.5)
    below.spines[['top', 'right', 'left']].set_visible(False)
    below.set_xticks(places, names)
    below.set_xlabel(xlabel)
    figure.align_ylabels()
    _legend(figure, list(series))
  return figure


def cost_by_length(
  series: Mapping[str, Mapping[int, Sequence[float]]], ylabel: str
) -> 'Figure':
  """What a length costs, on two logarithmic axes: means over seeds.

  Args:
    series: label -> length -> values of the seeds, above 0.
    ylabel: what the values are, with unit.

  Returns:
    The figure.
  """
  with figures._style():
    figure = figures._figure(4.2, 3.0)
    axes = figure.subplots()
    for number, (label, points) in enumerate(series.items()):
      lengths = sorted(points)
      means = np.array([np.mean(points[n]) for n in lengths])
      spread = np.array(
        [
          np.std(points[n], ddof=1) if len(points[n]) > 1 else np.nan
          for n in lengths
        ]
      )
      _band(axes, number, lengths, means, spread)
      axes.plot(lengths, means, label=label, **figures._series(number, True))
    axes.set_xscale('log', base=2)
    axes.set_yscale('log')
    # Formulas are off, so that Matplotlib's own labels would show as '$10^'.
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_formatter(lambda value, _: f'{value:g}')
      axis.set_minor_formatter('')
    axes.set_xlabel('source length (tokens)')
    axes.set_ylabel(ylabel)
    figures._open_frame(axes)
    _legend(figure, list(series))
  return figure


def side_by_side(panels: Sequence[Panel]) -> 'Figure':
  """Weights of several mechanisms for one example, each with its own words.

  The grey is that of `figures.alignment`: black is 1.

  Args:
    panels: one or more; the words of the source may differ too, where the
      vocabularies do.

  Returns:
    The figure.

  Raises:
    ValueError: there is no panel, or its weights do not fit its words.
  """
  from matplotlib.colors import Normalize

  if not panels:
    raise ValueError('panels is empty')
  for panel in panels:
    shape = len(panel.target), len(panel.source)
    if np.shape(panel.weights) != shape:
      raise ValueError(
        f'{panel.title!r} has weights {np.shape(panel.weights)}, but words '
        f'{shape}'
      )
  most = max(max(len(p.source), len(p.target)) for p in panels)
  room = _PANEL_INCHES if len(panels) > 1 else 2 * _PANEL_INCHES
  cell = min(_CELL_INCHES, room / most)
  font = min(7.5, 0.82 * cell * 72)
  with figures._style():
    # Words are a little wider on paper than on the grid they are measured on.
    lefts = [1.04 * figures._inches(p.target, font) + 0.1 for p in panels]
    top = 1.04 * max(figures._inches(p.source, font) for p in panels)
    top += 0.34 if any(p.title for p in panels) else 0.1
    titles = [figures._inches([p.title], 8.5) + 0.1 for p in panels]
    widths = [
      max(left + cell * len(p.source), title) + 0.18
      for left, p, title in zip(lefts, panels, titles, strict=True)
    ]
    rows = _rows(widths)
    heights = [
      top + cell * max(len(panels[i].target) for i in row) + 0.14
      for row in rows
    ]
    # One row of weights is lower than the bar that explains it.
    bar = min(1.6, max(0.6, heights[0] - top - 0.14))
    heights[0] = max(heights[0], top + bar + 0.14)
    whole = max(sum(widths[i] for i in row) for row in rows) + 0.62
    tall = sum(heights)
    figure = figures._figure(whole, tall)
    figure.set_layout_engine('none')
    y = tall
    image = None
    for row, height in zip(rows, heights, strict=True):
      x = 0.04
      for i in row:
        panel = panels[i]
        shape = len(panel.target), len(panel.source)
        box = (
          (x + lefts[i]) / whole,
          (y - top - cell * shape[0]) / tall,
          cell * shape[1] / whole,
          cell * shape[0] / tall,
        )
        axes = figure.add_axes(box)
        image = axes.imshow(
          panel.weights,
          cmap='Greys',
          norm=Normalize(0.0, 1.0),
          aspect='auto',
          interpolation='nearest',
        )
        axes.set_xticks(
          range(shape[1]), panel.source, rotation=90, fontsize=font
        )
        axes.set_yticks(range(shape[0]), panel.target, fontsize=font)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, pad=2)
        figures._grid(axes, shape)
        figure.text(
          (x + lefts[i]) / whole,
          (y - 0.05) / tall,
          panel.title,
          va='top',
          fontsize=8.5,
        )
        x += widths[i]
      y -= height
    bar_axes = figure.add_axes(
      (
        (whole - 0.5) / whole,
        (tall - top - bar) / tall,
        0.1 / whole,
        bar / tall,
      )
    )
    colour_bar = figure.colorbar(image, cax=bar_axes)
    colour_bar.set_ticks([0.0, 0.5, 1.0])
    colour_bar.ax.tick_params(length=2, labelsize=6.5, width=0.6)
    colour_bar.outline.set_linewidth(0.6)
  return figure


def _rows(widths: Sequence[float]) -> list[list[int]]:
  """Sets panels in rows of a page's width."""
  rows: list[list[int]] = []
  room = 0.0
  for i, width in enumerate(widths):
    if not rows or width > room:
      rows.append([])
      room = _PAGE_INCHES
    rows[-1].append(i)
    room -= width
  return rows


def _band(
  axes: 'Axes',
  number: int,
  places: Sequence[float],
  mean: np.ndarray,
  spread: np.ndarray,
) -> None:
  """One standard deviation to either side, where there is one."""
  if np.isfinite(spread).any():
    axes.fill_between(
      places,
      mean - spread,
      mean + spread,
      color=figures._COLOURS[number % len(figures._COLOURS)],
      alpha=_FILL,
      linewidth=0,
    )


def _legend(figure: 'Figure', labels: Sequence[str]) -> None:
  """One legend for all panels, as wide as the figure allows."""
  found = {}
  for axes in figure.axes:
    pairs = zip(*axes.get_legend_handles_labels(), strict=True)
    found |= {label: handle for handle, label in pairs}
  if len(found) < 2:
    return
  shown = [label for label in labels if label in found]
  widest = figures._inches(shown, 8) + 0.6
  columns = max(1, min(len(shown), int(figure.get_size_inches()[0] / widest)))
  aside = len(shown) > _BESIDE and columns < 3
  figure.legend(
    [found[label] for label in shown],
    shown,
    loc='outside right upper' if aside else 'outside upper center',
    ncols=1 if aside else columns,
    handlelength=2.6,
  )
