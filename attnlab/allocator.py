"""How the process gets memory from the operating system."""

import os
import sys


def keep() -> None:
  """Starts this program again with an allocator that keeps what is freed.

  A step on the CPU takes and frees the same large buffers again and again.
  glibc gives them back to the kernel, which clears every small page of them
  anew: a quarter of a step's time. Huge pages that are kept cost nothing. glibc
  reads its settings before main, hence the new start; it is not made where
  there are settings already or another C library.
  """
  glibc = 'CS_GNU_LIBC_VERSION' in getattr(os, 'confstr_names', {})
  if not glibc or 'GLIBC_TUNABLES' in os.environ:
    return
  large = 2**40
  settings = {'hugetlb': 1, 'mmap_threshold': large, 'trim_threshold': large}
  os.environ['GLIBC_TUNABLES'] = ':'.join(
    f'glibc.malloc.{name}={value}' for name, value in settings.items()
  )
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
