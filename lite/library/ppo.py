"""PPO on a shared base without a recipe: prompts, a reward, a base. The same steps as the stage ``ppo``, line for line.

What differs from the stage:
1. a reward is an adapter of a reward stage, or any function of prompts and replies;
2. training may go on from an adapter; then that adapter, frozen, is the reference, and not the base;
3. a response may end otherwise than with the next human turn.
"""

import math
import reprlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

from lite.artifacts import Reward
from lite.engine import load_bank, prepare_environment
from lite.errors import ArtifactError, RecipeError
from lite.evaluate.cache import key_of
from lite.fit import cards, estimate
from lite.knobs import BaseSpec
from lite.knobs.ppo import PpoSpec
from lite.library.place import Place
from lite.library.policy import Model
from lite.library.texts import texts
from lite.model import adopt
from lite.model.adopt import AnyModel, PeftModel, Tokenizer
from lite.model.bank import AdapterBank
from lite.model.encoding import encode
from lite.model.plain import CONFIG, WEIGHTS
from lite.plan import Node, effective
from lite.recipe import Recipe, spec_of
from lite.runs.checkpoints import Checkpoints
from lite.runs.journal import StageJournal
from lite.runs.layout import StageFolder
from lite.runs.progress import Counter, Screen
from lite.runs.publish import file_digest, plain
from lite.runs.read import lines, read_json
from lite.stages.bench import Desk
from lite.stages.ppo import learn
from lite.stages.rollouts import POLICY, REFERENCE, REWARD, VALUE, Ids, Setting
from lite.text.dialogue import STOP

RewardFunction = Callable[[list[str], list[str]], Sequence[float]]
"""Told prompts and replies, as texts, it gives a number for each reply."""


class Asked(NamedTuple):
    """The prompts of a training as ids, those that are too long left out, and what each says."""

    train: list[Ids]
    dev: list[Ids]
    left_out: int
    texts: dict[Ids, str]


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
        self._named = base if isinstance(base, BaseSpec) else BaseSpec(model=base) if isinstance(base, str) else None
        self._loaded = None if isinstance(base, str | BaseSpec) else base
        headless = {"value_init": "zero"} if callable(reward) else {}  # whatever the preset says: a function has no head to start from
        self.spec = spec_of(PpoSpec, headless | knobs, where="PPO")
        if callable(reward) and self.spec.value_init == "reward":
            raise RecipeError("PPO", ["value_init: a function has no head that the value's could start from; take value_init='zero'"])
        if not callable(reward) and not isinstance(reward, str | Path):
            raise RecipeError("PPO", [f"reward: a function or a reward stage's folder is needed (got {reprlib.repr(reward)})"])
        if self._loaded is not None and tokenizer is None:
            raise RecipeError("PPO", ["tokenizer: a loaded model needs one"])
        self._refuse_missing_folders()

    def train(
        self, prompts: Iterable[str], *, out: str | Path, dev: Iterable[str] = (), resume: bool = False, quiet: bool = False
    ) -> "Trained":
        """Train on prompts, texts as the model reads them. ``out`` gets adapter/, report.json, metrics.jsonl and samples.jsonl.

        out: a folder for this training alone: one that holds another, or anything of these names, is refused
        dev: prompts on which the adapters of every ``save_every`` steps are compared; as many as ``dev_prompts`` says
        resume: go on from the last checkpoint in ``out`` if it is of this very training; one that is finished is given back as it is
        A model that was given loaded is given back as it came where training fails.
        """
        prepare_environment(offline=False)
        self._refuse_missing_folders()
        place, screen = Place(Path(out)), Screen(quiet=quiet)
        told, compared = texts(prompts, "prompts"), self._compared(dev)
        asked = None
        if self._loaded is not None and self.tokenizer is not None:  # a loaded model is not touched before all else is seen to be good
            adopt.refuse_unfit(self._loaded)
            asked = self._encoded(self.tokenizer, told, compared)
        facts = self._facts(told, compared)
        place.refuse_others(facts, resume=resume)
        with place.claimed(facts), self._bank(place) as (bank, start):
            if place.finished:
                bank.load(POLICY, place.adapter)
                screen.say(f"ppo: {place.path} holds this training, finished; nothing was trained")
            else:
                asked = asked or self._encoded(bank.base.tokenizer, told, compared)
                self._learn(bank, start, place, asked, screen)
        shutil.rmtree(place.ckpt, ignore_errors=True)
        return Trained(place.path, read_json(place.report), Model(bank, POLICY))

    def _learn(self, bank: AdapterBank, start: Path | None, place: Place, asked: Asked, screen: Screen) -> None:
        """From the newest checkpoint, if there is one, to the end."""
        voice = _Voice(place, screen)
        resumed, problems = Checkpoints(place.ckpt).newest()
        for problem in problems:
            voice.log(problem)
        StageJournal(place).cut(resumed.figures if resumed else {})
        desk = Desk(seed=self.seed, stage="ppo", ckpt=place.ckpt, reporter=voice, load_bank=lambda: bank, resumed=resumed)
        setting = self._roles(bank, start, desk, asked.texts)
        learn(self.spec, bank, desk, asked.train, asked.dev, left_out=asked.left_out, out=place.path, setting=setting)

    def _refuse_missing_folders(self) -> None:
        files: dict[str, tuple[str | Path | None, tuple[str, ...], str]] = {
            "start": (self.start, (CONFIG, WEIGHTS), "an adapter's folder is needed")
        }
        if not callable(self.reward):
            parts = (f"adapter/{CONFIG}", f"adapter/{WEIGHTS}", "head.safetensors")
            files["reward"] = (self.reward, parts, "a function is needed, or the folder that a reward stage gave, .../stages/03-reward/out")
        for what, (folder, names, needed) in files.items():
            if folder is not None and (missing := [name for name in names if not (Path(folder) / name).is_file()]):
                raise ArtifactError(f"{what}: {folder} has no {' and no '.join(missing)}; {needed}")

    def _compared(self, dev: Iterable[str]) -> list[str]:
        """The dev prompts that are wanted."""
        found, wanted = texts(dev, "dev", none=True), self.spec.dev_prompts
        if bool(found) != bool(wanted):
            raise RecipeError(
                "PPO", [f"dev: {len(found)} texts, and dev_prompts = {wanted}: give both, or neither to keep the last adapter"]
            )
        return found[:wanted]

    def _encoded(self, tokenizer: Tokenizer, told: Sequence[str], compared: Sequence[str]) -> Asked:
        longest = self.spec.max_prompt_tokens
        train, dev = ([(encode(tokenizer, text), text) for text in part] for part in (told, compared))
        short, short_dev = ([ids for ids, _ in part if len(ids) <= longest] for part in (train, dev))
        for what, part, kept in (("prompts", train, short), ("dev prompts", dev, short_dev)):
            if part and not kept:
                raise ArtifactError(f"PPO: none of {len(part)} {what} has at most max_prompt_tokens = {longest} tokens")
        return Asked(short, short_dev, len(train) - len(short), dict([*train, *dev]))

    def _facts(self, told: list[str], compared: list[str]) -> dict[str, Any]:
        """What makes a training this one."""
        reward, loaded = self.reward, self._loaded
        start = file_digest(Path(self.start) / WEIGHTS) if self.start is not None else adopt.digest_of_adapter(loaded)
        return plain(
            {
                "base": effective(self._named) if self._named else _as_loaded(loaded),
                "reward": getattr(reward, "__qualname__", type(reward).__name__) if callable(reward) else str(reward),
                "start": self.start,
                "stop": self.stop,
                "seed": self.seed,
                "knobs": effective(self.spec),
                "digests": {"prompts": key_of(texts=told), "dev prompts": key_of(texts=compared), "weights at the start": start},
            }
        )

    @contextmanager
    def _bank(self, place: Place) -> Iterator[tuple[AdapterBank, Path | None]]:
        """The base without adapters, and the adapter that training goes on from."""
        start = Path(self.start) if self.start is not None else None
        if self._named is not None:
            yield load_bank(self._named), start
            return
        assert self._loaded is not None
        assert self.tokenizer is not None, "checked when this was made"
        with adopt.adopted(self._loaded, self.tokenizer, keep=place.start) as (base, found):
            yield AdapterBank(base), start or found

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
        bank.checkpointing(_checkpointing(spec, bank, self._named))
        asked = (lambda prompts, replies: _numbers(reward, [texts[ids] for ids in prompts], list(replies))) if callable(reward) else None
        return Setting(rewards=asked, stop=self.stop)


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
        return adopt.as_peft(self.model.bank.base, self.adapter)


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


def _as_loaded(model: Any) -> dict[str, Any]:
    """What can be told of a base that somebody else has loaded."""
    return {"model": getattr(model, "name_or_path", None) or None, "quantize": adopt.kind_of_weights(model)}


def _checkpointing(spec: PpoSpec, bank: AdapterBank, base: BaseSpec | None) -> bool:
    """The knob; ``auto`` is decided for this machine's card, as the engine decides it for the stage."""
    if spec.checkpointing != "auto":
        return spec.checkpointing
    if base is None:
        quantize = "nf4" if adopt.kind_of_weights(bank.base.model) == "nf4" else "none"
        base = BaseSpec(model=bank.base.source, quantize=quantize, device="cpu" if bank.base.device.type == "cpu" else "cuda")
    alone = Recipe(name="PPO", base=base, seed=0, task="helpful", stages=())
    (settled,) = estimate.settle(alone, [Node(1, "ppo", "ppo", spec, {}, {}, "")], cards.this_card())
    return getattr(settled.spec, "checkpointing", None) is True


def _numbers(reward: RewardFunction, prompts: list[str], replies: list[str]) -> list[float]:
    """What a reward function gave for replies: a finite number for each, or a :class:`RecipeError` that says where it is none."""
    given, n = reward(prompts, replies), len(replies)
    try:
        found = None if isinstance(given, str | bytes | Mapping) else iter(given)
    except TypeError:  # also tensors and arrays of no dimension
        found = None
    if found is None:
        raise RecipeError("reward", [f"the function gave {reprlib.repr(given)}, not a number for each of {n} replies"])
    numbers = list(found)
    if len(numbers) != n:
        raise RecipeError("reward", [f"the function gave {len(numbers)} numbers for {n} replies"])
    wrong = [i for i, number in enumerate(numbers) if not _is_number(number)]
    if wrong:
        i = wrong[0]
        raise RecipeError(
            "reward",
            [f"the function gave {reprlib.repr(numbers[i])} for reply {i + 1} of {n} ({replies[i]!r:.60}), not one finite number"],
        )
    return [float(number) for number in numbers]


def _is_number(value: Any) -> bool:
    return isinstance(value, SupportsFloat) and getattr(value, "shape", ()) == () and math.isfinite(float(value))
