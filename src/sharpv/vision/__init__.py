"""Before and inside the vision tower: which frames are encoded, in how many pieces, and what comes of it.

Import :func:`.encoding.encode` and the value that it gives, :class:`.encoded.Encoded`; :class:`.asked.Encoding` is what
a configuration says about it.
"""
