"""Hops: the same source read several times, each time with another query.

`attention.hops.name=multi_hop` is `multi_hop(mechanism, **rest)`, around the
heads; None reads once.
"""

import jax
import jax.numpy as jnp

from attnlab.attention import core, engine, scores


def multi_hop(mechanism: core.Attention, *, hops: int = 2) -> core.Attention:
  """Hops, q_{n+1} = q_n H + c_n C, the last c (Sukhbaatar et al. 2015, 2.2).

  c_n = attend(q_n, k, v), with one set of parameters for all hops (the paper's
  "layer-wise" tying), so that a source is prepared once. H starts as the
  identity; C brings a context to the depth of the queries.

  Cost: N times the mechanism's but for the source, which is prepared once.

  Args:
    mechanism: what each hop does, several heads among it.
    hops: N, how often the source is read; each hop has a state of its own.

  Returns:
    The mechanism; its weights are [N, T, S], or [N, H, T, S] with heads. What
    else it returns by name has N rows, too.

  Raises:
    ValueError: hops is out of range, or the mechanism asks for no query and
      would read the same at every hop.
  """
  if not 2 <= hops <= 100:
    raise ValueError(f'multi_hop({hops=}): it must be from 2 to 100')
  if not mechanism.depends_on_query:
    raise ValueError(
      f'multi_hop({hops=}): this mechanism asks for no query and would read '
      'the same at every hop; the nearest that does is score=additive'
    )

  def init(rng, *, query_dim, key_dim, value_dim):
    inner = mechanism.init(
      rng, query_dim=query_dim, key_dim=key_dim, value_dim=value_dim
    )
    dims = (query_dim, key_dim, value_dim)
    depth = engine.context_dim(mechanism, inner, *dims)
    # The mechanism's numbers do not depend on what is around it.
    glorot = jax.nn.initializers.glorot_uniform()
    shape = depth, query_dim
    return {
      'hop': inner,
      'query': jnp.eye(query_dim),
      'context': glorot(jax.random.fold_in(rng, 3), shape),
    }

  def prepare(params, key, value):
    return mechanism.prepare(params['hop'], key, value)

  def init_state(source_length):
    return core.init_states(mechanism, (hops,), source_length)

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
    outs = []
    for n in range(hops):
      if outs:
        kept = scores.project('query', query, params['query'])
        found = outs[-1].context.astype(query.dtype)
        query = kept + scores.project('context', found, params['context'])
      outs.append(
        mechanism.apply(
          params['hop'],
          query,
          memory,
          mask=mask,
          bias=bias,
          state=jax.tree.map(lambda leaf, n=n: leaf[n], state),
          rng=None if rng is None else jax.random.fold_in(rng, n),
          place=place,
        )
      )
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs)
    return stacked._replace(context=outs[-1].context)

  return core.Attention(init, prepare, init_state, apply)
