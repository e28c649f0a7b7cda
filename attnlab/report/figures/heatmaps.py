"""Grids of grey cells: alignments, mechanisms side by side, confusion."""

from collections.abc import Mapping, Sequence
import typing
from typing import Any, NamedTuple

import numpy as np

from attnlab.report.figures import canvas

if typing.TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

Gold = tuple[np.ndarray, np.ndarray]

_POSSIBLE = (0, (2.0, 1.4))  # dashes of a link that is but possible
# Long sentences get smaller cells and words.
_CELL_INCHES = 0.27
_LARGEST_INCHES = 11.0
# Words above the columns stay upright while the picture is no wider than this.
_UPRIGHT_INCHES = 3.6
# Side by side: the cells, the largest of several grids, and the page.
_SMALL_INCHES = 0.19
_PANEL_INCHES = 4.6
_PAGE_INCHES = 11.6


class Panel(NamedTuple):
  """Weights [T, S] of one mechanism, with its words."""

  title: str
  weights: np.ndarray
  source: Sequence[str]
  target: Sequence[str]


def alignment(
  weights: np.ndarray,
  source_words: Sequence[str],
  target_words: Sequence[str],
  *,
  gold: Gold | None = None,
  title: str = '',
) -> 'Figure':
  """Attention weights as a heat map, the source along the top.

  Args:
    weights: [T, S] floats from 0 to 1; row t is what target word t attends to.
    source_words: S words.
    target_words: T words.
    gold: (sure [n, 2], possible [m, 2]) integer pairs (source, target): sure
      links are drawn as outlined squares, possible ones as dashed squares.
    title: a line above the picture.

  Returns:
    The figure.

  Raises:
    ValueError: the weights are not [T, S], or a gold link is out of range.
  """
  weights = np.asarray(weights, dtype=np.float64)
  shape = (len(target_words), len(source_words))
  if weights.shape != shape:
    raise ValueError(
      f'weights has shape {weights.shape}, but target_words and source_words'
      f' have lengths {shape}'
    )
  sure, possible = _links(gold, shape)
  with canvas.style():
    row = min(_CELL_INCHES, _LARGEST_INCHES / max(*shape, 1))
    font = min(9.0, 0.8 * row * 72)
    # Room for the words, the bar and the legend around cells of a fixed size.
    widest = canvas.inches(source_words, font)
    turned = (widest + 0.1) * shape[1] > _UPRIGHT_INCHES
    column = row if turned else max(row, widest + 0.1)
    left = canvas.inches(target_words, font) + 0.12
    top = (widest if turned else font / 72) + (0.36 if title else 0.12)
    grid_width, grid_height = column * shape[1], row * shape[0]
    bar = min(max(grid_height, 1.0), 2.2)
    below = 0.42 if gold is not None else 0.12
    below += max(0.0, bar - grid_height)
    width = left + grid_width + 0.75
    title_width = canvas.inches([title], 10) + 0.2
    spare = max(0.0, title_width - width, (2.6 - width) if gold else 0.0)
    height = top + grid_height + below
    width += spare
    left += spare / 2
    figure = canvas.blank(width, height)
    figure.set_layout_engine('none')
    axes = figure.add_axes(
      (
        left / width,
        below / height,
        grid_width / width,
        grid_height / height,
      )
    )
    image = _shade(axes, weights)
    axes.set_xticks(
      range(shape[1]),
      source_words,
      rotation=90 if turned else 0,
      fontsize=font,
    )
    axes.set_yticks(range(shape[0]), target_words, fontsize=font)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=3)
    canvas.grid(axes, shape)
    _outline(axes, sure, possible, half=0.42, linewidth=1.6)
    bar_axes = figure.add_axes(
      (
        (left + grid_width + 0.14) / width,
        (below + grid_height - bar) / height,
        0.11 / width,
        bar / height,
      )
    )
    colour_bar = _bar(figure, image, bar_axes, labelsize=7)
    colour_bar.set_label('attention weight', fontsize=7.5, labelpad=2)
    if title:
      # Above the middle of the grid, unless it would leave the page there.
      centre = min(left + grid_width / 2, width - title_width / 2)
      figure.text(
        max(centre, title_width / 2) / width,
        1 - 0.06 / height,
        title,
        ha='center',
        va='top',
        fontsize=10,
      )
    if gold is not None:
      _gold_legend(figure, (left + grid_width / 2) / width, bool(len(possible)))
  return figure


def sheet(
  panels: Mapping[str, np.ndarray],
  source_words: Sequence[str],
  target_words: Sequence[str],
  *,
  gold: Gold | None = None,
  columns: int = 5,
) -> 'Figure':
  """Weights of several mechanisms on one example, side by side.

  Args:
    panels: name -> [T, S] floats from 0 to 1; darker is more, black is 1.
    source_words: S words, along the foot of each column of panels.
    target_words: T words, beside each row of panels.
    gold: as in `alignment`.
    columns: panels in a row.

  Returns:
    The figure.

  Raises:
    ValueError: there is no panel, or one is not [T, S].
  """
  if not panels:
    raise ValueError('panels is empty')
  shape = (len(target_words), len(source_words))
  for name, weights in panels.items():
    if np.shape(weights) != shape:
      raise ValueError(f'panels[{name!r}] has shape {np.shape(weights)}')
  sure, possible = _links(gold, shape)
  columns = min(columns, len(panels))
  rows = -(-len(panels) // columns)
  cell, font = 0.135, 6.5
  with canvas.style():
    left = canvas.inches(target_words, font) + 0.1
    below = canvas.inches(source_words, font) + 0.1
    width, height = cell * shape[1], cell * shape[0]
    gap, title = 0.16, 0.24
    whole = left + columns * (width + gap)
    tall = below + rows * (height + title) + 0.05
    figure = canvas.blank(whole, tall)
    figure.set_layout_engine('none')
    for number, (name, weights) in enumerate(panels.items()):
      row, column = divmod(number, columns)
      bottom = tall - 0.05 - (row + 1) * (height + title)
      axes = figure.add_axes(
        (
          (left + column * (width + gap)) / whole,
          bottom / tall,
          width / whole,
          height / tall,
        )
      )
      _shade(axes, weights)
      size = min(7.5, 6.6 * (width + gap) / canvas.inches([name], 7.5))
      axes.set_title(name, fontsize=size, pad=3)
      last = number + columns >= len(panels)
      axes.set_xticks(
        range(shape[1]),
        source_words if last else [''] * shape[1],
        rotation=90,
        fontsize=font,
      )
      axes.set_yticks(
        range(shape[0]),
        [''] * shape[0] if column else target_words,
        fontsize=font,
      )
      axes.tick_params(length=0, pad=2)
      canvas.grid(axes, shape)
      _outline(axes, sure, possible, half=0.44, linewidth=0.8)
  return figure


def side_by_side(panels: Sequence[Panel]) -> 'Figure':
  """Weights of several mechanisms for one example, each with its own words.

  The grey is that of `alignment`: black is 1.

  Args:
    panels: one or more; the words of the source may differ too, where the
      vocabularies do.

  Returns:
    The figure.

  Raises:
    ValueError: there is no panel, or its weights do not fit its words.
  """
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
  cell = min(_SMALL_INCHES, room / most)
  font = min(7.5, 0.82 * cell * 72)
  with canvas.style():
    # Words are a little wider on paper than on the grid they are measured on.
    lefts = [1.04 * canvas.inches(p.target, font) + 0.1 for p in panels]
    top = 1.04 * max(canvas.inches(p.source, font) for p in panels)
    top += 0.34 if any(p.title for p in panels) else 0.1
    titles = [canvas.inches([p.title], 8.5) + 0.1 for p in panels]
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
    figure = canvas.blank(whole, tall)
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
        image = _shade(axes, panel.weights)
        axes.set_xticks(
          range(shape[1]), panel.source, rotation=90, fontsize=font
        )
        axes.set_yticks(range(shape[0]), panel.target, fontsize=font)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, pad=2)
        canvas.grid(axes, shape)
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
    _bar(figure, image, bar_axes, labelsize=6.5)
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


def confusion(
  counts: np.ndarray, labels: Sequence[str], *, title: str = ''
) -> 'Figure':
  """A confusion matrix: rows are the truth, columns what it was taken for.

  Args:
    counts: [C, C] whole numbers; the shade is the share of the row.
    labels: names of the C classes.
    title: a line above the picture.

  Returns:
    The figure.

  Raises:
    ValueError: the counts are not [C, C].
  """
  counts = np.asarray(counts)
  size = len(labels)
  if counts.shape != (size, size):
    raise ValueError(
      f'counts has shape {counts.shape}, but there are {size} labels'
    )
  shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  with canvas.style():
    cell = min(0.55, max(0.27, 4.5 / size))
    font = 8 if cell > 0.4 else 6
    label = canvas.inches(labels, font) + 0.15
    below = label if size > 2 or label > cell else 0.25
    width = label + cell * size + 0.45
    height = below + cell * size + (0.6 if title else 0.4)
    figure = canvas.blank(max(width, 2.2), max(height, 1.6))
    axes = figure.subplots()
    _shade(axes, shares, aspect='equal')
    turned = label > cell
    axes.set_xticks(
      range(size), labels, rotation=90 if turned else 0, fontsize=font
    )
    axes.set_yticks(range(size), labels, fontsize=font)
    axes.set_xlabel('prediction')
    axes.set_ylabel('label')
    axes.tick_params(length=0)
    canvas.grid(axes, counts.shape)
    for (row, column), count in np.ndenumerate(counts):
      if count:
        axes.text(
          column,
          row,
          f'{count:d}',
          ha='center',
          va='center',
          fontsize=font if size <= 10 else 4.5,
          color='white' if shares[row, column] > 0.5 else canvas.INK,
        )
    if title:
      axes.set_title(title)
  return figure


def _links(gold: Gold | None, shape: tuple[int, int]) -> Gold:
  """The gold links as two [n, 2] arrays that lie inside the picture."""
  if gold is None:
    gold = (np.zeros((0, 2), np.int32), np.zeros((0, 2), np.int32))
  sure, possible = (np.asarray(links).reshape(-1, 2) for links in gold)
  for links in (sure, possible):
    if links.size and (links.min() < 0 or (links >= shape[::-1]).any()):
      raise ValueError(
        f'gold holds a link outside the {shape[1]} source and {shape[0]}'
        ' target words'
      )
  return sure, possible


def _gold_legend(figure: 'Figure', centre: float, possible: bool) -> None:
  from matplotlib.patches import Patch

  handles = [
    Patch(fill=False, edgecolor=canvas.GOLD, linewidth=1.6, label='gold, sure')
  ]
  if possible:
    handles.append(
      Patch(
        fill=False,
        edgecolor=canvas.GOLD,
        linewidth=1.6,
        linestyle=_POSSIBLE,
        label='gold, possible',
      )
    )
  figure.legend(
    handles=handles,
    loc='lower center',
    bbox_to_anchor=(centre, 0.0),
    ncols=len(handles),
    handlelength=1.1,
    handleheight=1.1,
    columnspacing=1.2,
  )


def _shade(axes: 'Axes', values: np.ndarray, aspect: str = 'auto') -> Any:
  """Cells from white, 0, to black, 1."""
  from matplotlib.colors import Normalize

  return axes.imshow(
    values,
    cmap='Greys',
    norm=Normalize(0.0, 1.0),
    aspect=aspect,
    interpolation='nearest',
  )


def _outline(
  axes: 'Axes',
  sure: np.ndarray,
  possible: np.ndarray,
  *,
  half: float,
  linewidth: float,
) -> None:
  """A square about each gold link, dashed where it is but possible."""
  from matplotlib.patches import Rectangle

  for links, dash in ((possible, _POSSIBLE), (sure, '-')):
    for s, t in links:
      axes.add_patch(
        Rectangle(
          (s - half, t - half),
          2 * half,
          2 * half,
          fill=False,
          edgecolor=canvas.GOLD,
          linewidth=linewidth,
          linestyle=dash,
        )
      )


def _bar(figure: 'Figure', image: Any, axes: 'Axes', *, labelsize: float):
  """The bar that explains the shades."""
  colour_bar = figure.colorbar(image, cax=axes)
  colour_bar.set_ticks([0.0, 0.5, 1.0])
  colour_bar.ax.tick_params(length=2, labelsize=labelsize, width=0.6)
  colour_bar.outline.set_linewidth(0.6)
  return colour_bar
