"""Figures fit for a paper: alignments, shaded texts, confusion, curves.

Every function returns a Matplotlib figure that belongs to no window and no
global state; `save` writes it as PNG and PDF. The same data give the same
bytes. Latin text is embedded in the PDF as a TrueType font (type 42).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import functools
import pathlib
import sys
import typing

import numpy as np

if typing.TYPE_CHECKING:
  from matplotlib.artist import Artist
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure
  from matplotlib.font_manager import FontProperties

Gold = tuple[np.ndarray, np.ndarray]
Bins = tuple[Sequence[str], Sequence[float], Sequence[int]]

# Okabe & Ito (2008): told apart by colour-blind readers; marks and dashes tell
# the series apart in grey as well.
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
_MARKS = ('o', 's', '^', 'D', 'v', 'P')
_DASHES = ('-', '--', '-.', ':')
_GOLD = '#D55E00'
_INK = '#222222'
_FAINT = '#DDDDDD'
# Long sentences get smaller cells and words.
_CELL_INCHES = 0.27
_LARGEST_INCHES = 11.0
# Words above the columns stay upright while the picture is no wider than this.
_UPRIGHT_INCHES = 3.6
# A text as wide as a column of print.
_TEXT_INCHES = 6.3
_LINE_INCHES = 0.22
_PAD_INCHES = 0.03
_MOST_LINES = 40


@functools.cache
def _cjk_family() -> str | None:
  """Makes the CJK font known to Matplotlib; None, and one line, without it."""
  import importlib.resources

  from matplotlib import font_manager

  try:
    package = importlib.resources.files('noto_cjk_sans_otc')
    file = package.joinpath('NotoSansCJK-Regular.ttc')
    font_manager.fontManager.addfont(str(file))
  except (ImportError, OSError, RuntimeError):
    print(
      'warning: the package noto-cjk-sans-otc is missing: Chinese words may'
      ' be boxes in figures',
      file=sys.stderr,
    )
    return None
  names = {
    entry.name
    for entry in font_manager.fontManager.ttflist
    if entry.fname == str(file)
  }
  # The collection holds one face a region: simplified Chinese is wanted.
  return next((n for n in sorted(names) if n.endswith('CJK SC')), min(names))


@contextlib.contextmanager
def _style() -> Iterator[None]:
  """Fonts, lines and PDF settings that every figure shares."""
  import matplotlib

  families = ['DejaVu Sans']
  if family := _cjk_family():
    families.append(family)
  settings = {
    'font.family': families,
    'font.size': 9,
    'axes.titlesize': 10,
    'axes.labelsize': 9,
    'xtick.labelsize': 8,
    'ytick.labelsize': 8,
    'legend.fontsize': 8,
    'legend.frameon': False,
    'axes.edgecolor': _INK,
    'axes.labelcolor': _INK,
    'text.color': _INK,
    'xtick.color': _INK,
    'ytick.color': _INK,
    'axes.linewidth': 0.8,
    'axes.unicode_minus': False,
    'lines.linewidth': 1.4,
    'pdf.fonttype': 42,
    'ps.fonttype': 42,
    'svg.hashsalt': 'attnlab',
    'text.usetex': False,
    # A word such as '$' is text, not the start of a formula.
    'text.parse_math': False,
    'savefig.bbox': None,
  }
  with matplotlib.rc_context():
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(settings)
    yield


def _figure(width: float, height: float) -> 'Figure':
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout='constrained')
  FigureCanvasAgg(figure)
  return figure


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
  from matplotlib.colors import Normalize
  from matplotlib.patches import Rectangle

  weights = np.asarray(weights, dtype=np.float64)
  shape = (len(target_words), len(source_words))
  if weights.shape != shape:
    raise ValueError(
      f'weights has shape {weights.shape}, but target_words and source_words'
      f' have lengths {shape}'
    )
  sure, possible = _links(gold, shape)
  with _style():
    row = min(_CELL_INCHES, _LARGEST_INCHES / max(*shape, 1))
    font = min(9.0, 0.8 * row * 72)
    # Room for the words, the bar and the legend around cells of a fixed size.
    widest = _inches(source_words, font)
    turned = (widest + 0.1) * shape[1] > _UPRIGHT_INCHES
    column = row if turned else max(row, widest + 0.1)
    left = _inches(target_words, font) + 0.12
    top = (widest if turned else font / 72) + (0.36 if title else 0.12)
    grid_width, grid_height = column * shape[1], row * shape[0]
    bar = min(max(grid_height, 1.0), 2.2)
    below = 0.42 if gold is not None else 0.12
    below += max(0.0, bar - grid_height)
    width = left + grid_width + 0.75
    title_width = _inches([title], 10) + 0.2
    spare = max(0.0, title_width - width, (2.6 - width) if gold else 0.0)
    height = top + grid_height + below
    width += spare
    left += spare / 2
    figure = _figure(width, height)
    figure.set_layout_engine('none')
    axes = figure.add_axes(
      (
        left / width,
        below / height,
        grid_width / width,
        grid_height / height,
      )
    )
    image = axes.imshow(
      weights,
      cmap='Greys',
      norm=Normalize(0.0, 1.0),
      aspect='auto',
      interpolation='nearest',
    )
    axes.set_xticks(
      range(shape[1]),
      source_words,
      rotation=90 if turned else 0,
      fontsize=font,
    )
    axes.set_yticks(range(shape[0]), target_words, fontsize=font)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=3)
    _grid(axes, shape)
    for links, dash in ((possible, (0, (2.0, 1.4))), (sure, '-')):
      for s, t in links:
        axes.add_patch(
          Rectangle(
            (s - 0.42, t - 0.42),
            0.84,
            0.84,
            fill=False,
            edgecolor=_GOLD,
            linewidth=1.6,
            linestyle=dash,
          )
        )
    bar_axes = figure.add_axes(
      (
        (left + grid_width + 0.14) / width,
        (below + grid_height - bar) / height,
        0.11 / width,
        bar / height,
      )
    )
    colour_bar = figure.colorbar(image, cax=bar_axes)
    colour_bar.set_ticks([0.0, 0.5, 1.0])
    colour_bar.ax.tick_params(length=2, labelsize=7, width=0.6)
    colour_bar.outline.set_linewidth(0.6)
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
  from matplotlib.colors import Normalize
  from matplotlib.patches import Rectangle

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
  with _style():
    left = _inches(target_words, font) + 0.1
    below = _inches(source_words, font) + 0.1
    width, height = cell * shape[1], cell * shape[0]
    gap, title = 0.16, 0.24
    whole = left + columns * (width + gap)
    tall = below + rows * (height + title) + 0.05
    figure = _figure(whole, tall)
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
      axes.imshow(
        weights,
        cmap='Greys',
        norm=Normalize(0.0, 1.0),
        aspect='auto',
        interpolation='nearest',
      )
      size = min(7.5, 6.6 * (width + gap) / _inches([name], 7.5))
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
      _grid(axes, shape)
      for links, dash in ((possible, (0, (2.0, 1.4))), (sure, '-')):
        for s, t in links:
          axes.add_patch(
            Rectangle(
              (s - 0.44, t - 0.44),
              0.88,
              0.88,
              fill=False,
              edgecolor=_GOLD,
              linewidth=0.8,
              linestyle=dash,
            )
          )
  return figure


def shaded_text(
  sentences: Sequence[Sequence[str]],
  weights: Sequence[np.ndarray],
  *,
  gold: Sequence[tuple[int, int]] = (),
  gold_sentences: Sequence[int] = (),
  title: str = '',
) -> 'Figure':
  """A text whose words are shaded by their weights; gold is underlined.

  Several sentences have a square each in the margin, shaded by the sum of the
  sentence's weights. Beyond 40 lines the text is cut.

  Args:
    sentences: the words of each sentence.
    weights: for each sentence [W] floats of 0 or more. The darkest shade is
      the largest weight of the text, which is written below.
    gold: (sentence, word) pairs that are underlined.
    gold_sentences: sentences whose squares are outlined.
    title: a line above the text.

  Returns:
    The figure.

  Raises:
    ValueError: the weights do not fit the sentences.
  """
  from matplotlib.patches import Rectangle

  sizes = [len(words) for words in sentences]
  if [len(row) for row in weights] != sizes:
    raise ValueError(
      f'weights have lengths {[len(row) for row in weights]}, but the '
      f'sentences {sizes}'
    )
  top = max((float(np.max(row)) for row in weights if len(row)), default=0.0)
  sums = [float(np.sum(row)) for row in weights]
  most = max(sums, default=0.0)
  margin = 0.34 if len(sizes) > 1 else 0.08
  with _style():
    placed, rows, cut = _flow(sentences, margin)
    height = _LINE_INCHES * rows + (0.3 if title else 0.08) + 0.3
    figure = _figure(_TEXT_INCHES, height)
    figure.set_layout_engine('none')
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, _TEXT_INCHES)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    first = height - (0.3 if title else 0.08)
    if title:
      axes.text(margin, height - 0.06, title, va='top', fontsize=10)
    marked = set(gold)
    for s, w, x, row, width in placed:
      y = first - _LINE_INCHES * row
      share = float(weights[s][w]) / top if top > 0 else 0.0
      axes.add_patch(
        Rectangle(
          (x, y - _LINE_INCHES + 0.035),
          width,
          _LINE_INCHES - 0.05,
          facecolor=_COLOURS[5],
          alpha=share,
          linewidth=0,
        )
      )
      axes.text(
        x + _PAD_INCHES,
        y - _LINE_INCHES / 2,
        sentences[s][w],
        va='center_baseline',
        fontsize=9,
      )
      if (s, w) in marked:
        axes.plot(
          (x + _PAD_INCHES, x + width - _PAD_INCHES),
          (y - _LINE_INCHES + 0.03,) * 2,
          color=_GOLD,
          linewidth=1.4,
          solid_capstyle='butt',
        )
    starts: dict[int, int] = {}
    for s, _, _, row, _ in placed:
      starts.setdefault(s, row)
    for s, row in starts.items() if len(sizes) > 1 else ():
      y = first - _LINE_INCHES * (row + 1) + 0.05
      box = (0.1, y), 0.13, 0.13
      axes.add_patch(
        Rectangle(
          *box,
          facecolor=_COLOURS[0],
          alpha=sums[s] / most if most > 0 else 0.0,
          linewidth=0,
        )
      )
      sure = s in set(map(int, gold_sentences))
      axes.add_patch(
        Rectangle(
          *box,
          fill=False,
          edgecolor=_GOLD if sure else _FAINT,
          linewidth=1.6 if sure else 0.6,
        )
      )
    notes = [f'darkest word: weight {top:.2f}']
    if len(sizes) > 1:
      notes.append(f'darkest sentence: {most:.2f}')
    if marked or len(gold_sentences):
      notes.append('orange: gold')
    if cut:
      notes.append(f'{cut} more words')
    axes.text(margin, 0.08, '; '.join(notes), fontsize=7, color='#666666')
  return figure


def _flow(
  sentences: Sequence[Sequence[str]], margin: float
) -> tuple[list[tuple[int, int, float, int, float]], int, int]:
  """Sets words in lines, each sentence on a new one.

  Returns:
    (sentence, word, left in inches, line, width in inches) of each word, the
    number of lines, and how many words there is no room for.
  """
  widths = _widths({word for words in sentences for word in words}, 9)
  room = _TEXT_INCHES - 0.08
  placed: list[tuple[int, int, float, int, float]] = []
  row = 0
  for s, words in enumerate(sentences):
    x = margin
    for w, word in enumerate(words):
      width = min(widths[word] + 2 * _PAD_INCHES, room - margin)
      if x + width > room:
        x, row = margin, row + 1
      if row >= _MOST_LINES:
        total = sum(map(len, sentences))
        return placed, _MOST_LINES, total - len(placed)
      placed.append((s, w, x, row, width))
      x += width
    if words:
      row += 1
  return placed, max(row, 1), 0


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
  from matplotlib.colors import Normalize

  counts = np.asarray(counts)
  size = len(labels)
  if counts.shape != (size, size):
    raise ValueError(
      f'counts has shape {counts.shape}, but there are {size} labels'
    )
  shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  with _style():
    cell = min(0.55, max(0.27, 4.5 / size))
    font = 8 if cell > 0.4 else 6
    label = _inches(labels, font) + 0.15
    below = label if size > 2 or label > cell else 0.25
    width = label + cell * size + 0.45
    height = below + cell * size + (0.6 if title else 0.4)
    figure = _figure(max(width, 2.2), max(height, 1.6))
    axes = figure.subplots()
    axes.imshow(
      shares,
      cmap='Greys',
      norm=Normalize(0.0, 1.0),
      interpolation='nearest',
    )
    turned = label > cell
    axes.set_xticks(
      range(size), labels, rotation=90 if turned else 0, fontsize=font
    )
    axes.set_yticks(range(size), labels, fontsize=font)
    axes.set_xlabel('prediction')
    axes.set_ylabel('label')
    axes.tick_params(length=0)
    _grid(axes, counts.shape)
    for (row, column), count in np.ndenumerate(counts):
      if count:
        axes.text(
          column,
          row,
          f'{count:d}',
          ha='center',
          va='center',
          fontsize=font if size <= 10 else 4.5,
          color='white' if shares[row, column] > 0.5 else _INK,
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
    Patch(fill=False, edgecolor=_GOLD, linewidth=1.6, label='gold, sure')
  ]
  if possible:
    handles.append(
      Patch(
        fill=False,
        edgecolor=_GOLD,
        linewidth=1.6,
        linestyle=(0, (2.0, 1.4)),
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


def _grid(axes: 'Axes', shape: tuple[int, int]) -> None:
  """Hairlines between the cells."""
  axes.set_xticks(np.arange(1, shape[1]) - 0.5, minor=True)
  axes.set_yticks(np.arange(1, shape[0]) - 0.5, minor=True)
  axes.grid(which='minor', color=_FAINT, linewidth=0.5)
  axes.tick_params(which='minor', length=0)


def _inches(texts: Sequence[str], size: float) -> float:
  """Width of the widest of the texts in this font size (points)."""
  return max(_widths(texts, size).values(), default=0.0)


def _widths(texts: Iterable[str], size: float) -> dict[str, float]:
  """Width in inches of each of the texts in this font size (points)."""
  from matplotlib.backends.backend_agg import RendererAgg

  renderer = RendererAgg(1, 1, 100.0)
  font = _font(size)
  return {
    text: renderer.get_text_width_height_descent(text, font, ismath=False)[0]
    / renderer.dpi
    for text in texts
    if text
  }


def _font(size: float) -> 'FontProperties':
  from matplotlib.font_manager import FontProperties

  return FontProperties(size=size)


def learning_curves(
  runs: Mapping[str, Sequence[Mapping[str, float]]], keys: Sequence[str]
) -> 'Figure':
  """One panel a metric, one line a run, over the training steps.

  Args:
    runs: label -> lines of metrics.jsonl, each with 'step' and some metrics.
    keys: the metrics to draw, e.g. ['train/loss', 'validation/bleu']; those
      that no run has are left out.

  Returns:
    The figure.

  Raises:
    ValueError: no run has any of the metrics.
  """
  curves = {
    key: {label: _curve(lines, key) for label, lines in runs.items()}
    for key in keys
  }
  curves = {
    key: lines
    for key, lines in curves.items()
    if any(len(steps) for steps, _ in lines.values())
  }
  if not curves:
    raise ValueError(f'no run has any of the metrics {", ".join(keys)}')
  columns = min(len(curves), 3)
  rows = -(-len(curves) // columns)
  with _style():
    figure = _figure(3.3 * columns, 2.5 * rows + 0.3)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (key, lines) in zip(panels, curves.items(), strict=False):
      for number, (label, (steps, values)) in enumerate(lines.items()):
        if len(steps):
          axes.plot(
            steps, values, label=label, **_series(number, len(steps) <= 25)
          )
      axes.set_xlabel('training step')
      axes.set_ylabel(_metric_name(key))
      axes.xaxis.get_major_locator().set_params(nbins=5, integer=True)
      _open_frame(axes)
    for axes in panels[len(curves) :]:
      axes.set_axis_off()
    if len(runs) > 1 or next(iter(runs)):
      handles: dict[str, Artist] = {}
      for axes in figure.axes:
        pairs = zip(*axes.get_legend_handles_labels(), strict=True)
        handles |= {label: handle for handle, label in pairs}
      figure.legend(
        list(handles.values()),
        list(handles),
        loc='outside upper center',
        ncols=min(len(handles), 4),
        handlelength=2.6,
      )
  return figure


def _curve(
  lines: Sequence[Mapping[str, float]], key: str
) -> tuple[np.ndarray, np.ndarray]:
  points = sorted((line['step'], line[key]) for line in lines if key in line)
  steps, values = zip(*points, strict=True) if points else ((), ())
  return np.asarray(steps), np.asarray(values, np.float64)


def _series(number: int, marks: bool) -> dict[str, object]:
  """Colour, dash and mark of the series with this number."""
  return {
    'color': _COLOURS[number % len(_COLOURS)],
    'linestyle': _DASHES[number % len(_DASHES)],
    'marker': _MARKS[number % len(_MARKS)] if marks else None,
    'markersize': 3.5,
  }


def _metric_name(key: str) -> str:
  """'validation/bleu' as a reader would write it: 'validation BLEU'."""
  short = {'bleu': 'BLEU', 'chrf': 'chrF', 'aer': 'AER'}
  split, _, name = key.rpartition('/')
  words = ' '.join(short.get(w, w) for w in name.replace('_', ' ').split())
  return f'{split} {words}'.strip()


def _open_frame(axes: 'Axes') -> None:
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(axis='y', color=_FAINT, linewidth=0.6)
  axes.set_axisbelow(True)


def metric_by_length(series: Mapping[str, Bins], ylabel: str) -> 'Figure':
  """A metric over bins of source length, and how many examples each bin has.

  Args:
    series: label -> (names of the bins, values, counts). All series have the
      same bins; a bin without examples has the value NaN.
    ylabel: what the values are, with unit.

  Returns:
    The figure.

  Raises:
    ValueError: there are no series, or their bins differ.
  """
  if not series:
    raise ValueError('series is empty')
  names, _, counts = next(iter(series.values()))
  for label, bins in series.items():
    if list(bins[0]) != list(names) or len(bins[1]) != len(names):
      raise ValueError(f'the bins of {label!r} differ from those of the first')
  places = np.arange(len(names))
  with _style():
    figure = _figure(max(3.6, 0.62 * len(names) + 1.2), 3.1)
    axes, below = figure.subplots(
      2, 1, sharex=True, gridspec_kw={'height_ratios': (4, 1)}
    )
    for number, (label, (_, values, _)) in enumerate(series.items()):
      axes.plot(
        places,
        np.asarray(values, np.float64),
        label=label,
        **_series(number, True),
      )
    axes.set_ylabel(ylabel)
    axes.set_ylim(bottom=0)
    axes.tick_params(axis='x', length=0)
    _open_frame(axes)
    below.bar(places, counts, width=0.7, color='#BBBBBB')
    for place, count in zip(places, counts, strict=True):
      below.annotate(
        f'{count}',
        (place, count),
        xytext=(0, 1.5),
        textcoords='offset points',
        ha='center',
        fontsize=6.5,
      )
    below.set_ylim(0, 1.45 * max([*counts, 1]))
    below.set_yticks([])
    below.set_ylabel('sentences', fontsize=7.5)
    below.spines[['top', 'right', 'left']].set_visible(False)
    below.set_xticks(places, names)
    below.set_xlabel('source length (words)')
    figure.legend(
      loc='outside upper center',
      ncols=min(len(series), 3),
      handlelength=2.6,
    )
  return figure


def cost_by_length(
  series: Mapping[str, tuple[Sequence[float], Sequence[float]]], ylabel: str
) -> 'Figure':
  """What a length costs, both axes logarithmic.

  Args:
    series: label -> (lengths, costs), which may end at different lengths.
    ylabel: what the costs are, with unit.

  Returns:
    The figure.

  Raises:
    ValueError: there are no series.
  """
  if not series:
    raise ValueError('series is empty')
  with _style():
    figure = _figure(3.9, 3.1)
    axes = figure.subplots()
    for number, (label, (lengths, costs)) in enumerate(series.items()):
      axes.plot(lengths, costs, label=label, **_series(number, True))
    axes.set_xscale('log', base=2)
    axes.set_yscale('log')
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_formatter(lambda value, _: f'{value:,g}')
    axes.tick_params(axis='x', labelrotation=45)
    axes.set_xlabel('length')
    axes.set_ylabel(ylabel)
    _open_frame(axes)
    figure.legend(
      loc='outside upper center', ncols=min(len(series), 3), handlelength=2.6
    )
  return figure


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
  with _style():
    figure = _figure(3.6, 2.7)
    axes = figure.subplots()
    axes.plot(rates, losses, color='#BBBBBB', linewidth=0.9, label='a batch')
    axes.plot(rates, smoothed, color=_COLOURS[0], label='smoothed')
    axes.set_xscale('log')
    low, high = float(np.min(smoothed)), float(np.max(smoothed))
    room = 0.08 * (high - low) or 1.0
    axes.set_ylim(low - room, high + room)
    if suggestion is not None:
      axes.axvline(
        suggestion,
        color=_GOLD,
        linestyle='--',
        linewidth=1.0,
        label=f'suggestion: {suggestion:.2g}',
      )
    # Formulas are off, so that Matplotlib's own labels would show as '$10^'.
    axes.xaxis.set_major_formatter(lambda value, _: f'{value:.0e}')
    axes.xaxis.set_minor_formatter('')
    axes.set_xlabel('learning rate')
    axes.set_ylabel('training loss')
    _open_frame(axes)
    axes.legend(loc='best')
  return figure


def save(figure: 'Figure', path: str | pathlib.Path) -> list[pathlib.Path]:
  """Writes the figure as PNG (200 dpi) and as PDF.

  Args:
    figure: what one of the functions above returned.
    path: the file name without a suffix; its folder is made.

  Returns:
    The two files that were written.
  """
  path = pathlib.Path(path)
  pdf = path.with_name(f'{path.name}.pdf')
  png = save_png(figure, path)
  with _style(), _as_outlines(figure):
    figure.savefig(pdf, metadata={'CreationDate': None, 'Producer': None})
  return [png, pdf]


def save_png(figure: 'Figure', path: str | pathlib.Path) -> pathlib.Path:
  """Writes the PNG of `save` alone, and returns its path."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  png = path.with_name(f'{path.name}.png')
  with _style():
    figure.savefig(png, dpi=200, metadata={'Software': None})
  return png


@contextlib.contextmanager
def _as_outlines(figure: 'Figure') -> Iterator[None]:
  """Draws the text in wide scripts as outlines.

  The CJK font holds CFF outlines. Matplotlib labels such a font TrueType in
  the PDF, which some viewers and printers refuse; a path is right everywhere.
  """
  from matplotlib import patheffects
  from matplotlib.text import Text

  texts: list[Text] = [
    text
    for text in figure.findobj(Text)
    if any(ord(c) > 0x2E7F for c in text.get_text())
  ]
  for text in texts:
    text.set_path_effects([patheffects.Normal()])
  try:
    yield
  finally:
    for text in texts:
      text.set_path_effects([])
