"""Two processes on one recipe: the same pairs, the same losses, the same weights as one process with the same batches."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from lite import parallel, recipe
from lite.errors import JudgeError, LiteError, PreconditionError, RecipeError, Stopped
from lite.runs import read
from lite.runs.ranks import LAUNCHED, Group, Ranks, join, launched
from tests.evaluate.stub import Response, Stub, served
from tests.runs.test_ranks import free_port

ROOT = Path(__file__).parents[2]
RECIPE = """
base: {model: tiny, device: cpu}
seed: 17
task: helpful
stages:
  - prompts: {train: 13, dev: 3, test: 1}
  - contrast: {max_new_tokens: 32, attempts: 2, batch_rows: 2}
  - reward: {epochs: 1, lr: 1e-3, batch_pairs: 5}
  - ppo: {steps: 2, rollouts: 9, minibatch: 5, epochs: 1, lr: 1e-3, max_new_tokens: 20, dev_prompts: 3, save_every: 1, warmup_steps: 0}
  - dpo: {epochs: 1, lr: 1e-3, batch_pairs: 5, held_out: 0.2}
"""


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHED and not name.lower().endswith("_proxy")}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | more


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One process's run, and two processes'."""
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "small.yaml").write_text(RECIPE, encoding="utf-8")
    launchers = {"one": (), "two": ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")}
    found = {}
    for name, launcher in launchers.items():
        command = [sys.executable, *launcher, "-m", "lite.cli", "run", str(folder / "small.yaml"), "--runs", str(folder / name), "-q"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment(), timeout=500, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        (found[name],) = read.all_runs(folder / name)
    return found["one"], found["two"]


def stage(run, id):
    return next(record for record in run.stages() if record.id == id)


def metrics(run, id):
    return [json.loads(line) for line in stage(run, id).folder.metrics.read_text().splitlines()]


def test_there_is_one_run_and_it_is_done(runs):
    one, two = runs
    assert [r.id for r in two.stages()] == [r.id for r in one.stages()] == ["prompts", "contrast", "reward", "ppo", "dpo"]
    assert two.state == "done"
    assert [r.fingerprint for r in two.stages()] == [r.fingerprint for r in one.stages()]


def test_the_pairs_are_the_same_to_the_byte(runs):
    one, two = (stage(run, "contrast").folder.out / "pairs.jsonl" for run in runs)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(("id", "figures"), [
    ("reward", ("loss", "accuracy", "grad_norm")),
    ("ppo", ("reward", "kl", "entropy", "policy_loss", "value_loss", "grad_norm", "value_grad_norm", "approx_kl", "response_tokens", "dev_reward")),
    ("dpo", ("loss", "margin", "accuracy", "grad_norm", "chosen_logp", "held_out_loss")),
])  # fmt: skip
def test_the_figures_are_the_same(runs, id, figures):
    one, two = (metrics(run, id) for run in runs)
    assert len(one) == len(two) > 1
    seen = set()
    for a, b in zip(one, two, strict=True):
        for name in set(figures) & a.keys():
            seen.add(name)
            loose = name == "dev_reward"  # told after Adam's first steps, which have the size of lr however small a gradient is
            assert b[name] == pytest.approx(a[name], rel=1e-2 if loose else 1e-3, abs=2e-5), (name, a["step"])
    assert seen == set(figures)


@pytest.mark.parametrize("id", ["reward", "ppo", "dpo"])
def test_the_weights_are_the_same(runs, id):
    one, two = (load_file(stage(run, id).folder.out / "adapter/adapter_model.safetensors") for run in runs)
    assert one.keys() == two.keys()
    assert max(float(abs(one[k] - two[k]).max()) for k in one) < 1e-4  # a step of Adam moves single weights by up to 1e-3


def test_the_first_ratio_is_one_in_each_process(runs):
    """Scored and trained by the same rank in the same passes."""
    assert [m["ratio_first"] for m in metrics(runs[1], "ppo") if "ratio_first" in m] == [1.0, 1.0]


class Thread(Ranks):
    """One of two ranks that are threads."""

    count = 2
    meeting = threading.Barrier(2)
    table: list = [None, None]

    def __init__(self, number: int):
        self.number = number

    def gather(self, value):
        self.table[self.number] = value
        self.meeting.wait(10)
        found = list(self.table)
        self.meeting.wait(10)
        return found

    def first(self, value):
        return self.gather(value)[0]


def together(work):
    """What ``work(ranks)`` gives in each of two threads."""
    found = [None, None]
    threads = [threading.Thread(target=lambda n=n: found.__setitem__(n, work(Thread(n)))) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return found


def test_items_are_dealt_and_come_back_in_order():
    for n in range(6):
        one, other = together(lambda ranks, n=n: ranks.dealt([10 * x for x in ranks.mine(range(n))]))
        assert one == other == [10 * x for x in range(n)]
    assert Ranks().dealt(Ranks().mine("abc")) == ["a", "b", "c"]


def test_each_rank_makes_half_of_the_shards_and_both_have_all(make_bench, tmp_path):
    made: dict[int, list[int]] = {0: [], 1: []}

    def work(ranks):
        (tmp_path / str(ranks.number)).mkdir(exist_ok=True)
        bench = make_bench("contrast", ckpt=tmp_path / str(ranks.number), ranks=ranks)

        def make(which):
            made[ranks.number] += which
            return [x * x for x in which]

        return bench.by_shard("squares", [str(k) for k in range(10)], make, size=2)

    one, other = together(work)
    assert one == other == [k * k for k in range(10)]
    assert made == {0: [0, 1, 4, 5, 8, 9], 1: [2, 3, 6, 7]}
    again, _ = together(work)
    assert again == one
    assert sum(map(len, made.values())) == 10  # rank 0's journal tells both that nothing is left


def failing(error):
    raise error


def caught(work):
    try:
        return work()
    except (LiteError, Stopped) as e:
        return type(e), str(e)


def test_what_one_rank_fails_at_fails_for_all_and_what_others_made_is_kept(make_bench, tmp_path):
    def work(ranks):
        (tmp_path / str(ranks.number)).mkdir()
        bench = make_bench("contrast", ckpt=tmp_path / str(ranks.number), ranks=ranks)

        def make(which):
            return failing(PreconditionError("out of memory")) if which == [2, 3] else which

        return caught(lambda: bench.by_shard("squares", [str(k) for k in range(6)], make, size=2))

    assert together(work) == [(PreconditionError, "rank 1: out of memory"), (PreconditionError, "out of memory")]
    assert len((tmp_path / "0/squares.jsonl").read_text().splitlines()) == 1  # rank 0's shard


@pytest.mark.parametrize("error", [JudgeError("too few"), RecipeError("evaluate", ["a", "b"]), Stopped("now")])
def test_what_rank_0_does_for_all_fails_for_all(error):
    one, other = together(lambda ranks: caught(lambda: ranks.by_first(lambda: failing(error))))
    assert one == (type(error), str(error))
    assert other == (type(error), f"rank 0: {error}")
    assert together(lambda ranks: ranks.by_first(lambda: ranks.number)) == [0, 0]


def test_alone_a_failure_is_itself():
    error = PreconditionError("x")
    assert Ranks().attempt(lambda: failing(error)) == ([None], error)
    assert Ranks().attempt(lambda: 5) == ([5], None)
    with pytest.raises(PreconditionError) as e:
        Ranks().by_first(lambda: failing(error))
    assert e.value is error


@pytest.mark.parametrize(
    ("sees", "device", "refused"),
    [(("cuda", "cpu"), "auto", True), (("cuda", "cpu"), "cpu", False), (("cpu", "cpu"), "auto", False), (("cuda", "cuda"), "auto", False)],
)
def test_a_gpu_for_some_ranks_alone_is_refused(sees, device, refused):
    """Those without one would go on in another arithmetic."""
    loaded = recipe.loads(RECIPE, [f"base.device={device}"], name="small")
    told = caught(lambda: parallel.refuse_other_devices(loaded, Group(0, 2, None, sees)))  # type: ignore[arg-type]
    assert told == (
        (PreconditionError, "1 of 2 processes see a GPU: start as many as there are GPUs, or take base.device=cpu") if refused else None
    )


def test_a_stop_is_rank_0s_to_hear(make_bench, tmp_path):
    def work(ranks):
        bench = make_bench("reward", ranks=ranks, stop_asked=lambda: ranks.number == 0)
        bench.pause_inside()  # no place to meet
        written = []
        try:
            bench.keep(1, 9, lambda folder: (folder / "x").write_text("x") and written.append(1), every=100)
        except Stopped:
            return written

    assert together(work) == [[1], []]


def test_one_process_is_alone(monkeypatch):
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    assert (launched(), join().count) == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert launched() == 1


def pair(folder, recipe, *, program=("-m", "lite.cli")):
    """Two processes that do a recipe together, without a launcher. Rank 0 alone has a key."""
    (folder / "small.yaml").write_text(recipe, encoding="utf-8")
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = [sys.executable, *program, "run", str(folder / "small.yaml"), "--runs", str(folder / "runs"), "-q"]
    started = [
        subprocess.Popen(command, cwd=folder, env=environment(RANK=str(rank), **meeting, **more), stderr=subprocess.PIPE, text=True)
        for rank, more in enumerate(({"THE_KEY": "sk-0123456789"}, {}))
    ]
    try:
        told = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    found = read.all_runs(folder / "runs") if (folder / "runs").is_dir() else []
    return [process.returncode for process in started], told, next(iter(found), None)


JUDGED = """
base: {{model: tiny, device: cpu}}
task: helpful
stages:
  - prompts: {{train: 1, dev: 0, test: 4}}
  - evaluate:
      against: [p_plus]
      draws: 1
      max_new_tokens: 16
      judges: [{{kind: endpoint, order: both, endpoint: {{base_url: "{url}", model: stub-1}}}}]
"""


def test_a_judge_behind_an_endpoint_is_asked_by_rank_0_alone(tmp_path):
    with served(stub := Stub()) as url:
        codes, told, run = pair(tmp_path, JUDGED.format(url=url))
    assert codes == [0, 0], told
    assert run.state == "done"
    assert len(stub.asked) == len(set(stub.asked)) > 1
    assert stage(run, "evaluate").folder.out.joinpath("answers.jsonl").read_text().count("\n") == len(stub.asked)


def test_a_judge_that_will_not_answer_ends_all_ranks(tmp_path):
    stub = Stub()
    stub.answer = lambda question, n: Response(401, "go away")
    with served(stub) as url:
        codes, told, run = pair(tmp_path, JUDGED.format(url=url))
    assert codes == [3, 3], told
    assert "not allowed (401: go away)" in run.facts["error"]
    assert "lite: rank 1: rank 0: http" in told[1]
    assert "Traceback" not in told[0] + told[1]


WRITTEN = """
task: helpful
base: {{model: tiny, device: cpu}}
stages:
  - prompts: {{train: 6, dev: 0, test: 1}}
  - contrast: {{attempts: 1, server: {{base_url: "{url}", model: m, key_env: THE_KEY, concurrency: 1}}}}
"""


def test_the_reason_of_one_rank_is_the_reason_of_the_run(tmp_path):
    stub = Stub()
    stub.answer = lambda prompt, n: Response(200, json.dumps({"choices": [{"text": " Yes.\n", "finish_reason": "stop"}]}))
    with served(stub) as url:
        codes, told, run = pair(tmp_path, WRITTEN.format(url=url))
    assert codes == [3, 3], told
    assert (run.state, run.facts["exit_code"]) == ("failed", 3)
    assert "rank 1: the environment variable THE_KEY is not set: it should hold the key of m at http" in run.facts["error"]
    assert "lite: rank 1: the environment variable THE_KEY" in told[1]
    assert "Traceback" not in told[0] + told[1]


TRAINED = """
task: helpful
base: {model: tiny, device: cpu}
stages:
  - prompts: {train: 8, dev: 0, test: 1}
  - preferences: {pairs: 8}
  - reward: {epochs: 1, batch_pairs: 4}
"""
ENDS_IN_TRAINING = """
import os, sys
from lite.cli import main
from lite.errors import PreconditionError
from lite.stages import reward

def end(*given):
    raise PreconditionError("out of memory here")

if os.environ["RANK"] == "1":
    reward._accumulate = end
main()
"""


def test_who_ends_in_the_middle_of_a_step_leaves_word(tmp_path):
    codes, told, run = pair(tmp_path, TRAINED, program=("-c", ENDS_IN_TRAINING))
    assert codes == [3, 3], told
    assert (run.state, run.facts["exit_code"], run.facts["error"]) == ("failed", 3, "rank 1: out of memory here")
    assert "lite: rank 1: out of memory here" in told[1]


def test_a_run_that_never_begins_lets_the_others_go(tmp_path):
    codes, told, run = pair(tmp_path, "task: nobody\nstages: [prompts]\n")
    assert (codes, run) == ([2, 0], None), told
    assert "task" in told[0]
