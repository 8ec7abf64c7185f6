"""Public benchmarks through lm-eval, on the base and the adapters as they are loaded: what alignment cost elsewhere.

The harness is given the very model that the bank holds, in 4 bits, once as it is and once under each adapter: the base is read once,
and both columns of the table stand on the same weights. It is an extra: ``pip install -e '.[eval]'``.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lite.errors import PreconditionError, RecipeError, extra
from lite.model.bank import AdapterBank

NO_NUMBERS = ("alias", "sample_len", "name", "samples")


class Figure(NamedTuple):
    value: float
    error: float | None  # standard error, None where the harness gives none


Figures = Mapping[tuple[str, str], Figure]
"""By task and metric, such as ("arc_challenge", "acc_norm")."""


class Change(NamedTuple):
    """One line of the table: a figure before and after. ``error``: that of the difference, as if both were independent draws."""

    task: str
    metric: str
    before: Figure
    after: Figure

    @property
    def difference(self) -> float:
        return self.after.value - self.before.value

    @property
    def error(self) -> float | None:
        if self.before.error is None or self.after.error is None:
            return None
        return math.hypot(self.before.error, self.after.error)


def installed() -> Any:
    """The package, or a :class:`PreconditionError` that says how to get it."""
    try:
        import lm_eval  # pyright: ignore[reportMissingImports]  an extra
    except ImportError as e:
        raise PreconditionError(f"--suite lm-eval: {e}; it is an extra: {extra('eval')}") from e
    return lm_eval


def tasks_of(names: Sequence[str], include: Path | None) -> Any:
    """lm-eval's manager that knows the tasks; a :class:`RecipeError` names those that it does not."""
    installed()
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]  an extra

    manager = TaskManager(include_path=str(include) if include else None)
    if unknown := [name for name in names if not manager.match_tasks([name])]:
        raise RecipeError(
            "--suite", [f"lm-eval knows no task {name!r} (`lm-eval ls tasks` lists them; --tasks-from DIR adds yours)" for name in unknown]
        )
    return manager


def measure(
    bank: AdapterBank,
    models: Mapping[str, str | None],
    names: Sequence[str],
    manager: Any,
    *,
    limit: int | None = None,
    shots: int | None = None,
    batch_rows: int = 8,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, dict[str, Any]]:
    """lm-eval's results of every model. ``models``: roles on the bank by the name they have in the table; None is the base.

    limit: questions per task     shots: answered examples before each question; None: as the task has it
    """
    from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]  an extra
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]  an extra

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of a model that it did not load itself, which is the point
    found: dict[str, dict[str, Any]] = {}
    for name, role in models.items():
        say(f"lm-eval: {name}")
        with bank.using(role):
            model = HFLM(pretrained=bank.base.model, tokenizer=bank.base.tokenizer, batch_size=batch_rows)
            results = simple_evaluate(
                model=model,
                tasks=list(names),
                num_fewshot=shots,
                limit=limit,
                task_manager=manager,
                log_samples=False,
                bootstrap_iters=1000,
            )
        if results is None:
            raise PreconditionError("lm-eval gave no results; it runs in one process only")
        found[name] = {"results": results["results"], "versions": results.get("versions"), "n_samples": results.get("n-samples")}
    return found


def figures(results: Mapping[str, Mapping[str, Any]]) -> Figures:
    """The numbers of lm-eval's ``results``, where ``acc_norm,none`` has its error under ``acc_norm_stderr,none``."""
    found = {}
    for task, told in results.items():
        for key, value in told.items():
            metric, _, filter = key.partition(",")
            if metric in NO_NUMBERS or metric.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            error = told.get(f"{metric}_stderr,{filter}")
            label = metric if filter in ("none", "") else f"{metric} ({filter})"
            found[task, label] = Figure(float(value), float(error) if isinstance(error, int | float) else None)
    return found


def changes(before: Figures, after: Figures) -> list[Change]:
    return [Change(task, metric, value, after[task, metric]) for (task, metric), value in before.items() if (task, metric) in after]
