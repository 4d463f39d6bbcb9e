"""The counts on the page about reliability are those of the tests."""

import re
from pathlib import Path

import pytest
import test_bad_calls
import test_bad_inputs
import test_checkpoint
import test_hostile_files
import test_properties

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
COUNTS = {
    "bad inputs refused": len(test_bad_inputs.CASES) + len(test_bad_calls.CASES),
    "hostile or corrupt model folders refused": len(test_hostile_files.HOSTILE),
    "damaged checkpoints refused": len(test_checkpoint.DAMAGES),
    "containers × types of numbers in memory": len(
        test_properties._held(test_properties.CONTAINERS)
    ),
    "containers × types of numbers × places on disk": 2
    * len(test_properties._held(test_properties.ON_DISK)),
    "interruptions of a training that resumes": len(test_checkpoint.KINDS)
    * test_checkpoint.N_INTERRUPTIONS,
}


@pytest.mark.parametrize(("what", "count"), COUNTS.items(), ids=COUNTS)
def test_the_page_says_what_is_tried(what: str, count: int) -> None:
    rows = re.findall(r"^\| (.+?) \| (\d+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    said = [int(number) for words, number in rows if words.startswith(what)]
    assert said == [count]
