"""A recipe run from a program, and its policy talked to."""

import pytest

import lite
from lite.errors import ArtifactError, DivergedError, RecipeError

SMALL = (
    "prompts.train=24", "prompts.dev=2", "prompts.test=4", "preferences.pairs=24", "dpo.epochs=1", "dpo.batch_pairs=8",
    "dpo.eval_every=0", "dpo.keep=last", "dpo.lr=1e-2", "evaluate.draws=1", "evaluate.max_new_tokens=12",
)  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return lite.run("tiny_dpo_helpful", *SMALL, runs=tmp_path_factory.mktemp("runs"), label="mine", quiet=True)


def test_a_run_tells_its_figures(done):
    assert done.state == "done"
    assert "-mine-" in done.name
    assert set(done.report()["models"]) == {"base", "p_plus", "dpo"}


def test_its_policy_answers_and_so_does_the_base(done):
    policy = lite.load_policy(done.folder.path)
    questions = ["How do I bake bread?", "How do I make tea?"]
    replies = policy.reply(questions, seed=3, max_new_tokens=24)
    assert replies == policy.reply(questions, seed=3, max_new_tokens=24)
    assert replies[:1] == policy.reply(questions[:1], seed=3, max_new_tokens=24)
    assert replies != policy.base.reply(questions, seed=3, max_new_tokens=24)
    assert policy.write([lite.ask(questions[0])], seed=3, max_new_tokens=24)[0].strip().startswith(replies[0])


def test_going_on_repeats_nothing(done):
    again = lite.run("tiny_dpo_helpful", *SMALL, runs=done.folder.path.parent, resume=True, quiet=True)
    assert again.name == done.name
    assert again.facts["state"] == "done"


def test_what_ended_a_run_is_raised(done, tmp_path):
    with pytest.raises(DivergedError, match="dpo"):
        lite.run("tiny_dpo_helpful", *SMALL, "dpo.lr=1e30", "dpo.max_grad_norm=1e30", runs=tmp_path, quiet=True)


def test_mistakes_are_said(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'kl_coef'"):
        lite.run("tiny_rlcd_helpful", "ppo.klcoef=1", runs=tmp_path)
    with pytest.raises(RecipeError, match="a sweep of"):
        lite.run("tiny_rlcd_table", runs=tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="names no base"):
        lite.load_policy(tmp_path)
