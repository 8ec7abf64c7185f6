"""PPO on a shared base without a recipe: prompts, a reward, a base. The same steps as the stage ``ppo``, line for line.

What differs from the stage:
1. a reward is an adapter of a reward stage, or any function of prompts and replies;
2. training may go on from an adapter; then that adapter, frozen, is the reference, and not the base;
3. a response may end otherwise than with the next human turn.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite.artifacts import Reward
from lite.engine import load_bank, prepare_environment
from lite.errors import ArtifactError, RecipeError
from lite.evaluate.cache import key_of
from lite.knobs import BaseSpec
from lite.knobs.ppo import PpoSpec
from lite.library.policy import Model
from lite.model.adopt import AnyModel, PeftModel, Tokenizer, adopt, as_peft
from lite.model.bank import AdapterBank
from lite.model.encoding import encode
from lite.plan import effective
from lite.recipe import spec_of
from lite.runs.checkpoints import Checkpoint, Checkpoints
from lite.runs.journal import StageJournal
from lite.runs.layout import StageFolder
from lite.runs.progress import Counter, Screen
from lite.runs.publish import plain, write_json
from lite.runs.read import lines, read_json
from lite.stages.bench import Desk
from lite.stages.ppo import learn
from lite.stages.rollouts import POLICY, REFERENCE, REWARD, VALUE, Ids, Setting
from lite.text.dialogue import STOP

RewardFunction = Callable[[list[str], list[str]], Sequence[float]]
"""Told prompts and replies, as texts, it gives a number for each reply."""
ABOUT = "ppo.json"
"""What a checkpoint belongs to."""


class PPO:
    """PPO of one adapter against a reward, on one set of (4-bit) weights.

        def short(prompts, replies):
            return [-len(reply.split()) for reply in replies]

        trained = PPO("tiny", reward=short, steps=8, rollouts=32, minibatch=16).train([ask("How do I bake bread?"), ...], out="policy")
        trained.model.reply(["How do I bake bread?"])

    base: a Hub id, a folder, `tiny`, a :class:`~lite.knobs.BaseSpec`; or a transformers model or PeftModel that is loaded already,
        with its ``tokenizer``. A loaded model is taken over; a PeftModel's active LoRA adapter is what training goes on from
    reward: a function of prompts and replies, or the folder that a reward stage gave (``.../stages/03-reward/out``)
    start: an adapter's folder to go on from, in place of a fresh adapter
    stop: ends a response; None: the end-of-text token does. A response that does not end so earns ``no_stop_reward``
    knobs: those of the ppo stage, ``lite show ppo``
    """

    def __init__(
        self,
        base: str | BaseSpec | AnyModel = "tiny",
        *,
        reward: RewardFunction | str | Path,
        tokenizer: Tokenizer | None = None,
        start: str | Path | None = None,
        stop: str | None = STOP,
        seed: int = 17,
        **knobs: Any,
    ):
        self.base, self.reward, self.tokenizer, self.start, self.stop, self.seed = base, reward, tokenizer, start, stop, seed
        self.spec = spec_of(PpoSpec, knobs, where="PPO")
        if callable(reward) and self.spec.value_init == "reward":
            raise RecipeError("PPO", ["value_init: a function has no head that the value's could start from; leave it out"])
        if not isinstance(base, str | BaseSpec) and tokenizer is None:
            raise RecipeError("PPO", ["tokenizer: a loaded model needs one"])

    def train(
        self, prompts: Sequence[str], *, out: str | Path, dev: Sequence[str] = (), resume: bool = False, quiet: bool = False
    ) -> "Trained":
        """Train on prompts, texts as the model reads them. ``out`` gets adapter/, report.json, metrics.jsonl and samples.jsonl.

        dev: prompts on which the adapters of every ``save_every`` steps are compared; as many as ``dev_prompts`` says
        resume: go on from the last checkpoint in ``out``, if there is one of the same training
        """
        prepare_environment(offline=False)
        place = StageFolder(Path(out))
        resumed = self._prepare(place, [*prompts, *dev], resume=resume)
        bank, start = self._bank(place.path)
        encoded = [encode(bank.base.tokenizer, text) for text in prompts]
        kept = [encode(bank.base.tokenizer, text) for text in dev[: self.spec.dev_prompts]]
        texts = dict(zip([*encoded, *kept], [*prompts, *dev[: len(kept)]], strict=True))
        short = [ids for ids in encoded if len(ids) <= self.spec.max_prompt_tokens]
        if not short:
            raise ArtifactError(f"PPO: none of {len(prompts)} prompts has at most max_prompt_tokens = {self.spec.max_prompt_tokens} tokens")
        desk = Desk(
            seed=self.seed,
            stage="ppo",
            ckpt=place.ckpt,
            reporter=_Voice(place, Screen(quiet=quiet)),
            load_bank=lambda: bank,
            resumed=resumed,
        )
        setting = self._roles(bank, start, desk, texts)
        policy = learn(self.spec, bank, desk, short, kept, left_out=len(encoded) - len(short), out=place.path, setting=setting)
        shutil.rmtree(place.ckpt, ignore_errors=True)
        return Trained(policy.path, policy.report(), Model(bank, POLICY))

    def _bank(self, folder: Path) -> tuple[AdapterBank, Path | None]:
        """The base without adapters, and the adapter that training goes on from."""
        start = Path(self.start) if self.start is not None else None
        if isinstance(self.base, str | BaseSpec):
            return load_bank(BaseSpec(model=self.base) if isinstance(self.base, str) else self.base), start
        assert self.tokenizer is not None, "checked when this was made"
        base, found = adopt(self.base, self.tokenizer, keep=folder / "start")
        return AdapterBank(base), start or found

    def _roles(self, bank: AdapterBank, start: Path | None, desk: Desk, texts: Mapping[Ids, str]) -> Setting:
        """Put policy, reference, reward and value on the base."""
        spec, reward = self.spec, self.reward
        if start:
            bank.load(POLICY, start, trainable=True, dropout=spec.lora.dropout)
            bank.load(REFERENCE, start)
        else:
            bank.add(POLICY, spec.lora, seed=desk.seed_for("adapter"))
        if not callable(reward):
            scorer = Reward(Path(reward))
            bank.load(REWARD, scorer.adapter)
            bank.head(REWARD).load(scorer.head).requires_grad_(False)
        if spec.value == "separate" and callable(reward):
            bank.add(VALUE, spec.lora, seed=desk.seed_for("value"))
        elif spec.value == "separate":
            bank.copy(REWARD, VALUE)
        if spec.value_init == "reward":
            bank.head(VALUE).copy_from(bank.head(REWARD))
        bank.checkpointing(spec.checkpointing is True)
        asked = (lambda prompts, replies: _numbers(reward, [texts[ids] for ids in prompts], list(replies))) if callable(reward) else None
        return Setting(rewards=asked, stop=self.stop)

    def _prepare(self, place: StageFolder, texts: Sequence[str], *, resume: bool) -> Checkpoint | None:
        """The folder made ready, and the checkpoint to go on from: it is believed only where the same training wrote it."""
        named = self.base if isinstance(self.base, str | BaseSpec) else getattr(self.base, "name_or_path", None)
        reward = str(self.reward) if not callable(self.reward) else getattr(self.reward, "__qualname__", type(self.reward).__name__)
        facts = {"base": named, "reward": reward, "start": self.start, "stop": self.stop, "seed": self.seed, "knobs": effective(self.spec)}
        facts = plain(facts | {"prompts": key_of(texts=list(texts))})
        found, _ = Checkpoints(place.ckpt).newest() if resume else (None, [])
        if found and read_json(place.path / ABOUT) != facts:
            raise ArtifactError(
                f"{place.path}: its checkpoint is of another training (see {ABOUT}); choose another folder, or resume=False"
            )
        if not found:
            shutil.rmtree(place.ckpt, ignore_errors=True)
        place.ckpt.mkdir(parents=True, exist_ok=True)
        write_json(place.path / ABOUT, facts)
        StageJournal(place).cut(found.figures if found else {})
        return found


@dataclass(frozen=True)
class Trained:
    """What a training gave. ``path``/adapter is a plain PEFT folder; ``model`` can be asked at once, its ``base`` beside it."""

    path: Path
    report: dict[str, Any]
    model: Model

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    def metrics(self) -> list[dict[str, Any]]:
        """The figures of every step: reward, kl, entropy and the rest."""
        return list(lines(self.path / "metrics.jsonl"))

    def as_peft(self) -> PeftModel:
        """A plain PeftModel of the adapter, on the same loaded base. ``model`` cannot be used any more."""
        self.model.bank.clear()
        return as_peft(self.model.bank.base, self.adapter)


class _Voice:
    """A stage's voice, for a training that stands alone: to the files of its folder and to the screen."""

    def __init__(self, place: StageFolder, screen: Screen):
        self._files, self._screen = StageJournal(place), screen
        self.metric, self.show, self.figures = self._files.metric, self._files.show, self._files.sizes

    @contextmanager
    def progress(self, total: int, unit: str, what: str) -> Iterator[Counter]:
        with self._screen.progress("ppo", total, unit, what, lambda counter: None) as counter:
            yield counter

    def log(self, text: str) -> None:
        self._screen.say(f"ppo: {text}")


def _numbers(reward: RewardFunction, prompts: list[str], replies: list[str]) -> list[float]:
    found = [float(x) for x in reward(prompts, replies)]
    if len(found) != len(replies):
        raise ValueError(f"the reward function gave {len(found)} numbers for {len(replies)} replies")
    return found
