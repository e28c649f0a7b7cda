"""Texts whose words are shaded by their weights."""

from collections.abc import Sequence
import typing

import numpy as np

from attnlab.report.figures import canvas

if typing.TYPE_CHECKING:
  from matplotlib.figure import Figure

# A text as wide as a column of print.
_TEXT_INCHES = 6.3
_LINE_INCHES = 0.22
_PAD_INCHES = 0.03
_MOST_LINES = 40


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
  with canvas.style():
    placed, rows, cut = _flow(sentences, margin)
    height = _LINE_INCHES * rows + (0.3 if title else 0.08) + 0.3
    figure = canvas.blank(_TEXT_INCHES, height)
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
          facecolor=canvas.COLOURS[5],
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
          color=canvas.GOLD,
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
          facecolor=canvas.COLOURS[0],
          alpha=sums[s] / most if most > 0 else 0.0,
          linewidth=0,
        )
      )
      sure = s in set(map(int, gold_sentences))
      axes.add_patch(
        Rectangle(
          *box,
          fill=False,
          edgecolor=canvas.GOLD if sure else canvas.FAINT,
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
  widths = canvas.widths({word for words in sentences for word in words}, 9)
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
