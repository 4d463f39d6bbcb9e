"""Saves and checkpoints are killed before each of their file operations: none is lost or halved.

The other campaigns of ``benchmarks/faults.py`` take minutes; those of this test, seconds.
"""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "faults.py"


def test_no_kill_loses_a_model_or_a_checkpoint() -> None:
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "save", "checkpoint"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    campaigns = json.loads(run.stdout.splitlines()[-1])
    total = campaigns.pop("kills")
    assert total == sum(counts["kills"] for counts in campaigns.values())
    assert len(campaigns) == 6
    for name, counts in campaigns.items():
        assert counts["kills"] >= (8 if name.startswith("save") else 3), name
        assert counts["new"] >= 1, name
        if name.endswith("replacing"):
            assert "none" not in counts, name
            assert counts["old"] >= 1, name
