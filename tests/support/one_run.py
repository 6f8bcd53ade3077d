"""Trains what `support.small_runs.settings` describes, as a program of its own that a test can kill.

Arguments: outputs, source, and the changes as JSON.
"""

import gc
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from maquette.cli import train
from support.small_runs import settings

if __name__ == "__main__":
    gc.set_threshold(50_000, 10, 10)  # as in tests/conftest.py
    train.run(settings(Path(sys.argv[1]), Path(sys.argv[2]), **json.loads(sys.argv[3])))
