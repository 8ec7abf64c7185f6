"""Round trips: what is exported is loaded by the libraries that others use, and says the same; cards are whole; mistakes are told."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig

from lite import validate
from lite.errors import ArtifactError, PreconditionError, RecipeError
from lite.export import folders, hub, jobs
from lite.export.folders import MARK, export
from lite.knobs import LoraSpec
from lite.library.policy import load_policy
from lite.model.encoding import Row, encode, encode_row
from lite.model.forward import reward_rows
from lite.plan import tiny_folder
from lite.runs.journal import append_line
from lite.sources import reach
from lite.text.dialogue import STOP, Turn, prompt

TEXTS = [
    "\n\nHuman: How do I sew a shirt?\n\nAssistant: You need cloth and thread.",
    "\n\nHuman: Where can I fly a kite?\n\nAssistant:",
    "\n\nHuman: When do I plant roses?\n\nAssistant: In spring.\n\nHuman: And where?\n\nAssistant:",
]
TURNS = [Turn("human", "How do I sew a shirt?"), Turn("assistant", "With thread."), Turn("human", "Where?")]


def no_card(model, revision):
    raise AssertionError("the Hub was asked")


def logits(model, tokenizer) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model(input_ids=torch.tensor([encode(tokenizer, text)])).logits[0].float() for text in TEXTS])


def plain(place=None, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(str(place or tiny_folder()), dtype=dtype).eval()


# -- adapters -----------------------------------------------------------------------------------------------------------------


def test_a_reloaded_adapter_gives_the_same_logits(run, bank):
    """On the very 4-bit base that it was trained on, through nothing but PEFT: to the bit."""
    tokenizer = bank.base.tokenizer
    bank.load("policy", next(r for r in run.stages() if r.id == "ppo").folder.out / "adapter")
    with bank.using("policy"):
        before = logits(bank.base.model, tokenizer)
    bank.clear()
    untouched = logits(bank.base.model, tokenizer)
    made = export(run, "adapter", ask=no_card)
    loaded = PeftModel.from_pretrained(bank.base.model, str(made.path)).eval()
    found = logits(loaded, tokenizer)
    loaded.unload()
    assert torch.equal(found, before) and not torch.equal(found, untouched)


def test_an_adapter_names_its_base_and_its_layers(run):
    made = export(run, "adapter", ask=no_card)
    config = json.loads((made.path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "tiny"
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert made.path == run.folder.path / "export" / "ppo-adapter"
    marked = json.loads((made.path / MARK).read_text(encoding="utf-8"))
    assert (marked["stage"], marked["stop"], marked["seed"]) == ("ppo", STOP, 17)


def test_an_adapter_of_the_tiny_base_is_loaded_as_its_card_says(run):
    """The policy's lines and the reward model's, and by lite, on whatever machine: no place of this one is in any file."""
    for stage in ("ppo", "reward"):
        made = export(run, "adapter", stage=stage, ask=no_card)
        code = _code(made)
        assert "the embedded tiny base of lite: the folder `lite/micro/base`" in (made.path / "README.md").read_text(encoding="utf-8")
        done = subprocess.run([sys.executable, "-c", code], cwd=made.path, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr
        assert not _holding(made.path, str(tiny_folder().parent))
    made = export(run, "adapter", ask=no_card)
    assert len(load_policy(made.path).reply(["How do I sew a shirt?"], max_new_tokens=4)) == 1


def test_an_adapter_of_a_folder_names_the_folder_and_no_place(run, tmp_path):
    shutil.copytree(tiny_folder(), tmp_path / "my-base")
    text = run.folder.resolved.read_text(encoding="utf-8").replace("model: tiny", f"model: {tmp_path / 'my-base'}")
    run.folder.resolved.write_text(text, encoding="utf-8")
    made = export(run, "adapter", to=tmp_path / "adapter", ask=no_card)
    config = json.loads((made.path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "./my-base" and not _holding(made.path, str(tmp_path))
    assert "The base is a folder, `my-base`" in (made.path / "README.md").read_text(encoding="utf-8")
    assert 'from_pretrained("./my-base"' in _code(made)


def _code(made) -> str:
    """The Python lines of the card."""
    return re.search(r"```python\n(.*?)```", (made.path / "README.md").read_text(encoding="utf-8"), re.S)[1]


def _holding(folder, text: str) -> list[str]:
    """The files that a text is in."""
    return [file.name for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


def test_a_reward_adapter_is_a_sequence_classifier(run, bank):
    """PEFT's and transformers' own reading of it, on the very 4-bit weights: our rewards, short of the head's bias, which the card names."""
    record = next(r for r in run.stages() if r.id == "reward").folder.out
    texts = [(TEXTS[0].rpartition(":")[0] + ":", " You need cloth." + STOP), (TEXTS[1], " At the beach." + STOP)]
    rows: list[Row] = [encode_row(bank.base.tokenizer, p, r) for p, r in texts]
    bank.add("reward", LoraSpec(r=4, alpha=8), seed=1)  # says what the base says
    bank.head("reward").load(record / "head.safetensors")
    untrained = reward_rows(bank, rows, role="reward", micro_tokens=4096)
    bank.clear()
    bank.load("reward", record / "adapter")
    bank.head("reward").load(record / "head.safetensors")
    ours = reward_rows(bank, rows, role="reward", micro_tokens=4096)
    bank.clear()
    made = export(run, "adapter", stage="reward", ask=no_card)
    assert "0.375" in (made.path / "README.md").read_text(encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(str(made.path))

    def rewards(classifier) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([classifier(**tokenizer(p + r, return_tensors="pt")).logits[0].float() for p, r in texts]) + 0.375

    classifier = AutoModelForSequenceClassification.from_pretrained(str(tiny_folder()), num_labels=1, dtype=torch.float32)
    in_16_bits = rewards(PeftModel.from_pretrained(classifier, str(made.path)).eval())
    classifier = AutoModelForSequenceClassification.from_pretrained(str(tiny_folder()), num_labels=1, dtype=torch.float32)
    classifier.model = bank.base.model.model
    loaded = PeftModel.from_pretrained(classifier, str(made.path)).eval()
    in_4_bits = rewards(loaded)
    loaded.unload()
    torch.testing.assert_close(in_4_bits, ours, rtol=0, atol=1e-5)
    assert (untrained - ours).abs().max() > 0.01  # the adapter does something
    assert (in_16_bits - ours).abs().max() < 0.05  # the base as the card loads it: rounded otherwise


# -- merged -------------------------------------------------------------------------------------------------------------------


def test_a_merged_model_is_the_16_bit_base_with_the_adapter(run, bank):
    """Merged weights are rounded to 16 bits once: probabilities move by less than 1e-2. What the 4-bit base rounds is more than that."""
    tokenizer = bank.base.tokenizer
    adapter = next(r for r in run.stages() if r.id == "ppo").folder.out / "adapter"
    made = export(run, "merged", ask=no_card)
    merged = logits(plain(made.path), tokenizer)
    expected = logits(PeftModel.from_pretrained(plain(), str(adapter)).eval(), tokenizer)
    bank.load("policy", adapter)
    with bank.using("policy"):
        in_4_bits = logits(bank.base.model, tokenizer)
    bank.clear()
    rounding, quantisation = ((found.softmax(-1) - expected.softmax(-1)).abs().max() for found in (merged, in_4_bits))
    assert rounding < 1e-2 < quantisation
    assert (expected.softmax(-1) - logits(plain(), tokenizer).softmax(-1)).abs().max() > 0.1  # the adapter does something


def test_a_merged_model_loads_whole_and_in_its_own_type(run):
    made = export(run, "merged", ask=no_card)
    _, info = AutoModelForCausalLM.from_pretrained(str(made.path), output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]  # tied embeddings: no head on the disk, none missing
    assert AutoModelForCausalLM.from_pretrained(str(made.path), dtype="auto").dtype == torch.bfloat16
    assert GenerationConfig.from_pretrained(str(made.path)).stop_strings == [STOP]


def test_a_merged_model_answers_and_stops_with_transformers_alone(run):
    made = export(run, "merged", ask=no_card)
    tokenizer, model = AutoTokenizer.from_pretrained(str(made.path)), plain(made.path)
    asked = [{"role": "user", "content": "How do I sew a shirt?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert tuple(ids["input_ids"][0].tolist()) == encode(tokenizer, prompt([Turn("human", asked[0]["content"])]))
    torch.manual_seed(1)
    replies = [model.generate(**ids, tokenizer=tokenizer)[0, ids["input_ids"].shape[1] :] for _ in range(8)]
    ended = [tokenizer.decode(reply).endswith(STOP) for reply in replies if len(reply) < 48]
    assert ended and all(ended)


def test_the_cards_lines_run_as_they_stand(run):
    """In the exported folder, with `generate` and a pipeline; a plain call without the tokenizer ends as the card says."""
    made = export(run, "merged", ask=no_card)
    card = (made.path / "README.md").read_text(encoding="utf-8")
    code = _code(made)
    done = subprocess.run([sys.executable, "-c", code], cwd=made.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pipe(asked, tokenizer=pipe.tokenizer)" in code and STOP not in done.stdout and done.stdout.strip()
    told = re.search(r"`There are one or more stop strings \[\.\.\.\] (.*?)`", card)[1]
    with pytest.raises(ValueError, match=f"There are one or more stop strings.*{told}"):
        plain(made.path).generate(torch.tensor([[1, 2]]))


def test_a_base_from_the_hub_is_named_with_its_commit_and_its_licence(run, tmp_path, monkeypatch):
    """The cached snapshot is what is merged onto; card and adapter name the id, the commit and the licence of its card."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--org--small" / "snapshots" / commit
    shutil.copytree(tiny_folder(), cached)
    (cached / "README.md").write_text("---\nlicense: other\nlicense_name: small-1\n---\n# Small\n", encoding="utf-8")
    (cached / "LICENSE.txt").write_text("terms", encoding="utf-8")
    monkeypatch.setattr(reach, "snapshot", lambda repo, revision, kind="dataset": cached)
    text = run.folder.resolved.read_text(encoding="utf-8").replace("model: tiny", "model: org/small")
    run.folder.resolved.write_text(text, encoding="utf-8")
    adapter, merged = (export(run, what, ask=no_card) for what in ("adapter", "merged"))
    config = json.loads((adapter.path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/small", commit)
    for made, relation in ((adapter, "adapter"), (merged, "finetune")):
        found = ModelCard.load(made.path / "README.md").data.to_dict()
        assert (found["base_model"], found["base_model_relation"]) == ("org/small", relation)
        assert (found["license"], found["license_name"]) == ("other", "small-1")
    assert (merged.path / "LICENSE.txt").read_text(encoding="utf-8") == "terms"
    hub.check(adapter.subject, "adapter", "me/adapter")  # others can get this base


# -- Ollama -------------------------------------------------------------------------------------------------------------------


def render(template: str, messages: list[dict]) -> str:
    """As Go's text/template would, as far as the Modelfile uses it: one range, one chain of if, strings and a field."""
    body, tail = re.fullmatch(r"\{\{ range \.Messages \}\}(.*)\{\{ end \}\}(\{\{ \".*?\" \}\})", template, re.S).groups()
    cases = dict(re.findall(r'\{\{ (?:else )?if eq \.Role "(\w+)" \}\}(\{\{ ".*?" \}\})\{\{ \.Content \}\}', body))
    text = "".join(json.loads(cases[m["role"]][3:-3]) + m["content"] for m in messages)
    return text + json.loads(tail[3:-3])


def test_the_modelfile_says_what_the_model_was_trained_on(run):
    made = export(run, "ollama", ask=no_card)
    text = (made.path / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith("FROM .\n") and 'PARAMETER stop "\n\nHuman:"\n' in text
    assert "PARAMETER num_ctx 512\n" in text and "PARAMETER num_predict 48\n" in text
    template = re.search(r'TEMPLATE """(.*?)"""', text, re.S)[1]
    messages = [{"role": "user" if t.role == "human" else t.role, "content": t.text} for t in TURNS]
    assert render(template, messages) == prompt(TURNS)
    assert (made.path / "model.safetensors").is_file() and "ollama create" in (made.path / "README.md").read_text(encoding="utf-8")


# -- pairs and jobs -----------------------------------------------------------------------------------------------------------


def test_a_data_set_holds_the_reviewed_pairs(run, tmp_path):
    run.folder.reviews("contrast").parent.mkdir()
    for id, action in (("p0", "exclude"), ("p1", "flip")):
        append_line(run.folder.reviews("contrast"), json.dumps({"id": id, "action": action}))
    made = export(run, "dataset", to=tmp_path / "pairs", ask=no_card)
    rows = [json.loads(line) for line in (made.path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert validate.pairs_file(made.path / "train.jsonl") == 3 == len(rows)
    assert rows[0]["chosen"] == " No idea, 1." and rows[1]["chosen"] == " You need flour and yeast, 2."
    card = ModelCard((made.path / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=False)
    assert card.data.to_dict()["configs"][0]["data_files"][0]["path"] == "train.jsonl"
    assert "| `p_plus` |" in card.text


def test_cards_of_pairs_speak_of_pairs(run, tmp_path):
    """No limit of a trained model, no licence that is named nowhere, and no column without a meaning."""
    for what in ("dataset", "job"):
        text = (export(run, what, to=tmp_path / what, ask=no_card).path / "README.md").read_text(encoding="utf-8")
        assert ModelCard(text, ignore_metadata_errors=False).data.license == "apache-2.0"
        for other in ("is rewarded", "was rewarded", "adapter was", "The base is a toy", "own licence is named above", "| provenance |"):
            assert other not in text, other
        for said in (
            "Nobody compared the two responses",
            "embedded world of lite, small and closed",
            "| `id` | which prompt",
            "how `rejected` ended",
        ):
            assert said in text, said
        first = (tmp_path / what / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]
        table = text.partition("## Columns")[2].partition("##")[0]
        assert set(json.loads(first)) == set(re.findall(r"^\| `(\w+)` \| ", table, re.M))
    resolved = run.folder.resolved.read_text(encoding="utf-8")
    run.folder.resolved.write_text(_with_preferences(resolved, "hh-rlhf"), encoding="utf-8")
    text = (export(run, "dataset", stage="contrast", ask=no_card).path / "README.md").read_text(encoding="utf-8")
    assert (
        "The prompts' own licence is named above" in text and "[Anthropic/hh-rlhf]" in text and "the people whom the source names" in text
    )
    assert "written by a model" not in text and "Nobody compared" not in text


@pytest.mark.parametrize("pushed", [False, True])
def test_the_job_runs_in_trl(run, tmp_path, pushed):
    """As it was written, and as somebody else gets it, who says where the base lies."""
    made = export(run, "job", to=tmp_path / "job", ask=no_card)
    assert (made.path / "train.jsonl").read_text(encoding="utf-8").count(json.dumps(STOP)[1:-1]) >= 8  # every response ends
    if pushed:
        jobs.forget_place(made.path, made.subject)
    done = subprocess.run(
        [sys.executable, "train_dpo.py", "--max-steps", "1", "--out", str(tmp_path / "out"), *(("--base", str(tiny_folder())) * pushed)],
        cwd=made.path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


# -- cards --------------------------------------------------------------------------------------------------------------------


def test_cards_are_whole(run):
    for what in ("adapter", "merged"):
        text = (export(run, what, ask=no_card).path / "README.md").read_text(encoding="utf-8")
        assert "More Information Needed" not in text and str(tiny_folder()) not in text
        card = ModelCard(text)
        assert card.data.license == "apache-2.0" and "rlcd" in card.data.tags and "ppo" in card.data.tags
        for said in ("2.125", "KL to the base", "`kl_coef` | 0.004", "0.875", "4. `ppo` (ppo)", "seed 17", "embedded world", "90.0%"):
            assert said in text, said
        assert "seconds_rollout" not in text


def test_the_licence_is_the_bases(fakes, trained, run):
    text = run.folder.resolved.read_text(encoding="utf-8").replace("model: tiny", "model: meta/some-base")
    run.folder.resolved.write_text(text, encoding="utf-8")
    subject = folders.choose(run, "adapter")
    found = folders.licence_of(
        subject, None, lambda model, revision: {"license": "other", "license_name": "lama", "license_link": "http://x"}
    )
    assert found.metadata() == {"license": "other", "license_name": "lama", "license_link": "http://x"}
    unknown = folders.licence_of(subject, None, lambda model, revision: None)
    assert unknown.metadata() == {} and "could not be read" in unknown.sentence("meta/some-base")


def test_pairs_that_no_model_of_the_run_wrote_have_their_sources_licence(run):
    text = run.folder.resolved.read_text(encoding="utf-8")
    ours = folders.source_licence(folders.choose(run, "dataset"))
    assert ours is None  # the base wrote these
    for source, expected in (("hh-rlhf", ("mit", "Anthropic/hh-rlhf")), ("micro", ("apache-2.0", "the embedded world of lite"))):
        run.folder.resolved.write_text(_with_preferences(text, source), encoding="utf-8")
        found = folders.source_licence(folders.choose(run, "dataset", "contrast"))
        assert found and (found.id, found.of) == expected and expected[1] in found.sentence("the base")


def test_pairs_that_a_server_wrote_name_its_model_and_no_licence_of_the_base(run):
    text = run.folder.resolved.read_text(encoding="utf-8")
    loaded = yaml.safe_load(text)
    loaded["stages"][1]["contrast"]["server"] = {"base_url": "http://127.0.0.1:9/v1", "model": "big/model"}
    run.folder.resolved.write_text(yaml.safe_dump(loaded), encoding="utf-8")
    made = export(run, "dataset", ask=no_card)
    card = (made.path / "README.md").read_text(encoding="utf-8")
    assert made.licence.id is None
    assert "`contrast`: written by big/model, on a server" in card
    assert "The licence of big/model could not be read" in card


def _with_preferences(text: str, source: str) -> str:
    """The recipe with a preferences stage in the place of its contrast stage."""
    loaded = yaml.safe_load(text)
    loaded["stages"][1] = {"preferences": {"as": "contrast", "source": source}}
    return yaml.safe_dump(loaded)


# -- the Hub ------------------------------------------------------------------------------------------------------------------


class StubHub:
    def __init__(self, error: Exception | None = None):
        self.calls: list[tuple] = []
        self.error = error

    def create_repo(self, repo, **options):
        self.calls.append(("create", repo, options))
        return f"https://huggingface.co/{repo}"

    def upload_folder(self, **options):
        if self.error:
            raise self.error
        self.calls.append(("upload", options))


def test_a_push_makes_the_repository_and_uploads_the_folder_once(run):
    made, api = export(run, "merged", ask=no_card), StubHub()
    assert hub.push(made, "me/model", private=True, api=api) == "https://huggingface.co/me/model"
    (_, repo, options), (_, sent) = api.calls
    assert repo == "me/model" and options == {"repo_type": "model", "private": True, "exist_ok": True}
    assert sent["folder_path"] == str(made.path) and sent["repo_type"] == "model"


def test_a_pushed_job_leaves_this_machines_places_at_home(run, tmp_path):
    made, seen = export(run, "job", to=tmp_path / "job", ask=no_card), {}

    class Reading(StubHub):
        def upload_folder(self, **options):
            folder = Path(options["folder_path"])
            seen["held"] = _holding(folder, str(tiny_folder().parent))
            seen["base"] = json.loads((folder / "job.json").read_text(encoding="utf-8"))["base"]
            seen["axolotl"] = yaml.safe_load((folder / "axolotl.yaml").read_text(encoding="utf-8"))["base_model"]
            seen["files"] = {file.name for file in folder.iterdir()}

    hub.push(made, "me/job", api=Reading())
    assert seen == {"held": [], "base": "tiny", "axolotl": "tiny", "files": {file.name for file in made.path.iterdir()}}
    assert json.loads((made.path / "job.json").read_text(encoding="utf-8"))["base"] == str(tiny_folder())  # here it runs as it is
    assert "train_dpo.py --base PLACE" in (made.path / "README.md").read_text(encoding="utf-8")


def test_a_push_that_cannot_be_is_told(run):
    made = export(run, "merged", ask=no_card)
    with pytest.raises(RecipeError, match="you/name"):
        hub.push(made, "model", api=StubHub())
    with pytest.raises(PreconditionError, match="hf auth login"):
        hub.push(made, "me/model", api=StubHub(OSError("401 Unauthorized")))
    with pytest.raises(RecipeError, match="not on the Hub"):
        hub.check(made.subject, "adapter", "me/adapter")


# -- mistakes -----------------------------------------------------------------------------------------------------------------


def test_nothing_of_the_users_is_overwritten(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years", encoding="utf-8")
    with pytest.raises(RecipeError, match="no earlier export"):
        export(run, "dataset", to=tmp_path / "mine", ask=no_card)
    assert (tmp_path / "mine" / "thesis.txt").is_file()
    export(run, "dataset", to=tmp_path / "again", ask=no_card)
    export(run, "dataset", to=tmp_path / "again", ask=no_card)  # an export may be


@pytest.mark.parametrize(
    ("what", "stage", "told"),
    [
        ("gguf", None, "there are: adapter, merged"),
        ("merged", "reward", "fit: ppo"),
        ("dataset", "nonesuch", "fit: contrast"),
        ("adapter", "pppo", "did you mean 'ppo'"),
    ],
)
def test_a_wrong_choice_names_what_there_is(run, what, stage, told):
    with pytest.raises(RecipeError, match=told) as error:
        export(run, what, stage=stage, ask=no_card)
    assert error.value.problems[0].count("(") <= 1  # what there is stands there once


def test_a_full_disk_is_told_before_anything_is_merged(run, monkeypatch):
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(PreconditionError, match="GiB"):
        export(run, "merged", ask=no_card)
    assert not run.folder.export("ppo", "merged").exists()


def test_no_pair_left_is_no_data_set(run):
    run.folder.reviews("contrast").parent.mkdir()
    for i in range(4):
        append_line(run.folder.reviews("contrast"), json.dumps({"id": f"p{i}", "action": "exclude"}))
    with pytest.raises(ArtifactError, match="no pair is left"):
        export(run, "dataset", ask=no_card)
