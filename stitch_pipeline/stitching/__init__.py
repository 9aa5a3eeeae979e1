"""The use cases: load, build, reconcile, explain, preview.

Belongs here: what is done with a warehouse, through its port. Does not: Dagster, the terminal, an engine's own SQL, or
what decides an answer (dbt's models do).
"""
