"""Figures: legible in both scripts, inside their bounds, the same each time."""

import warnings

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.text import Text
import numpy as np
import pytest

from attnlab.report import figures
from attnlab.report.figures import canvas

CHINESE = '汤姆 追逐 杰瑞 我 爱 中国 这 本 书 。'.split()
GERMAN = 'zwei Männer größer über weiße Häuser $ $5 _'.split()


def links(*pairs: tuple[int, int]) -> np.ndarray:
  return np.asarray(pairs, np.int32).reshape(-1, 2)


def weights(rows: int, columns: int) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.dirichlet(np.full(columns, 0.2), size=rows)


def is_within_bounds(figure) -> bool:
  """Whether all that is drawn, text included, lies inside the figure."""
  with canvas.style():
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    drawn = figure.get_tightbbox(renderer)
  width, height = figure.get_size_inches()
  return (
    min(drawn.x0, drawn.y0) >= -0.01
    and drawn.x1 <= width + 0.01
    and drawn.y1 <= height + 0.01
  )


@pytest.mark.parametrize(
  ('target', 'source'),
  [
    (CHINESE, GERMAN),
    (GERMAN, CHINESE),
    (['我'], ['I']),
    (['Donaudampfschifffahrtsgesellschaft'] * 50, ['indivisibility'] * 41),
  ],
)
@pytest.mark.parametrize('gold', [False, True])
def test_alignment_is_legible_and_within_bounds(target, source, gold):
  figure = figures.alignment(
    weights(len(target), len(source)),
    source,
    target,
    gold=(links((0, 0)), links((0, 0))) if gold else None,
    title='Additive attention (Bahdanau et al., 2015)',
  )
  assert is_within_bounds(figure)
  words = [label.get_text() for label in figure.axes[0].get_yticklabels()]
  assert words == target


def test_both_scripts_have_glyphs():
  with canvas.style():
    assert canvas.cjk_family() == 'Noto Sans CJK SC'
    font = get_font(findfont(FontProperties(family='Noto Sans CJK SC')))
  missing = [c for c in ''.join(CHINESE) if not font.get_char_index(ord(c))]
  assert missing == []


def test_save_warns_of_no_glyph_and_is_deterministic(tmp_path):
  def draw(name: str) -> list[bytes]:
    figure = figures.alignment(
      weights(len(CHINESE), len(GERMAN)), GERMAN, CHINESE, title='中国 äß'
    )
    return [path.read_bytes() for path in figures.save(figure, tmp_path / name)]

  with warnings.catch_warnings():
    warnings.simplefilter('error')
    first, second = draw('sub/a.b'), draw('c')
  assert first == second
  assert sorted(p.name for p in (tmp_path / 'sub').iterdir()) == [
    'a.b.pdf',
    'a.b.png',
  ]
  png, pdf = first
  assert png.startswith(b'\x89PNG')
  # Type 42, and nothing embedded that is not TrueType.
  assert b'/CIDFontType2' in pdf
  assert b'NotoSansCJK' not in pdf
  assert b'/Type3' not in pdf


def test_gold_links_are_drawn_where_they_belong():
  figure = figures.alignment(
    np.eye(2, 3),
    ['a', 'b', 'c'],
    ['x', 'y'],
    gold=(links((2, 1)), links((0, 1))),
  )
  possible, sure = (
    p for p in figure.axes[0].patches if isinstance(p, Rectangle)
  )
  centre = lambda p: (p.get_x() + p.get_width() / 2, p.get_y() + 0.42)
  assert centre(sure) == pytest.approx((2, 1))
  assert centre(possible) == pytest.approx((0, 1))
  assert sure.get_linestyle() != possible.get_linestyle()


def test_a_fallback_without_the_font_is_one_line(monkeypatch, capsys):
  canvas.cjk_family.cache_clear()
  monkeypatch.setitem(__import__('sys').modules, 'noto_cjk_sans_otc', None)
  try:
    figures.alignment(np.eye(1), ['I'], ['I'])
    figures.alignment(np.eye(1), ['I'], ['I'])
  finally:
    canvas.cjk_family.cache_clear()
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1
  assert 'noto-cjk-sans-otc' in lines[0]


def test_alignment_refuses_wrong_shapes_and_links():
  with pytest.raises(ValueError, match=r'\(3, 2\).*\(2, 3\)'):
    figures.alignment(np.ones((3, 2)), ['a', 'b', 'c'], ['x', 'y'])
  with pytest.raises(ValueError, match='outside'):
    figures.alignment(
      np.ones((1, 1)), ['a'], ['x'], gold=(links((1, 0)), links())
    )


def test_learning_curves(tmp_path):
  lines = [{'step': s, 'train/loss': 9.0 / s} for s in range(1, 100)]
  scores = [{'step': s, 'validation/bleu': s} for s in (50, 90)]
  figure = figures.learning_curves(
    {'with attention': [lines + scores], 'without': [lines]},
    ['train/loss', 'validation/bleu', 'validation/absent'],
  )
  assert is_within_bounds(figure)
  labels = [axes.get_ylabel() for axes in figure.axes]
  assert labels == ['train loss', 'validation BLEU']
  assert [len(axes.lines) for axes in figure.axes] == [2, 1]
  assert all(p.stat().st_size for p in figures.save(figure, tmp_path / 'c'))
  with pytest.raises(ValueError, match='test/x'):
    figures.learning_curves({'a': [lines]}, ['test/x'])


def test_four_panels_leave_the_rest_blank():
  lines = [{'step': s, **dict.fromkeys('abcd', 1.0)} for s in (1, 2)]
  figure = figures.learning_curves({'': [lines]}, 'abcd')
  assert [axes.axison for axes in figure.axes] == [True] * 4 + [False] * 2


@pytest.mark.parametrize('suggestion', [None, 3e-3])
def test_learning_rates(suggestion):
  rates = np.geomspace(1e-7, 10.0, 50)
  losses = 3 - 2 / (1 + (3e-3 / rates)) + np.maximum(rates - 0.5, 0)
  figure = figures.learning_rates(rates, losses, losses, suggestion)
  assert is_within_bounds(figure)
  (axes,) = figure.axes
  assert axes.get_xscale() == 'log'
  labels = [text.get_text() for text in axes.get_legend().get_texts()]
  assert ('suggestion: 0.003' in labels) == (suggestion is not None)
  ticks = [text.get_text() for text in axes.get_xticklabels()]
  assert '1e-03' in ticks or '1e-02' in ticks


def test_metric_by_length():
  names = ['1–5', '6–10', '11–15']
  figure = figures.metric_by_length(
    {
      'with attention': np.array([[99, 98, 97]]),
      'without attention': np.array([[99, 50, float('nan')]]),
    },
    names,
    [20, 300, 4],
    ylabel='BLEU',
  )
  assert is_within_bounds(figure)
  texts = {text.get_text() for text in figure.findobj(Text)}
  assert {'20', '300', '4', *names, 'BLEU'} <= texts
  with pytest.raises(ValueError, match="'b'"):
    figures.metric_by_length(
      {'a': np.ones((1, 1)), 'b': np.ones((1, 2))}, ['1'], [1], ylabel='BLEU'
    )
  with pytest.raises(ValueError, match='empty'):
    figures.metric_by_length({}, [], [], ylabel='BLEU')


@pytest.mark.parametrize(
  'sentences', [[GERMAN], [CHINESE, [], GERMAN * 3], [[]], [['word'] * 900]]
)
def test_shaded_text_is_within_bounds(sentences):
  rows = [np.full(len(words), 0.01) for words in sentences]
  gold = [(0, 0)] if sentences[0] else []
  figure = figures.shaded_text(
    sentences, rows, gold=gold, gold_sentences=[0], title='sport (0.98)'
  )
  assert is_within_bounds(figure)
  texts = {text.get_text() for text in figure.findobj(Text)}
  assert set(sentences[0]) <= texts


def test_shaded_text_underlines_gold_and_shades_by_weight():
  figure = figures.shaded_text(
    [['a', 'b', 'c']], [np.array([0.1, 0.4, 0.0])], gold=[(0, 1)]
  )
  (axes,) = figure.axes
  shades = [p.get_alpha() for p in axes.patches]
  assert shades == pytest.approx([0.25, 1.0, 0.0])
  (line,) = axes.lines
  box = axes.patches[1]
  assert box.get_x() < line.get_xdata()[0] < box.get_x() + box.get_width()
  with pytest.raises(ValueError, match=r'\[2\].*\[3\]'):
    figures.shaded_text([['a', 'b', 'c']], [np.zeros(2)])


@pytest.mark.parametrize('size', [2, 20])
def test_confusion(size):
  names = [f'comp.sys.class{i}' for i in range(size)]
  figure = figures.confusion(9 * np.eye(size, dtype=int), names, title='test')
  assert is_within_bounds(figure)
  texts = [text.get_text() for text in figure.findobj(Text)]
  assert texts.count('9') == size
  with pytest.raises(ValueError, match='labels'):
    figures.confusion(np.eye(2), ['a'])


def test_global_settings_are_left_alone():
  import matplotlib

  before = matplotlib.rcParams['font.family']
  figures.alignment(np.eye(1), ['a'], ['b'])
  assert matplotlib.rcParams['font.family'] == before


def test_cost_by_length_has_a_line_a_series_and_plain_numbers():
  figure = figures.cost_by_length(
    {'a': {128: [0.001], 256: [0.01], 512: [10]}, 'b': {128: [1]}}, 'seconds'
  )
  (axes,) = figure.axes
  assert [len(line.get_xdata()) for line in axes.get_lines()] == [3, 1]
  assert axes.get_xscale() == axes.get_yscale() == 'log'
  figure.canvas.draw()
  texts = [label.get_text() for label in axes.get_yticklabels()]
  assert '0.01' in texts
  with pytest.raises(ValueError, match='series is empty'):
    figures.cost_by_length({}, 'seconds')


def test_dots_has_a_row_a_setting():
  figure = figures.dots({'a': [1.0, 3.0], 'none': [2.0]}, 'accuracy', line=2.5)
  assert is_within_bounds(figure)
  (axes,) = figure.axes
  texts = {text.get_text() for text in figure.findobj(Text)}
  assert {'a', 'none', 'accuracy'} <= texts
  rings = [line for line in axes.get_lines() if line.get_marker() == 'o']
  assert [list(line.get_xdata()) for line in rings] == [[1.0, 3.0], [2.0]]
  # The first row is above the second.
  assert axes.get_ylim()[0] > axes.get_ylim()[1]
  with pytest.raises(ValueError, match='empty'):
    figures.dots({}, 'accuracy')


def test_by_size_has_a_panel_a_figure():
  figure = figures.by_size(
    {
      'test (%)': {'a': {700: [1.0, 2.0], 7_000: [2.0, 3.0]}, 'b': {700: [1]}},
      'gap': {'a': {700: [1.0]}},
    },
    'training texts',
  )
  assert is_within_bounds(figure)
  first, second = figure.axes
  assert first.get_xscale() == 'log'
  assert [len(line.get_xdata()) for line in first.get_lines()] == [2, 1]
  ticks = [text.get_text() for text in first.get_xticklabels()]
  assert ticks == ['700', '7,000']
  assert second.get_ylabel() == 'gap'
  with pytest.raises(ValueError, match='empty'):
    figures.by_size({}, 'texts')


def test_a_legend_of_many_long_names_leaves_the_panel_its_width(tmp_path):
  names = [
    f'softmax, additive, pool=attention, examples={n}' for n in range(12)
  ]
  series = {name: {8: [1.0], 16: [2.0]} for name in names}
  figure = figures.cost_by_length(series, 'seconds')
  figures.save_png(figure, tmp_path / 'cost')  # a warning is an error here
  (axes,) = figure.axes
  assert axes.get_window_extent().width > 2 * figure.dpi
