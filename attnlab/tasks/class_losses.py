"""Losses of classification, one number an example.

Each function's keyword-only arguments are the settings that a config may give:
`training.loss.name=focal` is `focal(**rest)`. What it returns is called as
loss(logits [B, C] float32, labels [B]) -> [B] float32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from attnlab import errors

Array = jax.Array
Loss = Callable[[Array, Array], Array]


def cross_entropy(*, label_smoothing: float = 0.0) -> Loss:
  """Cross-entropy, -log p_y, with label smoothing or without.

  Args:
    label_smoothing: s; the target is (1 - s) one_hot(y) + s / C.
  """
  if not 0 <= label_smoothing < 1:
    raise errors.UserError(
      f'training.loss.label_smoothing={label_smoothing} must be from 0 to '
      'below 1'
    )

  def loss(logits, labels):
    log_probs = jax.nn.log_softmax(logits)
    even = -jnp.mean(log_probs, axis=-1)
    nll = -chosen(log_probs, labels)
    return (1 - label_smoothing) * nll + label_smoothing * even

  return loss


def focal(*, gamma: float = 2.0) -> Loss:
  """Focal loss, -(1 - p_y)^gamma log p_y (Lin et al. 2017).

  Args:
    gamma: 0 is cross-entropy; more gives less to examples that are easy.
  """
  errors.check_number('training.loss.gamma', gamma, 0, 1_000)

  def loss(logits, labels):
    log_p = chosen(jax.nn.log_softmax(logits), labels)
    # 1 - p by expm1, exact where p is near 1; its root is safe at 0.
    rest = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(log_p.dtype).tiny)
    return -(rest**gamma) * log_p

  return loss


def chosen(log_probs: Array, labels: Array) -> Array:
  """The entry of each label: [B, C], [B] -> [B]."""
  return jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]


def class_weights(setting: str, counts: 'list[int]') -> list[float]:
  """What an example of each class counts in the loss.

  Args:
    setting: 'none' (1 each), 'balanced' (n / (C n_c): each class counts the
      same, an example 1 on average), or C numbers with commas between them.
    counts: n_c, examples of each class in train.

  Raises:
    UserError: neither of the words nor C numbers of 0 or more.
  """
  if setting == 'none':
    return [1.0] * len(counts)
  if setting == 'balanced':
    present = sum(count > 0 for count in counts)
    return [sum(counts) / (present * n) if n else 0.0 for n in counts]
  try:
    weights = [float(word) for word in setting.split(',')]
  except ValueError:
    raise errors.unknown(
      'training.class_weights', setting, ('none', 'balanced', '1,2,...')
    ) from None
  if len(weights) != len(counts) or not all(
    0 <= w < float('inf') for w in weights
  ):
    raise errors.UserError(
      f'training.class_weights={setting!r} must hold {len(counts)} numbers of '
      '0 or more, one a class'
    )
  return weights
