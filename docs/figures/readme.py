"""The picture of the README: python docs/figures/readme.py (about a minute)

demo-field.png  what `refscore demo` calls field.png
"""

import shutil
import tempfile
from pathlib import Path

from where import HERE

from refscore.cli import main

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(["demo", "--out", folder])
        shutil.copy(Path(folder) / "field.png", HERE / "demo-field.png")
