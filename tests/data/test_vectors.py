"""Word vectors of GloVe and word2vec: formats, and every complaint."""

import gzip

import numpy as np
import pytest

from attnlab.data import vectors
from attnlab.errors import UserError

GLOVE = 'the 0.5 -1 2e-1\n. . . 1 1 1\n好 3 4 5\nthe 9 9 9\nend 7 8 9\n'
WORD2VEC = '5 3\n' + GLOVE.replace('\n', ' \n')  # it ends lines with a blank
WORDS = ['好', 'missing', 'the', '. . .', 'the', 'The']
WANT = [[3, 4, 5], [0, 0, 0], [0.5, -1, 0.2], [1, 1, 1], [0.5, -1, 0.2]]


@pytest.mark.parametrize('text', [GLOVE, WORD2VEC, GLOVE.replace('\n', '\r\n')])
@pytest.mark.parametrize('suffix', ['', '.gz'])
def test_formats(tmp_path, text, suffix):
  path = tmp_path / f'vectors.txt{suffix}'
  raw = text.encode()
  path.write_bytes(gzip.compress(raw) if suffix else raw)
  matrix, found = vectors.read(path, WORDS)
  assert matrix.dtype == np.float32 and found.dtype == bool
  np.testing.assert_allclose(matrix, [*WANT, [0, 0, 0]], rtol=1e-6)
  assert found.tolist() == [True, False, True, True, True, False]


def test_words_in_another_encoding_do_not_matter(tmp_path):
  (tmp_path / 'v.txt').write_bytes(b'\xff\xfe 1 2\nend 3 4\n')
  matrix, _ = vectors.read(tmp_path / 'v.txt', ['end'])
  assert matrix.tolist() == [[3, 4]]


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('', 'v.txt is empty'),
    ('word\n', 'v.txt:1: not a word and its numbers'),
    ('a 1 2\nend 3\n', 'v.txt:2: 1 numbers after the word, not 2'),
    ('a 1 2\n\n', 'v.txt:2: 0 numbers after the word, not 2'),
    ('a 1 2\nend x 2\n', 'v.txt:2: could not convert .*x'),
    ('a 1 2\nend nan 2\n', 'v.txt:2: a number is not finite'),
    ('a 1 2\nend 1e300 2\n', 'v.txt:2: a number is not finite'),
    ('2 99999999999\nend 1 2\n', 'v.txt:2: 2 numbers .*, not 99999999999'),
    ('a 1 2\n', 'v.txt has none of the 1 words'),
    ('2 3\n', 'v.txt has none of the 1 words'),
  ],
)
def test_complaints(tmp_path, content, message):
  path = tmp_path / 'v.txt'
  path.write_text(content)
  with pytest.raises(UserError, match=message) as error:
    vectors.read(path, ['end'])
  assert '\n' not in str(error.value)


def test_a_missing_file_is_told(tmp_path):
  (tmp_path / 'glove.txt').write_text('a 1\n')
  with pytest.raises(UserError, match=r"did you mean 'glove.txt'"):
    vectors.read(tmp_path / 'glov.txt', ['a'])
  (tmp_path / 'v.txt.gz').write_bytes(b'junk')
  with pytest.raises(UserError, match=r'v.txt.gz cannot be read'):
    vectors.read(tmp_path / 'v.txt.gz', ['a'])
