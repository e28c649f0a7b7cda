"""What all tests share: the CPU, strict promotion, a few random examples."""

from collections.abc import Iterator
import contextlib
import gc
import os
import pathlib
import tempfile

# Before the first import of jax, here and in the processes that tests start.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR',
  str(pathlib.Path(tempfile.gettempdir()) / 'attnlab_test_jax_cache'),
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')

import hypothesis
import pytest

hypothesis.settings.register_profile(
  'few', deadline=None, derandomize=True, max_examples=20, database=None
)
hypothesis.settings.register_profile(
  'many', deadline=None, max_examples=500, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'few'))

# Optax mixes Python floats with integer step counts, so only the code that is
# our own down to the last line runs with strict promotion of dtypes.
STRICT = ('attention', 'layers', 'models')


@pytest.fixture(scope='session', autouse=True)
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
  """Among pytest's own: TFDS leaves an empty folder for each builder."""
  folder = str(tmp_path_factory.mktemp('temporary'))
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('TMPDIR', folder)
    patch.setattr(tempfile, 'tempdir', folder)
    yield


@pytest.fixture(scope='module', autouse=True)
def few_mappings() -> Iterator[None]:
  """Forgets compiled programs before there are too many for the kernel.

  Each has mappings of its own in the memory; where Linux grants no more of them
  (65,530), the next compilation ends the process without a word.
  """
  yield
  with contextlib.suppress(OSError):
    with open('/proc/self/maps', 'rb') as file:
      mappings = sum(1 for _ in file)
    if mappings > 20_000:
      import jax

      jax.clear_caches()
      gc.collect()


@pytest.fixture(autouse=True)
def strict_promotion(request: pytest.FixtureRequest) -> Iterator[None]:
  """No silent change of a dtype, no silent broadcast over ranks."""
  folder = request.path.relative_to(pathlib.Path(__file__).parent).parts[0]
  if folder not in STRICT or request.node.get_closest_marker(
    'standard_promotion'
  ):
    yield
    return
  import jax

  with jax.numpy_dtype_promotion('strict'), jax.numpy_rank_promotion('raise'):
    yield
