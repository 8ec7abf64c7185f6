"""The embedded world: a grammar of dialogues, an oracle that knows whether a reply is good, and a tiny base trained on it."""

from pathlib import Path

BASE_DIR = Path(__file__).parent / "base"
"""The shipped base: config.json, model.safetensors, tokenizer.json, tokenizer_config.json, build.json."""
