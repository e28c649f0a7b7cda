"""Translation, with attention or without.
"""

import ml_collections


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  words = [w for w in arg.split(',') if w]
  config = ml_collections.ConfigDict()
  config.task = 'translation'
  config.seed = 0
  config.data = dict(name='synthetic_en_zh', seed=0, train_size=20000, max_length=60, buckets=3, share_vocabulary=False, examples=0)
  config.vocabulary = dict(name='words', min_freq=1)
  config.model = dict(name='bahdanau', embedding=128, hidden=128, dropout=0.1)
  config.attention = dict(score=dict(name='additive', hidden=128), normalizer=dict(name='softmax'))
  config.optimizer = dict(name='adam', learning_rate=3e-3, schedule='cosine', warmup_steps=100, clip_norm=1.0)
  config.training = dict(steps=1200, batch_size=64, log_every=100, eval_every=400, checkpoint_every=400, precision='float32', label_smoothing=0.0)
  config.evaluation = dict(batch_size=100, beam_size=4, length_penalty=1.0, max_length=0, tokenize='none', pictures=3)
  return config
