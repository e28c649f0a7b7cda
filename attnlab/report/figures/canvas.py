"""What all figures share: page, fonts, colours, and how they are saved."""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import functools
import pathlib
import sys
import typing

import numpy as np

if typing.TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# Okabe & Ito (2008): told apart by colour-blind readers; marks and dashes tell
# the series apart in grey as well.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
_MARKS = ('o', 's', '^', 'D', 'v', 'P')
_DASHES = ('-', '--', '-.', ':')
GOLD = '#D55E00'
INK = '#222222'
FAINT = '#DDDDDD'


@functools.cache
def cjk_family() -> str | None:
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
def style() -> Iterator[None]:
  """Fonts, lines and PDF settings that every figure shares."""
  import matplotlib

  families = ['DejaVu Sans']
  if family := cjk_family():
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
    'axes.edgecolor': INK,
    'axes.labelcolor': INK,
    'text.color': INK,
    'xtick.color': INK,
    'ytick.color': INK,
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


def blank(width: float, height: float) -> 'Figure':
  """An empty figure of so many inches, of no window and no global state."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout='constrained')
  FigureCanvasAgg(figure)
  return figure


def grid(axes: 'Axes', shape: tuple[int, int]) -> None:
  """Hairlines between the cells."""
  axes.set_xticks(np.arange(1, shape[1]) - 0.5, minor=True)
  axes.set_yticks(np.arange(1, shape[0]) - 0.5, minor=True)
  axes.grid(which='minor', color=FAINT, linewidth=0.5)
  axes.tick_params(which='minor', length=0)


def inches(texts: Sequence[str], size: float) -> float:
  """Width of the widest of the texts in this font size (points)."""
  return max(widths(texts, size).values(), default=0.0)


def widths(texts: Iterable[str], size: float) -> dict[str, float]:
  """Width in inches of each of the texts in this font size (points)."""
  from matplotlib.backends.backend_agg import RendererAgg
  from matplotlib.font_manager import FontProperties

  renderer = RendererAgg(1, 1, 100.0)
  font = FontProperties(size=size)
  return {
    text: renderer.get_text_width_height_descent(text, font, ismath=False)[0]
    / renderer.dpi
    for text in texts
    if text
  }


def series_style(number: int, marks: bool) -> dict[str, object]:
  """Colour, dash and mark of the series with this number."""
  return {
    'color': COLOURS[number % len(COLOURS)],
    'linestyle': _DASHES[number % len(_DASHES)],
    'marker': _MARKS[number % len(_MARKS)] if marks else None,
    'markersize': 3.5,
  }


def open_frame(axes: 'Axes') -> None:
  """Two sides and the horizontal hairlines."""
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(axis='y', color=FAINT, linewidth=0.6)
  axes.set_axisbelow(True)


def save(figure: 'Figure', path: str | pathlib.Path) -> list[pathlib.Path]:
  """Writes the figure as PNG (200 dpi) and as PDF.

  Args:
    figure: what one of the functions of this package returned.
    path: the file name without a suffix; its folder is made.

  Returns:
    The two files that were written.
  """
  path = pathlib.Path(path)
  pdf = path.with_name(f'{path.name}.pdf')
  png = save_png(figure, path)
  with style(), _as_outlines(figure):
    figure.savefig(pdf, metadata={'CreationDate': None, 'Producer': None})
  return [png, pdf]


def save_png(figure: 'Figure', path: str | pathlib.Path) -> pathlib.Path:
  """Writes the PNG of `save` alone, and returns its path."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  png = path.with_name(f'{path.name}.png')
  with style():
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
