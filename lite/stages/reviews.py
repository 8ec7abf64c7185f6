"""Asking a model for judgements: what the stages judge, eft and gate share.

Every judgement is a draw with a seed of its own place (prompt, response, number), made by shard and kept as it comes; the judgements
of one response share the prefill of its prompt. Only generated text is read.
"""

from collections.abc import Sequence
from typing import NamedTuple

from lite import templates
from lite.artifacts import Policy
from lite.knobs.rounds import JudgingSpec
from lite.model.bank import AdapterBank
from lite.model.encoding import encode
from lite.model.generate import Decoding
from lite.records import Judgement
from lite.stages.bench import Bench, Progress
from lite.stages.drawing import draw
from lite.text.dialogue import STOP
from lite.text.judging import form, read_score

JUDGE = "judge"


class Question(NamedTuple):
    """One response to be judged: number ``k`` of those to the prompt ``id``."""

    id: str
    k: int
    prompt: str
    response: str


class Court:
    """A judge on the bench's base: the base itself, or a policy. One owner of template, decoding and seeds."""

    def __init__(self, spec: JudgingSpec, bench: Bench, bank: AdapterBank, policy: Policy | None, *, name: str = "judgements"):
        self.spec, self.bench, self.bank, self.name = spec, bench, bank, name
        self.template = templates.load(spec.template)
        self.role = JUDGE if policy else None
        if policy:
            bank.load(JUDGE, policy.adapter)

    def judge(self, questions: Sequence[Question], draws: Sequence[int], bar: Progress | None = None) -> list[Judgement]:
        """The judgements of every question under every draw's number, question by question.

        A response whose form leaves no room for a judgement is not asked about: it cannot be read, and its text is empty.
        """
        places = [(i, d) for i in range(len(questions)) for d in draws]
        forms = [encode(self.bank.base.tokenizer, form(self.template, q.prompt, q.response)) for q in questions]
        fits = [(i, d) for i, d in places if len(forms[i]) + self.spec.max_new_tokens <= self.room]
        written = draw(
            self.bench,
            f"{self.name}-{'-'.join(map(str, draws))}",
            self.bank,
            self.role,
            [forms[i] for i, _ in fits],
            keys=[f"{questions[i].id}/{questions[i].k}/{d}" for i, d in fits],
            seeds=[self.bench.seed_for(self.name, questions[i].id, questions[i].k, d) for i, d in fits],
            decoding=Decoding(self.spec.max_new_tokens, self.spec.temperature, self.spec.top_p),
            rows=self.spec.batch_rows,
            groups=[i for i, _ in fits] if self.spec.shared_prefix else None,
            bar=bar,
        )
        said = dict(zip(fits, written, strict=True))
        if bar:
            bar.advance(len(places) - len(fits))
        return [self._judgement(questions[i], d, *((g.text, g.stop) if (g := said.get((i, d))) else ("", "length"))) for i, d in places]

    @property
    def room(self) -> int:
        """Positions of the base."""
        return int(getattr(self.bank.base.model.config, "max_position_embeddings", 1 << 20))

    def close(self) -> None:
        if self.role:
            self.bank.drop(self.role)

    @staticmethod
    def _judgement(question: Question, d: int, text: str, stop) -> Judgement:
        return Judgement(question.id, question.k, d, text.partition(STOP)[0].rstrip(), stop, read_score(text, stop))


def scores_of(judgements: Sequence[Judgement]) -> dict[tuple[str, int], list[int | None]]:
    """The scores of every response, by prompt and number, in the order of their draws."""
    found: dict[tuple[str, int], list[int | None]] = {}
    for j in judgements:
        found.setdefault((j.id, j.k), []).append(j.score)
    return found
