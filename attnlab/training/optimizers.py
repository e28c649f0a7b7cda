"""Optimisers by name, and what goes round them: schedule, clipping, decay.

Each function that takes only keyword arguments is an optimiser which
`config.optimizer.name` may name, and its arguments are that part's settings.
`build` lists the settings that all of them share.
"""

from collections.abc import Callable, Mapping
import inspect
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from attnlab import errors

Schedule = Callable[[jax.Array], jax.Array]
SCHEDULES = ('constant', 'cosine', 'inverse_sqrt', 'linear')


class Optimizer(NamedTuple):
  """An optimiser of sums.

  Attributes:
    init: params -> state.
    update: (gradient of the summed loss, weight, state, params) -> (updates,
      state). The weight is the number of tokens or examples in the sum.
    schedule: step -> learning rate.
    ema: decay of the moving average of the parameters; 0 is none.
  """

  init: Callable
  update: Callable
  schedule: Schedule
  ema: float = 0.0


def adam(
  *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
  """Adam (Kingma and Ba, 2015); weight decay, if any, joins the gradient's."""
  return optax.scale_by_adam(b1=b1, b2=b2, eps=eps)


def adamw(
  *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
  """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""
  return optax.scale_by_adam(b1=b1, b2=b2, eps=eps)


def nadam(
  *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
  """Adam with Nesterov momentum (Dozat, 2016)."""
  return optax.scale_by_adam(b1=b1, b2=b2, eps=eps, nesterov=True)


def radam(
  *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
  """Rectified Adam (Liu et al., 2020)."""
  return optax.scale_by_radam(b1=b1, b2=b2, eps=eps)


def lion(*, b1: float = 0.9, b2: float = 0.99) -> optax.GradientTransformation:
  """Lion, the sign of a momentum (Chen et al., 2023)."""
  return optax.scale_by_lion(b1=b1, b2=b2)


def sgd(
  *, momentum: float = 0.0, nesterov: bool = False
) -> optax.GradientTransformation:
  """Gradient descent, with momentum if it is above 0."""
  if not momentum:
    return optax.identity()
  return optax.trace(decay=momentum, nesterov=nesterov)


def rmsprop(
  *, decay: float = 0.9, eps: float = 1e-8
) -> optax.GradientTransformation:
  """RMSProp (Tieleman and Hinton, 2012)."""
  return optax.scale_by_rms(decay=decay, eps=eps)


def adagrad(*, eps: float = 1e-7) -> optax.GradientTransformation:
  """Adagrad (Duchi et al., 2011)."""
  return optax.scale_by_rss(initial_accumulator_value=0.1, eps=eps)


def adadelta(
  *, rho: float = 0.95, eps: float = 1e-6
) -> optax.GradientTransformation:
  """Adadelta (Zeiler, 2012), as Bahdanau et al. (2015) trained."""
  return optax.scale_by_adadelta(rho=rho, eps=eps)


# Steps are counted by int32.
_MOST = 2**31
# Everything but these adds the decay to the gradient, as L2 regularisation.
_DECOUPLED = ('adamw', 'lion')
_ALL = {
    function.__name__: function
    for function in (
        adadelta, adagrad, adam, adamw, lion, nadam, radam, rmsprop, sgd
    )
}  # fmt: skip


def schedule(
  name: str,
  *,
  learning_rate: float,
  warmup_steps: int = 0,
  steps: int,
  final: float = 0.0,
) -> Schedule:
  """Returns the learning rate as a function of the step (0 is the first).

  It rises linearly over `warmup_steps`, reaching `learning_rate` at the step
  `warmup_steps`, and then follows

    constant:      learning_rate
    linear:        a line down to final * learning_rate at `steps`
    cosine:        half a cosine down to final * learning_rate at `steps`
    inverse_sqrt:  learning_rate * sqrt(max(warmup_steps, 1) / step)

  Args:
    name: one of `SCHEDULES`.
    learning_rate: the highest value.
    warmup_steps: how many steps it rises; the first step is never 0.
    steps: when linear and cosine end.
    final: fraction of `learning_rate` at which linear and cosine end.
  """
  if name not in SCHEDULES:
    raise errors.unknown('optimizer.schedule', name, SCHEDULES)

  def value(step):
    step = jnp.asarray(step, jnp.float32)
    # Step 0 is update 1 of the warm-up: a rate of 0 would waste it.
    rise = jnp.minimum((step + 1) / (warmup_steps + 1), 1.0)
    past = jnp.clip(
      (step - warmup_steps) / max(steps - warmup_steps, 1), 0.0, 1.0
    )
    if name == 'constant':
      fall = 1.0
    elif name == 'linear':
      fall = 1.0 - (1.0 - final) * past
    elif name == 'cosine':
      fall = final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(math.pi * past))
    else:
      start = max(warmup_steps, 1)
      fall = jnp.sqrt(start / jnp.maximum(step, start))
    return jnp.asarray(learning_rate * rise * fall, jnp.float32)

  return value


# `build` has a setting of that name.
_schedule = schedule


def build(
  name: str,
  settings: Mapping[str, Any],
  steps: int,
  rate: Schedule | None = None,
  *,
  learning_rate: float = 1e-3,
  schedule: str = 'constant',
  warmup_steps: int = 0,
  final: float = 0.0,
  clip_norm: float = 0.0,
  weight_decay: float = 0.0,
  accumulate: int = 1,
  ema: float = 0.0,
) -> Optimizer:
  """Returns the optimiser that a config describes.

  Args:
    name: a function of this module.
    settings: its own arguments.
    steps: length of the training, for the schedules that end.
    rate: step -> learning rate, instead of the schedule that is named.
    learning_rate: the highest value of the schedule.
    schedule: one of `SCHEDULES`.
    warmup_steps: steps of linear rise.
    final: fraction of `learning_rate` at which linear and cosine end.
    clip_norm: greatest global norm of the gradient; 0 leaves it as it is.
    weight_decay: decoupled for adamw and lion, else added to the gradient.
      Only arrays with two or more axes decay: no biases, no scales.
    accumulate: batches for one update. The gradients are summed and divided by
      the sum of weights, so that k batches equal one that holds them all.
      Steps, also those of the schedule, remain batches.
    ema: decay of an exponential moving average of the parameters, which is
      what evaluation and prediction use; 0 is none. After step t the decay is
      min(ema, (1 + t) / (10 + t)), so that the start is soon forgotten.
  """
  if name not in _ALL:
    raise errors.unknown('optimizer.name', name, _ALL)
  # What float32 takes for 0 or for infinity would train nothing.
  fits = 1e-37 < learning_rate < 1e38
  _check('learning_rate', learning_rate, fits, 'above 0 and finite')
  _check('warmup_steps', warmup_steps, 0 <= warmup_steps < _MOST, '0 or more')
  _check('clip_norm', clip_norm, clip_norm >= 0, '0 (off) or more')
  decays = 0 <= weight_decay < 1e38
  _check('weight_decay', weight_decay, decays, '0 (off) or more')
  _check('accumulate', accumulate, 1 <= accumulate < _MOST, '1 or more')
  _check('final', final, 0 <= final <= 1, 'between 0 and 1')
  _check('ema', ema, 0 <= ema < 1, 'from 0 (off) to below 1')
  for key in ('b1', 'b2', 'decay', 'momentum', 'rho'):
    value = settings.get(key, 0.0)
    _check(key, value, 0 <= value < 1, 'from 0 to below 1')
  eps = settings.get('eps', 1e-8)
  _check('eps', eps, 1e-37 < eps < 1e38, 'above 0 and finite')
  named = _schedule(
    schedule,
    learning_rate=learning_rate,
    warmup_steps=warmup_steps,
    steps=steps,
    final=final,
  )
  rate = rate or named
  decay = (
    optax.add_decayed_weights(weight_decay, mask=_matrices)
    if weight_decay
    else optax.identity()
  )
  rule = _ALL[name](**settings)
  chain = optax.chain(
    optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
    *((rule, decay) if name in _DECOUPLED else (decay, rule)),
    optax.scale_by_learning_rate(lambda count: rate(count * accumulate)),
  )
  if accumulate == 1:
    return Optimizer(chain.init, _of_mean(chain), rate, ema)
  return Optimizer(*_accumulated(chain, accumulate), rate, ema)


def from_config(
  config: Mapping[str, Any], steps: int, rate: Schedule | None = None
) -> Optimizer:
  """Returns the optimiser of a config part: a name and its settings."""
  if config is None:
    raise errors.unknown('optimizer', None, _ALL)
  settings = dict(config)
  name = settings.pop('name', 'adam')
  if name not in _ALL:
    raise errors.unknown('optimizer.name', name, _ALL)
  own, shared = _keywords(_ALL[name]), _keywords(build)
  for key in settings:
    if key not in own | shared:
      raise errors.unknown('optimizer', key, own | shared)
  return build(
    name,
    {k: v for k, v in settings.items() if k in own},
    steps,
    rate,
    **{k: v for k, v in settings.items() if k in shared},
  )


def _keywords(function: Callable) -> set[str]:
  return {
    parameter.name
    for parameter in inspect.signature(function).parameters.values()
    if parameter.kind is parameter.KEYWORD_ONLY
  }


def _of_mean(chain: optax.GradientTransformation) -> Callable:
  def update(gradient, weight, state, params):
    return chain.update(_divide(gradient, weight), state, params)

  return update


def _matrices(params):
  return jax.tree.map(lambda x: jnp.ndim(x) >= 2, params)


def _accumulated(
  chain: optax.GradientTransformation, every: int
) -> tuple[Callable, Callable]:
  """MultiSteps over (gradient, weight), divided when all have been added.

  A mean of the batches' means would give the tokens of a short batch more say.
  """

  def inner(tree, state, params):
    gradient = _divide(tree['params'], tree['weight'])
    updates, state = chain.update(gradient, state, params['params'])
    return {'params': updates, 'weight': jnp.zeros_like(tree['weight'])}, state

  def pair(params, weight):
    return {'params': params, 'weight': weight}

  several = optax.MultiSteps(
    optax.GradientTransformation(lambda p: chain.init(p['params']), inner),
    every_k_schedule=every,
  )

  def init(params):
    return several.init(pair(params, jnp.zeros((), jnp.float32)))

  def update(gradient, weight, state, params):
    updates, state = several.update(
      pair(gradient, weight), state, pair(params, jnp.zeros_like(weight))
    )
    return updates['params'], state

  return init, update


def _divide(gradient, weight):
  scale = 1.0 / jnp.where(weight > 0, weight, 1.0)
  return jax.tree.map(lambda g: g * scale.astype(g.dtype), gradient)


def _check(field: str, value: Any, right: bool, what: str):
  if not right:
    raise errors.UserError(
      f'optimizer.{field}={errors.shortened(value)} must be {what}'
    )
