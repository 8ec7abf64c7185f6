"""One page per file; each has ``build(site)``, called inside the page's route."""
