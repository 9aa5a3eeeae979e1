"""The assets: one module for what is loaded from the landing zone, one for what dbt builds."""
