"""The allocator: a program starts again as it was, with its settings."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from attnlab import allocator
allocator.keep()
print(os.environ['GLIBC_TUNABLES'], *sys.argv[1:])
"""
glibc = pytest.mark.skipif(
  'CS_GNU_LIBC_VERSION' not in getattr(os, 'confstr_names', {}),
  reason='the C library is not glibc',
)


def start(environment):
  command = [sys.executable, '-c', PROGRAM, '--prompt=a b', 'c']
  return subprocess.run(
    command, env=environment, check=True, capture_output=True, text=True
  ).stdout


@glibc
def test_a_program_starts_again_with_its_arguments():
  environment = {k: v for k, v in os.environ.items() if k != 'GLIBC_TUNABLES'}
  settings, _, arguments = start(environment).partition(' ')
  assert 'glibc.malloc.hugetlb=1' in settings.split(':')
  assert arguments == '--prompt=a b c\n'


def test_settings_of_the_user_stay():
  chosen = 'glibc.malloc.arena_max=1'
  assert start({**os.environ, 'GLIBC_TUNABLES': chosen}).startswith(chosen)
