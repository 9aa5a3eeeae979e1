"""The assets.

Belongs here: one module for the tables that are loaded from the landing zone, one for the models that dbt builds, one
for the report. Does not: how they are loaded, built (``stitching``) or rendered (``report``).
"""
