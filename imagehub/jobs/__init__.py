"""The job system: rows that are claimed, leased and fenced, and the programs that do the work.

``protocol`` and ``clusters`` are imported by child programs and by settings, so this package
imports nothing by itself, Django least of all.
"""
