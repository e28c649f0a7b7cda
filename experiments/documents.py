r"""Documents by topic: words to sentences to the document, and flat.

The built-in corpus (4,000 generated documents, in which one or two sentences
carry the topic) takes half a minute on two CPU cores, and ends with an
accuracy and a sentence_pointing of 0.99 or more:

  python launch.py --config=experiments/documents.py

The figure sentence_pointing is the share of documents whose largest weight is
on a sentence that carries the topic, pointing the same for words. After the
colon come a variant, a size, or both with a comma between them:

  variant   attention, mean, max (the pool at both levels of a hierarchical
            network, Yang et al. 2016), flat (one level, with attention)
  size      smoke (seconds), default, newsgroups, imdb

  python launch.py --config=experiments/documents.py:attention \
      --config=experiments/documents.py:flat

Each level may have a pool of its own:

  python launch.py --config=experiments/documents.py \
      --config.model.word_pool=max --config.model.sentence_pool=attention

On 20 Newsgroups (:attention,newsgroups with --config.data.dir=DIR) expect 78.5
in 17 minutes on one CPU core, 76.1 with :mean,newsgroups and 74.2 with
:max,newsgroups; TF-IDF and a linear SVM give 82.9.

A text is split into sentences by the rule of `attnlab.data.classification`;
your own documents come by --config.data=files --config.data.form=sentences, as
in experiments/sentiment.py.
"""

import ml_collections

from attnlab import configs

# The first of each is the default.
VARIANTS = ('attention', 'mean', 'max', 'flat')
SIZES = ('default', 'smoke', 'newsgroups', 'imdb')


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the config of a variant and a size, e.g. 'flat,newsgroups'."""
  variant, size = configs.words(arg, VARIANTS, SIZES)
  config = ml_collections.ConfigDict()
  config.task = 'classification'
  config.seed = 0
  config.data = {
    'name': 'synthetic_documents',
    'seed': 0,
    'train_size': 4_000,
    'examples': 0,  # of train that are used; 0 is all
    'buckets': 3,  # shapes that are compiled
  }
  config.vectors = ''  # a file of pretrained word vectors
  config.vocabulary = {'name': 'words'}
  config.model = {
    'name': 'hierarchical',
    'word_pool': variant,
    'sentence_pool': variant,
    'embedding': 64,
    'hidden': 32,
    'shortcut': True,  # without it, weights are off by one
    'dropout': 0.2,
  }
  config.attention = {
    'score': {'name': 'keys_only', 'hidden': 64},
    'normalizer': {'name': 'softmax'},
    'locality': None,
    'position': None,
    'heads': None,
    'hops': None,
  }
  config.optimizer = {
    'name': 'adam',
    'learning_rate': 4e-3,
    'schedule': 'cosine',
    'warmup_steps': 30,
    'clip_norm': 1.0,
  }
  config.training = {
    'steps': 400,
    'batch_size': 32,
    'log_every': 50,
    'eval_every': 100,
    'checkpoint_every': 200,
    'keep': 2,
    'patience': 0,
    'precision': 'float32',
    'loss': {'name': 'cross_entropy'},
    'class_weights': 'none',  # or balanced, or one number a class: 1,2
  }
  config.evaluation = {
    'batch_size': 64,
    'pictures': 3,  # documents drawn for each split
    'splits': '',  # watched in training, as validation,test; the first decides
  }
  if size in ('newsgroups', 'imdb'):
    _published(config, size)
  _limit(config, variant, size)
  if size == 'smoke':
    config.data.train_size = 100
    config.model.update(embedding=16, hidden=16)
    config.training.update(
      steps=10, log_every=5, eval_every=5, checkpoint_every=5, batch_size=16
    )
    config.evaluation.pictures = 1
  return config.lock()


def _limit(config: ml_collections.ConfigDict, variant: str, size: str) -> None:
  """How much of a document is read, which depends on the model."""
  if variant != 'flat':
    config.data.max_sentences = 30
    config.data.max_words = 40  # of a sentence
    return
  config.data.max_length = 400  # words
  config.model = {
    'name': 'classifier',
    'pool': 'attention',
    'cell': 'gru',
    'embedding': config.model.embedding,
    'hidden': config.model.hidden,
    'shortcut': True,
    'dropout': config.model.dropout,
    'word_dropout': config.model.get('word_dropout', 0.0),
  }


def _published(config: ml_collections.ConfigDict, size: str) -> None:
  """A published data set, from random vectors; data.dir says where it is."""
  name = 'newsgroups20' if size == 'newsgroups' else 'imdb'
  own = {'dir': '', 'form': 'sentences', 'examples': 0, 'buckets': 5}
  config.data = {'name': name, **own}
  config.vocabulary = {'name': 'words', 'lowercase': True, 'min_freq': 5}
  config.model.update(embedding=128, hidden=64, dropout=0.5)
  config.model.word_dropout = 0.2  # the test set has other words
  config.optimizer.update(learning_rate=2e-3, warmup_steps=200)
  config.training.update(
    steps=4_000, log_every=100, eval_every=500, checkpoint_every=1_000
  )
