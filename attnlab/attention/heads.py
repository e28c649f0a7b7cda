"""Several heads: the same mechanism in several subspaces."""

import jax
import jax.numpy as jnp

from attnlab.attention import core, masks, scores

_glorot = jax.nn.initializers.glorot_uniform()


def multi_head(
  mechanism: core.Attention,
  *,
  num_heads: int,
  head_dim: int,
  out_dim: int,
) -> core.Attention:
  """Multi-head attention, [c_1 .. c_H] W_O (Vaswani et al. 2017, sec. 3.2.2).

  c_h = attend(q W_Q_h, k W_K_h, v W_V_h), with any mechanism inside a head.

  Args:
    mechanism: what each head does, with parameters of its own.
    num_heads: H.
    head_dim: depth of queries, keys and values inside a head.
    out_dim: depth of the context.

  Returns:
    The mechanism; its weights are [H, T, S].
  """

  def init(rng, *, query_dim, key_dim, value_dim):
    rngs = jax.random.split(rng, 5)
    width = num_heads * head_dim
    inner = jax.vmap(
      lambda rng: mechanism.init(
        rng, query_dim=head_dim, key_dim=head_dim, value_dim=head_dim
      )
    )
    return {
      'query': _glorot(rngs[0], (query_dim, width)),
      'key': _glorot(rngs[1], (key_dim, width)),
      'value': _glorot(rngs[2], (value_dim, width)),
      'out': _glorot(rngs[3], (width, out_dim)),
      'heads': inner(jax.random.split(rngs[4], num_heads)),
    }

  def split(name, inputs, params):
    """[N, D] -> [H, N, head_dim], as one product for all heads."""
    outputs = scores.project(name, inputs, params[name])
    outputs = outputs.reshape(*inputs.shape[:-1], num_heads, head_dim)
    return jnp.moveaxis(outputs, -2, 0)

  def prepare(params, key, value):
    return jax.vmap(mechanism.prepare)(
      params['heads'],
      split('key', key, params),
      split('value', value, params),
    )

  def init_state(source_length):
    return jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf, (num_heads, *jnp.shape(leaf))),
      mechanism.init_state(source_length),
    )

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

    array = None if of_positions is not None else mask
    rngs = None if rng is None else jax.random.split(rng, num_heads)
    axes = (0, 0, 0, per_head(array), per_head(bias), 0, 0, 0)
    out = jax.vmap(one, in_axes=axes)(
      params['heads'],
      split('query', query, params),
      memory,
      array,
      bias,
      state,
      rngs,
      jnp.arange(num_heads),
    )
    joined = jnp.moveaxis(out.context, 0, -2).reshape(query.shape[0], -1)
    context = joined @ params['out'].astype(joined.dtype)
    return out._replace(context=context)

  return core.Attention(init, prepare, init_state, apply)
