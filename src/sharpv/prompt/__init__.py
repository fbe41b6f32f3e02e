"""The only room that edits a prompt: ids, masks, token types, labels, positions, encoder outputs, and later turns.

:func:`.prune.prune` runs the whole chain on one prompt; :mod:`.pruned` holds what comes of it, :mod:`.conversation`
what later turns need, :mod:`.returned` what callers see. Nothing here knows of hooks or of a model's methods.
"""
