"""A run that takes a second, for tests of sweeps."""

from experiments import sentiment


def get_config(arg: str = ''):
  """Returns the smoke size, made smaller."""
  config = sentiment.get_config('smoke').unlock()
  config.data.train_size = 40
  config.model.update(embedding=4, hidden=4)
  config.attention.score.hidden = 4
  config.evaluation.pictures = 0
  steps = 4 if arg != 'long' else 40
  config.training.update(
    steps=steps, log_every=2, eval_every=2, checkpoint_every=2, batch_size=8
  )
  return config.lock()
