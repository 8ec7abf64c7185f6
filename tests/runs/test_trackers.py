"""Trackers by name: what they are told, that they are asked for before a run begins, and that none of them can end one."""

import importlib.util
import sys
from types import ModuleType

import pytest

from lite.errors import PreconditionError, RecipeError
from lite.runs import trackers
from lite.runs.journal import Journal
from lite.runs.trackers import numbers, tracking


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """What a tracker sets for wandb is undone: later tests of this process start programs of their own."""
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.delenv("WANDB_MODE")


@pytest.fixture
def journal(tmp_path):
    return Journal.create(tmp_path, "small")


class Session:
    def __init__(self, broken=False):
        self.logged, self.defined, self.finished, self.broken = [], [], 0, broken

    def log(self, figures):
        if self.broken:
            raise ConnectionError("no route")
        self.logged.append(figures)

    def define_metric(self, name, **options):
        self.defined.append((name, options))

    def finish(self):
        self.finished += 1


@pytest.fixture
def stub(monkeypatch):
    """A module in place of wandb or trackio; ``begun`` holds what init was given."""

    def install(name, session=None, error=None):
        module, begun = ModuleType(name), []
        module.__spec__ = importlib.util.spec_from_loader(name, None)

        def init(**options):
            print("hello from the tracker")
            begun.append(options)
            if error:
                raise error
            return session

        module.init = init
        monkeypatch.setitem(sys.modules, name, module)
        return begun

    return install


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_figures_go_there_under_their_stage_and_its_step(journal, stub, name, capsys):
    session = Session()
    begun = stub(name, session)
    with tracking(name, journal, {"seed": 17}):
        journal.track("ppo", {"step": 3, "kl": 0.5, "nan": float("nan"), "note": "x", "on": True, "last": {"reward": 1}})
        journal.track("judge", {"readable": 0.9})
        journal.track("judge", {"readable": 1})
        journal.track("judge", {"text": "nothing to tell"})
    journal.track("ppo", {"step": 4, "kl": 1.0})  # nobody listens any more
    assert session.logged == [
        {"ppo/step": 3, "ppo/kl": 0.5, "ppo/last.reward": 1.0},
        {"judge/step": 1, "judge/readable": 0.9},
        {"judge/step": 2, "judge/readable": 1.0},
    ]
    assert session.defined == [("ppo/*", {"step_metric": "ppo/step"}), ("judge/*", {"step_metric": "judge/step"})]
    assert session.finished == 1
    (options,) = begun
    assert options["project"] == "lite" and options["name"] == journal.run.name and options["config"]["seed"] == 17
    assert options["resume"] == "allow" and (options.get("id") == journal.run.name) == (name == "wandb")
    assert capsys.readouterr().out == ""  # standard output is for results


def test_a_tracker_that_fails_ends_no_run(journal, stub):
    session = Session(broken=True)
    stub("wandb", session)
    with tracking("wandb", journal, {}):
        for step in (1, 2):
            journal.track("ppo", {"step": step, "kl": 0.5})
    log = journal.run.log.read_text(encoding="utf-8")
    assert log.count("wandb is told nothing more: ConnectionError: no route") == 1 and session.finished == 0


def test_one_that_cannot_begin_is_told(journal, stub):
    stub("wandb", error=RuntimeError("log in first"))
    with pytest.raises(PreconditionError, match="log in first"), tracking("wandb", journal, {}):
        raise AssertionError("the block is not entered")


def test_offline_runs_keep_wandb_offline(journal, stub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    stub("wandb", Session())
    with tracking("wandb", journal, {}):
        assert trackers.os.environ["WANDB_MODE"] == "offline"


def test_without_a_name_nothing_is_imported(journal, monkeypatch):
    monkeypatch.setattr(trackers.importlib, "import_module", lambda name: pytest.fail(name))
    with tracking(None, journal, {}):
        journal.track("ppo", {"kl": 1.0})


def test_a_missing_package_is_told_before_there_is_a_run(fakes, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PreconditionError, match="pip install trackio") as told:
        fakes.go("track=trackio")
    assert told.value.exit_code == 3 and not list(fakes.folder.glob("*")) and not fakes.stages.calls


def test_a_run_tells_what_its_stages_tell_and_its_fingerprints_do_not_change(fakes, stub, monkeypatch):
    """A stage's metrics of a whole run; tracking is no part of what a result hangs on."""
    plain = fakes.go()
    session = Session()
    begun = stub("wandb", session)
    make = fakes.stages.stage_function

    def telling(kind):
        stage = make(kind)

        def told(spec, *, out, bench, **inputs):
            bench.reporter.metric(step=1, kl=0.25)
            return stage(spec, out=out, bench=bench, **inputs)

        return told

    monkeypatch.setattr(fakes.stages, "stage_function", telling)
    tracked = fakes.go("track=wandb")
    assert tracked.state == "done" and {"ppo/step": 1, "ppo/kl": 0.25} in session.logged and session.finished == 1
    assert begun[0]["config"]["name"] == "small"
    prints = [[record.fingerprint for record in outcome.run.stages()] for outcome in (plain, tracked)]
    assert prints[0] == prints[1]
    assert "track: wandb" in tracked.run.folder.resolved.read_text(encoding="utf-8")


def test_an_unknown_name_is_told(fakes):
    with pytest.raises(RecipeError, match="did you mean 'tensorboard'"):
        fakes.go("track=tensorbord")


def test_numbers():
    assert numbers({"a": 1, "b": {"c": 2.5, "d": {"e": 3}}, "f": float("inf"), "g": "4", "h": None}) == {"a": 1.0, "b.c": 2.5, "b.d.e": 3.0}


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_reads_what_was_told(journal):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracking("tensorboard", journal, {}):
        for step in (1, 2, 3):
            journal.track("ppo", {"step": step, "kl": step / 4})
    found = EventAccumulator(str(journal.run.tensorboard))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("ppo/kl")] == [(1, 0.25), (2, 0.5), (3, 0.75)]


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_takes_what_is_told(journal, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    with tracking("trackio", journal, {"seed": 17}):
        journal.track("ppo", {"step": 1, "kl": 0.5})
    assert "told nothing more" not in (journal.run.log.read_text(encoding="utf-8") if journal.run.log.is_file() else "")
    assert any((tmp_path / "trackio").iterdir())
