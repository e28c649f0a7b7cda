"""The time of a training step at other lengths."""

import numpy as np
import pytest

from attnlab import configs, errors, tasks
from attnlab.training import costs


@pytest.mark.parametrize(
  ('words', 'found'),
  [(['64', '16', '64'], [16, 64]), ([], [])],
)
def test_lengths_are_sorted_and_each_is_there_once(words, found):
  assert costs.lengths(words) == found


@pytest.mark.parametrize('word', ['0', '-1', '1.5', 'a', '', '٣'])
def test_what_is_no_length_is_named(word):
  with pytest.raises(errors.UserError, match=r'lengths=.* is no whole number'):
    costs.lengths(['16', word])


def test_a_batch_of_a_length_has_no_padding_and_the_words_of_the_batch():
  tokens = np.array([[3, 4, 5, 0], [6, 0, 0, 0]])
  batch = {'tokens': tokens, 'label': np.array([1, 0])}
  made = costs.of_length(batch, 6)
  assert made['tokens'].tolist() == [[3, 4, 5, 6, 3, 4], [5, 6, 3, 4, 5, 6]]
  assert made['label'] is batch['label']
  # A document becomes longer by sentences of the width that it has.
  documents = {'tokens': np.ones((2, 5, 4), np.int32)}
  assert costs.of_length(documents, 8)['tokens'].shape == (2, 2, 4)
  assert costs.of_length(documents, 9)['tokens'].shape == (2, 3, 4)
  assert costs.of_length(documents, 3)['tokens'].shape == (2, 1, 3)


def test_a_longer_step_takes_longer_and_the_model_stays():
  config = configs.load('translation:luong,smoke')
  task = tasks.build(config)
  before = np.asarray(task.model.output.bias[...]).copy()
  found = costs.by_length(config, task, [4, 256])
  assert list(found) == [4, 256]
  assert 0 < 2 * found[4] < found[256]
  np.testing.assert_array_equal(task.model.output.bias[...], before)
