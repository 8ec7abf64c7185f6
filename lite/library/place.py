"""The folder of a training that stands alone: whose it is, how far that came, and that nothing in it is written over.

out/
  ppo.json                                     what the training is: base, reward, knobs, digests of its prompts; written first
  metrics.jsonl  samples.jsonl  ckpt/          as it goes; ckpt is gone at the end
  start/                                       the adapter of a PeftModel that is trained on
  adapter/  report.json                        the result; the report is written last
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lite.errors import ArtifactError
from lite.plan import changes
from lite.runs.layout import StageFolder
from lite.runs.publish import write_json
from lite.runs.read import StageRecord, read_json

ABOUT = "ppo.json"
OWN = ("adapter", "report.json", "metrics.jsonl", "samples.jsonl", "ckpt", "start")


class Place(StageFolder):
    @property
    def about(self) -> Path:
        return self.path / ABOUT

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def report(self) -> Path:
        return self.path / "report.json"

    @property
    def start(self) -> Path:
        return self.path / "start"

    @property
    def finished(self) -> bool:
        return self.about.is_file() and self.report.is_file()

    def refuse_others(self, facts: Mapping[str, Any], *, resume: bool) -> None:
        """Raise :class:`ArtifactError` where a training with these facts would write over something that is not its own."""
        if self.path.exists() and not self.path.is_dir():
            raise ArtifactError(f"{self.path}: a file; name a folder for `out`")
        if not self.about.is_file():
            if there := [name for name in OWN if (self.path / name).exists()]:
                raise ArtifactError(
                    f"{self.path}: {', '.join(there)} lies here, and no PPO training wrote it (there is no {ABOUT}); "
                    "choose another folder for `out`"
                )
            return
        if not resume:
            how_far, then = ("finished", "gives it back") if self.finished else ("not finished", StageRecord(self, {}).left_off)
            raise ArtifactError(
                f"{self.path}: holds a training already, {how_far}; train(..., resume=True) {then}; to train anew choose another folder for "
                "`out`, or delete this one"
            )
        if others := differences(read_json(self.about), facts):
            raise ArtifactError(
                f"{self.path}: holds another training: {'; '.join(others)} (see {ABOUT}); ask for the same, or choose another folder for `out`"
            )

    @contextmanager
    def claimed(self, facts: Mapping[str, Any]) -> Iterator[None]:
        """The folder, told whose it is; a first try that fails before its first figure leaves nothing that is in the way of the next."""
        first = not self.about.is_file()
        self.ckpt.mkdir(parents=True, exist_ok=True)
        write_json(self.about, facts)
        try:
            yield
        except BaseException:
            if first and not self._worth_keeping():
                for folder in (self.ckpt, self.start):
                    shutil.rmtree(folder, ignore_errors=True)
                self.about.unlink()
            raise

    def _worth_keeping(self) -> bool:
        return any(self.ckpt.iterdir()) or any((self.path / name).exists() for name in OWN if name not in ("ckpt", "start"))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What one training's facts have otherwise than another's: ``knobs.lr changed 0.001 -> 0.01``; of digests that they differ."""
    was, now = dict(old), dict(new)
    theirs, ours = was.pop("digests", None) or {}, now.pop("digests", None) or {}
    return [*changes("PPO", was, now), *(f"other {name}" for name in ours if theirs.get(name) != ours[name])]
