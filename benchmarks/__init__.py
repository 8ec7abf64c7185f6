"""Side-by-side measurements, one script per claim; `python -m benchmarks.NAME` prints a table and writes benchmarks/results/NAME.{json,md}."""

import os

# Before torch is imported: on a shared machine a second OpenMP thread swings a timing twentyfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
