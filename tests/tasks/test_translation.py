"""The translation task, on a corpus small enough to be read."""

import json

import jax
import numpy as np
import pytest

from attnlab import configs, errors, tasks
from attnlab.tasks import base, translation

PAIRS = [
  ('a b c', 'C B A'),
  ('b a', 'A B'),
  ('c', 'C'),
  ('a c b b', 'B B C A'),
  ('c c', 'C C'),
  ('b', 'B'),
]


def corpus(folder, splits=('train', 'validation', 'test'), pairs=PAIRS):
  for split in splits:
    lines = ''.join(f'{source}\t{target}\n' for source, target in pairs)
    (folder / f'{split}.tsv').write_text(lines, encoding='utf-8')


def config_for(folder, **overrides):
  config = configs.load('experiments/translation.py:luong,smoke')
  return configs.override(
    config,
    {
      'data': 'files',
      'data.dir': str(folder),
      'data.train': 'train.tsv',
      'data.validation': 'validation.tsv',
      'data.test': 'test.tsv',
      'data.source_field': '0',
      'data.target_field': '1',
      'training.batch_size': '4',
      'evaluation.batch_size': '4',
      **{k: str(v) for k, v in overrides.items()},
    },
  )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('corpus')
  corpus(folder)
  return folder


@pytest.fixture(scope='module')
def task(folder):
  return tasks.build(config_for(folder))


def test_batches_end_with_eos_and_are_padded(task):
  batch = next(task.train(0))
  for side in ('source', 'target'):
    lengths = (batch[side] != 0).sum(axis=1)
    last = batch[side][np.arange(4), lengths - 1]
    np.testing.assert_array_equal(last, translation.EOS)


def test_loss_counts_target_words_alone(task):
  batch = next(task.train(0))
  total, metrics = task.loss(task.model, batch, None)
  assert metrics['weight'] == (batch['target'] != 0).sum()
  assert total == pytest.approx(float(metrics['loss']), rel=1e-5)
  padded = {
    side: np.pad(batch[side], ((0, 0), (0, 3))) for side in translation.SIDES
  }
  wider, _ = task.loss(task.model, padded, None)
  assert wider == pytest.approx(float(total), rel=1e-5)


def test_label_smoothing_is_trained_on_and_not_reported(folder):
  task = tasks.build(config_for(folder, **{'training.label_smoothing': 0.1}))
  batch = next(task.train(0))
  total, metrics = task.loss(task.model, batch, None)
  assert abs(total - metrics['loss']) > 1e-3


def test_evaluation_covers_every_sentence_once(task, tmp_path):
  values = task.evaluate(task.model, 'test', full=True, workdir=tmp_path)
  assert set(values) == {'loss', 'accuracy', 'bleu', 'entropy'}
  lines = (tmp_path / 'predictions' / 'test.jsonl').read_text().splitlines()
  assert [json.loads(line)['source'] for line in lines] == [
    source for source, _ in PAIRS
  ]
  texts = (tmp_path / 'predictions' / 'test.txt').read_text()
  assert texts == ''.join(
    json.loads(line)['hypothesis'] + '\n' for line in lines
  )
  record = json.loads(
    (tmp_path / 'attention' / 'test.jsonl').read_text().splitlines()[0]
  )
  weights = np.array(record['weights'])
  assert weights.shape == (len(record['target']), len(record['source']))
  np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-3)
  assert list((tmp_path / 'figures').glob('alignment_test_*.png'))
  assert list((tmp_path / 'figures').glob('alignment_test_*.pdf'))


def test_heads_and_layers_are_kept_for_what_is_drawn(folder, tmp_path):
  config = configs.load('experiments/translation.py:transformer,smoke')
  data = configs.to_data(config_for(folder))['data']
  changes = {f'data.{key}': str(value) for key, value in data.items()}
  changes |= {'data': 'files', 'model.layers': '2'}
  changes['attention.heads.num_heads'] = '2'
  changes['evaluation.pictures'] = '2'
  del changes['data.name']
  task = tasks.build(configs.override(config, changes))
  task.evaluate(task.model, 'test', full=True, workdir=tmp_path)
  lines = (tmp_path / 'attention' / 'test.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  assert [record['example'] for record in records] == list(range(len(PAIRS)))
  kept = [record for record in records if 'heads' in record]
  assert len(kept) == len([*(tmp_path / 'figures').glob('*.png')]) == 2
  for record in kept:
    heads = np.array(record['heads'])
    shape = (2, 2, len(record['target']), len(record['source']))
    assert heads.shape == shape
    mean = heads[-1].mean(axis=0)
    np.testing.assert_allclose(mean, record['weights'], atol=2e-4)


def test_entropy_is_that_of_the_rows_that_see_something():
  rows = np.array([[0.5, 0.5, 0], [1, 0, 0], [0, 0, 0], [1 / 3] * 3])
  total, count = base.entropies(rows)
  assert count == 3
  assert total == pytest.approx(np.log(2) + np.log(3))
  assert base.entropies(np.zeros((2, 3))).tolist() == [0, 0]


def test_loss_of_a_split_does_not_depend_on_its_batches(folder):
  config = config_for(folder)
  one = tasks.build(config)
  other = tasks.build(configs.override(config, {'evaluation.batch_size': '2'}))
  a = one.evaluate(one.model, 'test', full=False, workdir=None)
  b = other.evaluate(other.model, 'test', full=False, workdir=None)
  assert a['loss'] == pytest.approx(b['loss'], rel=1e-5)
  assert a['bleu'] == b['bleu']


def test_predictions_keep_their_order(task):
  lines = [source for source, _ in PAIRS]
  together = [p.text for p in task.predict(task.model, lines)]
  alone = [next(task.predict(task.model, [line])).text for line in lines]
  assert together == alone


def test_prediction_shows_where_it_looked(task):
  found = next(task.predict(task.model, ['a b zzz']))
  assert found.source_tokens == ['a', 'b', '<unk>', '</s>']
  assert found.weights.shape == (len(found.tokens), 4)
  empty = next(task.predict(task.model, ['']))
  assert empty.source_tokens == ['</s>']


def test_a_model_without_attention_records_none(folder):
  config = configs.load('experiments/translation.py:no_attention,smoke')
  data = configs.to_data(config_for(folder))['data']
  task = tasks.build(
    configs.from_data({**configs.to_data(config), 'data': data})
  )
  assert next(task.predict(task.model, ['a b'])).weights is None


def test_a_run_directory_is_all_that_prediction_needs(folder, tmp_path):
  config = config_for(folder)
  task = tasks.build(config)
  task.save_assets(tmp_path)
  gone = configs.override(config, {'data.dir': str(tmp_path / 'nowhere')})
  other = tasks.build(gone, tmp_path)
  lines = ['a b', 'c']
  assert [p.text for p in other.predict(other.model, lines)] == [
    p.text for p in task.predict(task.model, lines)
  ]


def test_same_seed_same_parameters_other_seed_others(folder):
  leaves = lambda task: [x.sum() for x in jax.tree.leaves(_state(task.model))]
  one = leaves(tasks.build(config_for(folder)))
  same = leaves(tasks.build(config_for(folder)))
  other = leaves(tasks.build(config_for(folder, seed=1)))
  assert one == same
  assert one != other


def _state(model):
  from flax import nnx

  return nnx.state(model, nnx.Param)


def test_subwords_and_one_vocabulary_for_both_sides(folder):
  config = config_for(folder)
  config = configs.override(
    config,
    {
      'vocabulary': 'subwords',
      'vocabulary.size': '14',
      'vocabulary.model': 'bpe',
      'data.share_vocabulary': 'True',
    },
  )
  task = tasks.build(config)
  assert (
    task.fingerprint['vocabulary'].split()[0]
    == (task.fingerprint['vocabulary'].split()[1])
  )
  task.evaluate(task.model, 'validation', full=False, workdir=None)


@pytest.mark.parametrize(
  ('overrides', 'words'),
  [
    ({'task': 'translatoin'}, ['translatoin', "'translation'"]),
    ({'training.precision': 'float8'}, ['float8', 'bfloat16']),
    ({'evaluation.tokenize': 'zhh'}, ['zhh', "'zh'"]),
    ({'data.max_length': '1'}, ['max_length=1']),
    ({'data.validation': ''}, ['validation']),
  ],
)
def test_mistakes_name_the_field_and_the_value(folder, overrides, words):
  with pytest.raises(errors.UserError) as caught:
    tasks.build(config_for(folder, **overrides))
  for word in words:
    assert word in str(caught.value)
  assert '\n' not in str(caught.value)


def test_training_shapes_are_as_few_as_the_buckets(tmp_path):
  pairs = [(' '.join('a' * n), ' '.join('A' * n)) for n in range(1, 40)]
  corpus(tmp_path, pairs=pairs)
  task = tasks.build(config_for(tmp_path, **{'data.buckets': 3}))
  batches = task.train(0)
  shapes = {next(batches)['source'].shape for _ in range(50)}
  assert 1 < len(shapes) <= 3
