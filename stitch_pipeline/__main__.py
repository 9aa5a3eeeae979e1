"""``python -m stitch_pipeline`` runs the command ``stitch``."""

import sys

from stitch_pipeline.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
