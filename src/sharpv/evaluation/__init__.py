"""Methods side by side on the embedded models: who still answers what, with paired intervals, tables and plots.

Import :mod:`.comparison` (rows on an evaluation), :mod:`.scoring` and :mod:`.packing` (many questions behind one
video), :mod:`.worlds` (which model is asked how) and :mod:`.plot`.
"""
