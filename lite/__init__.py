"""lite: RLCD and self-rewarding alignment with 4-bit adapters on one GPU."""

__version__ = "0.1.0"
