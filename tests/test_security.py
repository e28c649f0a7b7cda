"""Data cannot run code, and nothing is written or read where it should not."""

import ast
import gzip
import hashlib
import json
import pathlib
import pickle
import re
import shutil
import subprocess
import sys
import time

import pytest

from attnlab import configs, errors, tasks
from attnlab.data import builders, vocabulary
from attnlab.training import checkpoints
import launch

ROOT = pathlib.Path(launch.__file__).parent
SOURCES = [
  path
  for place in ('attnlab', 'experiments', 'benchmarks')
  for path in (ROOT / place).rglob('*.py')
] + [ROOT / 'launch.py']
# A module by a computed name: which module has to be fixed by the code.
IMPORTS = {
  'attnlab/data/named.py': {"f'tensorflow_datasets.{part}'"},  # of _PARTS
  'attnlab/configs.py': {'part.module'},  # of PARTS
  'attnlab/report/parts.py': {'name'},  # of LIBRARY
  'attnlab/sweeps/worker.py': {'name'},  # of _LATE
  'attnlab/tasks/base.py': {"f'attnlab.tasks.{config['task']}'"},  # of TASKS
}
FORBIDDEN_MODULES = {
  'cloudpickle', 'dill', 'joblib', 'marshal', 'pickle', 'shelve'
}  # fmt: skip
FORBIDDEN_CALLS = {
  '__import__', 'compile', 'eval', 'exec',
  'os.popen', 'os.system', 'pickle.load', 'pickle.loads',
  'yaml.full_load', 'yaml.load', 'yaml.unsafe_load',
}  # fmt: skip
# What opens a port, or a page to others than the user at this machine.
PUBLIC = re.compile(r"""0\.0\.0\.0|['"]::['"]|host=['"]['"]|\.listen\(""")


def calls(tree):
  for node in ast.walk(tree):
    if isinstance(node, ast.Call):
      yield ast.unparse(node.func), node


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: path.name)
def test_no_source_runs_data(path):
  text = path.read_text(encoding='utf-8')
  tree = ast.parse(text)
  name = path.relative_to(ROOT).as_posix()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      modules = {alias.name.partition('.')[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      modules = {(node.module or '').partition('.')[0]}
    else:
      continue
    assert not modules & FORBIDDEN_MODULES
  for called, node in calls(tree):
    assert called not in FORBIDDEN_CALLS, ast.unparse(node)
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    assert given.get('allow_pickle', 'False') == 'False'
    assert given.get('shell', 'False') == 'False'
    if called.endswith('import_module') and not isinstance(
      node.args[0], ast.Constant
    ):
      computed = ast.unparse(node.args[0]).replace('"', "'")
      assert computed in IMPORTS.get(name, ()), name
    # Archives: without the filter, a tar file writes where it likes.
    if called.endswith(('extractall', '.extract', 'unpack_archive')):
      assert given.get('filter') == "'data'", ast.unparse(node)
  assert not PUBLIC.search(text)


def test_the_forbidden_is_found():
  tree = ast.parse('import numpy as np\nos.system(x)\nyaml.load(y)')
  assert {called for called, _ in calls(tree)} <= FORBIDDEN_CALLS
  assert PUBLIC.search("serve(host='')")
  assert PUBLIC.search('serve("0.0.0.0")')


class Payload:
  """Unpickled, it leaves a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (open, (str(self.path), 'w'))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run of one step on eight texts."""
  folder = tmp_path_factory.mktemp('finished')
  rows = 'negative\ta bad film\npositive\ta good film\n' * 4
  (folder / 'train.tsv').write_text(rows)
  words = f"""
    --config=sentiment:smoke --workdir={folder}/run --config.data=files
    --config.data.dir={folder} --config.data.train=train.tsv
    --config.data.validation=train.tsv --config.data.text_field=1
    --config.data.label_field=0 --config.training.steps=1
    --config.evaluation.pictures=0 --config.training.batch_size=4
    --config.evaluation.batch_size=4
  """.split()
  assert launch.main(['launch.py', *words]) == 0
  return folder / 'run'


def seal(place):
  """Makes the manifest of a checkpoint agree with its files again."""
  files = {
    str(path.relative_to(place)): [
      path.stat().st_size,
      hashlib.sha256(path.read_bytes()).hexdigest(),
    ]
    for path in place.rglob('*')
    if path.is_file() and path.name != 'manifest.json'
  }
  (place / 'manifest.json').write_text(json.dumps(files))


def predict(workdir):
  words = ['--mode=predict', f'--workdir={workdir}', '--prompt=good']
  return launch.main(['launch.py', *words])


def test_the_run_can_be_asked(run, capsys):
  assert predict(run) == 0
  assert capsys.readouterr().out.strip() in ('positive', 'negative')


# Orbax leaves coroutines behind where its files are not its own, and reads that
# nobody waits for any more.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_pickle_anywhere_in_a_run_is_data(run, tmp_path, capsys):
  mark = tmp_path / 'it_ran'
  payload = pickle.dumps(Payload(mark))
  pickle.loads(payload).close()
  assert mark.exists()  # the payload works where it is unpickled
  mark.unlink()
  (step,) = (run / 'checkpoints').iterdir()
  files = [path.relative_to(run) for path in step.rglob('*') if path.is_file()]
  files += [pathlib.Path('config.json'), pathlib.Path('vocabulary/text')]
  files += [pathlib.Path('vocabulary/classes.json')]
  for number, file in enumerate(files):
    copy = tmp_path / f'copy{number}'
    shutil.copytree(run, copy)
    (copy / file).write_bytes(payload)
    if file.parts[0] == 'checkpoints' and file.name != 'manifest.json':
      seal(copy / step.relative_to(run))
    code = predict(copy)
    out, err = capsys.readouterr()
    # Orbax has files that it does not read; a changed answer would be wrong.
    assert code == 2 or out.strip() in ('positive', 'negative'), file
    assert 'Traceback' not in err
    assert not mark.exists(), file
  time.sleep(1)  # what is left over ends here, and in no other test


HOSTILE = [
  {'task': 'os'},
  {'task': '../../evil'},
  {'attention.score.name': 'os.system'},
  {'attention.score.name': '__import__'},
  {'attention.score.name': 'Callable'},
  {'model.name': 'attnlab.models.classifier'},
  {'model.name': '../evil'},
  {'model.name': 'dataclass'},
  {'vocabulary.name': 'pathlib'},
  {'data.name': 'subprocess'},
]


@pytest.mark.parametrize('change', HOSTILE, ids=str)
def test_a_config_names_nothing_but_what_is_offered(run, tmp_path, change):
  copy = tmp_path / 'copy'
  shutil.copytree(run, copy)
  data = json.loads((copy / 'config.json').read_text())
  for path, value in change.items():
    *parents, last = path.split('.')
    section = data
    for parent in parents:
      section = section[parent]
    section[last] = value
    if last == 'name':
      section.clear()
      section['name'] = value
  text = json.dumps(data)
  (copy / 'config.json').write_text(text)
  with pytest.raises(errors.UserError):
    tasks.build(configs.from_json(text))
  assert launch.main(['launch.py', '--mode=eval', f'--workdir={copy}']) == 2


@pytest.mark.parametrize(
  'name', ['../../../secret', '/etc/hostname', 'arrays/../../../secret']
)
def test_a_manifest_names_nothing_outside(run, tmp_path, name):
  copy = tmp_path / 'copy'
  shutil.copytree(run, copy)
  secret = tmp_path / 'secret'
  secret.write_text('a secret')
  (place,) = (copy / 'checkpoints').iterdir()
  content = pathlib.Path('/etc/hostname' if name[0] == '/' else secret)
  manifest = json.loads((place / 'manifest.json').read_text())
  manifest[name] = [
    content.stat().st_size,
    hashlib.sha256(content.read_bytes()).hexdigest(),
  ]
  (place / 'manifest.json').write_text(json.dumps(manifest))
  with pytest.raises(errors.UserError, match='is corrupt'):
    checkpoints.restore(copy / 'checkpoints', int(place.name))


def test_array_names_write_nothing_outside(tmp_path):
  import numpy as np

  names = ['../../outside', '/outside', 'a/../../b', '__class__', 'os.system']
  inside = tmp_path / 'deep' / 'er' / 'checkpoints'
  arrays = {name: np.zeros(2, np.float32) for name in names}
  try:
    checkpoints.save(inside, 1, arrays, {})
    found = checkpoints.restore(inside, 1)
    assert found.arrays.keys() == arrays.keys()
  except errors.UserError:
    pass
  assert [path.name for path in tmp_path.iterdir()] == ['deep']
  assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['er']
  others = {path.name for path in (tmp_path / 'deep' / 'er').iterdir()}
  assert others == {'checkpoints'}


@pytest.mark.parametrize(
  'content',
  [
    pickle.dumps({'kind': 'words'}),
    b'{"kind": "os", "pieces": [], "lowercase": false}',
    b'{"kind": "words"}',
    b'[1]',
    b'',
    gzip.compress(b'{}'),
  ],
)
def test_a_vocabulary_is_a_vocabulary_or_one_line(tmp_path, content):
  path = tmp_path / 'text'
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match='is not a vocabulary'):
    vocabulary.load(path)


def test_a_download_is_what_its_checksum_says(tmp_path):
  path = tmp_path / 'file'
  path.write_bytes(b'content')
  right = hashlib.sha256(b'content').hexdigest()
  assert builders.fetch(path.as_uri(), right) == b'content'
  path.write_bytes(b'content.')
  with pytest.raises(errors.UserError, match='has the checksum'):
    builders.fetch(path.as_uri(), right)


def test_a_run_listens_nowhere(tmp_path):
  # The interpreter's own record of what a program does.
  program = f"""import sys
sys.path.insert(0, {str(ROOT)!r})
seen = []
def hook(event, args):
  if event == 'socket.bind':
    seen.append(args[1])
sys.addaudithook(hook)
import launch
code = launch.main(['launch.py', '--config=sentiment:smoke', '--dry_run'])
print('bound:', code, seen)
"""
  done = subprocess.run(
    [sys.executable, '-c', program],
    capture_output=True,
    text=True,
    cwd=tmp_path,
  )
  assert done.stdout.endswith('bound: 0 []\n'), done.stdout + done.stderr
