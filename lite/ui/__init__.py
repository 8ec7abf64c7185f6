"""The page: watches runs on disk, starts and stops processes, and never imports torch."""
