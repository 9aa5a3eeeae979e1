"""The only place that opens a database or runs dbt.

What Python asks of the warehouse is a handful of functions here, so that another engine means another
set of these and not a search through the assets.
"""
