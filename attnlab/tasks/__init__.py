"""Tasks: batch, loss, evaluation and decoding around a model."""

from attnlab.tasks.base import Prediction, Task, build

__all__ = ['Prediction', 'Task', 'build']
