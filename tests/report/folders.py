"""Run directories for tests of reports, small and made by hand."""

from collections.abc import Sequence
import json
import pathlib
from typing import Any

import numpy as np

HOSTILE = [
  '<script>document.title="x"</script>',
  '</script><script>document.title="x"</script>',
  '<img src=x onerror=\'document.title="x"\'>',
  '"><svg onload=document.title="x">',
  "'onmouseover='document.title=1'",
  '<!--',
  '-->',
  '<!--<script>',
  ']]>',
  '<![CDATA[',
  '&lt;script&gt;',
  '&#60;b&#62;',
  '\\u003cscript\\u003e',
  'javascript:alert(1)',
  '{{7*7}}',
  '${alert(1)}',
  '`${document.title="x"}`',
  '$data',
  '$script',
  '${title}',
  "');document.title='x';('",
  '"};document.title="x";{"',
  '\u2028document.title="x"',
  '\u2029document.title="x"',
  '\u202edetrever\u202c',
  '\u200b',
  '\ufeff',
  '\x00',
  '\x1b[31mred',
  '\ud800',
  'a\r\nb',
  '\t',
  '|',
  'a|b|c',
  '**bold**',
  '[link](javascript:alert(1))',
  '![x](http://127.0.0.1:9/x.png)',
  '_a_ `b` ~~c~~',
  '# head',
  '---',
  '100% & $5 #1',
  '\\input{/etc/passwd}',
  '\\write18{ls}',
  '$x^2$',
  '{}~^"',
  '=1+1',
  '@SUM(A1)',
  '<iframe srcdoc="<script>parent.document.title=1</script>">',
  '<style>*{display:none}</style>',
  '<base href="http://127.0.0.1:9/">',
]


def write_run(
  path: pathlib.Path,
  *,
  task: str = 'translation',
  score: str = 'additive',
  seed: int = 0,
  figure: float = 30.0,
  tokens: Sequence[str] | None = None,
  examples: int = 30,
  heads: tuple[int, int] | None = None,
  attends: bool = True,
  **settings: Any,
) -> pathlib.Path:
  """Writes a finished run.

  Args:
    path: its directory.
    task: translation or classification.
    score: of the mechanism.
    seed: of the run.
    figure: BLEU, or accuracy.
    tokens: of every source and target; numbered words by default.
    examples: of the test split.
    heads: (layers, heads) to record.
    attends: whether the model does.
    **settings: sections of the config to update.
  """
  rng = np.random.default_rng(seed)
  translates = task == 'translation'
  model = {'name': 'luong' if translates else 'classifier'}
  if not attends:
    model |= {'name': 'fixed'} if translates else {'pool': 'mean'}
  config: dict[str, Any] = {
    'task': task,
    'seed': seed,
    'model': model,
    'attention': {'score': {'name': score}, 'normalizer': {'name': 'softmax'}},
    'data': {
      'name': 'synthetic_en_zh' if translates else 'synthetic_sentiment'
    },
    'optimizer': {'name': 'adam', 'learning_rate': 0.001},
    'training': {'steps': 20, 'batch_size': 4},
    'evaluation': {'beam_size': 2, 'tokenize': 'none'},
  }
  for section, values in settings.items():
    config[section] = {**config.get(section, {}), **values}
  name = 'bleu' if translates else 'accuracy'
  summary = {
    f'test/{name}': figure,
    f'validation/{name}': figure - 1,
    'train/tokens_per_second': 1000.0 + seed,
    'parameters': 1234,
    'seconds': 60.0,
    'seed': seed,
    'signatures': {name: 'by hand'},
  }
  metrics = [
    {
      'step': step,
      'train/loss': 5 / step + 0.1 * rng.random(),
      f'validation/{name}': figure * step / 20 + rng.random(),
      'validation/entropy': 2 / step + 0.1 * rng.random(),
    }
    for step in (5, 10, 15, 20)
  ]
  environment = {
    'command': ['launch.py', '--config=x.py', f'--config.seed={seed}'],
    'commit': 'abc',
    'seed': seed,
    'python': '3.11.7',
    'versions': {'attnlab': '0.1.0', 'jax': '0.10.2', 'numpy': '2.4.6'},
    'backend': 'cpu',
    'cpu': 'a CPU',
    'cores': 2,
  }
  predictions, records = [], []
  for i in range(examples):
    source = list(tokens or [f'w{j}' for j in range(3 + i % 12)])
    words = ' '.join(source)
    if translates:
      target = [f't{j}' for j in range(len(source))]
      if tokens:
        target = source
      right = (i + seed) % 3 > 0
      predictions.append(
        {
          'source': words,
          'reference': ' '.join(target),
          'hypothesis': ' '.join(target if right else target[:-1] or ['?']),
        }
      )
      target = [*target, '</s>']
    else:
      label, said = f'class{i % 2}', f'class{(i + (i % 5 == seed % 5)) % 2}'
      target = [said]
      if tokens:
        label = source[i % len(source)]
      predictions.append(
        {
          'text': words,
          'label': label,
          'prediction': said,
          'probabilities': [0.25, 0.75],
        }
      )
      source = source if tokens else words.split()
    shape = (len(target), len(source))
    record: dict[str, Any] = {
      'example': i,
      'source': source,
      'target': target,
      'weights': rng.dirichlet(np.ones(shape[1]), shape[0]).tolist(),
    }
    if heads:
      record['heads'] = rng.dirichlet(
        np.ones(shape[1]), (*heads, shape[0])
      ).tolist()
    if not translates:
      record['gold'] = [0]
    records.append(record)
  for folder in ('predictions', 'attention'):
    (path / folder).mkdir(parents=True, exist_ok=True)
  for name, data in (
    ('config.json', config),
    ('summary.json', summary),
    ('environment.json', environment),
  ):
    (path / name).write_text(json.dumps(data))
  lines(path / 'metrics.jsonl', metrics)
  lines(path / 'predictions' / 'test.jsonl', predictions)
  if attends:
    lines(path / 'attention' / 'test.jsonl', records)
  return path


def lines(path: pathlib.Path, records: Sequence[Any]) -> None:
  """Writes JSONL; half characters stay escaped."""
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))
