"""What a card never tells: where things lie on this machine, and credentials."""

import pytest

from lite.export.cards import whole, without_places


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("source: /home/ada/rows/q.jsonl\n", "source: q.jsonl\n"),
        ("'~/rows/q.jsonl'", "'q.jsonl'"),
        ("model: C:/models/llama", "model: llama"),
        ("see https://huggingface.co/a/b, or a/b/c", "see https://huggingface.co/a/b, or a/b/c"),
    ],
)
def test_places_are_cut_to_their_last_part(text, told):
    assert without_places(text) == told


def test_a_card_holds_no_credential():
    text = whole({"license": "mit"}, ["# Title", "token=hf_abcdefghijklmnop and /srv/secret/place.txt"])
    assert "hf_abc" not in text and "/srv" not in text and text.startswith("---\nlicense: mit\n---\n\n# Title")
