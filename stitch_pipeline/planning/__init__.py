"""Pure functions: which days a change reaches, how days join into ranges, what to request, dbt's variables, SQL text,
error texts, signals.

Belongs here: what can be tested in microseconds. Does not: Dagster, a database, or a file.
"""
