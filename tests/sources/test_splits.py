import pytest

from lite.chance import seed_for
from lite.errors import RecipeError
from lite.sources.splits import choose, gather, go_on_from, lengths


def pool(texts, task, where="f", **limits):
    return gather(
        [(f"line {i}", {"prompt": text} if isinstance(text, str) else text) for i, text in enumerate(texts, 1)], where, task, **limits
    )


def order(key):
    return seed_for(1, key)


def said(chosen):
    return {split: [asked.turns[-1].text for asked in part] for split, part in chosen.items()}


def names(word, n):
    return [f"{word} {i}" for i in range(n)]


def test_every_row_is_in_one_count(helpful, transcript):
    broken = {"chosen": "no speaker"}
    rows = ["one", "One ", broken, "two words", "three words here", broken, {"chosen": transcript("two words", "yes")}]
    report = pool(rows, helpful, min_words=2, max_words=2).report()
    assert report == {
        "read": 7, "unreadable": {"no_speaker": 2}, "too_short": 2, "too_long": 1, "duplicates": 1, "in_held_out": 0, "kept": 1,
    }  # fmt: skip


def test_mistakes_are_told_at_once_ten_of_them_and_how_many_more(helpful):
    with pytest.raises(RecipeError) as error:
        pool(["fine", *[{"question": i} for i in range(13)]], helpful, where="my.jsonl")
    assert error.value.where == "my.jsonl"
    assert [problem.split(":")[0] for problem in error.value.problems] == [*(f"line {i}" for i in range(2, 12)), "and 3 more rows"]
    assert "(there are: question)" in error.value.problems[0]


def test_one_file_is_cut_in_three_that_share_nothing(helpful):
    chosen = said(choose({"all": pool(names("a", 30), helpful)}, {"train": 10, "dev": 5, "test": 7}, order))
    assert {split: len(part) for split, part in chosen.items()} == {"train": 10, "dev": 5, "test": 7}
    assert len({text for part in chosen.values() for text in part}) == 22
    assert chosen["test"] != names("a", 7)  # drawn, not taken from the top


def test_dev_and_test_follow_the_file_and_train_is_drawn(helpful):
    pools = {"train": pool(names("t", 20), helpful), "test": pool([*names("h", 3), "h 1", *names("h", 9)], helpful)}
    chosen = said(choose(pools, {"train": 5, "dev": 3, "test": 4}, order))
    assert chosen["dev"] == ["h 0", "h 1", "h 2"]
    assert chosen["test"] == ["h 3", "h 4", "h 5", "h 6"]
    assert chosen["train"] == sorted(names("t", 20), key=lambda text: order(f"human: {text}"))[:5]


def test_a_dev_file_is_the_dev_split(helpful):
    pools = {name: pool(names(name, 9), helpful) for name in ("train", "dev")}
    pools["train"] = pool([*names("train", 9), "dev 8", "test 1", "test 8"], helpful)
    pools["test"] = pool(["dev 3", *names("test", 9)[1:]], helpful)
    chosen = said(choose(pools, {"train": 2, "dev": 2, "test": 2}, order))
    assert (chosen["dev"], chosen["test"]) == (["dev 0", "dev 1"], ["test 1", "test 2"])
    assert [pools[name].in_held_out for name in pools] == [3, 0, 1]


def test_what_the_held_out_files_have_is_taken_out_of_train_and_counted(helpful):
    def left(held_out, wanted):
        pools = {"train": pool(names("x", 8), helpful), "test": pool(held_out, helpful)}
        return said(choose(pools, {"train": 5, "dev": 1, "test": wanted}, order))["train"], pools["train"].report()

    train, report = left(["X  2", "y 0", "y 1", "x 7"], 2)
    assert not {"x 2", "x 7"} & set(train)
    assert (report["in_held_out"], report["kept"]) == (2, 6)
    assert left(["X  2", "y 0", "y 1", "x 7"], 1)[0] == train  # held out by file, so that `test` does not change train


def test_other_rows_and_numbers_leave_the_order_of_train_as_it_was(helpful):
    held = names("h", 4)

    def train(texts, n, **limits):
        return said(
            choose({"train": pool(texts, helpful, **limits), "test": pool(held, helpful)}, {"train": n, "dev": 1, "test": 2}, order)
        )["train"]

    few, many = train(names("t", 20), 6), train(names("t", 20), 12)
    assert many[:6] == few
    longer = train([*names("t", 20), "a longer text"], 21)
    assert (
        [text for text in longer if text != "a longer text"]
        == train(names("t", 20), 20)
        == train([*names("t", 20), "a longer text"], 20, max_words=2)
    )


def test_another_seed_draws_others(helpful):
    pools = {"train": pool(names("t", 40), helpful), "test": pool(names("h", 4), helpful)}
    wanted = {"train": 10, "dev": 1, "test": 2}
    assert said(choose(pools, wanted, order))["train"] != said(choose(pools, wanted, lambda key: seed_for(2, key)))["train"]


def test_too_few_are_told_for_every_split_with_what_was_left_out(helpful):
    pools = {"train": pool(["a", "a", {"chosen": "b"}], helpful, "train.csv"), "test": pool(["c"], helpful, "test.csv")}
    with pytest.raises(RecipeError) as error:
        choose(pools, {"train": 2, "dev": 1, "test": 1}, order)
    first, second = error.value.problems
    assert first.startswith("train: 1 different dialogues, but 2 are asked for")
    assert "left out of train.csv: 1 unreadable (1 no_speaker: the transcript begins with" in first and "1 duplicates" in first
    assert second.startswith("test: 0 different dialogues, but 1 are asked for")


def test_train_dialogues_that_go_on_from_a_held_out_one_are_told(helpful, transcript):
    train = pool([transcript("Hi", "Hello", "Why?"), transcript("Ho", "Hello", "Hi"), "Hi there"], helpful).dialogues.values()
    held = pool(["hi", "Hi there"], helpful).dialogues.values()
    assert go_on_from(train, held) == 1


def test_lengths_by_hand(helpful):
    chosen = list(pool([" ".join("x" * n) for n in range(1, 22)], helpful).dialogues.values())
    assert lengths(chosen) == {"median": 11, "p95": 20, "max": 21}
    assert lengths([]) == {}
