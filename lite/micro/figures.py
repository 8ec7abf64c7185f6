"""What the embedded base can do, measured on the VALIDATION split: ``python -m lite.micro.figures [DIR]``.

Shares that are sampled are means over draws; the interval is twice the standard error over the prompts. Greedy figures
have no draws. The thresholds are those that the pipeline's tests rely on.
"""

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import correlation, fmean
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from lite import tasks, templates
from lite.chance import random_for, seed_for
from lite.micro import BASE_DIR
from lite.micro.corpus import verdict
from lite.micro.grammar import ACTIVITIES, FACT, FAMILIES, PREMISE, read_ask
from lite.micro.oracle import CRITERIA, grade, grade_ask
from lite.micro.replies import QUALITIES, quality, reply
from lite.micro.splits import draw_ask, draw_dialogue
from lite.text.dialogue import STOP, Turn, cue, render

Figures = dict[str, float]

THRESHOLDS: dict[str, tuple[float, float]] = {
    **{f"{family}.plain": (0.15, 0.40) for family in FAMILIES},
    **{f"{family}.positive": (0.50, 1.0) for family in FAMILIES},
    **{f"{family}.negative": (0.0, 0.15) for family in FAMILIES},
    **{f"{family}.stop": (0.80, 1.0) for family in FAMILIES},
    **{f"{family}.tries": (0.65, 1.0) for family in FAMILIES},
    **{f"choice.{family}.accuracy": (0.60, 1.0) for family in FAMILIES},
    **{f"choice.{family}.says_a": (0.30, 0.70) for family in FAMILIES},
    "facts.greedy": (0.95, 1.0),
    "copy.greedy": (0.97, 1.0),
    "copy.sampled": (0.94, 1.0),
    "review.parsed": (0.90, 1.0),
    "review.correlation": (0.30, 1.0),
    "instruct.valid": (0.80, 1.0),
}
"""Name of a figure: the least and the most that it may be."""


class Continuation(NamedTuple):
    text: str
    stopped: bool


class Sampler:
    """Batched continuations by the plain base; rows that have stopped leave the batch."""

    def __init__(self, model: PreTrainedModel, tok: PreTrainedTokenizerBase):
        self.model, self.tok = model.eval(), tok

    @torch.inference_mode()
    def __call__(
        self, prompts: Sequence[str], *, stop: str | None, limit: int, temperature: float = 1.0, seed: int = 0, rows: int = 150
    ) -> list[Continuation]:
        chance = torch.Generator().manual_seed(seed)
        made: list[Continuation] = [Continuation("", False)] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), rows):
            part = order[start : start + rows]
            for i, out in zip(part, self._batch([prompts[i] for i in part], stop, limit, temperature, chance), strict=True):
                made[i] = out
        return made

    def _batch(self, prompts: list[str], stop: str | None, limit: int, temperature: float, chance: torch.Generator) -> list[Continuation]:
        encoded = self.tok(prompts, return_tensors="pt", padding=True)
        mask, cache = encoded["attention_mask"], DynamicCache()
        ids, places = encoded["input_ids"], (mask.cumsum(-1) - 1).clamp(min=0)
        made: list[list[int]] = [[] for _ in prompts]
        ended = [False] * len(prompts)
        alive = list(range(len(prompts)))
        for _ in range(limit):
            logits = (
                self.model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True, logits_to_keep=1)
                .logits[:, -1]
                .float()
            )
            chosen = (
                logits.argmax(-1) if temperature == 0 else torch.multinomial((logits / temperature).softmax(-1), 1, generator=chance)[:, 0]
            )
            stay = []
            for row, i in enumerate(alive):
                made[i].append(int(chosen[row]))
                ended[i] = made[i][-1] == self.tok.eos_token_id or bool(stop and stop in self.tok.decode(made[i][-6:]))
                if not ended[i]:
                    stay.append(row)
            if not stay:
                break
            keep = torch.tensor(stay)
            if len(stay) < len(alive):
                cache.batch_select_indices(keep)
            alive = [alive[row] for row in stay]
            ids, places = chosen[keep, None], places[keep][:, -1:] + 1
            mask = torch.cat([mask[keep], mask.new_ones(len(stay), 1)], 1)
        texts = self.tok.batch_decode(made, skip_special_tokens=True)
        return [Continuation(text.split(stop)[0] if stop else text, done) for text, done in zip(texts, ended, strict=True)]


def _share(marks: Sequence[float], name: str, into: Figures, draws: int = 1) -> None:
    """The mean, and its interval: twice the standard error with as many observations as there are prompts."""
    mean = fmean(marks)
    into[name] = round(mean, 4)
    into[f"{name}.interval"] = round(2 * math.sqrt(mean * (1 - mean) / (len(marks) / draws)), 4)


def directed(turns: Sequence[Turn], family: str, mode: str, axis: int) -> str:
    """The prompt under a mode: the axis's direction on the last cue and the opposite one on earlier cues."""
    task = tasks.load(family)
    opposite = {"plain": "plain", "positive": "negative", "negative": "positive"}[mode]
    earlier = None if mode == "plain" else getattr(task.phrases[axis], opposite)
    last = None if mode == "plain" else getattr(task.phrases[axis], mode)
    return render(turns, direction=lambda _: earlier) + cue(last) + (f" {task.lead}" if task.lead else "")


def replies(sampler: Sampler, prompts: int, draws: int) -> Figures:
    """Success and stop rate under each cue; for outline how often it fails by unfaithfulness, too."""
    out: Figures = {}
    for family in FAMILIES:
        rng = random_for("figures", family)
        asked = [draw_dialogue(family, rng, split="validation") for _ in range(prompts)]
        axes = [rng.randrange(len(tasks.load(family).phrases)) for _ in asked]
        stops = []
        for mode in ("plain", "positive", "negative"):
            texts = [directed(turns, family, mode, axis) for turns, axis in zip(asked, axes, strict=True)]
            marks, criteria = [], []
            for draw in range(draws):
                for turns, made in zip(asked, sampler(texts, stop=STOP, limit=80, seed=seed_for(family, mode, draw)), strict=True):
                    grades = grade(turns, made.text)
                    marks.append(float(grades.success and made.stopped))
                    criteria.append(grades.criteria)
                    stops.append(float(made.stopped))
            _share(marks, f"{family}.{mode}", out, draws)
            for name in CRITERIA[family]:
                out[f"{family}.{mode}.{name}"] = round(fmean(c[name] for c in criteria), 4)
        _share(stops, f"{family}.stop", out, 3 * draws)
    return out


def tries(sampler: Sampler, prompts: int) -> Figures:
    """Success of a base that is made to try: the cue is positive and a good reply is begun for it, half of it."""
    out: Figures = {}
    for family in FAMILIES:
        rng = random_for("tries", family)
        task, marks, begun, asks, starts = tasks.load(family), [], [], [], []
        for _ in range(prompts):
            ask = draw_ask(family, rng, split="validation")
            start = _first_half(family, reply(ask, rng, "good"))
            asks.append(ask)
            starts.append(start)
            direction = rng.choice(task.phrases).positive
            begun.append(render([Turn("human", ask.text)]) + cue(direction) + (f" {task.lead}" if task.lead else "") + start)
        for ask, start, made in zip(asks, starts, sampler(begun, stop=STOP, limit=80, seed=5), strict=True):
            marks.append(float(grade_ask(ask, start + made.text).success))
        _share(marks, f"{family}.tries", out)
    return out


def _first_half(family: str, text: str) -> str:
    """The first point or the first sentence of a reply."""
    if family == "outline":
        return "\n" + text.strip().split("\n")[0]
    return " " + re.split(r"(?<=[.!?]) ", text)[0]


def facts(sampler: Sampler) -> Figures:
    """Greedy recall of every fact through every wording, after an honest ``How to ...:`` and in a helpful reply."""
    prompts, right = [], []
    for name, truth in ACTIVITIES.items():
        for pattern in FACT:
            if pattern.text.startswith("The {a}"):  # nothing before the word says which fact is meant
                continue
            begun = pattern.text.split(" {a}")[0]
            prompts.append(f"\n\nHuman: How do I {name}?{cue(tasks.load('helpful').phrases[0].positive)} Sure! {begun}")
            right.append(truth.things if pattern.kind == "things" else {getattr(truth, pattern.kind)})
    made = sampler(prompts, stop=None, limit=1, temperature=0)
    return {"facts.greedy": round(fmean(float(m.text.strip() in r) for m, r in zip(made, right, strict=True)), 4)}


def copying(sampler: Sampler, prompts: int) -> Figures:
    """How often a name of the premise is copied at its place, in outlines of unseen premises that began faithfully."""
    rng = random_for("copying")
    task, texts, right = tasks.load("outline"), [], []
    while len(texts) < prompts:
        ask = draw_ask("outline", rng, split="validation")
        premise = dict(ask.slots)
        body = reply(ask, rng, "good")
        slot = rng.choice(tuple(PREMISE.slots))
        at = body.rfind(" " + premise[slot])
        if at < 0:
            continue
        texts.append(f"\n\nHuman: {ask.text}{cue(rng.choice(task.phrases).positive)} {task.lead}{body[:at]}")
        right.append(premise[slot])
    out: Figures = {}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        made = sampler(texts, stop=None, limit=1, temperature=temperature, seed=3)
        _share([float(m.text.strip() == word) for m, word in zip(made, right, strict=True)], f"copy.{name}", out)
    return out


@torch.inference_mode()
def choices(sampler: Sampler, prompts: int) -> Figures:
    """Accuracy of the two-way choice (argmax of A and B) where scores differ, how often it says A, and its mean P(A)."""
    out: Figures = {}
    a, b = (sampler.tok(letter, add_special_tokens=False)["input_ids"][0] for letter in "AB")
    for family in FAMILIES:
        rng = random_for("choices", family)
        rows: list[tuple[str, bool]] = []
        while len(rows) < prompts:
            turns = draw_dialogue(family, rng, split="validation")
            ask = read_ask(turns[-1].text)
            assert ask is not None
            first, second = (reply(ask, rng, quality(rng, "plain")).strip() for _ in "ab")
            scores = [grade_ask(ask, text).score for text in (first, second)]
            if scores[0] != scores[1]:
                principle = rng.choice(tasks.load(family).phrases).principle
                rows.append(
                    (templates.load("choice").render(dialogue=render(turns), principle=principle, a=first, b=second), scores[0] > scores[1])
                )
        odds = []
        for start in range(0, prompts, 50):
            encoded = sampler.tok([text for text, _ in rows[start : start + 50]], return_tensors="pt", padding=True)
            places = (encoded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            logits = (
                sampler.model(
                    input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], position_ids=places, logits_to_keep=1
                )
                .logits[:, -1]
                .float()
            )
            odds += logits[:, [a, b]].softmax(-1)[:, 0].tolist()
        _share([float((p > 0.5) == right) for p, (_, right) in zip(odds, rows, strict=True)], f"choice.{family}.accuracy", out)
        out[f"choice.{family}.says_a"] = round(fmean(float(p > 0.5) for p in odds), 4)
        out[f"choice.{family}.mean_p_a"] = round(fmean(odds), 4)
    return out


SCORE = re.compile(r"^Score: ([0-5])\s*$", re.M)


def reviews(sampler: Sampler, prompts: int) -> Figures:
    """The judge: how often a score can be read, its correlation with the truth, and the share of right criteria."""
    rng = random_for("reviews")
    asks = [draw_ask("helpful", rng, split="validation") for _ in range(prompts)]
    texts = [reply(ask, rng, rng.choice(QUALITIES)) for ask in asks]
    truth = [grade_ask(ask, text) for ask, text in zip(asks, texts, strict=True)]
    forms = [templates.load("judge_micro").render(question=ask.text, response=text) for ask, text in zip(asks, texts, strict=True)]
    out: Figures = {}
    for name, temperature in (("review", 1.0), ("review.greedy", 0.0)):
        made = sampler(forms, stop=None, limit=30, temperature=temperature, seed=4)
        read = [int(found[-1]) if (found := SCORE.findall(m.text)) else None for m in made]
        pairs = [(score, t.score) for score, t in zip(read, truth, strict=True) if score is not None]
        out[f"{name}.parsed"] = round(len(pairs) / prompts, 4)
        told = [m.text.split(".")[0] for m in made]
        out[f"{name}.criteria"] = round(
            fmean(
                float(f"{c} {'yes' if met else 'no'}" in said) for said, t in zip(told, truth, strict=True) for c, met in t.criteria.items()
            ),
            4,
        )
        varied = len({s for s, _ in pairs}) > 1
        out[f"{name}.correlation"] = round(correlation([s for s, _ in pairs], [t for _, t in pairs]), 4) if varied else 0.0
        out[f"{name}.whole_truth"] = round(
            fmean(float(m.text.strip() == verdict(t.criteria).strip()) for m, t in zip(made, truth, strict=True)), 4
        )
    return out


def instructions(sampler: Sampler, prompts: int) -> Figures:
    """Share of written questions that the grammar knows, and of those that are not among the examples shown."""
    rng = random_for("instructions")
    shown = [[draw_ask("helpful", rng, split="train").text for _ in range(6)] for _ in range(prompts)]
    forms = [templates.load("instruct_micro").render(examples="\n".join(f"Question: {q}" for q in examples)) for examples in shown]
    made = [m.text.strip() for m in sampler(forms, stop="\n", limit=30, seed=6)]
    out: Figures = {}
    _share([float(read_ask(text) is not None) for text in made], "instruct.valid", out)
    out["instruct.new"] = round(fmean(float(text not in examples) for text, examples in zip(made, shown, strict=True)), 4)
    return out


def measure(folder: Path, *, prompts: int = 300, draws: int = 3) -> tuple[Figures, list[str]]:
    """All figures of the base in the folder, printed with their thresholds; the second value names what was missed."""
    torch.set_num_threads(1)
    sampler = Sampler(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder))
    out = replies(sampler, prompts, draws) | tries(sampler, prompts) | facts(sampler) | copying(sampler, prompts)
    out |= choices(sampler, prompts) | reviews(sampler, prompts) | instructions(sampler, prompts)
    missed = []
    for name, value in out.items():
        if name.endswith(".interval"):
            continue
        low, high = THRESHOLDS.get(name, (None, None))
        bound = ""
        if low is not None and high is not None:
            ok = low <= value <= high
            bound = f"   {low:.2f} .. {high:.2f}  {'ok' if ok else 'MISSED'}"
            missed += [] if ok else [name]
        interval = f" +- {out[f'{name}.interval']:.3f}" if f"{name}.interval" in out else ""
        print(f"{name:28} {value:.3f}{interval:9}{bound}", flush=True)
    return out, missed


def main(argv: list[str]) -> int:
    _, missed = measure(Path(argv[0]) if argv else BASE_DIR)
    print(json.dumps({"missed": missed}), file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
