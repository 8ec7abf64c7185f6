"""Where prompts come from: rows of local files or of the Hub -> dialogues that wait for an answer, in three splits.

``files`` and ``hub`` give rows, ``rows`` makes a dialogue of one, ``splits`` counts what was left out and chooses. Nothing here
knows of stages, and `datasets` is imported only when the Hub is asked.
"""
