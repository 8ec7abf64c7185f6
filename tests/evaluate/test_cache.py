import json
import threading

from lite.evaluate.cache import Answer, AnswerCache, key_of

ODD = "a\u2028b\x85c\nd\re\x0cf — “g” 😀"


def test_answers_come_back_as_they_were(tmp_path):
    path = tmp_path / "new" / "answers.jsonl"
    answer = Answer(ODD, cut=True, refused=True, prompt_tokens=3, completion_tokens=None)
    AnswerCache(path).put("k", answer)
    AnswerCache(path).put("l", Answer("two"))
    cache = AnswerCache(path)
    assert cache.get("k") == answer
    assert cache.get("l") == Answer("two")
    assert cache.get("m") is None
    assert len(cache) == 2


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = AnswerCache()
    cache.put("k", Answer("x"))
    assert cache.get("k") == Answer("x")
    assert list(tmp_path.iterdir()) == []


def test_a_torn_last_line_is_passed_over_and_never_touched_by_the_next(tmp_path):
    path = tmp_path / "answers.jsonl"
    cache = AnswerCache(path)
    cache.put("a", Answer("one"))
    whole = path.read_bytes()
    cache.put("b", Answer("two"))
    torn = path.read_bytes()
    for cut in range(len(whole), len(torn)):
        path.write_bytes(torn[:cut])
        again = AnswerCache(path)
        assert again.get("a") == Answer("one")
        assert len(again) == (2 if cut == len(torn) - 1 else 1)  # only the line break is missing
        again.put("c", Answer("three"))
        assert AnswerCache(path).get("c") == Answer("three")
        assert AnswerCache(path).get("a") == Answer("one")


def test_foreign_lines_are_passed_over(tmp_path):
    path = tmp_path / "answers.jsonl"
    AnswerCache(path).put("a", Answer("one"))
    with path.open("a") as f:
        f.write('[]\n{}\n{"key": "x"}\n{"key": 1, "text": "y"}\n{"key": "z", "text": "no other fields"}\n\n')
    assert len(AnswerCache(path)) == 1


def test_many_writers_lose_nothing(tmp_path):
    path = tmp_path / "answers.jsonl"
    caches = [AnswerCache(path) for _ in range(4)]

    def write(worker):
        for i in range(50):
            caches[worker].put(f"{worker}.{i}", Answer("x" * (i * 40)))

    threads = [threading.Thread(target=write, args=(w,)) for w in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(AnswerCache(path)) == 200
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_key_depends_on_every_part_and_on_no_order():
    assert key_of(a=1, b="x") == key_of(b="x", a=1)
    assert len({key_of(a=1), key_of(a=2), key_of(b=1), key_of(a="1"), key_of(a=None)}) == 5
