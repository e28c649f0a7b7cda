"""What is read is what was written, or nothing is read."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlab import errors
from attnlab.training import checkpoints


def tree():
  return {
    'params': {'a.kernel': jnp.arange(6.0).reshape(2, 3)},
    'half': jnp.array([1.5, -2.0], jnp.bfloat16),
    'nothing': (),
    'count': (jnp.int32(7), jnp.zeros((), bool)),
    'rng': jax.random.key(3),
  }


@pytest.fixture
def saved(tmp_path):
  for step in (1, 2):
    checkpoints.save(tmp_path, step, tree(), {'iterator': {'next': step}})
  return tmp_path


def corrupt(path, kind):
  if kind == 'missing':
    path.unlink()
  elif kind == 'truncated':
    path.write_bytes(path.read_bytes()[:-1])
  else:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_round_trip(saved):
  checkpoint = checkpoints.restore(saved, 2)
  assert checkpoint.meta['iterator'] == {'next': 2}
  template = jax.tree.map(jnp.zeros_like, tree())
  template['rng'] = jax.random.key(0)
  found = checkpoints.fill(template, checkpoint)
  expected = tree()
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  np.testing.assert_array_equal(
    jax.random.key_data(found.pop('rng')),
    jax.random.key_data(expected.pop('rng')),
  )
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == b.dtype
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize('kind', ['missing', 'truncated', 'flipped'])
def test_every_file_is_checked(saved, kind, tmp_path_factory):
  files = [p for p in (saved / '00000002').rglob('*') if p.is_file()]
  assert len(files) > 5
  for number, file in enumerate(files):
    copy = tmp_path_factory.mktemp(f'copy{number}') / 'checkpoints'
    shutil.copytree(saved, copy)
    corrupt(copy / file.relative_to(saved), kind)
    # A changed meta.json or array cannot pass; a changed digest cannot either.
    with pytest.raises(errors.UserError, match='00000002 '):
      checkpoints.restore(copy, 2)
    warnings = []
    assert checkpoints.restore_newest(copy, warnings.append).step == 1
    assert len(warnings) == 1
    assert '\n' not in warnings[0]


def test_none_is_good(saved):
  for step in (1, 2):
    (saved / f'{step:08d}' / 'manifest.json').unlink()
  with pytest.raises(errors.UserError, match='none of the 2 checkpoints'):
    checkpoints.restore_newest(saved, lambda line: None)


def test_nothing_was_ever_saved(tmp_path):
  assert checkpoints.restore_newest(tmp_path / 'none', pytest.fail) is None


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'half': jnp.zeros(2)}, r'half is bfloat16\[2\], .* float32\[2\]'),
    ({'half': jnp.zeros(3, jnp.bfloat16)}, r'needs bfloat16\[3\]'),
    ({'more': jnp.zeros(1)}, "no array 'more'"),
    ({'half': None}, "an array 'half' that this model has no place"),
  ],
)
def test_another_tree_is_refused_by_name(saved, change, message):
  checkpoint = checkpoints.restore(saved, 2)
  with pytest.raises(errors.UserError, match=message):
    checkpoints.fill({**tree(), **change}, checkpoint)


def test_failed_save_leaves_the_last_good_one(saved, monkeypatch):
  def full(path, text):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(checkpoints, '_write_synced', full)
  with pytest.raises(errors.UserError, match=r'No space left.*step 2 remains'):
    checkpoints.save(saved, 3, tree(), {})
  assert checkpoints.steps(saved) == [1, 2]
  assert [p.name for p in sorted(saved.iterdir())] == ['00000001', '00000002']


def test_prune_keeps_the_newest_and_the_best(tmp_path):
  for step in (1, 2, 3, 4):
    (tmp_path / f'{step:08d}').mkdir()
  checkpoints.prune(tmp_path, keep=2, best=1)
  assert checkpoints.steps(tmp_path) == [1, 3, 4]
  assert len(list(tmp_path.iterdir())) == 3


def test_sweep_removes_drafts_and_sets_the_corrupt_aside(saved):
  (saved / '00000003.draft-1').mkdir()
  checkpoints.sweep(saved, 1)
  names = [path.name for path in sorted(saved.iterdir())]
  assert names == ['00000001', '00000002.corrupt']
