"""``python -m deepwater.cli``."""

from __future__ import annotations

import sys

from deepwater.cli import main

if __name__ == "__main__":
    sys.exit(main())
