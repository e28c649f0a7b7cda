"""attnlab: a laboratory for attention mechanisms in JAX and Flax."""

__version__ = '0.2.0.dev0'
