"""``python -m sharpv``: the command line."""

from .cli.app import app

app()
