"""``python -m sharpv``: the command line."""

from .cli import app

app(prog_name="sharpv")
