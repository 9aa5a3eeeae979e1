"""The assets: one module for what Python loads, one for what dbt builds."""
