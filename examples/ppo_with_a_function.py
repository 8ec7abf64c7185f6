"""PPO against a Python function, on the embedded tiny base: no recipe, no reward model, no GPU. Some seconds on one core.

    python examples/ppo_with_a_function.py

The function here rewards replies that speak to the reader and are short. Any function will do that is told prompts and replies and
gives a number for each reply: a unit test, a regular expression, a classifier, a call to another model. For a real base, change the
first argument to a Hub id, and the prompts to yours.
"""

import sys
from pathlib import Path

from lite import PPO, ask

THINGS = ("bread", "a shelf", "beans", "soup", "a kite", "a lamp", "tea", "a garden", "a boat", "a chair", "rice", "a fence")
PROMPTS = [ask(f"How do I {verb} {thing}?") for thing in THINGS for verb in ("make", "clean")]


def friendly_and_short(prompts: list[str], replies: list[str]) -> list[float]:
    """Two for a reply that says "you" or "your", less a tenth for every word."""
    return [2.0 * bool({"you", "your"} & set(reply.lower().split())) - 0.1 * len(reply.split()) for reply in replies]


def main(out: Path) -> tuple[float, float]:
    """The mean reward of the first and of the last step."""
    ppo = PPO(
        "tiny", reward=friendly_and_short, steps=6, rollouts=32, minibatch=16, lr=3e-3, warmup_steps=0, kl_coef=0.02, max_new_tokens=48
    )
    trained = ppo.train(PROMPTS, out=out, resume=True)  # run again, it gives back what is finished there
    steps = trained.metrics()
    first, last = steps[0]["reward"], steps[-1]["reward"]
    print(f"mean reward {first:.2f} -> {last:.2f}; KL to the base {steps[-1]['kl']:.2f} nats per reply")
    questions = ["How do I bake bread?", "How do I sew a shirt?", "How do I plant beans?"]
    for name, model in (("base", trained.model.base), ("policy", trained.model)):
        for question, reply in zip(questions, model.reply(questions, seed=1, max_new_tokens=48), strict=True):
            print(f"{name:7}{question}  {reply}")
    print(f"the adapter, plain PEFT: {trained.adapter}")
    return first, last


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "policy"))
