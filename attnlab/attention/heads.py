"""Several heads: the same mechanism in several subspaces.

`attention.heads.name=multi_head` is `multi_head(mechanism, **rest)`, whatever
the mechanism; None leaves it as it is.
"""

import jax
import jax.numpy as jnp

from attnlab.attention import core, masks, scores

_glorot = jax.nn.initializers.glorot_uniform()


def multi_head(
  mechanism: core.Attention,
  *,
  num_heads: int = 4,
  head_dim: int = 0,
  out_dim: int = 0,
) -> core.Attention:
  """Multi-head attention, [c_1 .. c_H] W_O (Vaswani et al. 2017, sec. 3.2.2).

  c_h = attend(q W_Q_h, k W_K_h, v W_V_h), with any mechanism inside a head.
  Where the mechanism asks for no query there is no W_Q.

  Cost: H times the mechanism's at depth head_dim, and the projections, O(T + S)
  times the products of the depths.

  Args:
    mechanism: what each head does, with parameters of its own.
    num_heads: H.
    head_dim: depth of queries, keys and values inside a head; 0 is the depth of
      the queries divided by H.
    out_dim: depth of the context; 0 is that of the queries.

  Returns:
    The mechanism; its weights are [H, T, S].

  Raises:
    ValueError: a setting is out of range; from init, H does not divide the
      depth of the queries and head_dim is 0.
  """
  _check('num_heads', num_heads, 1, 2**10)
  _check('head_dim', head_dim, 0, 2**24)
  _check('out_dim', out_dim, 0, 2**24)

  def init(rng, *, query_dim, key_dim, value_dim):
    rngs = jax.random.split(rng, 5)
    depth = head_dim or _divided(query_dim, num_heads)
    width = num_heads * depth
    inner = jax.vmap(
      lambda rng: mechanism.init(
        rng, query_dim=depth, key_dim=depth, value_dim=depth
      )
    )
    params = {
      'key': _glorot(rngs[1], (key_dim, width)),
      'value': _glorot(rngs[2], (value_dim, width)),
      'out': _glorot(rngs[3], (width, out_dim or query_dim)),
      'heads': inner(jax.random.split(rngs[4], num_heads)),
    }
    if mechanism.depends_on_query:
      params['query'] = _glorot(rngs[0], (query_dim, width))
    return params

  def split(name, inputs, params):
    """[N, D] -> [H, N, head_dim], as one product for all heads."""
    outputs = scores.project(name, inputs, params[name])
    depth = outputs.shape[-1] // num_heads
    outputs = outputs.reshape(inputs.shape[0], num_heads, depth)
    return jnp.moveaxis(outputs, -2, 0)

  def prepare(params, key, value):
    return jax.vmap(mechanism.prepare)(
      params['heads'],
      split('key', key, params),
      split('value', value, params),
    )

  def init_state(source_length):
    return core.init_states(mechanism, (num_heads,), source_length)

  def apply(
    params,
    query,
    memory,
    *,
    mask=None,
    bias=None,
    state=(),
    rng=None,
    place=core.HERE,
  ):
    # A mask of positions is asked by each head, an array goes through vmap.
    of_positions = mask if isinstance(mask, masks.Mask) else None

    def one(params, query, memory, mask, bias, state, rng, head):
      return mechanism.apply(
        params,
        query,
        memory,
        mask=mask if of_positions is None else of_positions,
        bias=bias,
        state=state,
        rng=rng,
        place=place._replace(head=head, heads=num_heads),
      )

    # A mask [T, S] is shared by the heads; one of [H, T, S] has a row each.
    def per_head(array):
      return 0 if array is not None and array.ndim == 3 else None

    if mechanism.depends_on_query:
      queries = split('query', query, params)
    else:  # whatever is asked: nobody reads it
      depth = params['out'].shape[0] // num_heads
      queries = jnp.zeros((num_heads, len(query), depth), query.dtype)
    array = None if of_positions is not None else mask
    rngs = None if rng is None else jax.random.split(rng, num_heads)
    axes = (0, 0, 0, per_head(array), per_head(bias), 0, 0, 0)
    out = jax.vmap(one, in_axes=axes)(
      params['heads'],
      queries,
      memory,
      array,
      bias,
      state,
      rngs,
      jnp.arange(num_heads),
    )
    return out._replace(context=join(params, out.context))

  def join(params, contexts):
    """[H, T, head_dim] -> [T, out_dim]."""
    _, length, depth = contexts.shape
    joined = jnp.moveaxis(contexts, 0, -2).reshape(length, num_heads * depth)
    return joined @ params['out'].astype(joined.dtype)

  read, inner = None, mechanism.read
  if inner is not None:
    read = lambda params, weights, memory: join(
      params, jax.vmap(inner)(params['heads'], weights, memory)
    )
  return core.Attention(
    init,
    prepare,
    init_state,
    apply,
    mechanism.depends_on_query,
    read=read,
  )


def multi_head_weighted(
  mechanism: core.Attention,
  *,
  num_heads: int = 4,
  head_dim: int = 0,
  out_dim: int = 0,
) -> core.Attention:
  """Weighted heads, sum_h softmax(w)_h c_h W_O_h (after Ahmed et al. 2017).

  c_h as in `multi_head`; where all w are equal, as at the start, the context is
  the mean of the heads' contributions, and that of `multi_head` their sum. The
  paper weighs the heads' shares of the feed-forward layer as well.

  Cost: that of `multi_head`.

  Args:
    mechanism: what each head does, with parameters of its own.
    num_heads: see `multi_head`.
    head_dim: see `multi_head`.
    out_dim: see `multi_head`.

  Returns:
    The mechanism; its weights are [H, T, S], as each head has them.

  Raises:
    ValueError: see `multi_head`.
  """
  heads = multi_head(
    mechanism, num_heads=num_heads, head_dim=head_dim, out_dim=out_dim
  )

  def init(rng, **depths):
    return heads.init(rng, **depths) | {'weight': jnp.zeros((num_heads,))}

  def weighted(params):
    # softmax(w)_h c_h W_O_h is c_h with another W_O_h.
    shares = jax.nn.softmax(params['weight'])
    out = params['out'].reshape(num_heads, -1, params['out'].shape[-1])
    out = (shares[:, None, None] * out).reshape(params['out'].shape)
    return {**params, 'out': out}

  def apply(params, *args, **more):
    return heads.apply(weighted(params), *args, **more)

  read = heads.read
  if read is not None:
    outer = read
    read = lambda params, *rest: outer(weighted(params), *rest)
  return heads._replace(init=init, apply=apply, read=read)


def _check(name: str, value: int, least: int, most: int):
  if not least <= value <= most:
    raise ValueError(
      f'heads({name}={value}): it must be from {least} to {most}'
    )


def _divided(depth: int, count: int) -> int:
  if depth % count:
    near = min(
      (n for n in range(1, depth + 1) if depth % n == 0),
      key=lambda n: abs(n - count),
    )
    raise ValueError(
      f'heads(num_heads={count}) does not divide {depth}, the depth of the '
      f'queries: {near} is the nearest that does, or set head_dim'
    )
  return depth // count
