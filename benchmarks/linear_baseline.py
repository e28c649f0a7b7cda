"""The strong simple baseline of text classification: TF-IDF and a linear SVM.

  python benchmarks/linear_baseline.py --data=DIR

DIR holds the folders sst, sentences, imdb and 20newsgroups. The texts, splits
and words are those that attnlab's models are given; the features are words and
pairs of words, logarithmic in their count; the SVM is scikit-learn's, with its
defaults. It is fitted on the train split alone, as the models are, but for SST
on sentences only. MR is the mean over its ten folds. Writes an entry for each
data set into results/. Two CPU cores, about four minutes.
"""

import argparse
from collections.abc import Sequence
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Name in results/, label, source, folder, options, how many folds.
SETS = (
  ('linear_sst2', 'SST-2', 'sst', 'sst', {'classes': 2}, 1),
  ('linear_sst5', 'SST-5', 'sst', 'sst', {'classes': 5}, 1),
  ('linear_mr', 'MR', 'mr', 'sentences', {}, 10),
  ('linear_trec', 'TREC', 'trec', 'sentences', {}, 1),
  ('linear_imdb', 'IMDB', 'imdb', 'imdb', {}, 1),
  ('linear_newsgroups', '20 Newsgroups', 'newsgroups20', '20newsgroups', {}, 1),
)


def measure(source: str, **options: object) -> dict[str, float]:
  """Fits on the train split of a source and returns figures of its test."""
  from sklearn import feature_extraction, metrics, pipeline, svm

  from attnlab.data import classification

  splits = classification.load(source, **options).splits
  texts, labels = {}, {}
  for split in ('train', 'test'):
    texts[split] = [example['text'] for example in splits[split]]
    labels[split] = [example['label'] for example in splits[split]]
  model = pipeline.make_pipeline(
    feature_extraction.text.TfidfVectorizer(
      ngram_range=(1, 2), sublinear_tf=True, tokenizer=str.split,
      token_pattern=None,
    ),
    svm.LinearSVC(),
  )  # fmt: skip
  model.fit(texts['train'], labels['train'])
  found = model.predict(texts['test'])
  return {
    'test/accuracy': float(metrics.accuracy_score(labels['test'], found)),
    'test/macro_f1': float(
      metrics.f1_score(labels['test'], found, average='macro')
    ),
  }


def main(arguments: Sequence[str] | None = None) -> int:
  """Measures each data set, prints it and writes its entry."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--data', type=pathlib.Path, required=True)
  parser.add_argument('--only', help='one name, such as linear_sst2')
  parser.add_argument('--out', type=pathlib.Path, default=ROOT / 'results')
  given = parser.parse_args(arguments)
  names = [name for name, *_ in SETS]
  if given.only and given.only not in names:
    parser.error(f'--only={given.only} is none of {", ".join(names)}')
  from attnlab import errors
  from attnlab.report import results

  for name, label, source, folder, options, folds in SETS:
    if given.only not in (None, name):
      continue
    options = {'dir': str(given.data / folder), **options}
    try:
      rounds = [
        measure(source, **options, **({'fold': fold} if folds > 1 else {}))
        for fold in range(folds)
      ]
    except errors.UserError as error:
      print(f'error: {error}', file=sys.stderr)
      return 2
    figures = {key: [one[key] for one in rounds] for key in rounds[0]}
    entry = {
      'name': name,
      'label': f'{label}, TF-IDF + linear SVM',
      'command': f'python benchmarks/linear_baseline.py --data=DIR '
      f'--only={name}',
      'seeds': [0] * folds,
      'figures': {k: statistics.fmean(v) for k, v in figures.items()},
      'deviations': {
        k: statistics.stdev(v) for k, v in figures.items() if folds > 1
      },
      **results.here('scikit-learn', 'numpy', 'scipy'),
      'config': {**options, 'dir': folder},
    }
    print(f'{entry["label"]}: {entry["figures"]["test/accuracy"]:.2%}')
    results.write(entry, given.out)
  return 0


if __name__ == '__main__':
  sys.exit(main())
