"""Files in, batches of canonical events out.

Belongs here: the files of the landing zone, how they are read, the event days in each, and which are loaded. An
in-memory DuckDB parses them for every engine; ``parser.Parser`` owns that connection. Does not: the warehouse, or any
stitching rule.
"""
