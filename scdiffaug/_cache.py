"""Where downloads, and what benchmarks need not repeat, are cached."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``SCDIFFAUG_CACHE_DIR``, by default the user's cache folder."""
    # Imported here, as it takes longer than all of `scdiffaug --help`.
    import pooch

    named = os.environ.get("SCDIFFAUG_CACHE_DIR")
    return Path(named).expanduser() if named else Path(pooch.os_cache("scdiffaug"))
