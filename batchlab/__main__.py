"""`python -m batchlab`: the same as the command `batchlab`."""

import sys

from batchlab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
