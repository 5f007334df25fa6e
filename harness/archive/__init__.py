"""Runs that travel: a run in one file, its way into another store, trials trained again.

Owns: the file's format, how runs and trials are merged, and when two results of one trial agree.
Must not know: terminals, reports.
"""
