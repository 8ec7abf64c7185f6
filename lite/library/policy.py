"""Models to talk to: the policy of a run or of a folder, and the base that it stands on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lite.chance import seed_for
from lite.chat.offers import Offer, Room, room
from lite.engine import load_bank, prepare_environment
from lite.errors import ArtifactError
from lite.knobs import BaseSpec
from lite.model.encoding import encode
from lite.model.generate import Decoding, generate
from lite.runs import read
from lite.text import dialogue
from lite.text.clean import decode_reply
from lite.text.dialogue import STOP, Turn

if TYPE_CHECKING:
    from lite.model.bank import AdapterBank

ROLE = "policy"
CONFIG = "adapter_config.json"


def ask(question: str) -> str:
    """A question as a prompt: one human turn and an open assistant tag, as bases without a chat template are asked here."""
    return dialogue.prompt([Turn("human", question)])


class Model:
    """One role on a loaded base. ``base`` is the same weights with the adapter off; ``bank`` is for whoever wants to go deeper."""

    def __init__(self, bank: "AdapterBank", role: str | None, asked: tuple[Room, Offer] | None = None):
        self.bank, self.role, self._asked = bank, role, asked

    @property
    def base(self) -> "Model":
        return Model(self.bank, None, self._asked)

    def reply(
        self, questions: Sequence[str], *, seed: int = 0, max_new_tokens: int = 300, temperature: float = 1.0, top_p: float = 1.0
    ) -> list[str]:
        """A reply to each question, in the form of dialogue that the run was trained in; cut where the next human turn begins."""

        def prompt(question: str) -> str:
            return self._asked[0].prompt(self._asked[1], [Turn("human", question)]) if self._asked else ask(question)

        found = self.write(
            [prompt(q) for q in questions], seed=seed, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, stop=STOP
        )
        return [decode_reply(text) for text in found]

    def write(
        self,
        prompts: Sequence[str],
        *,
        seed: int = 0,
        max_new_tokens: int = 300,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: str | None = STOP,
        rows: int = 64,
    ) -> list[str]:
        """What follows each prompt as it stands, ``stop`` included where it came. The same seed and place give the same text."""
        ids = [encode(self.bank.base.tokenizer, prompt) for prompt in prompts]
        seeds = [seed_for(seed, "write", i) for i in range(len(ids))]
        decoding = Decoding(max_new_tokens, temperature, top_p, stop)
        return [g.text for g in generate(self.bank, self.role, ids, seeds=seeds, decoding=decoding, rows=rows)]


def load_policy(source: str | Path, *, base: str | None = None, runs: str | Path = "runs", offline: bool = False) -> Model:
    """The policy of a run (its last), or of a folder with a PEFT adapter in it or in its ``adapter/``.

        policy = lite.load_policy("latest")
        policy.reply(["How do I bake bread?"])
        policy.base.reply(["How do I bake bread?"])

    source: a run's name, its folder or ``latest``, or an adapter's folder     base: of an adapter's folder, where it names none of its own
    """
    prepare_environment(offline=offline)
    path = Path(source)
    asked: tuple[Room, Offer] | None = None
    if adapter := next((folder for folder in (path, path / "adapter") if (folder / CONFIG).is_file()), None):
        named = base or read.read_json(adapter / CONFIG).get("base_model_name_or_path")
        if not named:
            raise ArtifactError(f"{adapter / CONFIG}: names no base; give it: load_policy({str(source)!r}, base=...)")
        spec = BaseSpec(model=str(named))
    else:
        run = read.find(Path(runs), str(source))
        found = room(run)
        trained = [offer for offer in found.offers if offer.adapter]
        if not trained:
            raise ArtifactError(f"{run.folder.path}: no finished stage of it gives a policy; go on with it: lite run --resume {run.name}")
        adapter, spec, asked = trained[-1].adapter, found.base, (found, trained[-1])
    assert adapter is not None
    bank = load_bank(spec)
    bank.load(ROLE, adapter)
    return Model(bank, ROLE, asked)
