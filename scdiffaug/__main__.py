"""``python -m scdiffaug`` is the command ``scdiffaug``."""

from scdiffaug.cli import app

app(prog_name="scdiffaug")
