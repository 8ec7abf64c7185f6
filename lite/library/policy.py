"""Models to talk to: the policy of a run or of a folder, and the base that it stands on."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lite.chance import seed_for
from lite.chat.offers import Offer, Room, can_chat, room
from lite.engine import load_bank
from lite.errors import ArtifactError
from lite.knobs import BaseSpec
from lite.library.place import ABOUT
from lite.library.texts import texts
from lite.model.encoding import encode
from lite.model.generate import Decoding, generate
from lite.model.plain import CONFIG
from lite.recipe import load
from lite.runs import read
from lite.runs.layout import RunFolder
from lite.runs.manners import offline_while
from lite.text import dialogue
from lite.text.clean import decode_reply
from lite.text.dialogue import STOP, Turn

if TYPE_CHECKING:
    from lite.model.bank import AdapterBank

ROLE = "policy"


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
        self, questions: Iterable[str], *, seed: int = 0, max_new_tokens: int = 300, temperature: float = 1.0, top_p: float = 1.0
    ) -> list[str]:
        """A reply to each question, in the form of dialogue that the run was trained in; cut where the next human turn begins."""

        def prompt(question: str) -> str:
            return self._asked[0].prompt(self._asked[1], [Turn("human", question)]) if self._asked else ask(question)

        found = self.write(
            [prompt(q) for q in texts(questions, "questions")],
            seed=seed,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=STOP,
        )
        return [decode_reply(text) for text in found]

    def write(
        self,
        prompts: Iterable[str],
        *,
        seed: int = 0,
        max_new_tokens: int = 300,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: str | None = STOP,
        rows: int = 64,
    ) -> list[str]:
        """What follows each prompt as it stands, ``stop`` included where it came. The same seed and place give the same text."""
        ids = [encode(self.bank.base.tokenizer, prompt) for prompt in texts(prompts, "prompts")]
        seeds = [seed_for(seed, "write", i) for i in range(len(ids))]
        decoding = Decoding(max_new_tokens, temperature, top_p, stop)
        return [g.text for g in generate(self.bank, self.role, ids, seeds=seeds, decoding=decoding, rows=rows)]


def load_policy(
    source: str | Path, *, base: str | BaseSpec | None = None, runs: str | Path = "runs", offline: bool = False
) -> Model:  # fmt: skip
    """The policy of a run (its last), or of a folder with a PEFT adapter in it or in its ``adapter/``.

        policy = lite.load_policy("latest")
        policy.reply(["How do I bake bread?"])
        policy.base.reply(["How do I bake bread?"])

    source: a run's name, its folder or ``latest`` (the newest that trained a policy), or an adapter's folder
    base: of an adapter's folder; as lite trained it, or a Hub id or folder to take in its place. None: what the training notes, else
        what the adapter names, in 4 bits. A :class:`~lite.knobs.BaseSpec` says all of it
    offline: the Hub is asked nothing
    """
    with offline_while(offline):
        path = Path(source)
        asked: tuple[Room, Offer] | None = None
        if adapter := next((folder for folder in (path, path / "adapter") if (folder / CONFIG).is_file()), None):
            spec = _base_of(adapter, base)
        else:
            run = read.find(Path(runs), str(source), fits=can_chat)
            found = room(run)
            trained = [offer for offer in found.offers if offer.adapter]
            if not trained:
                raise ArtifactError(
                    f"{run.folder.path}: no finished stage of it gives a policy; go on with it: lite run --resume {run.name}"
                )
            adapter, spec, asked = trained[-1].adapter, found.base, (found, trained[-1])
        assert adapter is not None
        bank = load_bank(spec)
        bank.load(ROLE, adapter)
        return Model(bank, ROLE, asked)


def _base_of(adapter: Path, given: str | BaseSpec | None) -> BaseSpec:
    """What an adapter's base is, and in how many bits: as it is given, as its training notes it, or as PEFT names it."""
    if isinstance(given, BaseSpec):
        return given
    noted = _noted(adapter)
    if noted is None:
        named = given or read.read_json(adapter / CONFIG).get("base_model_name_or_path")
        if not named:
            raise ArtifactError(f"{adapter / CONFIG}: names no base; give it: load_policy({str(adapter)!r}, base=...)")
        return BaseSpec(model=str(named))
    elsewhere = {"model": given, "revision": None} if given else {}
    try:
        return BaseSpec.model_validate(noted | elsewhere)
    except ValidationError as e:
        raise ArtifactError(
            f"{adapter}: trained on a model that was loaded by hand ({noted.get('model') or 'without a name'}, weights "
            f"{noted.get('quantize')!r}), which lite cannot load alike; name what comes next to it: "
            "load_policy(..., base=lite.knobs.BaseSpec(model=..., quantize='nf4')), or 'none'"
        ) from e


def _noted(adapter: Path) -> dict[str, Any] | None:
    """The base in the notes of the training that wrote an adapter: those of PPO alone, or the recipe of a run; None without them."""
    here = adapter.resolve()
    stage = here.parent.parent
    for owner, inside in ((here.parent, "adapter"), (stage, "ckpt/last-good")):
        if here == owner / inside and isinstance(noted := read.read_json(owner / ABOUT).get("base"), dict):
            return noted
    run = RunFolder(stage.parent.parent)
    if stage.parent.name == "stages" and run.resolved.is_file():
        return load(run.resolved).base.model_dump()
    return None
