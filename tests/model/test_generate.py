"""Generation equals transformers' own, shares prefixes, depends on seeds only, and stops for the right reason."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch

from lite.model import generate as module
from lite.model.bank import AdapterBank
from lite.model.encoding import encode
from lite.model.generate import Decoding, Generated, generate
from lite.text.dialogue import STOP

from .conftest import add, metaspace_tokenizer

GREEDY = Decoding(max_new_tokens=12, temperature=0.0, stop=None)
Ids = tuple[int, ...]


def theirs(bank: AdapterBank, role: str | None, prompts: Sequence[Ids], n: int = 12) -> list[Ids]:
    """transformers' greedy generate, one prompt at a time, without padding."""
    found = []
    with bank.using(role):
        for prompt in prompts:
            ids = torch.tensor([prompt])
            out = bank.base.model.generate(  # type: ignore[operator]
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n, pad_token_id=0
            )
            found.append(tuple(out[0, len(prompt) :].tolist()))
    return found


def ours(bank: AdapterBank, role: str | None, prompts: Sequence[Ids], decoding: Decoding = GREEDY, **options) -> list[Ids]:
    options.setdefault("seeds", range(len(prompts)))
    return [g.ids for g in generate(bank, role, prompts, decoding=decoding, **options)]


@contextmanager
def forwarded(bank: AdapterBank) -> Iterator[list[int]]:
    """Tokens of every forward pass over more than one column, padding included."""
    passes: list[int] = []

    def count(_module, _positional, named) -> None:
        if named["input_ids"].shape[1] > 1:
            passes.append(named["input_ids"].numel())

    hook = bank.trunk.register_forward_pre_hook(count, with_kwargs=True)
    yield passes
    hook.remove()


def varied(length: int, seed: int) -> Ids:
    return (1, *random.Random(seed).choices(range(3, 330), k=length - 1))


# -- greedy: the same tokens as transformers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [None, "policy"])
def test_greedy_tokens_are_those_of_transformers(bank, prompts, role):
    add(bank, "policy")
    wanted = theirs(bank, role, prompts)
    assert len({ids[:4] for ids in wanted}) == len(prompts)  # the model says something
    assert all(len(set(ids)) > 3 for ids in wanted)
    assert ours(bank, role, prompts[:1]) == wanted[:1]
    assert ours(bank, role, prompts) == wanted  # left-padded
    assert ours(bank, role, prompts, rows=2) == wanted


@pytest.mark.parametrize(
    "groups",
    [
        [0, 0, 0, 0, 0, 0, 0, 0],  # nothing in common but the first token
        [0, 0, 1, 1, 2, 2, 3, 4],  # pairs, and two alone
        [5, 1, 5, 1, 5, 7, 7, 7],  # interleaved
        [0, 1, 2, 3, 4, 5, 6, 7],  # all alone
    ],
)
def test_greedy_tokens_with_shared_prefixes(bank, groups):
    shared = {g: varied(5 + 9 * g, g) for g in set(groups)}
    prompts = [shared[g] + varied(1 + i % 4, 100 + i) for i, g in enumerate(groups)]
    add(bank, "policy")
    wanted = theirs(bank, "policy", prompts)
    for rows in (3, 64):
        assert ours(bank, "policy", prompts, groups=groups, rows=rows) == wanted


def test_groups_that_share_nothing_at_all_next_to_groups_that_do(bank):
    long = varied(40, 1)
    prompts = [(7, 8, 9), (10, 11), (*long, 5), (*long, 6, 7), (12,), (13, 14), (13, 14), (15,)]
    groups = [0, 0, 1, 1, 2, 3, 3, 2]
    assert ours(bank, None, prompts, groups=groups) == theirs(bank, None, prompts)


@pytest.mark.parametrize("copies", [2, 5])
def test_the_same_prompt_many_times(bank, copies):
    """N candidates share everything but the last token, which the first logits come from."""
    prompt = varied(20, 3)
    assert ours(bank, None, [prompt] * copies, groups=[0] * copies) == theirs(bank, None, [prompt]) * copies


def test_a_prompt_that_is_the_beginning_of_another(bank):
    prompts = [varied(9, 3), (*varied(9, 3), 7, 8), varied(9, 3)[:1]]
    assert ours(bank, None, prompts, groups=[0, 0, 0]) == theirs(bank, None, prompts)


def test_a_shared_prefix_goes_through_the_model_once(bank):
    """512 tokens in common, eight rows a side: 640 prompt tokens instead of 8,320."""
    prefix = varied(512, 1)
    sides = [prefix + varied(9, 2)[1:], prefix + varied(9, 3)[1:]]
    prompts = [sides[i % 2] for i in range(16)]
    decoding = Decoding(max_new_tokens=12, stop=None)
    seeds = list(range(16))
    with forwarded(bank) as plain_passes:
        plain = ours(bank, None, prompts, decoding, seeds=seeds)
    with forwarded(bank) as shared_passes:
        shared = ours(bank, None, prompts, decoding, seeds=seeds, groups=[0] * 16)
    assert shared == plain
    assert len(set(plain)) == 16
    assert sum(plain_passes) == 16 * 520
    assert sum(shared_passes) == 512 + 16 * 8
    assert sum(shared_passes) <= 0.10 * sum(plain_passes)


def test_a_row_alone_does_not_widen_the_second_pass_of_the_others(bank):
    """After rejections most groups have one row left: it must not cost its neighbours a pass over its whole length."""
    prefix = varied(60, 1)
    prompts = [(*prefix, 5), (*prefix, 6), varied(70, 2)]
    with forwarded(bank) as passes:
        shared = ours(bank, None, prompts, groups=[0, 0, 1])
    assert sum(passes) <= 2 * 69  # the prefixes; then one token of each row
    assert shared == theirs(bank, None, prompts)


# -- chance: the seed and the prompt, nothing else ----------------------------------------------------------------------------------


@pytest.fixture
def crowd() -> list[Ids]:
    """Twelve prompts of different lengths, in groups of two and three."""
    return [varied(4 + 7 * (i // 3), i // 3) + varied(1 + i % 3, 50 + i) for i in range(12)]


@pytest.mark.parametrize("decoding", [Decoding(16, stop="e"), Decoding(16, temperature=1.5, top_p=0.9, stop="e")])
def test_a_row_depends_on_its_seed_and_prompt_only(bank, crowd, decoding):
    add(bank, "policy")
    seeds = [1000 + i for i in range(12)]
    wanted = generate(bank, "policy", crowd, seeds=seeds, decoding=decoding)
    assert len({len(g.ids) for g in wanted}) > 4  # rows leave at different times
    groups = [i // 3 for i in range(12)]
    for rows, shared in ((1, None), (5, None), (5, groups), (12, groups), (7, [0] * 12)):
        assert generate(bank, "policy", crowd, seeds=seeds, decoding=decoding, rows=rows, groups=shared) == wanted, (rows, shared)
    order = random.Random(1).sample(range(12), 12)
    found = generate(
        bank, "policy", [crowd[i] for i in order], seeds=[seeds[i] for i in order], decoding=decoding, groups=[groups[i] for i in order]
    )
    assert found == [wanted[i] for i in order]


def test_other_seeds_other_rows_and_the_global_state_plays_no_part(bank, crowd):
    decoding = Decoding(12, stop=None)
    torch.manual_seed(1)
    first = ours(bank, None, crowd, decoding)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert ours(bank, None, crowd, decoding) == first
    assert torch.equal(torch.get_rng_state(), state)
    other = ours(bank, None, crowd, decoding, seeds=range(100, 112))
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_the_same_prompt_under_two_seeds_is_two_draws_and_under_one_seed_one(bank):
    prompt = varied(12, 4)
    a, b, c = ours(bank, None, [prompt] * 3, Decoding(12, stop=None), seeds=[1, 2, 1], groups=[0, 0, 0])
    assert a == c != b


def test_a_longer_limit_goes_on_where_a_shorter_one_ended(bank, crowd):
    short, long = (ours(bank, None, crowd, Decoding(n, stop=None)) for n in (6, 12))
    assert [ids[:6] for ids in long] == short


@pytest.mark.parametrize("compact", [0.0, 1.01])
def test_rows_leave_the_batch_without_mixing_up_the_others(bank, crowd, monkeypatch, compact):
    decoding = Decoding(24, temperature=1.3, stop="a")
    wanted = generate(bank, None, crowd, seeds=range(12), decoding=decoding)
    assert len({len(g.ids) for g in wanted}) > 4
    widths = []
    step = module._step
    monkeypatch.setattr(module, "_step", lambda bank, ids, *rest: widths.append(len(ids)) or step(bank, ids, *rest))
    monkeypatch.setattr(module, "COMPACT", compact)  # never; at once
    assert generate(bank, None, crowd, seeds=range(12), decoding=decoding) == wanted
    assert (len(set(widths)) == 1) is (compact == 0.0)


# -- why it stops: scripted draws ---------------------------------------------------------------------------------------------------


@pytest.fixture
def scripted(bank, monkeypatch):
    """Generate with given tokens instead of drawn ones: a row's script lies where its noise would, so it moves as its noise does."""

    def run(
        scripts: Sequence[Sequence[int]], prompts: Sequence[Ids] | None = None, tokenizer=None, rows=64, groups=None, **decoding
    ) -> list[Generated]:
        limit = decoding.setdefault("max_new_tokens", max(len(s) for s in scripts))
        table = torch.tensor([list(s) + [3] * (limit + 1 - len(s)) for s in scripts], dtype=torch.float64)
        monkeypatch.setattr(module, "_noise", lambda seeds, steps: table[list(seeds)])
        monkeypatch.setattr(module, "_draw", lambda logits, noise, _: noise.long())
        other = AdapterBank(replace(bank.base, tokenizer=tokenizer)) if tokenizer else bank
        prompts = prompts or [encode(other.base.tokenizer, "\n\nHuman: hi\n\nAssistant:")] * len(scripts)
        return generate(other, None, prompts, seeds=range(len(scripts)), decoding=Decoding(**decoding), rows=rows, groups=groups)

    return run


def spell(tokenizer, text: str) -> list[int]:
    """A text in as many tokens as the tokenizer can be made to use: character by character."""
    return [tokenizer.convert_tokens_to_ids(t) for c in text for t in tokenizer.tokenize(c)]


def test_the_stop_string_spelt_over_several_tokens_ends_a_turn(scripted, base):
    tok = base.tokenizer
    reply, stop = spell(tok, " Hi. A Human: x\n"), spell(tok, STOP)
    assert len(stop) == len(STOP) == 8
    found = scripted([reply + stop + spell(tok, " never read")])
    assert found == [Generated(tuple(reply + stop), f" Hi. A Human: x\n{STOP}", "turn")]


def test_the_stop_string_may_end_inside_a_token(scripted, base):
    tok = base.tokenizer
    place = tok.convert_tokens_to_ids("t")
    found = scripted([[place, *encode(tok, STOP)[1:]]])
    assert len(encode(tok, STOP)[1:]) < 8
    assert found[0].stop == "turn"
    assert found[0].text == f"t{STOP}"


def test_a_stop_string_that_begins_in_the_prompt_does_not_count(scripted, base):
    tok = base.tokenizer
    prompt = encode(tok, "\n\nAssistant: well\n\n")
    assert scripted([spell(tok, "Human: x")], [prompt])[0].stop == "length"


def test_a_stop_string_longer_than_any_number_one_would_guess(scripted, base):
    stop = "<the end of what I have to say about this>"
    script = spell(base.tokenizer, f"so{stop}")
    assert scripted([[*script, 5, 5]], stop=stop)[0] == Generated(tuple(script), f"so{stop}", "turn")


def test_a_stop_string_that_ends_in_a_letter_of_several_bytes(scripted, base):
    script = spell(base.tokenizer, "so。ja")
    assert len(script) > len("so。ja")
    assert scripted([script], stop="。")[0].text == "so。"


def test_without_a_stop_string_only_the_end_token_and_the_limit_count(scripted, base):
    script = spell(base.tokenizer, f"a{STOP}b")
    assert [g.stop for g in scripted([script, [*script[:-1], 2]], stop=None)] == ["length", "eos"]


def test_the_end_of_text_token_ends_a_row_and_belongs_to_its_ids_but_not_to_its_text(scripted, base):
    tok = base.tokenizer
    script = [*spell(tok, " ok"), tok.eos_token_id]
    assert scripted([[*script, 9, 9]]) == [Generated(tuple(script), " ok", "eos")]


@pytest.mark.parametrize("named", [5, [5, 6], 0])
def test_every_end_token_of_the_generation_config_ends_a_row(scripted, base, monkeypatch, named):
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", named)
    last = named[-1] if isinstance(named, list) else named
    assert [(g.ids, g.stop) for g in scripted([[9, last, 9], [9, 2, 9]])] == [((9, last), "eos"), ((9, 2), "eos")]


def test_at_the_limit_the_last_token_may_still_end_the_turn(scripted, base):
    tok = base.tokenizer
    stop = spell(tok, STOP)
    found = scripted([stop, [9] * 7 + [tok.eos_token_id], [9] * 8], max_new_tokens=8)
    assert [g.stop for g in found] == ["turn", "eos", "length"]
    assert [len(g.ids) for g in found] == [8, 8, 8]


def test_scripts_of_many_lengths_come_back_whole_and_in_order(scripted, base):
    eos = base.tokenizer.eos_token_id
    lengths = random.Random(2).sample(range(1, 40), 20)
    scripts = [[10 + i] * n + [eos] for i, n in enumerate(lengths)]
    assert [g.ids for g in scripted(scripts)] == [tuple(s) for s in scripts]


def test_a_metaspace_tokenizer_stops_and_keeps_its_leading_space(scripted):
    tok = metaspace_tokenizer()
    response = encode(tok, f"\n\nHuman: hi\n\nAssistant: I am well{STOP}")[len(encode(tok, "\n\nHuman: hi\n\nAssistant:")) :]
    found = scripted([response, response[:3]], tokenizer=tok, max_new_tokens=len(response))
    assert found[0] == Generated(response, f" I am well{STOP}", "turn")
    assert found[1].text.startswith(" I am")
    assert found[1].stop == "length"


# -- the caller's side ----------------------------------------------------------------------------------------------------------------


def test_progress_is_told_after_every_batch(bank, prompts):
    told = []
    found = generate(bank, None, prompts, seeds=range(5), decoding=GREEDY, rows=2, done=lambda n, tokens: told.append((n, tokens)))
    assert [n for n, _ in told] == [2, 2, 1]
    assert sum(tokens for _, tokens in told) == sum(len(g.ids) for g in found)


def test_no_prompts_no_responses(bank):
    assert generate(bank, None, [], seeds=[], decoding=GREEDY) == []
    assert generate(bank, None, [], seeds=[], decoding=GREEDY, groups=[]) == []


def test_mistakes_of_the_caller(bank, prompts):
    with pytest.raises(ValueError, match="5 prompts, 4 seeds"):
        generate(bank, None, prompts, seeds=range(4), decoding=GREEDY)
    with pytest.raises(ValueError, match="5 prompts, 5 seeds, 2 groups"):
        generate(bank, None, prompts, seeds=range(5), decoding=GREEDY, groups=[0, 0])
    with pytest.raises(ValueError, match="prompt 1 has no tokens"):
        generate(bank, None, [(1,), ()], seeds=range(2), decoding=GREEDY)
    with pytest.raises(KeyError, match="no adapter 'x'"):
        generate(bank, "x", prompts, seeds=range(5), decoding=GREEDY)
    with bank.using(None), pytest.raises(RuntimeError, match="inside the block of the base"):
        generate(bank, None, prompts, seeds=range(5), decoding=GREEDY)


def test_pieces_keep_groups_together_and_hold_every_row_once():
    prompts = [(1,) * (1 + i % 7) for i in range(23)]
    groups = [i // 3 for i in range(23)]
    pieces = module._pieces(prompts, groups, 8, range(len(prompts)))
    assert sorted(i for piece in pieces for i in piece) == list(range(23))
    assert all(len({groups[i] for i in piece}) == 1 for piece in pieces) and len(pieces) == 8
    longest = [max(len(prompts[i]) for i in piece) for piece in pieces]
    assert longest == sorted(longest, reverse=True)
    assert [len(piece) for piece in module._pieces(prompts, [0] * 23, 8, range(23))] == [8, 8, 7]


# -- the batch stays full -------------------------------------------------------------------------------------------------------------


class Work(NamedTuple):
    steps: int  # decoding steps
    passes: int  # passes over prompts
    slots: int  # rows of all decoding steps
    columns: int  # the widest cache


@pytest.fixture
def counted(bank, scripted, monkeypatch):
    """The work that responses of given lengths make; ``patience`` 1: batch after batch, as before."""

    def run(lengths: Sequence[int], *, rows: int, patience: float = module.PATIENCE, groups=None, limit: int | None = None) -> Work:
        eos = bank.base.tokenizer.eos_token_id
        monkeypatch.setattr(module, "PATIENCE", patience)
        widths: list[tuple[int, int]] = []
        hook = bank.trunk.register_forward_pre_hook(
            lambda _m, _p, named: widths.append((*named["input_ids"].shape, named["attention_mask"].shape[1])), with_kwargs=True
        )
        prompts = [(*varied(20, i // 2 if groups else i), 6 + i, 5) for i in range(len(lengths))]
        scripts = [[10 + i % 50] * (n - 1) + [eos] for i, n in enumerate(lengths)]
        found = scripted(scripts, prompts, rows=rows, groups=groups, max_new_tokens=limit or max(lengths))
        hook.remove()
        assert [g.ids for g in found] == [tuple(s) for s in scripts]
        steps = [n for n, width, _ in widths if width == 1]
        return Work(len(steps), len(widths) - len(steps), sum(steps), max(columns for *_, columns in widths))

    return run


def lengths_of(kind: str, n: int) -> list[int]:
    rng = random.Random(4)
    draws = {
        "many short": lambda: min(40, 2 + int(rng.expovariate(1 / 9))),
        "even": lambda: rng.randint(2, 40),
        "two": lambda: rng.choice((20, 40)),
        "nearly full": lambda: rng.randint(36, 40),
        "full": lambda: 40,
    }
    return [draws[kind]() for _ in range(n)]


@pytest.mark.parametrize(("kind", "share"), [("many short", 0.7), ("even", 0.95), ("two", 0.9), ("nearly full", 1.0), ("full", 1.0)])
def test_refilling_takes_fewer_steps_and_never_more(counted, kind, share):
    lengths = lengths_of(kind, 32)
    refilled, batches = (counted(lengths, rows=8, patience=p, limit=40) for p in (module.PATIENCE, 1.0))
    assert batches.passes == 4
    assert refilled.steps + module.IDLE * refilled.passes <= share * (batches.steps + module.IDLE * batches.passes)
    assert refilled.slots <= 1.05 * batches.slots
    assert refilled.columns <= 22 + 40 + 16  # one row at its longest, and the steps until the columns of a finished one go


def test_a_piece_that_does_not_fit_waits_for_its_turn(counted):
    lengths = lengths_of("even", 12)
    work = counted(lengths, rows=2, groups=[i // 2 for i in range(12)])
    assert work.passes == 2 * 6  # pairs, each alone: prefix and tails


@pytest.mark.parametrize("groups", [None, [i // 2 for i in range(14)]])
def test_refilled_rows_say_what_they_say_alone(bank, groups):
    """Greedy and drawn; rows that come in are shorter and longer than what is left of those in the batch."""
    add(bank, "policy")
    prompts = [(*varied(3 + 5 * (i // 2 % 5), i // 2), 7, 8 + i) for i in range(14)]
    for temperature in (0.0, 1.3):
        decoding = Decoding(24, temperature=temperature, stop="e")
        alone = [generate(bank, "policy", [p], seeds=[i], decoding=decoding)[0] for i, p in enumerate(prompts)]
        assert len({len(g.ids) for g in alone}) > 5
        for rows in (3, 8):
            assert generate(bank, "policy", prompts, seeds=range(14), decoding=decoding, rows=rows, groups=groups) == alone
