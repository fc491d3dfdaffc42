"""Where the pictures go: beside their scripts, or into the folder that REFSCORE_FIGURES names (as the tests do)."""

import os
from pathlib import Path

HERE = Path(os.environ.get("REFSCORE_FIGURES") or Path(__file__).parent)
