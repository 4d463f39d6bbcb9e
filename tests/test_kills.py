"""Saving is killed before each of its file operations: the old model or the new one is whole."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "faults.py"


def test_no_kill_during_save_loses_a_model() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT)], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    campaigns = json.loads(run.stdout.splitlines()[-1])
    for name, counts in campaigns.items():
        assert counts["kills"] >= 8, name
        assert counts["new"] >= 1, name
        if name.endswith("replacing"):
            assert counts["none"] == 0, name
            assert counts["old"] >= 1, name
