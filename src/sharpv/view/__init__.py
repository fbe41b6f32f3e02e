"""What was kept, to look at: one drawing of a report over its clip, for the page, the notebook, the app and papers.

:func:`.page.page` writes a page of one file; :func:`.geometry.window` knows which pixels a token saw. The room reads
reports and clips, and loads neither torch nor transformers.
"""
