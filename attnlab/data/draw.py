"""Random choices of the generated corpora, and splits without a repetition."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar('T')


class Draw:
  """A stream of random choices: a pure function of (seed, stream)."""

  def __init__(self, seed: int, stream: int):
    sequence = np.random.SeedSequence([seed, stream])
    self.random = np.random.Generator(np.random.PCG64(sequence)).random

  def chance(self, probability: float) -> bool:
    return self.random() < probability

  def pick(self, choices: Sequence[T]) -> T:
    return choices[int(self.random() * len(choices))]

  def shuffled(self, items: Sequence[T]) -> list[T]:
    return sorted(items, key=lambda _: self.random())


def splits(
  write: Callable[[Draw, int], dict[str, Any]],
  *,
  classes: int,
  seed: int,
  sizes: Mapping[str, int],
) -> dict[str, list[dict]]:
  """Returns examples by split; classes are balanced, no text is there twice.

  The evaluation splits do not depend on the size of train, and a smaller train
  is the beginning of a larger one.

  Args:
    write: (draw, label) -> an example with 'text'.
    classes: number of labels; they come in blocks, each label once in a block.
    seed: of the whole corpus.
    sizes: number of examples per split, 'train' among them.
  """
  seen: set[str] = set()
  order = [*(split for split in sizes if split != 'train'), 'train']
  made = {
    split: list(_distinct(write, Draw(seed, i), classes, sizes[split], seen))
    for i, split in enumerate(order)
  }
  return {split: made[split] for split in sizes}


def _distinct(
  write, draw: Draw, classes: int, size: int, seen: set[str]
) -> Iterator[dict]:
  block: list[int] = []
  for _ in range(size):
    block = block or draw.shuffled(range(classes))
    label = block.pop()
    while (example := write(draw, label))['text'] in seen:
      pass
    seen.add(example['text'])
    yield example
