"""The use cases: load, build, reconcile, explain, preview, forget, prove.

Belongs here: the operations on a warehouse, through its port. Does not: Dagster, the terminal, an engine's own SQL, or
anything that decides an answer (dbt's models do).
"""
