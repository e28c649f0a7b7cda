"""The classification task, on texts few enough to be read."""

import json

import numpy as np
import pytest

from attnlab import configs, errors, tasks
from attnlab.data import classification as classification_data
from attnlab.tasks import class_losses, classification

ROWS = [
  ('good', 'a good film'),
  ('bad', 'bad'),
  ('good', 'good good b c d'),
  ('bad', 'it was bad b c'),
  ('good', 'good c'),
  ('bad', 'c bad d'),
]


def config_for(folder, experiment='sentiment:smoke', **overrides):
  for split in ('train', 'validation', 'test'):
    lines = ''.join(f'{label}\t{text}\n' for label, text in ROWS)
    (folder / f'{split}.tsv').write_text(lines, encoding='utf-8')
  return configs.override(
    configs.load(experiment),
    {
      'data': 'files',
      'data.dir': str(folder),
      'data.train': 'train.tsv',
      'data.validation': 'validation.tsv',
      'data.test': 'test.tsv',
      'data.label_field': '0',
      'data.text_field': '1',
      'training.batch_size': '4',
      'evaluation.batch_size': '4',
      **{k: str(v) for k, v in overrides.items()},
    },
  )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('corpus')


@pytest.fixture(scope='module')
def task(folder):
  return tasks.build(config_for(folder))


def test_loss_counts_examples_and_not_padding(task):
  batch = next(task.train(0))
  total, metrics = task.loss(task.model, batch, None)
  assert metrics['weight'] == 4
  assert total == pytest.approx(float(metrics['loss']), rel=1e-5)
  padded = {
    'tokens': np.pad(batch['tokens'], ((0, 1), (0, 3))),
    'label': np.pad(batch['label'], (0, 1)),
    'index': np.append(batch['index'], -1).astype(np.int32),
  }
  wider, metrics = task.loss(task.model, padded, None)
  assert wider == pytest.approx(float(total), rel=1e-5)
  assert metrics['weight'] == 4
  assert metrics['tokens'] == np.count_nonzero(batch['tokens'])


@pytest.mark.parametrize(
  'override',
  [
    {'training.loss.label_smoothing': 0.2},
    {'training.loss': 'focal'},
    {'training.class_weights': '2,3'},
  ],
)
def test_other_losses_are_trained_on_and_not_reported(folder, override):
  task = tasks.build(config_for(folder, **override))
  total, metrics = task.loss(task.model, next(task.train(0)), None)
  assert abs(total - metrics['loss']) > 1e-3


def test_evaluation_covers_every_text_once(task, tmp_path):
  values = task.evaluate(task.model, 'test', full=True, workdir=tmp_path)
  assert set(values) == {'loss', 'accuracy', 'macro_f1', 'entropy'}
  lines = (tmp_path / 'predictions' / 'test.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  assert [(r['label'], r['text']) for r in records] == ROWS
  right = [r['label'] == r['prediction'] for r in records]
  assert values['accuracy'] == pytest.approx(np.mean(right))
  assert 'weights' not in records[0]  # a large split's would be 100 MB
  for record in records:
    assert sum(record['probabilities']) == pytest.approx(1, abs=1e-3)
  looked = [
    json.loads(line)
    for line in (tmp_path / 'attention' / 'test.jsonl').read_text().splitlines()
  ]
  assert [r['example'] for r in looked] == list(range(len(ROWS)))
  for record, (_, text) in zip(looked, ROWS, strict=True):
    (weights,) = record['weights']
    assert record['source'] == text.split()
    assert len(weights) == len(record['source'])
    assert sum(weights) == pytest.approx(1, abs=1e-3)
  names = {path.name for path in (tmp_path / 'figures').iterdir()}
  assert {'confusion_test.png', 'confusion_test.pdf'} <= names
  assert any(name.startswith('words_test_') for name in names)


def test_figures_of_a_split_do_not_depend_on_its_batches(folder, task):
  other = tasks.build(config_for(folder, **{'evaluation.batch_size': 2}))
  a, b = (
    t.evaluate(t.model, 'test', full=False, workdir=None) for t in (task, other)
  )
  assert a == pytest.approx(b, rel=1e-5)


def test_attention_of_a_large_split_is_bounded(folder, tmp_path, monkeypatch):
  monkeypatch.setattr(classification, '_FIRST', 2)
  task = tasks.build(config_for(folder, **{'evaluation.pictures': 1}))
  task.evaluate(task.model, 'test', full=True, workdir=tmp_path)
  lines = (tmp_path / 'attention' / 'test.jsonl').read_text().splitlines()
  # The first two, and the one of middle length that is drawn.
  drawn = [int(p.stem[11:]) for p in (tmp_path / 'figures').glob('words_*.png')]
  found = [json.loads(line)['example'] for line in lines]
  assert len(drawn) == 1
  assert found == sorted({0, 1, *drawn})
  assert len(found) < len(ROWS)


@pytest.mark.parametrize('experiment', ['sentiment:smoke', 'documents:smoke'])
@pytest.mark.parametrize('form', classification_data.FORMS)
def test_a_training_text_is_predicted_as_it_was_trained(
  tmp_path, experiment, form
):
  rows = [
    ('bad', "I don't like it, Mr. Lee. (Not at all!)  Why?<br />It's 3.5."),
    ('good', 'plain words'),
  ]
  config = config_for(tmp_path, experiment, **{'data.form': form})
  lines = ''.join(f'{label}\t{text}\n' for label, text in rows)
  (tmp_path / 'train.tsv').write_text(lines, encoding='utf-8')
  made = classification._Classification(config, None)
  trained = made.columns('train')['tokens']
  for (_, text), ids in zip(rows, trained, strict=True):
    np.testing.assert_array_equal(made.array(made.as_document(text)), ids)
    (found,) = made.predict(made.model, [text])
    assert found.source_tokens == made.as_document(text).split()


def test_a_generated_document_on_one_line_keeps_words_and_sentences():
  config = configs.load('documents:smoke')
  made = classification._Classification(config, None)
  for example in made.examples('test')[:20]:
    line = example['text'].replace('\n', ' ')
    assert made.as_document(line) == example['text']


def test_predictions_keep_their_order_and_show_where_they_looked(task):
  lines = [text for _, text in ROWS] + ['', 'zzz']
  together = list(task.predict(task.model, lines))
  alone = [next(task.predict(task.model, [line])).text for line in lines]
  assert [p.text for p in together] == alone
  assert set(alone) <= {'good', 'bad'}
  assert together[0].weights.shape == (1, 3)
  assert together[0].source_tokens == ['a', 'good', 'film']
  assert together[-2].weights is None


def test_a_run_directory_is_all_that_prediction_needs(folder, task, tmp_path):
  task.save_assets(tmp_path)
  config = config_for(folder, **{'data.dir': tmp_path / 'nowhere'})
  other = tasks.build(config, tmp_path)
  lines = ['a good film', 'bad']
  assert [p.text for p in other.predict(other.model, lines)] == [
    p.text for p in task.predict(task.model, lines)
  ]


def test_a_hierarchical_model_reads_sentences(tmp_path, folder):
  task = tasks.build(config_for(folder, 'documents:smoke'))
  assert task.example['tokens'].ndim == 3
  found = next(task.predict(task.model, ['A good film. It was bad .']))
  assert found.source_tokens == 'A good film . It was bad .'.split()
  assert found.weights.shape == (1, 8)
  task.evaluate(task.model, 'test', full=True, workdir=tmp_path)


def test_weights_of_pieces_become_those_of_words(folder):
  make = classification._Classification
  flat = make(config_for(folder), None)
  rows = flat.by_word('a good\nfilm', np.array([0.2, 0.3, 0.5, 0.0]))
  assert [row.tolist() for row in rows] == [[0.2, 0.3], [0.5]]
  levels = make(config_for(folder, 'documents:smoke'), None)
  grid = np.array([[0.2, 0.3], [0.0, 0.0], [0.5, 0.0]])
  rows = levels.by_word('a good\n\nfilm', grid)
  assert [row.tolist() for row in rows] == [[0.2, 0.3], [], [0.5]]
  short = make(config_for(folder, **{'data.max_length': 1}), None)
  (row,) = short.by_word('a good film', np.array([1.0]))
  assert row.tolist() == [1, 0, 0]


def test_pointing_by_hand():
  examples = [
    {'gold': np.array([[1, 0]]), 'gold_sentences': np.array([1])},
    {'gold': np.array([[0, 1]]), 'gold_sentences': np.array([0])},
    {'gold': np.zeros((0, 2)), 'gold_sentences': np.array([])},
  ]
  rows = [np.array([0.1, 0.3]), np.array([0.6])]
  assert classification.pointed(examples, [rows] * 3) == pytest.approx(
    {
      'pointing': 0.5,
      'mass': 0.45,
      'sentence_pointing': 0.5,
      'sentence_mass': 0.5,
    }
  )


def test_losses_by_hand():
  logits = np.log(np.array([[0.8, 0.2], [0.5, 0.5]], np.float32))
  labels = np.array([0, 1])
  nll = -np.log([0.8, 0.5])
  plain = class_losses.cross_entropy()(logits, labels)
  np.testing.assert_allclose(plain, nll, rtol=1e-5)
  smooth = class_losses.cross_entropy(label_smoothing=0.1)(logits, labels)
  even = -np.log([[0.8, 0.2], [0.5, 0.5]]).mean(axis=1)
  np.testing.assert_allclose(smooth, 0.9 * nll + 0.1 * even, rtol=1e-5)
  focal = class_losses.focal(gamma=2.0)(logits, labels)
  np.testing.assert_allclose(focal, [0.04, 0.25] * nll, rtol=1e-4)


def test_class_weights():
  weights = class_losses.class_weights
  assert weights('none', [3, 1]) == [1, 1]
  balanced = weights('balanced', [3, 1, 0])
  assert balanced == pytest.approx([2 / 3, 2, 0])
  assert weights('1,2.5', [3, 1]) == [1, 2.5]
  for setting in ('1', '1,-2', '1,nan', 'balancd'):
    with pytest.raises(errors.UserError, match='class_weights='):
      weights(setting, [3, 1])


@pytest.mark.parametrize(
  ('overrides', 'words'),
  [
    ({'training.loss.label_smoothing': 1.5}, ['label_smoothing=1.5']),
    ({'training.class_weights': 'balancd'}, ['balancd', "'balanced'"]),
    ({'training.precision': 'float8'}, ['float8']),
    ({'vectors': 'nowhere.txt'}, ['nowhere.txt']),
  ],
)
def test_mistakes_name_the_field_and_the_value(folder, overrides, words):
  with pytest.raises(errors.UserError) as caught:
    task = tasks.build(config_for(folder, **overrides))
    task.loss(task.model, next(task.train(0)), None)
  for word in words:
    assert word in str(caught.value)
  assert '\n' not in str(caught.value)


def test_unknown_parts_of_the_task_are_named_without_its_prefix(folder):
  config = config_for(folder)
  for path, text, message in (
    ('model', 'clasifier', r"^model\.name='clasifier'"),
    ('training.loss', 'hinge', r"^training\.loss\.name='hinge'"),
    ('model.pol', 'mean', r'model\.pol is unknown.*model\.pool'),
  ):
    with pytest.raises(errors.UserError, match=message):
      configs.override(config, {path: text})


def test_pretrained_vectors_start_the_words_that_have_one(folder, tmp_path):
  path = tmp_path / 'vectors.txt'
  row = ' '.join(['0.5'] * 16)
  path.write_text(f'good {row}\nelsewhere {row}\n')
  task = tasks.build(config_for(folder, vectors=path))
  plain = tasks.build(config_for(folder))
  new, old = (t.model.embed.table[...] for t in (task, plain))
  changed = np.flatnonzero((np.asarray(new) != np.asarray(old)).any(axis=1))
  assert len(changed) == 1
  np.testing.assert_allclose(new[changed[0]], 0.5)
  with pytest.raises(errors.UserError, match=r'model\.embedding=8'):
    tasks.build(config_for(folder, vectors=path, **{'model.embedding': 8}))
