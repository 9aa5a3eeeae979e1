"""The simulated shop and the story that ``make demo`` tells with it.

Belongs here: simulated traffic, and the comparison of its stitching with the truth. Does not: anything that a
deployment needs.
"""
