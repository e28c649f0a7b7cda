"""What a training step reads and writes, and the step itself."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from attnlab.training import optimizers


class Parts(NamedTuple):
  """A module taken apart once, so that the step is a plain jitted function.

  Attributes:
    params: {'decoder.cell.kernel': array}, what the optimiser changes.
    rest: the module's other variables by name (running statistics, say).
    merge: (params, rest) -> module, inside and outside of jit.
    split: module -> (params, rest), the inverse.
    update: (module, params, rest) puts the arrays into a module that is there.
  """

  params: dict[str, jax.Array]
  rest: dict[str, jax.Array]
  merge: Callable[[Mapping, Mapping], nnx.Module]
  split: Callable[[nnx.Module], tuple[dict, dict]]
  update: Callable[[nnx.Module, Mapping, Mapping], None]


class TrainState(NamedTuple):
  """Everything that a step changes; donated to the step, saved whole.

  Attributes:
    step: int32, the batches seen.
    params: arrays by name.
    rest: the module's other variables by name.
    opt_state: the optimiser's state.
    rng: uint32 data of the key from which each step folds its own.
    sums: float32 sums of metrics since the last line of the log.
    ema: the moving average of params; empty where there is none.
  """

  step: jax.Array
  params: dict[str, jax.Array]
  rest: dict[str, jax.Array]
  opt_state: Any
  rng: jax.Array
  sums: dict[str, jax.Array]
  ema: dict[str, jax.Array]


class Step(NamedTuple):
  """The compiled training step.

  Attributes:
    run: jitted (state, batch) -> (state, fault). It takes the state's buffers.
      fault is an int32 scalar, 0 while all is finite.
    culprit: fault -> the name of the metric that is not finite.
    sums: the names that `TrainState.sums` holds.
  """

  run: jax.stages.Wrapped
  culprit: Callable[[int], str]
  sums: tuple[str, ...]


def take_apart(module: nnx.Module) -> Parts:
  """Splits `module` into arrays by name and the function that joins them."""
  graph, params, rest = nnx.split(module, nnx.Param, ...)
  params, join_params = _by_name(params)
  rest, join_rest = _by_name(rest)

  def merge(params, rest):
    return nnx.merge(graph, join_params(params), join_rest(rest))

  def split(module):
    _, params, rest = nnx.split(module, nnx.Param, ...)
    return _by_name(params)[0], _by_name(rest)[0]

  def update(module, params, rest):
    nnx.update(module, join_params(params), join_rest(rest))

  return Parts(params, rest, merge, split, update)


def create(
  parts: Parts,
  optimizer: optimizers.Optimizer,
  step: Step,
  seed: int,
  place: Callable = lambda make, *args: make(*args),
) -> TrainState:
  """Returns the state before the first step.

  The arrays are copies: a step gives its buffers away, and the caller's module
  keeps its own.

  Args:
    parts: of the module.
    optimizer: see `optimizers.build`.
    step: from `make_step`.
    seed: of the run's random numbers.
    place: (make, *args) -> make(*args), on the devices where it belongs.
  """

  # Jitted, because each small array made alone is a compilation of its own; the
  # seed is no part of the program, which then serves all of them.
  @jax.jit
  def make(params, rest, rng):
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=jax.tree.map(jnp.copy, params),
      rest=jax.tree.map(jnp.copy, rest),
      opt_state=optimizer.init(params),
      rng=jnp.copy(rng),
      sums={name: jnp.zeros((), jnp.float32) for name in step.sums},
      ema=jax.tree.map(jnp.copy, params) if optimizer.ema else {},
    )

  rng = jax.random.key_data(jax.random.key(seed))
  return place(make, parts.params, parts.rest, rng)


def make_step(
  loss: Callable,
  parts: Parts,
  optimizer: optimizers.Optimizer,
  batch: Mapping,
  log_every: int,
) -> Step:
  """Returns the training step.

  Args:
    loss: (module, batch, rng) -> (sum of losses, sums of metrics); the metric
      'weight' is what they are all divided by.
    parts: of the module.
    optimizer: see `optimizers.build`.
    batch: an example, to learn the names of the metrics.
    log_every: the sums start again after this many steps.
  """

  # Jitted, so that the trace that finds the names serves the step as well.
  @jax.jit
  def forward(params, rest, batch, rng):
    module = parts.merge(params, rest)
    total, metrics = loss(module, batch, rng)
    if 'weight' not in metrics:
      raise ValueError(f"the loss reports {sorted(metrics)}, but no 'weight'")
    return total, ({'loss': total, **metrics}, parts.split(module)[1])

  _, (found, _) = jax.eval_shape(
    forward, parts.params, parts.rest, batch, jax.random.key(0)
  )
  watched = (*sorted(found), 'gradient_norm')

  def run(state, batch):
    rng = jax.random.wrap_key_data(state.rng)
    rng = jax.random.fold_in(rng, state.step)
    gradient, (metrics, rest) = jax.grad(forward, has_aux=True)(
      state.params, state.rest, batch, rng
    )
    weight = metrics['weight'].astype(jnp.float32)
    norm = optax.tree.norm(gradient) / jnp.where(weight > 0, weight, 1.0)
    updates, opt_state = optimizer.update(
      gradient, weight, state.opt_state, state.params
    )
    metrics = {k: v.astype(jnp.float32) for k, v in metrics.items()}
    metrics['gradient_norm'] = norm.astype(jnp.float32)
    first = state.step % log_every == 0
    sums = {
      name: jnp.where(first, 0.0, state.sums[name]) + metrics[name]
      for name in metrics
    }
    sums['learning_rate'] = jnp.asarray(
      optimizer.schedule(state.step), jnp.float32
    )
    wrong = jnp.stack([~jnp.isfinite(metrics[name]) for name in watched])
    fault = jnp.where(wrong.any(), jnp.argmax(wrong) + 1, 0).astype(jnp.int32)
    params = optax.apply_updates(state.params, updates)
    new = TrainState(
      step=state.step + 1,
      params=params,
      rest=rest,
      opt_state=opt_state,
      rng=state.rng,
      sums=sums,
      ema=_average(state.ema, params, state.step, optimizer.ema),
    )
    return new, fault

  return Step(
    run=jax.jit(run, donate_argnums=0),
    culprit=lambda fault: watched[fault - 1],
    sums=(*watched, 'learning_rate'),
  )


def used(state: TrainState) -> dict[str, jax.Array]:
  """The parameters to evaluate with: their average where there is one."""
  return state.ema or state.params


def _average(ema, params, step, decay):
  """The next average; its decay grows from 0.1, see `optimizers.build`."""
  step = step.astype(jnp.float32)
  decay = jnp.minimum(decay, (1 + step) / (10 + step))
  return {
    name: decay.astype(old.dtype) * old
    + (1 - decay).astype(old.dtype) * params[name]
    for name, old in ema.items()
  }


def names(tree: Any) -> list[str]:
  """Returns a dotted name for each leaf of a tree, in the order of leaves."""
  labels = [
    jax.tree_util.keystr(path, simple=True, separator='.')
    for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
  ]
  if len(set(labels)) != len(labels):
    twice = sorted({label for label in labels if labels.count(label) > 1})
    raise ValueError(f'these names stand for two arrays each: {twice}')
  return labels


def _by_name(state: nnx.State) -> tuple[dict[str, Any], Callable]:
  """Returns {name: array} and the function that makes the state of it again."""
  leaves, treedef = jax.tree.flatten(state)
  # Flax ends the path of each variable in 'value'.
  labels = [label.removesuffix('.value') for label in names(state)]

  def join(named):
    return jax.tree.unflatten(treedef, [named[name] for name in labels])

  return dict(zip(labels, leaves, strict=True)), join
