"""Weights & Biases, for those who have it."""

import importlib.util
import json
import sys

import pytest
import toy_task

from attnlab import errors, training

HERE = importlib.util.find_spec('wandb') is not None


def fit(workdir, **changes):
  config = toy_task.config(**changes)
  task = toy_task.build(config)
  return training.fit(config, task, workdir, wandb='attention')


@pytest.mark.parametrize('folder', [False, True])
def test_without_the_package_one_line_names_the_extra(
  tmp_path, monkeypatch, folder
):
  monkeypatch.delitem(sys.modules, 'wandb', raising=False)
  monkeypatch.setattr(sys, 'path', [p for p in sys.path if 'wandb' not in p])
  if folder:
    # What the package leaves where it ran looks like a package.
    (tmp_path / 'wandb').mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
  elif HERE:
    monkeypatch.setitem(sys.modules, 'wandb', None)
  if folder and HERE:
    pytest.skip('wandb is installed, and comes before a folder of that name')
  with pytest.raises(errors.UserError, match=r"pip install -e '\.\[wandb\]'"):
    fit(tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
  monkeypatch.delitem(sys.modules, 'wandb', raising=False)


@pytest.mark.skipif(not HERE, reason='the extra wandb is not installed')
@pytest.mark.filterwarnings('default')
def test_offline_run_gets_the_figures_and_is_found_again(tmp_path, monkeypatch):
  monkeypatch.setenv('WANDB_MODE', 'offline')
  monkeypatch.setenv('WANDB_SILENT', 'true')
  fit(tmp_path, training__steps=10)
  name = json.loads((tmp_path / 'wandb.json').read_text())['id']
  (record,) = (tmp_path / 'wandb').glob(f'offline-run-*-{name}/*.wandb')
  assert b'validation/error' in record.read_bytes()
  fit(tmp_path, training__steps=20)
  assert json.loads((tmp_path / 'wandb.json').read_text())['id'] == name
