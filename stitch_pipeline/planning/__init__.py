"""Pure functions: which days are affected, how days join into ranges, what is asked of dbt and Dagster.

Nothing here imports Dagster or opens a database, so everything here is tested in microseconds.
"""
