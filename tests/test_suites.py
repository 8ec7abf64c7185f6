"""`lite eval --suite` on a run with real scorers: who is asked, what stands in the table, and where it is kept."""

import json

import pytest

from lite import suites
from lite.artifacts import Reward
from lite.errors import RecipeError
from lite.model.encoding import encode_row
from lite.model.forward import reward_rows
from lite.stages import contests as scorers
from lite.text.dialogue import STOP

from .export.conftest import bank, run, trained  # noqa: F401  fixtures

ROWS = [
    {"prompt": "How can I bake bread?", "chosen": "You need flour and yeast.", "rejected": "I don't know.", "subset": "chat"},
    {"prompt": "Where can I fly a kite?", "chosen": "Do it at the beach.", "rejected": "Do it at the oven.", "subset": "chat"},
    {"prompt": "When can I plant roses?", "chosen": "In spring.", "rejected": "In spring.", "subset": "same"},
]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "rb.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return tmp_path / "rb.jsonl"


def test_the_runs_scorers_on_labelled_pairs(run, bank, file, monkeypatch):  # noqa: F811
    monkeypatch.setattr(suites, "_bank", lambda base: bank)
    said: list[str] = []
    found = suites.pairs(run, file, model=None, limit=None, say=said.append)
    assert list(found["scorers"]) == ["reward", "base by letters"]  # no judge stage in this recipe, so nobody judges in words
    assert found["scorers"]["reward"]["same"] == {"accuracy": 0.5, "scored": 1, "ties": 1, "unreadable": 0}
    assert found["scorers"]["base by letters"]["same"]["ties"] == 1
    assert found["scorers"]["reward"]["all"]["scored"] == 3
    assert json.loads(run.folder.evals("reward-bench-rb").read_text(encoding="utf-8"))["pairs"] == 3
    table = suites.text(found)
    assert table.splitlines()[0].split() == ["subset", "pairs", "reward", "base", "by", "letters"] and "0.500 (1 ties)" in table
    assert bank.names == ()  # nobody is left on the base


def test_a_reward_is_what_the_reward_stage_would_give(run, bank, file):  # noqa: F811
    """Chosen and rejected stand under their own prompts, each with the string that ends it."""
    from lite import tasks
    from lite.evaluate.rewardbench import read_contests

    reward = Reward(next(r for r in run.stages() if r.id == "reward").folder.out)
    contests = read_contests(file, tasks.load("helpful"))
    found = scorers.by_reward(bank, reward, contests)
    bank.load("again", reward.adapter)
    bank.head("again").load(reward.head)
    for contest, pair in zip(contests, found, strict=True):
        for response, score in zip((contest.chosen, contest.rejected), pair, strict=True):
            row = encode_row(bank.base.tokenizer, contest.prompt, response + STOP)
            assert score == pytest.approx(float(reward_rows(bank, [row], role="again", micro_tokens=512)), abs=1e-4)
    bank.clear()


def test_the_judge_of_a_self_rewarding_run(run, bank, file, tmp_path, monkeypatch):  # noqa: F811
    """Each response is judged ``draws`` times under its own place, and its mean counts; what cannot be read has no score."""
    from lite import recipe, tasks
    from lite.artifacts import Policy
    from lite.evaluate.rewardbench import read_contests
    from lite.knobs.rounds import JudgingSpec
    from lite.records import Judgement
    from lite.stages.reviews import Court

    asked = []

    def judge(self, questions, draws, bar=None):
        asked.extend((q.id, q.k, q.response, tuple(draws)) for q in questions)
        scores = {(0, 0): [5, 4], (0, 1): [1, None], (1, 0): [None, None]}
        return [
            Judgement(q.id, q.k, d, "", "turn", scores.get((i // 2, q.k), [2, 2])[d]) for i, q in enumerate(questions) for d in draws
        ]  # fmt: skip

    monkeypatch.setattr(Court, "judge", judge)
    contests = read_contests(file, tasks.load("helpful"))
    policy = Policy(next(r for r in run.stages() if r.id == "ppo").folder.out)
    loaded = recipe.load(run.folder.resolved)
    with suites._bench(loaded, bank, lambda text: None) as bench:
        found = scorers.by_judge(bank, policy, contests, JudgingSpec(draws=2, template="judge_micro"), bench)
    assert found == [(4.5, 1), (None, 2), (2, 2)]
    assert asked[0] == ("0-", 0, " You need flour and yeast.", (0, 1)) and len(asked) == 6
    assert bank.names == ()


def test_a_suite_is_spelt_so():
    assert suites.parse("lm-eval:gsm8k,arc") == ("lm-eval", "gsm8k,arc")
    for wrong in ("lm-eval", "lmeval:arc", "reward-bench:"):
        with pytest.raises(RecipeError, match=r"lm-eval:TASK,TASK or reward-bench:FILE\.jsonl"):
            suites.parse(wrong)
    with pytest.raises(RecipeError) as unlike:
        suites.parse("foo:x")
    assert str(unlike.value).count("reward-bench") == 1
