"""PPO against a reward model, all on one set of 4-bit weights (Schulman et al. 2017; Ouyang et al. 2022).

Policy and value are trained adapters, the reward model is a frozen one, the reference is where the policy starts: the base with every
adapter off, or, where the recipe names a policy, a frozen copy of it (so PPO can take DPO's place in a self-rewarding round).
Preset ``rlcd`` follows AlpacaFarm's PPO as Yang et al. 2023 used it, ``n_plus`` Huang et al. 2024, with three differences:
1. losses, whitening and KL see response tokens up to the stop string only, never padding or what would come after;
2. policy and value loss are two backward passes, each inside its own role (a sum would be recomputed under one adapter);
3. a kept adapter holds exactly the updates that its name says.
"""

import math
import resource
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lite.artifacts import Policy, Prompts, Reward
from lite.chance import random_for
from lite.errors import ArtifactError, DivergedError
from lite.knobs.ppo import PpoSpec
from lite.model.bank import AdapterBank
from lite.model.encoding import encode
from lite.model.forward import collate, hidden_states, refine, response_logprobs, response_values
from lite.model.memory import TRAIN
from lite.model.optim import LossScale, adamw, clip_and_check, set_rate, warmup_linear
from lite.model.state import State, load_state, save_state
from lite.objectives.kl_control import AdaptiveKl, FixedKl, KlControl
from lite.objectives.masks import masked_mean
from lite.objectives.ppo import ValueTerms, explained_variance, policy_loss, value_loss
from lite.objectives.scores import Moments
from lite.records import Prompt
from lite.runs.publish import write_json
from lite.stages.bench import Bench, Desk
from lite.stages.rollouts import (
    POLICY,
    REFERENCE,
    REWARD,
    STAGE,
    VALUE,
    Advantages,
    Groups,
    Ids,
    Rollouts,
    Setting,
    appraise,
    divide,
    look,
    shared_out,
    widest,
    write,
)
from lite.stages.tuning import begin
from lite.text.dialogue import prompt as plain_prompt

SHOWN = 4


def ppo(spec: PpoSpec, *, prompts: Prompts, reward: Reward, policy: Policy | None, out: Path, bench: Bench) -> Policy:
    bank = bench.bank()
    train, left_out = _encoded(prompts.rows("train"), spec, bank, bench)
    if not train:
        raise ArtifactError(f"{prompts.path}: every prompt is longer than ppo.max_prompt_tokens = {spec.max_prompt_tokens}")
    _set_up(spec, reward, policy, bank, bench)
    dev, _ = _encoded(prompts.rows("dev")[: spec.dev_prompts], spec, bank, bench)
    return learn(spec, bank, bench, train, dev, left_out=left_out, out=out)


def learn(
    spec: PpoSpec, bank: AdapterBank, bench: Desk, train: list[Ids], dev: list[Ids], *, left_out: int, out: Path, setting: Setting = STAGE
) -> Policy:
    """Train the policy that is on the bank, its other roles beside it, to the end; the adapter and its report in ``out``."""
    trainer = Trainer(spec, bank, bench, train, setting)
    best = Best(spec, bank, bench, dev, setting)
    last_good = bank.snapshot(POLICY)
    figures: dict[str, float] = {}
    done = 0

    def save(folder: Path) -> None:
        weights = trainer.weights() | {"last good": last_good} | best.weights()
        save_state(folder, weights=weights, optimizer=trainer.optimizer, facts=trainer.facts() | {"best": best.rewards, "figures": figures})

    if bench.resumed:
        found = load_state(bench.resumed.path, trainer.optimizer)
        trainer.restore(found)
        best.restore(found)
        last_good, figures, done = found.weights["last good"], found.facts["figures"], bench.resumed.step
    with bench.progress(spec.steps, "steps", "ppo: rollouts and updates") as bar:
        bar.advance(done)
        for step in range(done, spec.steps):
            torch.manual_seed(bench.seed_for("dropout", step))
            before = bank.snapshot(POLICY)
            try:
                figures = trainer.step(step)
            except DivergedError as e:
                _keep(bank, last_good, bench.ckpt / "last-good")
                raise DivergedError(f"{e}; the last good adapter is kept in {bench.ckpt / 'last-good'}") from e
            last_good = before
            bench.metric(step=step + 1, **figures)
            bar.advance(1, reward=figures["reward"], kl=figures["kl"], tokens_per_s=figures["tokens_per_s"])
            if (step + 1) % spec.save_every == 0 or step + 1 == spec.steps:
                best.consider(step + 1)
            bench.keep(step + 1, spec.steps, save, every=spec.save_every)
    chosen = best.settle(spec.steps)
    bank.checkpointing(False)
    bank.save(POLICY, out / "adapter")
    report = {
        "steps": chosen,
        "updates": chosen * spec.updates_per_step,
        "prompts": len(train),
        "prompts_too_long": left_out,
        "adapter_change": bank.change(POLICY),
        "dev_reward": best.rewards,
        "last": figures,
    }
    write_json(out / "report.json", report)
    picked = f"dev reward {best.rewards[chosen]:.2f}, the best of {len(best.rewards)} kept" if best.rewards else "the last"
    last = f"reward {figures['reward']:.2f}, KL {figures['kl']:.2f} nats per response"
    bench.log(f"policy of step {chosen} ({picked}); step {spec.steps} had {last}")
    return Policy(out)


class Trainer:
    """The state of a PPO run and one step of it: roll out, score, update."""

    def __init__(self, spec: PpoSpec, bank: AdapterBank, bench: Desk, prompts: list[Ids], setting: Setting = STAGE):
        self.spec, self.bank, self.bench, self.prompts, self.setting = spec, bank, bench, prompts, setting
        self.policy_parameters = bank.parameters(POLICY)
        joint = spec.value == "joint"
        self.value_parameters = [*([] if joint else bank.parameters(VALUE)), *bank.head(VALUE).parameters()]
        value_lr = spec.value_lr or spec.lr
        self.optimizer = adamw([(self.policy_parameters, spec.lr), (self.value_parameters, value_lr)], eps=spec.adam_eps)
        self.scale = LossScale(bank.vocabulary.dtype)
        self.moments: Moments | None = None
        self.control: KlControl = (
            FixedKl(spec.kl_coef)
            if spec.kl_control == "fixed"
            else AdaptiveKl(spec.kl_coef, target=spec.kl_target, horizon=spec.kl_horizon)
        )

    def step(self, step: int) -> dict[str, float]:
        """One PPO step; its figures. Raises :class:`DivergedError` before a bad update reaches the weights."""
        spec, bench = self.spec, self.bench
        began = time.monotonic()
        which = self._turn(step)
        prompts = [self.prompts[i] for i in which]
        written = write(
            spec, self.bank, prompts, [bench.seed_for("rollout", step, k) for k in range(len(which))], self.setting, bench.ranks
        )
        rolled = time.monotonic()
        lengths = [len(p) + len(g.ids) for p, g in zip(prompts, written, strict=True)]
        plans = [divide(spec, lengths, self._order(step, epoch)) for epoch in range(spec.epochs)]
        rollouts = look(spec, self.bank, prompts, written, plans[0], self.setting, bench.ranks)
        if spec.scale_reward and self.moments is None:  # the policy of the first step is the reference: these are its own replies
            self.moments = Moments.of(rollouts.rewards[rollouts.finished])
        gains = appraise(spec, rollouts, kl_coef=self.control.coef, moments=self.moments)
        figures = self._describe(rollouts, gains)
        self._refuse_runaway(step, figures)
        scored = time.monotonic()
        set_rate(self.optimizer, warmup_linear(step, spec.steps, spec.warmup_steps))
        figures |= self._update(step, plans, rollouts, gains)
        self.control.update(figures["kl"], len(which))
        ended = time.monotonic()
        for k in range(min(SHOWN, len(which))):
            bench.show(
                step=step + 1,
                prompt=self.bank.base.tokenizer.decode(list(prompts[k]), skip_special_tokens=True),
                response=rollouts.texts[k],
                reward=float(gains.scores[k]),
            )
        tokens = int(rollouts.keep.sum())
        return figures | {
            "lr": self.optimizer.param_groups[0]["lr"],
            "adapter_change": self.bank.change(POLICY),
            "tokens_per_s": tokens / max(rolled - began, 1e-9),
            "seconds_rollout": rolled - began,
            "seconds_score": scored - rolled,
            "seconds_update": ended - scored,
            "memory_gib": memory_gib(),
        }

    def weights(self) -> dict[str, Mapping[str, Tensor]]:
        """Everything that training changes, by role."""
        adapters = [POLICY] if self.spec.value == "joint" else [POLICY, VALUE]
        found: dict[str, Mapping[str, Tensor]] = {role: self.bank.snapshot(role) for role in adapters}
        return found | {"head": self.bank.head(VALUE).state_dict()}

    def facts(self) -> dict[str, Any]:
        """What a step leaves to the next besides weights and optimiser."""
        return {
            "moments": asdict(self.moments) if self.moments else None,
            "kl_control": self.control.state_dict(),
            "loss_scale": self.scale.state_dict(),
        }

    def restore(self, state: State) -> None:
        for role in self.weights().keys() - {"head"}:
            self.bank.restore(role, state.weights[role])
        self.bank.head(VALUE).load_state_dict(state.weights["head"])
        self.moments = Moments(**state.facts["moments"]) if state.facts["moments"] else None
        self.control.load_state_dict(state.facts["kl_control"])
        self.scale.load_state_dict(state.facts["loss_scale"])

    def _turn(self, step: int) -> list[int]:
        """The prompts of a step: every prompt comes once before any comes twice."""
        n, first = len(self.prompts), step * self.spec.rollouts
        deals: dict[int, list[int]] = {}
        turn = []
        for place in range(first, first + self.spec.rollouts):
            deal, k = divmod(place, n)
            if deal not in deals:
                deals[deal] = random_for(self.bench.seed, self.bench.stage, "deal", deal).sample(range(n), n)
            turn.append(deals[deal][k])
        return turn

    def _order(self, step: int, epoch: int) -> list[int]:
        return random_for(self.bench.seed, self.bench.stage, "order", step, epoch).sample(range(self.spec.rollouts), self.spec.rollouts)

    def _describe(self, rollouts: Rollouts, gains: Advantages) -> dict[str, float]:
        keep = rollouts.keep
        return {
            "reward": float(gains.scores.mean()),
            "reward_std": float(gains.scores.std(correction=0)),
            "kl": float(gains.kl.mean()),
            "kl_coef": self.control.coef,
            "entropy": float(masked_mean(rollouts.entropy, keep)),
            "stop_rate": float(rollouts.finished.float().mean()),
            "response_tokens": float(keep.sum(1).float().mean()),
            "explained_variance": float(explained_variance(rollouts.values, gains.returns, keep)),
        }

    def _refuse_runaway(self, step: int, figures: dict[str, float]) -> None:
        for name in ("reward", "kl", "entropy"):
            if not math.isfinite(figures[name]):
                raise DivergedError(f"ppo step {step + 1}: {name} is {figures[name]}; lower ppo.lr or check the reward model")
        if figures["kl"] > self.spec.max_kl:
            raise DivergedError(
                f"ppo step {step + 1}: KL to the reference is {figures['kl']:.1f} nats per response, over ppo.max_kl = {self.spec.max_kl:g}; "
                "raise ppo.kl_coef or lower ppo.lr"
            )

    def _update(self, step: int, plans: list[Groups], rollouts: Rollouts, gains: Advantages) -> dict[str, float]:
        """All epochs of one step; figures are means over its optimiser updates.

        They stay tensors until the end: a number that is read makes the CPU wait for the GPU.
        """
        sums: dict[str, float | Tensor] = {}
        peaks: list[Tensor] = []
        minibatches = [minibatch for plan in plans for minibatch in plan]
        for minibatch in minibatches:
            terms, peak = self._accumulate(minibatch, rollouts, gains)
            self.bench.ranks.add_gradients([*self.policy_parameters, *self.value_parameters])
            self.scale.unscale([*self.policy_parameters, *self.value_parameters])
            terms["grad_norm"] = clip_and_check(self.policy_parameters, self.spec.max_grad_norm, f"ppo step {step + 1}")
            terms["value_grad_norm"] = clip_and_check(self.value_parameters, self.spec.max_grad_norm, f"ppo step {step + 1}, value")
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            sums = {name: sums.get(name, 0.0) + value for name, value in terms.items()}
            peaks.append(peak)
        figures = {name: float(value) / len(minibatches) for name, value in sums.items()}
        return figures | {"ratio_max": float(torch.stack(peaks).max()), "ratio_first": float(peaks[0])}

    def _accumulate(self, minibatch: list[list[int]], rollouts: Rollouts, gains: Advantages) -> tuple[dict[str, float | Tensor], Tensor]:
        """Gradients of one minibatch, micro-batch by micro-batch; its figures, and its largest ratio."""
        rows = torch.tensor([i for group in minibatch for i in group], device=rollouts.keep.device)
        total = rollouts.keep[rows].sum()
        own = shared_out(minibatch, self.bench.ranks)

        def attempt(tokens: int) -> tuple[dict[str, float | Tensor], Tensor]:
            terms: dict[str, float | Tensor] = {}
            ratios: list[Tensor] = []
            for group in refine(own, [len(row) for row in rollouts.rows], tokens=tokens):
                part, ratio = self._backward(group, rollouts, gains, total)
                terms = {name: terms.get(name, 0.0) + value for name, value in part.items()}
                ratios.append(ratio)
            return terms, torch.stack(ratios).max() if ratios else torch.zeros((), device=rows.device)

        terms, peak = self.bank.budget.spend(TRAIN, widest(own, rollouts.rows), attempt, undo=self.optimizer.zero_grad)
        return (terms, peak) if self.bench.ranks.count == 1 else self._of_all(terms, peak)

    def _of_all(self, terms: dict[str, float | Tensor], peak: Tensor) -> tuple[dict[str, float | Tensor], Tensor]:
        """Everybody's shares of the figures together."""
        told = self.bench.ranks.gather(({name: float(value) for name, value in terms.items()}, float(peak)))
        names = dict.fromkeys(name for part, _ in told for name in part)
        return {name: sum(part.get(name, 0.0) for part, _ in told) for name in names}, peak.new_tensor(max(one for _, one in told))

    def _backward(self, group: list[int], rollouts: Rollouts, gains: Advantages, total: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Add one micro-batch's gradients; its share of the minibatch's figures, and its largest ratio."""
        spec, bank = self.spec, self.bank
        batch = collate([rollouts.rows[i] for i in group], pad_id=bank.base.pad_id, device=bank.base.device)
        index, span = torch.tensor(group, device=bank.base.device), batch.keep.shape[1]

        def of(x: Tensor) -> Tensor:
            return x[index, :span]

        def value_terms(hidden: Tensor) -> ValueTerms:
            values = response_values(hidden, bank.head(VALUE), batch)
            return value_loss(values, of(rollouts.values), of(gains.returns), batch.keep, clip=spec.value_clip, total=total)

        with bank.using(POLICY, training=True) as trunk:
            hidden = hidden_states(trunk, batch)
            logp = response_logprobs(hidden, bank.vocabulary, batch, temperature=spec.temperature).logp
            policy = policy_loss(logp, of(rollouts.logp), of(gains.advantages), batch.keep, clip=spec.clip, total=total)
            value = value_terms(hidden) if spec.value == "joint" else None  # both heads sit on one adapter: one backward pass is right
            self.scale.backward(policy.loss + spec.value_coef * value.loss if value else policy.loss)
        if value is None:
            with bank.using(VALUE, training=True) as trunk:
                value = value_terms(hidden_states(trunk, batch))
                self.scale.backward(spec.value_coef * value.loss)
        figures = {
            "policy_loss": policy.loss.detach(),
            "value_loss": value.loss.detach(),
            "clip_fraction": policy.clip_fraction,
            "value_clip_fraction": value.clip_fraction,
            "approx_kl": policy.approx_kl,
        }
        return figures, policy.ratio_max


class Best:
    """The kept adapter that the method's own reward model likes best on the dev prompts (Yang et al. 2023); without prompts, the last."""

    def __init__(self, spec: PpoSpec, bank: AdapterBank, bench: Desk, prompts: list[Ids], setting: Setting = STAGE):
        self.spec, self.bank, self.bench, self.prompts, self.setting = spec, bank, bench, prompts, setting
        self.rewards: dict[int, float] = {}
        self._weights: dict[str, Tensor] = {}

    def consider(self, step: int) -> None:
        if not self.prompts:
            return
        seeds = [self.bench.seed_for("dev", k) for k in range(len(self.prompts))]
        written = write(self.spec, self.bank, self.prompts, seeds, self.setting, self.bench.ranks)
        lengths = [len(p) + len(g.ids) for p, g in zip(self.prompts, written, strict=True)]
        plan = divide(self.spec, lengths, range(len(lengths)))
        rollouts = look(self.spec, self.bank, self.prompts, written, plan, self.setting, self.bench.ranks)
        scores = torch.where(rollouts.finished, rollouts.rewards, rollouts.rewards.min().expand_as(rollouts.rewards))
        found = float(scores.mean())
        if not self.rewards or found > max(self.rewards.values()):
            self._weights = self.bank.snapshot(POLICY)
        self.rewards[step] = found
        self.bench.metric(step=step, dev_reward=found, dev_stop_rate=float(rollouts.finished.float().mean()))

    def weights(self) -> dict[str, Mapping[str, Tensor]]:
        return {"best": self._weights} if self._weights else {}

    def restore(self, state: State) -> None:
        self.rewards = {int(step): reward for step, reward in state.facts["best"].items()}
        self._weights = state.weights.get("best", {})

    def settle(self, last: int) -> int:
        """Put the best adapter back; the step that it is from."""
        if not self.rewards:
            return last
        self.bank.restore(POLICY, self._weights)
        return max(self.rewards, key=lambda step: (self.rewards[step], -step))


def memory_gib() -> float:
    """Peak memory so far: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _encoded(rows: list[Prompt], spec: PpoSpec, bank: AdapterBank, bench: Bench) -> tuple[list[Ids], int]:
    """Prompts that are short enough, and how many were not."""
    ids = [encode(bank.base.tokenizer, plain_prompt(row.turns, lead=bench.task.lead)) for row in rows]
    short = [p for p in ids if len(p) <= spec.max_prompt_tokens]
    return short, len(ids) - len(short)


def _set_up(spec: PpoSpec, reward: Reward, policy: Policy | None, bank: AdapterBank, bench: Bench) -> None:
    """The four roles: a policy (fresh, or one to go on from), the frozen reward model, a value model that starts from it, the reference."""
    begin(bank, policy, spec.lora, bench)
    bank.load(REWARD, reward.adapter)
    bank.head(REWARD).load(reward.head).requires_grad_(False)
    if spec.value == "separate":
        bank.copy(REWARD, VALUE)
    if policy:
        bank.load(REFERENCE, policy.adapter)
    if spec.value_init == "reward":
        bank.head(VALUE).copy_from(bank.head(REWARD))
    bank.checkpointing(spec.checkpointing is True)  # the engine has settled `auto`


def _keep(bank: AdapterBank, weights: dict[str, Tensor], folder: Path) -> None:
    bank.restore(POLICY, weights)
    bank.save(POLICY, folder)
