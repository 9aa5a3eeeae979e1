"""The simulated shop and the story that ``make demo`` tells with it.

Belongs here: traffic that is made up, and how its stitching compares with who was really there. Does not: anything that
a deployment needs.
"""
