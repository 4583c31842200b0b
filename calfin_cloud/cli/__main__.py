"""`python -m calfin_cloud.cli VERB ...`."""

import sys

from calfin_cloud.cli import main

sys.exit(main())
