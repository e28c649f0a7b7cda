"""The package's papers agree with each other and with the code."""

import ast
from importlib import metadata
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import attnlab

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
SKIPPED = {'.git', '.venv', 'runs', 'data', 'build', 'dist'}
# Import names that differ from the name of their distribution.
MODULES = {
  'absl': 'absl-py',
  'orbax': 'orbax-checkpoint',
  'tensorflow_datasets': 'tensorflow-datasets',
  'noto_cjk_sans_otc': 'noto-cjk-sans-otc',
}


def canonical(name: str) -> str:
  return re.sub(r'[-_.]+', '-', name).lower()


def requirement(line: str) -> tuple[str, str, str]:
  """'jax>=0.10' -> ('jax', '>=', '0.10')."""
  name, operator, version = re.fullmatch(
    r'([\w.-]+?)(>=|==)([\w.+]+)', line
  ).groups()
  return canonical(name), operator, version


def requirements(*extras: str) -> list[tuple[str, str, str]]:
  project = PROJECT['project']
  lines = project['dependencies'] + [
    line for extra in extras for line in project['optional-dependencies'][extra]
  ]
  return [requirement(line) for line in lines]


def constraints() -> dict[str, str]:
  lines = (ROOT / 'constraints.txt').read_text().splitlines()
  pins = [requirement(line) for line in lines if not line.startswith('#')]
  assert all(operator == '==' for _, operator, _ in pins)
  return {name: version for name, _, version in pins}


def number(version: str) -> tuple[int, ...]:
  return tuple(int(part) for part in re.findall(r'\d+', version))


def files() -> list[pathlib.Path]:
  """The project's own text files."""
  if (ROOT / '.git').exists():
    listed = subprocess.run(
      ['git', 'ls-files', '-co', '--exclude-standard'],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.split('\n')
    return [ROOT / name for name in listed if (ROOT / name).is_file()]
  return [
    path
    for path in ROOT.rglob('*')
    if path.is_file() and not SKIPPED & set(path.relative_to(ROOT).parts)
  ]


def test_versions_agree():
  version = attnlab.__version__
  citation = (ROOT / 'CITATION.cff').read_text()
  assert f'\nversion: {version}\n' in citation
  changes = (ROOT / 'CHANGELOG.md').read_text()
  released = f'\n## [{version}] - ' in changes
  assert released or ('dev' in version and '\n## [Unreleased]\n' in changes)
  assert metadata.version('attnlab') == version


def test_constraints_cover_the_dependencies():
  pins = constraints()
  extras = PROJECT['project']['optional-dependencies']
  for name, operator, bound in requirements(*extras):
    assert name in pins, f'constraints.txt lacks {name}'
    if operator == '==':
      assert pins[name] == bound
    else:
      assert number(pins[name]) >= number(bound), name


def test_lower_bounds_hold_here():
  for name, operator, bound in requirements('test'):
    if operator == '>=':
      assert number(metadata.version(name)) >= number(bound), name


def test_every_import_is_a_dependency():
  extras = ('ray', 'slurm', 'sweep', 'wandb')
  names = {name for name, _, _ in requirements(*extras)}
  unknown = set()
  for path in [*(ROOT / 'attnlab').rglob('*.py'), *ROOT.glob('launch.py')]:
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom) and not node.level:
        modules = [node.module or '']
      else:
        continue
      for module in modules:
        top = module.split('.')[0]
        if top in sys.stdlib_module_names or top in ('attnlab', 'launch'):
          continue
        if canonical(MODULES.get(top, top)) not in names:
          unknown.add(f'{path.relative_to(ROOT)}: {top}')
  assert not unknown


def test_imports_run_downwards():
  ranks = {
    'launch': 6,
    'studies': 6,
    'report': 5,
    'sweeps': 5,
    'training': 4,
    'tasks': 3,
    'models': 2,
    'layers': 1,
    'attention': 0,
  }
  upwards = set()
  for path in (ROOT / 'attnlab').rglob('*.py'):
    part = path.relative_to(ROOT / 'attnlab').parts[0]
    # The figures import nothing of attnlab, so that a task may draw its own.
    text = path.read_text().replace('from attnlab.report import figures\n', '')
    seen = re.findall(
      r'^\s*from attnlab(?:\.(\w+)| import (\w+))', text, re.MULTILINE
    )
    for module in {a or b for a, b in seen}:
      if ranks.get(module, -1) > ranks.get(part, 9):
        upwards.add(f'{part} imports {module}')
      if part in ('data', 'measures') and ranks.get(module, 0) > 0:
        upwards.add(f'{part} imports {module}')
      if part == 'attention' and module != 'attention':
        upwards.add(f'{part} imports {module}')
  assert not upwards


def test_no_file_names_a_registry_or_a_workplace():
  # Put together here, so that this file does not name them either.
  words = [
    'pypi' + '.org',
    'python' + 'hosted',
    'npm' + 'js.',
    '--index' + '-url',
    'find' + '-links',
    '/work' + '/main',
    '/work' + '/shared',
    '.lib' + 'rary',
  ]
  found = set()
  for path in files():
    try:
      text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError:
      continue
    name = path.relative_to(ROOT).as_posix()
    found |= {f'{name}: {word}' for word in words if word in text}
    if name != '.ci/run' and '../' + 'shared' in text:
      found.add(f'{name}: the shared folder')
  assert not found


def test_no_pickle():
  pattern = re.compile(
    r'^\s*(import|from) (pickle|dill|cloudpickle|shelve|marshal)\b'
    r'|allow_pickle' + '=True|yaml.load' + r'\(|\beval\(|\bexec\(',
    re.MULTILINE,
  )
  found = [
    path.name
    for path in [*(ROOT / 'attnlab').rglob('*.py'), *ROOT.glob('launch.py')]
    if pattern.search(path.read_text(encoding='utf-8'))
  ]
  assert not found


@pytest.mark.parametrize(
  ('ending', 'count'), [('python launch.py', 1), ('python -m pytest', 1)]
)
def test_readme_commands_are_one_line(ending, count):
  lines = [
    line
    for line in (ROOT / 'README.md').read_text().splitlines()
    if line.startswith('python3 -m venv') and ending in line
  ]
  assert len(lines) == count
  assert '-c constraints.txt' in lines[0]
  assert not lines[0].endswith('\\')


def test_ci_runs_the_command_of_the_readme():
  script = ROOT / '.ci' / 'run'
  assert os.access(script, os.X_OK)
  text = script.read_text()
  assert 'README.md' in text
  for tool in ('ruff check', 'ruff format --check', 'pyrefly check'):
    assert tool in text


def test_licence_is_the_standard_text():
  text = (ROOT / 'LICENSE').read_text()
  assert 'Apache License' in text
  assert 'END OF TERMS AND CONDITIONS' in text
  assert PROJECT['project']['license'] == 'Apache-2.0'
