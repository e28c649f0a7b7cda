"""--mode=measure over smoke runs of the three experiments."""

import gzip
import json
import os
import pathlib

from flax import nnx
import numpy as np
import pytest

from attnlab import configs, data, errors, tasks
from attnlab.report import measuring
from attnlab.tasks import base, faithful, measure_translation
from attnlab.training import export
import launch

FAITHFUL = set(faithful.SIGNATURES)
ERASING = {
  'comprehensiveness',
  'sufficiency',
  'comprehensiveness_random',
  'sufficiency_random',
}


def run(*args):
  return launch.main(['launch.py', *map(str, args)])


def trained(folder, experiment):
  """A run of two steps."""
  code = run(
    f'--config={experiment}',
    f'--workdir={folder}',
    '--config.training.steps=2',
    '--config.training.eval_every=2',
    '--config.training.checkpoint_every=2',
    '--config.evaluation.pictures=0',
  )
  assert code == 0


def exported(folder, experiment):
  """A model as it starts, which is as good as a run."""
  config = configs.load(experiment)
  task = tasks.build(config)
  export.save(config, task, folder, step=2)
  return task


def measured(workdir, *flags):
  """The figures of its test split, and their names."""
  asked = ('--mode=measure', f'--workdir={workdir}', '--splits=test')
  assert run(*asked, '--examples=8', *flags) == 0
  found = json.loads((workdir / 'measures.json').read_text())
  assert found['step'] == 2
  names = {key.partition('/')[2] for key in found if key.startswith('test/')}
  assert all(np.isfinite(found[f'test/{name}']) for name in names)
  # What a figure is stands beside it, but for what eval has.
  own = {name for name in names if '_of_' not in name}
  known = {'accuracy', 'bleu', 'alignment_precision', 'alignment_recall'}
  known |= {'sentence_pointing', 'sentence_mass', 'sentence_pointing_uniform'}
  assert own - known <= found['signatures'].keys()
  return found, names


def test_sentiment(tmp_path_factory, capsys):
  folder = tmp_path_factory.mktemp('runs')
  trained(folder / 'sentiment', 'sentiment:attention,smoke')
  found, names = measured(folder / 'sentiment')
  assert names >= FAITHFUL | ERASING
  assert names >= {'entropy', 'pointing', 'mass', 'probe', 'probe_uniform'}
  assert 0 < found['test/pointing_uniform'] < 0.5
  assert 0 < found['test/adversarial_jsd'] <= np.log(2)
  # As --mode=eval has it.
  summary = json.loads((folder / 'sentiment' / 'summary.json').read_text())
  for name in ('accuracy', 'pointing', 'mass'):
    assert found[f'test/{name}'] == pytest.approx(summary[f'test/{name}'])
  out = capsys.readouterr().out
  assert 'comprehensiveness' in out
  # Flags that do not fit are one line.
  asked = ('--mode=measure', f'--workdir={folder / "sentiment"}')
  assert run(*asked, '--alignments=.') == 2
  assert 'is for translation' in capsys.readouterr().err
  assert run(*asked, '--splits=tset') == 2
  assert "did you mean 'test'" in capsys.readouterr().err
  assert run(*asked, '--examples=0') == 2
  assert run(*asked, '--lengths=16,x') == 2
  assert run('--config=sentiment', '--examples=3') == 2


def test_documents(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  exported(folder / 'documents', 'documents:smoke')
  found, names = measured(folder / 'documents', '--lengths=8,32')
  assert 0 < found['cost/milliseconds_at_8'] < np.inf
  assert 0 < found['cost/milliseconds_at_32'] < np.inf
  assert names >= FAITHFUL | ERASING | {'sentence_pointing_uniform'}


def test_translation(tmp_path_factory, capsys):
  folder = tmp_path_factory.mktemp('runs')
  task = exported(folder / 'translation', 'translation:luong,smoke')
  # What a run has translated is not translated again.
  inner = task.evaluate.__self__
  lines = [
    json.dumps({'source': e['source'], 'hypothesis': e['target']})
    for e in inner.examples('test')
  ]
  base.write_lines(folder / 'translation/predictions/test.jsonl', lines)
  found, names = measured(folder / 'translation')
  assert names >= FAITHFUL | {'monotonicity', 'coverage', 'bleu', 'unlinked'}
  aer = {name for name in names if name.startswith('aer')}
  assert aer == {
    'aer',
    'aer_diagonal',
    'aer_mutual',
    'aer_shifted',
    'aer_threshold',
    'aer_uniform',
  }
  assert found['test/bleu'] == pytest.approx(100)
  assert found['test/aer_diagonal'] < found['test/aer_uniform']
  assert found['alignment_shift'] == 0
  # As --mode=eval has it.
  parts = nnx.split(task.model)
  columns = inner.columns('test')
  figures = inner.alignment(
    'test', measure_translation.forced(inner, parts, columns)
  )
  for name in ('aer', 'alignment_recall'):
    assert found[f'test/{name}'] == pytest.approx(figures[name])
  # Gold of another pair, and of this one the other way round.
  asked = ('--mode=measure', f'--workdir={folder / "translation"}')
  with gzip.open(folder / 'de-en.tsv.gz', 'wt') as file:
    file.write('a\tx\t0-0\t\n')
  assert run(*asked, f'--alignments={folder}') == 2
  assert "holds de-en, and the run translates from 'en' to 'zh'" in (
    capsys.readouterr().err
  )
  with gzip.open(folder / 'zh-en.tsv.gz', 'wt') as file:
    file.write('汤姆 追逐\tTom chases\t0-0\t1-1\n')
  config = configs.load('translation:luong,smoke')
  name, sentences = measure_translation.gold(folder, config)
  assert name == 'zh-en'
  assert sentences == [
    {
      'source': ['Tom', 'chases'],
      'target': ['汤姆', '追逐'],
      'sure': [(0, 0)],
      'possible': [(1, 1)],
    }
  ]
  name, figures = task.measure_gold(task.model, folder)
  assert figures['unknown'] == 0
  assert 0 <= figures['aer'] <= 1


def test_two_directions_are_intersected(tmp_path, capsys):
  examples = list(data.load('synthetic_en_zh', seed=0, train_size=60)['train'])
  lines = [f'{each["source"]}\t{each["target"]}' for each in examples]
  for split in ('train', 'validation'):
    base.write_lines(tmp_path / f'{split}.tsv', lines)
  links = [' '.join(f'{s}-{t}' for s, t in each['sure']) for each in examples]
  gold = [f'{a}\t{b}' for a, b in zip(lines, links, strict=True)]
  base.write_lines(tmp_path / 'gold' / 'en-zh.tsv', gold)
  ran = {}
  for source, target in ('en', 'zh'), ('zh', 'en'):
    config = configs.override(
      configs.load('translation:luong,smoke'),
      {
        'data': 'files',
        'data.dir': str(tmp_path),
        'data.train': 'train.tsv',
        'data.validation': 'validation.tsv',
        'data.source_language': source,
        'data.target_language': target,
        'data.source_field': '0' if source == 'en' else '1',
        'data.target_field': '1' if source == 'en' else '0',
      },
    )
    ran[source] = tasks.build(config)
    export.save(config, ran[source], tmp_path / source, step=2)
  asked = (
    '--mode=measure',
    f'--workdir={tmp_path / "en"}',
    '--examples=2',
    f'--reverse={tmp_path / "zh"}',
  )
  assert run(*asked) == 2
  assert 'is for --alignments=DIR, which is missing' in capsys.readouterr().err
  assert run(*asked, f'--alignments={tmp_path / "gold"}') == 0
  found = json.loads((tmp_path / 'en' / 'measures.json').read_text())
  assert found['reverse'] == str(tmp_path / 'zh')
  there, back = (
    task.align(task.model, tmp_path / 'gold') for task in ran.values()
  )
  assert (there[0], back[0]) == (('en', 'zh'), ('zh', 'en'))
  both = [
    {(s, t) for s, t in one if (t, s) in other}
    for one, other in zip(there[1], back[1], strict=True)
  ]
  assert 0 < sum(map(len, both)) < sum(map(len, there[1]))
  # All gold links of this corpus are sure ones, or possible besides.
  sure = [{tuple(link) for link in each['sure']} for each in examples]
  hits = sum(len(a & b) for a, b in zip(both, sure, strict=True))
  total = sum(map(len, both)) + sum(map(len, sure))
  assert found['en-zh/aer_intersection'] == pytest.approx(1 - 2 * hits / total)
  assert found['en-zh/intersection_recall'] == pytest.approx(
    hits / sum(map(len, sure))
  )
  turned = [{(s, t) for t, s in links} for links in back[1]]
  hits = sum(len(a & b) for a, b in zip(turned, sure, strict=True))
  total = sum(map(len, turned)) + sum(map(len, sure))
  assert found['en-zh/aer_reverse'] == pytest.approx(1 - 2 * hits / total)
  # A run of the same direction is none of the other.
  asked = (*asked[:3], f'--alignments={tmp_path / "gold"}')
  assert run(*asked, f'--reverse={tmp_path / "en"}') == 2
  assert 'it must be the other way round' in capsys.readouterr().err
  assert run(*asked, f'--reverse={tmp_path}') == 2
  assert f'reverse={str(tmp_path)!r} is no run directory' in (
    capsys.readouterr().err
  )


def test_a_model_without_attention_has_its_bleu_by_length():
  task = tasks.build(configs.load('translation:no_attention,smoke'))
  assert faithful.sites(task.model) == ()
  figures, _ = task.measure(task.model, 'test', examples=4, workdir='nowhere')
  assert figures.keys() - {'bleu'}
  assert all(name.startswith('bleu') for name in figures)


def test_self_attention_keeps_its_weights():
  task = tasks.build(configs.load('translation:transformer,smoke'))
  assert faithful.sites(task.model) == ('decoder/layers/0/cross_attend',)


def test_a_table_has_a_column_for_each_split():
  text = measuring.table(
    {'test/a': 0.5, 'long/a': 123.456, 'test/b': 1.0}, {'a': 'what a is'}
  )
  assert text.splitlines() == [
    '    test   long',
    'a  0.500  123.5  what a is',
    'b  1.000      –',
  ]


def test_a_task_without_measures_is_refused(tmp_path):
  class Without:
    measure = measure_gold = None
    splits = ('validation',)

  with pytest.raises(errors.UserError, match='no measures'):
    measuring.measure(Without(), tmp_path)


DATA = os.environ.get('ATTNLAB_DATA')


@pytest.mark.skipif(not DATA, reason='ATTNLAB_DATA names no folder of data')
@pytest.mark.parametrize(
  ('pair', 'source', 'count', 'sure', 'possible'),
  [
    ('de-en', 'en', 100, 1_232, 0),
    ('en-fr', 'en', 447, 4_038, 13_400),
    ('zh-en', 'en', 450, 11_238, 178),
  ],
)
def test_human_gold(pair, source, count, sure, possible):
  folder = pathlib.Path(str(DATA)) / 'word-alignment'
  if not folder.is_dir():
    pytest.skip(f'{folder} does not exist')
  target = pair.replace(source, '').strip('-')
  data = {
    'name': 'files',
    'source_language': source,
    'target_language': target,
  }
  name, sentences = measure_translation.gold(folder, {'data': data})
  assert name == pair
  assert len(sentences) == count
  assert sum(len(each['sure']) for each in sentences) == sure
  assert sum(len(each['possible']) for each in sentences) == possible
