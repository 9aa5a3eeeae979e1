"""The demo: a simulated shop whose true visitors are known, and what stitching makes of it."""
