"""Chance is addressed, not streamed: the seed of a draw is a hash of its place in the run."""

import hashlib
import random


def seed_for(*names: str | int) -> int:
    """A stable 63-bit seed for one place in a run, e.g. ``seed_for(17, "contrast", "p00042", attempt)``."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, names)).encode()).digest()[:8], "big") >> 1


def random_for(*names: str | int) -> random.Random:
    """A generator of its own for one place in a run."""
    return random.Random(seed_for(*names))
