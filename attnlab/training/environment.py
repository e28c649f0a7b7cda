"""Where a run ran: versions, commit, device; and JAX's compilation cache."""

from importlib import metadata
import os
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any

_PACKAGES = (
    'attnlab', 'absl-py', 'chex', 'flax', 'grain', 'jax', 'jaxlib',
    'ml_collections', 'numpy', 'optax', 'orbax-checkpoint', 'sacrebleu',
    'sentencepiece', 'tensorflow-datasets',
)  # fmt: skip


def cache_compilations() -> pathlib.Path | None:
  """Keeps compiled programs on the disk, so that the next start is quick.

  The directory is JAX_COMPILATION_CACHE_DIR if that is set (JAX reads it
  itself), else `xla` in ATTNLAB_CACHE, else in attnlab's directory of
  XDG_CACHE_HOME or ~/.cache. Returns None where it cannot be written.
  """
  import jax

  config: Any = jax.config
  directory = config.jax_compilation_cache_dir
  if not directory:
    directory = cache_directory() / 'xla'
    try:
      directory.mkdir(parents=True, exist_ok=True)
    except OSError:
      return None
    jax.config.update('jax_compilation_cache_dir', str(directory))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
  return pathlib.Path(directory)


def cache_directory() -> pathlib.Path:
  """Returns where attnlab keeps what it can make again."""
  if own := os.environ.get('ATTNLAB_CACHE'):
    return pathlib.Path(own).expanduser()
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base).expanduser() / 'attnlab'


def describe(seed: int) -> dict[str, Any]:
  """Returns what a reader needs to judge or repeat the run, as JSON data."""
  import jax

  device = jax.devices()[0]
  return {
    'command': [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]],
    'commit': _commit(),
    'seed': seed,
    'python': platform.python_version(),
    'platform': platform.platform(),
    'versions': {n: v for n in _PACKAGES if (v := _version(n))},
    'device': device.device_kind,
    'backend': device.platform,
    'devices': jax.device_count(),
    'processes': jax.process_count(),
    'cpu': _cpu(),
    'cores': len(os.sched_getaffinity(0))
    if hasattr(os, 'sched_getaffinity')
    else os.cpu_count(),
    'started': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
  }


def process_seconds() -> float | None:
  """Returns the age of this process, where the system tells it."""
  try:
    fields = pathlib.Path('/proc/self/stat').read_text().rsplit(')', 1)[1]
    ticks = int(fields.split()[19])
    up = float(pathlib.Path('/proc/uptime').read_text().split()[0])
    return up - ticks / os.sysconf('SC_CLK_TCK')
  except (OSError, ValueError, IndexError):
    return None


def _version(package: str) -> str | None:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _commit() -> str | None:
  """The commit of the source, '+changes' where the tree differs from it."""
  root = pathlib.Path(__file__).resolve().parents[2]
  if not (root / '.git').exists():
    return None
  try:
    commit = _git(root, 'rev-parse', 'HEAD')
    changed = _git(root, 'status', '--porcelain', '--untracked-files=no')
    return commit + ('+changes' if changed else '')
  except (OSError, subprocess.SubprocessError):
    return None


def _git(root: pathlib.Path, *words: str) -> str:
  done = subprocess.run(
    ['git', '-C', str(root), *words],
    capture_output=True,
    text=True,
    timeout=5,
    check=True,
  )
  return done.stdout.strip()


def _cpu() -> str:
  try:
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith('model name'):
        return line.split(':', 1)[1].strip()
  except OSError:
    pass
  return platform.processor()
