"""What lies on disk between stages: a type per kind of result, each a folder.

An artifact knows the names of the files inside its folder and nothing of runs. Stages write under the folder that they are
given and return the artifact; readers open it by its type.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lite.errors import ArtifactError
from lite.records import Candidate, Example, HeadToHead, Judgement, Pair, Prompt, Ranked, Reply, read_rows


@dataclass(frozen=True)
class Artifact:
    path: Path

    def read_json(self, name: str) -> dict[str, Any]:
        file = self.path / name
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as e:
            raise ArtifactError(f"{file}: no such file; was the stage that writes it run to its end?") from e
        except ValueError as e:
            raise ArtifactError(f"{file}: not JSON ({e})") from e


class Prompts(Artifact):
    """train.jsonl, dev.jsonl (for choices), test.jsonl (touched once)."""

    def rows(self, split: str) -> list[Prompt]:
        return read_rows(self.path / f"{split}.jsonl", Prompt)


class Pairs(Artifact):
    """pairs.jsonl and report.json {pairs, dropped: {reason: n}, ...}."""

    def rows(self) -> list[Pair]:
        return read_rows(self.path / "pairs.jsonl", Pair)

    def report(self) -> dict[str, Any]:
        return self.read_json("report.json")


class Candidates(Artifact):
    """candidates.jsonl, several responses to each prompt, and report.json."""

    def rows(self) -> list[Candidate]:
        return read_rows(self.path / "candidates.jsonl", Candidate)

    def report(self) -> dict[str, Any]:
        return self.read_json("report.json")


class Examples(Artifact):
    """examples.jsonl, targets of supervised training, and report.json."""

    def rows(self) -> list[Example]:
        return read_rows(self.path / "examples.jsonl", Example)

    def report(self) -> dict[str, Any]:
        return self.read_json("report.json")


class Seed(Examples):
    """Examples of instructions that are followed; and ranked responses, ranked_train.jsonl and ranked_judged.jsonl, to learn and to measure judging."""

    def ranked(self, split: Literal["train", "judged"]) -> list[Ranked]:
        return read_rows(self.path / f"ranked_{split}.jsonl", Ranked)


class Judgements(Artifact):
    """judgements.jsonl, every judgement with its text, and report.json {readable, histogram, drawn, saved, ...}."""

    def rows(self) -> list[Judgement]:
        return read_rows(self.path / "judgements.jsonl", Judgement)

    def report(self) -> dict[str, Any]:
        return self.read_json("report.json")


class Round(Artifact):
    """replies.jsonl on dev prompts, and report.json {models, comparisons, pairs, gates, ...}."""

    def rows(self) -> list[Reply]:
        return read_rows(self.path / "replies.jsonl", Reply)

    def report(self) -> dict[str, Any]:
        return self.read_json("report.json")


class Reward(Artifact):
    """adapter/ (plain PEFT), head.safetensors {weight (1, D), bias (1,)}, report.json {mean, std, accuracy, ...}."""

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def head(self) -> Path:
        return self.path / "head.safetensors"

    def report(self) -> dict[str, Any]:
        return self.read_json("report.json")


class Policy(Artifact):
    """adapter/ (plain PEFT) and report.json of its training."""

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    def report(self) -> dict[str, Any]:
        return self.read_json("report.json")


class Evaluation(Artifact):
    """replies.jsonl, judgements.jsonl, and report.json {models, comparisons, reward, diagnostics}."""

    def rows(self) -> list[Reply]:
        return read_rows(self.path / "replies.jsonl", Reply)

    def judgements(self) -> list[HeadToHead]:
        return read_rows(self.path / "judgements.jsonl", HeadToHead)

    def report(self) -> dict[str, Any]:
        return self.read_json("report.json")
