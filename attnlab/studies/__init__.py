"""Studies: a grid of runs, questions fixed in advance, one test for each.

A study is one script of `experiments/studies`. `grids` runs its cells as a
sweep and collects them, `questions` tests, `page` writes what was found.
"""
