"""Data: sources, generated corpora, vocabularies and batches.

Modules: sources (load) of sentence pairs and classification (load) of labelled
texts; files, builders (TFDS); synthetic (grammar, lexicon), and
synthetic_sentiment and synthetic_documents (draw); vocabulary, vectors,
batching.
"""

from attnlab.data.sources import load

__all__ = ['load']
