"""The command line: thin typer commands on top of the library. Nothing imports from here.

:mod:`.app` holds the commands, :mod:`.terminal` how they speak, :mod:`.configured` gives a command every field of
:class:`~sharpv.Config` as an option. Torch is imported when a model is.
"""
