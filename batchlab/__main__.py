"""`python -m batchlab`: the same as the command `batchlab`."""

import sys

from batchlab.cli.main import main

sys.exit(main())
