"""Files in, batches of canonical events out.

Belongs here: the files of the landing zone, how they are read, the event days each holds, and which are loaded. DuckDB
in memory parses them for every engine; ``parser.Parser`` owns that connection. Does not: the warehouse, or any rule of
stitching.
"""
