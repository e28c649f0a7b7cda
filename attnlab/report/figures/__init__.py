"""Figures fit for a paper: alignments, shaded texts, confusion, curves.

Every function returns a Matplotlib figure that belongs to no window and no
global state; `save` writes it as PNG and PDF. The same data give the same
bytes. Latin text is embedded in the PDF as a TrueType font (type 42).
"""

from attnlab.report.figures.canvas import save, save_png
from attnlab.report.figures.curves import (
  cost_by_length,
  learning_curves,
  learning_rates,
  metric_by_length,
  pooled,
)
from attnlab.report.figures.heatmaps import (
  Panel,
  alignment,
  confusion,
  sheet,
  side_by_side,
)
from attnlab.report.figures.points import by_size, dots
from attnlab.report.figures.texts import shaded_text

__all__ = [
  'Panel',
  'alignment',
  'by_size',
  'confusion',
  'cost_by_length',
  'dots',
  'learning_curves',
  'learning_rates',
  'metric_by_length',
  'pooled',
  'save',
  'save_png',
  'shaded_text',
  'sheet',
  'side_by_side',
]
