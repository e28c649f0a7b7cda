"""Data: sources, the generated corpus, vocabularies and batches.

Modules: sources (load), files, synthetic (grammar, lexicon), builders (TFDS),
vocabulary, batching.
"""

from attnlab.data.sources import load

__all__ = ['load']
