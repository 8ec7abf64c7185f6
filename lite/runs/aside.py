"""Finished results that a changed recipe is about to replace are put aside, so that going on with a run never loses any."""

from collections.abc import Sequence
from pathlib import Path

from lite.runs.layout import StageFolder, new_run_name
from lite.runs.read import Run


def put_aside(run: Run, replaced: Sequence[StageFolder]) -> Path | None:
    """Move the finished ones of these stages, and the report that told of them, into a folder of their own in the run; that folder.

    None where nothing finished is among them. Checkpoints stay behind: they are of no use to a finished stage.
    """
    doomed = [record.folder for record in run.stages() if record.done and record.folder in replaced]
    if not doomed:
        return None
    place = run.folder.replaced / new_run_name("replaced")
    place.mkdir(parents=True)
    for report in (run.folder.report_json, run.folder.report_md):
        if report.is_file():
            report.rename(place / report.name)
    for stage in doomed:
        stage.path.rename(place / stage.path.name)
    return place
