"""What the command line of ``benchmarks/gpu.py`` takes, checked before torch is imported: a command can be tried where no GPU is."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lite.fit.cards import size
from lite.fit.shape import known_models

RESULTS = Path(__file__).parent / "results"
NAMES = {"7b": "huggyllama/llama-7b", "30b": "huggyllama/llama-30b", "qwen7b": "Qwen/Qwen2.5-7B", "olmo32b": "allenai/OLMo-2-0325-32B"}
PARTS = ("generation", "pairs", "reward", "dpo", "ppo", "old_ppo")


def options(argv: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """The choices, with defaults for a card or for the CPU. Exits with 2 and a sentence where one cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=_model, default=None, help="7b (the default), 30b, qwen7b, olmo32b, small, or a base that the estimate knows"
    )
    parser.add_argument("--card", type=_gigabytes, default=None, help="GB that may be used: 8, 12, 16, 24, 48; default: the whole card")
    parser.add_argument("--cpu", action="store_true", help="a toy shape on the CPU")
    parser.add_argument("--steps", type=_count, default=None, help="timed steps of PPO and of the stages that learn; default 5 (CPU: 1)")
    parser.add_argument("--rollouts", type=_count, default=None, help="responses per PPO step; default 64 (CPU: 4)")
    parser.add_argument("--rows", type=_count, nargs="+", default=None, help="rows of the generation part; default 8 32 64 (CPU: 2 3)")
    parser.add_argument("--tokens", type=_count, nargs=2, default=None, metavar=("PROMPT", "NEW"), help="default 192 300 (CPU: 12 6)")
    parser.add_argument("--only", nargs="+", default=None, metavar="PART", choices=PARTS, help=" ".join(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and the table")
    found = parser.parse_args(argv)
    if found.out.exists() and not found.out.is_dir():
        parser.error(f"argument --out: {found.out} is no folder")
    small = found.cpu
    found.model = found.model or ("small" if small else "7b")
    found.steps = found.steps or (1 if small else 5)
    found.rollouts = found.rollouts or (4 if small else 64)
    found.rows = found.rows or ([2, 3] if small else [8, 32, 64])
    found.tokens = found.tokens or ([12, 6] if small else [192, 300])
    return found


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is needed (got {text!r})")
    return number


def _gigabytes(text: str) -> float:
    try:
        return size(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from e


def _model(text: str) -> str:
    known = known_models()
    if text != "small" and text not in NAMES and text not in known:
        raise argparse.ArgumentTypeError(f"no shape called {text!r}; there are small, {', '.join(NAMES)}, {', '.join(known)}")
    return text
