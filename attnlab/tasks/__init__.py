"""Tasks: batch, loss, evaluation and decoding around a model."""

from attnlab.tasks.base import build
from attnlab.tasks.base import Prediction
from attnlab.tasks.base import Task

__all__ = ['Prediction', 'Task', 'build']
