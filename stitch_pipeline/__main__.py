"""The command ``stitch``, also as ``python -m stitch_pipeline``."""

import sys

from stitch_pipeline.startup import large_imports


def run() -> int:
    """Run the command with the arguments of the process; returns its exit code."""
    with large_imports():
        from stitch_pipeline.cli.main import main
    return main()


if __name__ == "__main__":
    sys.exit(run())
