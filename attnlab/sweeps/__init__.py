"""Sweeps: a space of settings, a search through it, and where trials run.

spaces     the language of --sweep, and the check of every value
search     which point comes n-th: grid, random, TPE
record     a sweep's folder: its lock, Optuna's study on SQLite, sweep.json
trial      one trial: an ordinary run in its own directory, or pruned
worker     a process that imports once and forks for each trial
engines    where trials run: here, on Ray, on Slurm
sweep      the loop that hands out points, takes results and tries again
live       what the terminal shows
options    the flags
"""
