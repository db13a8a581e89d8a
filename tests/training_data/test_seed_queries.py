"""Queries that fail make more training queries near them, and none of themselves or of what was judged for them."""

import json
from collections import Counter

import pytest
from api_server import ApiServer, completion
from conftest import fails_with_one_line, run

from utils.documents.families import Families
from utils.records import Chunk, SeedQuery, read_examples
from utils.training_data.seed_queries import SEED_PASSAGES, nearest_passages

SCRIPT = "generate_training_data.py"
PARTS = ["engine", "brake", "mirror", "heater", "tyre", "lamp", "wiper", "clutch", "radio", "filter", "pump", "valve"]


@pytest.fixture
def manual(tmp_path):
    """Twelve documents of twelve sentences; one word of each sentence is its own."""
    folder = tmp_path / "manual"
    folder.mkdir()
    for part in PARTS:
        sentences = [f"The {part} has a {part}{i} part and its {i}{part} holds the {part[::-1]}{i}." for i in range(12)]
        (folder / f"{part}.txt").write_text(" ".join(sentences))
    return folder


def generate(folder, name, *options):
    out = folder.parent / f"{name}.json"
    done = run(SCRIPT, "--input-dir", folder, "--output-file", out, *options)
    assert done.returncode == 0, done.stderr
    return done, {part: folder.parent / f"{name}{part}.json" for part in ("", "_validation", "_test")}


def write_seeds(folder, *seeds):
    file = folder.parent / "seeds.jsonl"
    file.write_text("".join(json.dumps(seed) + "\n" for seed in seeds))
    return ["--seed-queries", file]


def test_extractive_queries_are_added_where_queries_fail_and_the_test_data_stay(manual):
    _, files = generate(manual, "plain", "--generator", "extractive")
    plain = Counter(example.source for example in read_examples(files[""]))
    failing, judged = [source.removesuffix(".txt") for source in list(plain)[:2]]
    seeds = [
        {"query": f"{failing} rattles", "judged": ["elsewhere"], "cause": "expansion missing"},
        {"query": f"{judged} squeaks", "judged": [f"{judged}.txt"]},
    ]
    done, seeded = generate(manual, "seeded", "--generator", "extractive", *write_seeds(manual, *seeds))
    examples = read_examples(seeded[""])
    counts = Counter(example.source for example in examples)
    added = counts - plain
    assert set(added) == {f"{failing}.txt"} and added.total() >= 2
    assert (
        f"seeded      {added.total()} more training examples of 1 passages near 2 queries; 1 of 2 judged" in done.stdout
    )
    assert len({(example.query, example.positive_id) for example in examples}) == len(examples)
    for part in ("_validation", "_test"):
        assert seeded[part].read_bytes() == files[part].read_bytes()


def test_a_language_model_is_shown_failing_queries_beside_passages_near_them(manual, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    api = ApiServer()
    try:
        options = ["--generator", "openai", "--api-base", api.url, "--queries-per-passage", 2]
        _, files = generate(manual, "plain", *options)
        plain = read_examples(files[""])
        failing, judged = [source.removesuffix(".txt") for source in dict.fromkeys(e.source for e in plain)][:2]
        seeds = [
            {"query": f"{failing} rattles", "judged": []},
            {"query": f"{judged} squeaks", "judged": [f"{judged}.txt"]},
        ]
        before = len(api.requests)
        _, seeded = generate(manual, "seeded", *options, *write_seeds(manual, *seeds))
        prompts = [request.prompt for request in api.requests[before:]]
        assert len(prompts) == before + 1  # a passage is near one of them
        shown = [prompt for prompt in prompts if "rattles" in prompt]
        assert len(shown) == 1 and f"The {failing} has" in shown[0] and not any("squeaks" in p for p in prompts)
        for part in ("_validation", "_test"):
            assert seeded[part].read_bytes() == files[part].read_bytes()

        repeated = {"type": "question", "query": f"Rattles, {failing}?"}, {"type": "keyword", "query": "noise at speed"}
        answer = json.dumps({"queries": repeated, "negatives": []})
        api.behave = lambda request, good=api.behave: (
            completion(answer) if "rattles" in request.prompt else good(request)
        )
        _, seeded = generate(manual, "repeated", *options, *write_seeds(manual, *seeds))
        queries = [example.query for example in read_examples(seeded[""])]
        assert "noise at speed" in queries and not any("attles" in query for query in queries)
    finally:
        api.close()


def test_passages_of_judged_documents_and_their_editions_are_near_no_query():
    texts = [f"brakes {'squeak ' * i}" for i in range(SEED_PASSAGES + 4)]
    passages = [Chunk(id=f"d{i}#0", document_id=f"d{i}", text=text) for i, text in enumerate(texts)]
    family_of = {f"d{i}": i for i in range(len(texts))} | {"d4": 3}
    families = Families(passages, {}, {}, family_of, {})
    seeds = [SeedQuery(query="brakes squeak", judged=["d3", "d99"]), SeedQuery(query="nothing of it")]
    near = nearest_passages(seeds, passages, families, "en")
    assert len(near) == SEED_PASSAGES and set(map(tuple, near.values())) == {("brakes squeak",)}
    assert not {"d3#0", "d4#0"} & near.keys()
    assert nearest_passages(seeds, [], families) == {}


BAD = {
    "a missing file": (None, "seeds.jsonl: no such file or folder"),
    "broken JSON": ("{", "seeds.jsonl: line 1: broken JSON"),
    "no query": ('{"judged": []}', "seeds.jsonl: line 1: field 'query': Field required"),
    "an empty query": ('{"query": " ?"}', "seeds.jsonl: line 1: field 'query': has no words"),
    "judged documents that are none": ('{"query": "a", "judged": "d1"}', "seeds.jsonl: line 1: field 'judged'"),
    "nothing": ("", "seeds.jsonl: holds no queries"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_bad_seed_queries_are_one_line(manual, text, message):
    file = manual.parent / "seeds.jsonl"
    if text is not None:
        file.write_text(text)
    options = ["--input-dir", manual, "--output-file", manual.parent / "out.json", "--seed-queries", file]
    fails_with_one_line(run(SCRIPT, *options), message)
