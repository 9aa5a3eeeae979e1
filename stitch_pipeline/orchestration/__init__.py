"""All of Dagster: assets, jobs, the one list of triggers, sensors, schedules, and ``settle``, which needs no daemon.

Belongs here: what runs when, and what the UI shows. Does not: how something is computed or stored (``stitching``).
"""
