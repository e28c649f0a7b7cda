"""BibTeX of what some runs used: mechanisms, data sets, metrics, tools.

Which papers a part of a config rests on is said by its docstring, so that a new
mechanism cites itself. The tools are those that each run recorded.
"""

from collections.abc import Iterable, Mapping, Sequence
import functools
import pathlib
import re
from typing import Any

from attnlab import configs
from attnlab.report import references
from attnlab.report import runs as runs_lib

_HERE = pathlib.Path(__file__).parent
_ROOT = _HERE.parents[1]
# Distribution -> key in software.bib. All of them are in a run's versions.
_TOOLS = {
  'jax': 'bradbury2018',
  'flax': 'heek2020',
  'optax': 'deepmind2020',
  'chex': 'deepmind2020',
  'numpy': 'harris2020',
}
_METRICS = {'bleu': ('papineni2002', 'post2018'), 'chrf': ('popovic2015',)}
_METRICS |= {'aer': ('och2003',)}
_TESTS = ('efron1987', 'fisher1935', 'holm1979')


def entries() -> dict[str, str]:
  """Returns {key: entry as BibTeX} of all that attnlab knows."""
  found = {}
  for path in (_HERE / 'software.bib', _shipped('references.bib', 'docs')):
    found |= _split(path.read_text(encoding='utf-8'))
  return found


def _split(text: str) -> dict[str, str]:
  """The entries of a BibTeX file by key."""
  found = {}
  for entry in re.split(r'^[ \t]*(?=@)', text, flags=re.MULTILINE)[1:]:
    key = entry.partition('{')[2].partition(',')[0].strip()
    found[key] = re.sub(r'\n%.*', '', entry).strip()
  return found


@functools.cache
def _of_dataset(name: str) -> dict[str, str]:
  """The entries that TFDS has for a data set."""
  from attnlab.data import named

  return _split(named.citation(name))


def _dataset(config: Mapping[str, Any]) -> str:
  """The name of a run's data set in TFDS; '' where it is from elsewhere."""
  name = str(config.get('data.name') or '')
  if name == 'tfds':
    return str(config.get('data.dataset'))
  path = configs.parts(config.get('task'))['data']
  return '' if name in configs.choices(path) else name.removeprefix('tfds:')


def citation_file() -> str:
  """CITATION.cff, by which attnlab itself is cited."""
  return _shipped('CITATION.cff', '.').read_text(encoding='utf-8')


def _shipped(name: str, folder: str) -> pathlib.Path:
  """A file of the repository, which a wheel holds beside this module."""
  inside = _HERE / name
  return inside if inside.is_file() else _ROOT / folder / name


def used(runs: Sequence[runs_lib.Run]) -> dict[str, str]:
  """Returns {key: what it is cited for}, mechanisms first."""
  found: dict[str, str] = {}
  for run in runs:
    for key, why in (*_parts(run.config), *_extras(run)):
      found.setdefault(key, why)
  return found


def _parts(config: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
  """What the docstrings of the parts that a config names cite."""
  known = configs.parts(config.get('task'))
  for path in sorted(known, key=lambda p: not p.startswith('attention')):
    name = str(config.get(f'{path}.name'))
    make = configs.choices(known[path]).get(name)
    text = re.sub(
      r', ((?:19|20)\d\d)\b', r' \1', getattr(make, '__doc__', None) or ''
    )
    for key in references.cited(text):
      yield key, f'{path} {name}'


def _extras(run: runs_lib.Run) -> Iterable[tuple[str, str]]:
  """Recurrent cells, vocabularies, metrics and tools."""
  from attnlab.layers import recurrent

  cell = run.config.get('model.cell')
  for name, found in vars(recurrent).items():
    if name == cell:
      for key in references.cited(found.__doc__ or ''):
        yield key, f'cell {cell}'
  for path in ('training.label_smoothing', 'training.loss.label_smoothing'):
    if run.config.get(path):
      yield 'szegedy2016', path
  if run.config.get('data.name') == 'tatoeba_en_zh':
    yield 'tatoeba', 'data tatoeba_en_zh'
  dataset = _dataset(run.config)
  found = _of_dataset(dataset) if dataset else {}
  if found or run.config.get('data.name') == 'tfds':
    yield from ((key, f'data {dataset}') for key in ('tfds', *found))
  if run.config.get('vocabulary.name') == 'subwords':
    yield 'kudo2018', 'vocabulary subwords'
    if run.config.get('vocabulary.model') == 'bpe':
      yield 'sennrich2016', 'vocabulary bpe'
  names = {key.rpartition('/')[2] for key in run.summary}
  for metric, keys in _METRICS.items():
    if metric in names:
      yield from ((key, f'metric {metric}') for key in keys)
  for metric, text in run.summary.get('signatures', {}).items():
    if metric in names:
      yield from ((key, f'metric {metric}') for key in references.cited(text))
  versions = run.environment.get('versions', {})
  for tool, key in _TOOLS.items():
    if tool in versions:
      yield key, tool
  yield 'hunter2007', 'matplotlib'
  yield from ((key, 'statistics') for key in _TESTS)


def bibtex(runs: Sequence[runs_lib.Run]) -> tuple[str, list[str]]:
  """Returns a BibTeX file for some runs, and the keys that it lacks."""
  known = entries()
  for dataset in {_dataset(run.config) for run in runs} - {''}:
    known |= _of_dataset(dataset)
  cited = used(runs)
  blocks = [f'% {cited[key]}\n{known[key]}\n' for key in cited if key in known]
  lacking = [key for key in cited if key not in known]
  if lacking:
    blocks.insert(0, f'% No entry for: {", ".join(lacking)}\n')
  return '\n'.join([own(), *blocks]), lacking


def own() -> str:
  """The entry of attnlab itself, made of CITATION.cff."""
  text = citation_file()
  field = lambda name: (
    re.search(rf'^{name}: *[\'"]?(.*?)[\'"]?$', text, re.MULTILINE) or ['', '']
  )[1]
  return (
    '@misc{attnlab,\n'
    '  author = {{The attnlab authors}},\n'
    f'  title = {{{field("title")}}},\n'
    f'  version = {{{field("version")}}},\n'
    f'  year = {{{field("date-released")[:4]}}},\n'
    '}\n'
  )
