"""Two processes that write to one place: each ends well, or says in one line that the other is at work."""

import json

import pytest
from api_server import ApiServer, completion, written
from conftest import run, run_in_child

from utils.splade.encoder import SpladeEncoder


@pytest.fixture
def run_two(processes, tmp_path):
    """Run a script twice at once, with arguments of both and of `each`; return the exit codes and what was printed,
    those that ended well first."""

    def run_both(script, *arguments, each=((), ())):
        logs = [tmp_path / "first", tmp_path / "second"]
        commands = [[*map(str, (*arguments, *own))] for own in each]
        both = [processes.Process(target=run_in_child, args=(script, *rest)) for rest in zip(commands, logs)]
        for process in both:
            process.start()
        for process in both:
            process.join()
        return sorted((process.exitcode, log.read_text()) for process, log in zip(both, logs))

    return run_both


def ends_well_or_says_why(results):
    assert results[0][0] == 0, results
    for code, printed in results[1:]:
        if code:
            assert code == 2 and printed.splitlines()[-1].startswith("error: ") and "Traceback" not in printed, printed


def test_generation(run_two, pages, tmp_path):
    output = tmp_path / "out" / "training_data.json"
    generation = ["--input-dir", pages, "--generator", "extractive"]
    results = run_two(
        "generate_training_data", *generation, "--output-file", output, each=(["--seed", 1], ["--seed", 2])
    )
    ends_well_or_says_why(results)
    assert results[1][0] == 2 and f"{output}.journal: another run is at work on it" in results[1][1]
    wholes = []
    for seed in (1, 2):
        whole = tmp_path / f"seed {seed}" / output.name
        assert run("generate_training_data.py", *generation, "--output-file", whole, "--seed", seed).returncode == 0
        wholes.append({path.name: path.read_text() for path in whole.parent.glob("*.json*")})
    assert {path.name: path.read_text() for path in output.parent.glob("*.json*")} in wholes
    assert {path.suffix for path in output.parent.iterdir()} == {".json", ".jsonl", ".html"}


def test_generation_by_a_language_model(run_two, pages, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    server = ApiServer(lambda request: completion(written(request))._replace(wait=0.1))
    output = tmp_path / "out" / "training_data.json"
    results = run_two("generate_training_data", "--input-dir", pages, "--output-file", output, "--generator", "openai",
                      "--api-base", server.url, "--workers", "1")  # fmt: skip
    server.close()
    ends_well_or_says_why(results)
    assert results[1][0] == 2 and "training_data.json.journal" in results[1][1]
    prompts = [request.prompt for request in server.requests]
    assert len(prompts) == len(set(prompts)) == len(list(pages.iterdir()))


def test_training(run_two, tmp_path):
    examples = [{"query": f"page {i}", "positive_document": f"The page number {i} of the manual."} for i in range(8)]
    (tmp_path / "training_data.json").write_text(json.dumps(examples))
    results = run_two("train_splade", "--model-name", "splade-tiny", "--train-file", tmp_path / "training_data.json",
                      "--output-dir", tmp_path / "model", "--batch-size", "4", "--epochs", "2", "--device", "cpu",
                      "--threads", "1")  # fmt: skip
    ends_well_or_says_why(results)
    assert results[1][0] == 2 and f"{tmp_path / 'model'}: another run is at work on it" in results[1][1]
    assert len(SpladeEncoder.from_pretrained(tmp_path / "model", "cpu").encode_query("page").indices)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_embedding(run_two, pages, tmp_path):
    output = tmp_path / "out" / "vectors.jsonl"
    results = run_two("embedder", "--model-dir", "splade-tiny", "--input-file", pages, "--output-file", output,
                      "--device", "cpu", "--threads", "1")  # fmt: skip
    ends_well_or_says_why(results)
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == sorted(
        p.name for p in pages.iterdir()
    )
    assert not [path for path in output.parent.iterdir() if path.name.startswith(".")]
