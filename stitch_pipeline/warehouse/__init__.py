"""The port and the engines behind it: the only place that opens the warehouse or runs dbt.

Belongs here: one file per engine, the tables that Python creates, and dbt in this process. Does not: what a row means
(dbt's models), which file holds it (``landing``), or Dagster.
"""
