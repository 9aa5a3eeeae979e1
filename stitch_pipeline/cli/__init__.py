"""The command ``stitch``: all of the terminal.

Belongs here: arguments, exit codes and printing. Does not: anything that another program could use too.
"""
