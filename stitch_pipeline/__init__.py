"""Identity stitching as a Dagster code location: files in, stitched sessions, users and views out."""
