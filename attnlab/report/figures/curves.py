"""Lines: metrics over training, over lengths and over learning rates."""

from collections.abc import Mapping, Sequence
import typing

import numpy as np

from attnlab.report.figures import canvas

if typing.TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

_FILL = 0.16  # opacity of a band
_BESIDE = 4  # more series have their legend to the right


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
  with canvas.style():
    figure = canvas.blank(3.3 * columns, 2.5 * rows + 0.3)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (key, lines) in zip(panels, curves.items(), strict=False):
      for number, (label, (steps, mean, spread)) in enumerate(lines.items()):
        if not len(steps):
          continue
        band(axes, number, steps, mean, spread)
        series = canvas.series_style(number, len(steps) <= 25)
        axes.plot(steps, mean, label=label, **series)
      axes.set_xlabel('training step')
      axes.set_ylabel(_metric_name(key))
      axes.xaxis.get_major_locator().set_params(nbins=5, integer=True)
      canvas.open_frame(axes)
    for axes in panels[len(curves) :]:
      axes.set_axis_off()
    legend(figure, list(settings))
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
  counted: str = 'examples',
  bottom: float | None = None,
) -> 'Figure':
  """A metric over bins of length: means over seeds ± one sd, and the counts.

  Args:
    series: label -> [seeds, bins] values; NaN for a bin without examples.
    names: of the bins.
    counts: examples in each bin.
    ylabel: what the values are, with unit.
    xlabel: what the bins are.
    counted: what the counts are of.
    bottom: where the axis of the values begins; None for where they do.

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
  with canvas.style():
    width = max(4.6, 0.62 * len(names) + 1.2)
    if len(series) > _BESIDE:
      width += canvas.inches(list(series), 8) + 0.6
    figure = canvas.blank(width, 3.2)
    axes, below = figure.subplots(
      2, 1, sharex=True, gridspec_kw={'height_ratios': (5, 1)}
    )
    for number, (label, values) in enumerate(series.items()):
      mean = np.mean(values, axis=0)
      many = len(values) > 1
      spread = np.std(values, axis=0, ddof=1) if many else mean * np.nan
      band(axes, number, places, mean, spread)
      axes.plot(places, mean, label=label, **canvas.series_style(number, True))
    axes.set_ylabel(ylabel)
    axes.set_ylim(bottom=bottom)
    axes.tick_params(axis='x', length=0)
    canvas.open_frame(axes)
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
    below.set_ylabel(counted, fontsize=7.5)
    below.spines[['top', 'right', 'left']].set_visible(False)
    below.set_xticks(places, names)
    below.set_xlabel(xlabel)
    figure.align_ylabels()
    legend(figure, list(series))
  return figure


def cost_by_length(
  series: Mapping[str, Mapping[int, Sequence[float]]],
  ylabel: str,
  *,
  xlabel: str = 'source length (tokens)',
) -> 'Figure':
  """What a length costs, on two logarithmic axes: means over seeds.

  Args:
    series: label -> length -> values of the seeds, above 0.
    ylabel: what the values are, with unit.
    xlabel: what the lengths are.

  Returns:
    The figure.

  Raises:
    ValueError: there are no series.
  """
  if not series:
    raise ValueError('series is empty')
  with canvas.style():
    figure = canvas.blank(4.2, 3.0)
    axes = figure.subplots()
    over_sizes(axes, series)
    axes.set_xscale('log', base=2)
    axes.set_yscale('log')
    # Formulas are off, so that Matplotlib's own labels would show as '$10^'.
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_formatter(lambda value, _: f'{value:,g}')
      axis.set_minor_formatter('')
    axes.tick_params(axis='x', labelrotation=45)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    canvas.open_frame(axes)
    legend(figure, list(series))
  return figure


def over_sizes(
  axes: 'Axes', series: Mapping[str, Mapping[int, Sequence[float]]]
) -> None:
  """A line a label over sizes: means over seeds ± one standard deviation."""
  for number, (label, points) in enumerate(series.items()):
    sizes = sorted(points)
    means = np.array([np.mean(points[n]) for n in sizes])
    spread = np.array(
      [
        np.std(points[n], ddof=1) if len(points[n]) > 1 else np.nan
        for n in sizes
      ]
    )
    band(axes, number, sizes, means, spread)
    axes.plot(sizes, means, label=label, **canvas.series_style(number, True))


def learning_rates(
  rates: np.ndarray,
  losses: np.ndarray,
  smoothed: np.ndarray,
  suggestion: float | None,
) -> 'Figure':
  """The loss over a growing learning rate, and the rate to take.

  Args:
    rates: [n] learning rates above 0.
    losses: [n] the loss at each.
    smoothed: [n] the same, smoothed.
    suggestion: the rate that is marked; None marks none.

  Returns:
    The figure.
  """
  with canvas.style():
    figure = canvas.blank(3.6, 2.7)
    axes = figure.subplots()
    axes.plot(rates, losses, color='#BBBBBB', linewidth=0.9, label='a batch')
    axes.plot(rates, smoothed, color=canvas.COLOURS[0], label='smoothed')
    axes.set_xscale('log')
    low, high = float(np.min(smoothed)), float(np.max(smoothed))
    room = 0.08 * (high - low) or 1.0
    axes.set_ylim(low - room, high + room)
    if suggestion is not None:
      axes.axvline(
        suggestion,
        color=canvas.GOLD,
        linestyle='--',
        linewidth=1.0,
        label=f'suggestion: {suggestion:.2g}',
      )
    # Formulas are off, so that Matplotlib's own labels would show as '$10^'.
    axes.xaxis.set_major_formatter(lambda value, _: f'{value:.0e}')
    axes.xaxis.set_minor_formatter('')
    axes.set_xlabel('learning rate')
    axes.set_ylabel('training loss')
    canvas.open_frame(axes)
    axes.legend(loc='best')
  return figure


def _metric_name(key: str) -> str:
  """'validation/bleu' as a reader would write it: 'validation BLEU'."""
  short = {'bleu': 'BLEU', 'chrf': 'chrF', 'aer': 'AER'}
  split, _, name = key.rpartition('/')
  words = ' '.join(short.get(w, w) for w in name.replace('_', ' ').split())
  return f'{split} {words}'.strip()


def band(
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
      color=canvas.COLOURS[number % len(canvas.COLOURS)],
      alpha=_FILL,
      linewidth=0,
    )


def legend(figure: 'Figure', labels: Sequence[str]) -> None:
  """One legend for all panels, as wide as the figure allows."""
  found = {}
  for axes in figure.axes:
    pairs = zip(*axes.get_legend_handles_labels(), strict=True)
    found |= {label: handle for handle, label in pairs}
  if len(found) < 2:
    return
  shown = [label for label in labels if label in found]
  widest = canvas.inches(shown, 8) + 0.6
  columns = max(1, min(len(shown), int(figure.get_size_inches()[0] / widest)))
  aside = len(shown) > _BESIDE and columns < 3
  if aside:  # beside the panels, not in their place
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + widest, max(height, 0.17 * len(shown) + 0.2))
  figure.legend(
    [found[label] for label in shown],
    shown,
    loc='outside right upper' if aside else 'outside upper center',
    ncols=1 if aside else columns,
    handlelength=2.6,
  )
