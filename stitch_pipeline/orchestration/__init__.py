"""All of Dagster: assets, jobs, the one list of triggers, sensors, schedules, and ``settle``, the same without a daemon.

Belongs here: what runs when, and what the UI shows. Does not: how something is computed or stored (``stitching``).
"""
