"""Memory, disk and time of a plan, before anything is loaded: torch-free arithmetic on the base's config."""
