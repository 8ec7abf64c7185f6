"""The page: watches runs on disk, starts and stops processes, and never imports torch."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported, which is after this
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
