"""All of Dagster: assets, jobs, the one list of triggers, sensors, schedules, and ``settle``, which needs no daemon.

Belongs here: what runs when, and what the UI shows. Does not: how anything is computed or stored (``stitching``).
"""
