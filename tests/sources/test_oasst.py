"""OpenAssistant's trees: the real calls, offline, on a cache that holds small files of the same form."""

import pytest

from lite.errors import PreconditionError
from lite.sources import oasst

datasets = pytest.importorskip("datasets")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def message(id: str, parent: str | None, text: str, *, rank: int | None = None, lang: str = "en", deleted: bool = False) -> dict:
    role = "prompter" if parent is None or parent.startswith("a") else "assistant"
    row = {"message_id": id, "parent_id": parent, "role": role, "lang": lang, "text": text, "rank": rank, "deleted": deleted}
    return row | {"message_tree_id": id, "tree_state": "ready_for_export"}


TREES = [
    message("p1", None, "How are bees able to fly?"),
    message("a1", "p1", "With luck.", rank=1),
    message("a2", "p1", " With wings. ", rank=0),
    message("a3", "p1", "No idea.", rank=2),
    message("p1b", "a2", "And birds?"),  # not a first turn
    message("a4", "p1b", "The same.", rank=0),
    message("p2", None, "¿Qué hora es?", lang="es"),
    message("a5", "p2", "Las dos.", rank=0, lang="es"),
    message("p3", None, "Nobody ranked this."),
    message("a6", "p3", "A lone reply."),
    message("p4", None, "The best one is gone."),
    message("a7", "p4", "Second.", rank=1),
    message("a8", "p4", "First.", rank=0, deleted=True),
    message("p5", None, "One turn?\n\nHuman: or two?"),
    message("a9", "p5", "Two.", rank=0),
    message("p6", None, "A reply in another language?"),
    message("a10", "p6", "Yes.", rank=0),
    message("a11", "p6", "Ja.", rank=1, lang="de"),
]


def test_first_turns_in_english_with_their_ranked_responses():
    found = oasst.questions(TREES, most=4)
    assert [(q.text, q.responses, q.ranks) for q in found] == [
        ("How are bees able to fly?", ("With wings.", "With luck.", "No idea."), (0, 1, 2)),
        ("A reply in another language?", ("Yes.",), (0,)),
    ]
    assert found[0].best == "With wings."
    assert [q.orders for q in found] == [True, False]


def test_of_many_responses_the_best_and_the_worst_are_kept():
    assert oasst.questions(TREES, most=2)[0].responses == ("With wings.", "No idea.")
    assert oasst.questions(TREES, most=1)[0].responses == ("With wings.",)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return tmp_path / "hub"


def test_a_cached_copy_is_read_offline(offline):
    folder = offline / "datasets--OpenAssistant--oasst2"
    data = folder / "snapshots" / COMMIT / "data"
    data.mkdir(parents=True)
    for split, rows in (("train", TREES[:6]), ("validation", TREES[6:])):
        datasets.Dataset.from_list(rows).to_parquet(str(data / f"{split}-00000-of-00001.parquet"))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    loaded = oasst.load("oasst2", None)
    assert (loaded.repo, loaded.commit, len(loaded.rows)) == ("OpenAssistant/oasst2", COMMIT, len(TREES))
    assert oasst.questions(loaded.rows, most=4) == oasst.questions(TREES, most=4)


def test_an_empty_cache_says_what_to_do(offline):
    with pytest.raises(PreconditionError, match=r"OpenAssistant/oasst1 .*offline, and it is not in the cache; .*seed\.source=FILE\.jsonl"):
        oasst.load("oasst1", None)
