"""attnlab: a laboratory for attention mechanisms in JAX and Flax."""

__version__ = '0.1.0'
