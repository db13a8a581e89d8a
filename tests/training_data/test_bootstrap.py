"""Training data for a domain without documents, over real HTTP; tests/api_server.py stands in for the model."""

import json

import pytest
from api_server import ApiServer, completion, good
from conftest import fails_with_one_line, run

import generate_training_data
from utils.journal import Journal
from utils.records import read_examples
from utils.training_data.bootstrap import write_documents
from utils.training_data.language_model import LanguageModel

SCRIPT = "generate_training_data.py"


@pytest.fixture
def api(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = ApiServer()
    yield server
    server.close()


def bootstrap(api, tmp_path, *options):
    output = tmp_path / "training_data.json"
    return run(
        SCRIPT, "--domain", "lorry repair", "--bootstrap", 30, "--api-base", api.url, "--output-file", output, *options
    )


def test_a_model_writes_terms_then_passages_then_examples(api, tmp_path):
    done = bootstrap(api, tmp_path, "--language", "English")
    assert done.returncode == 0, done.stderr
    assert "written     30 documents of the 30 asked for" in done.stdout
    kinds = ["fields" if " fields " in r.prompt else "terms" if " terms " in r.prompt else "text" for r in api.requests]
    assert kinds[:3] == ["fields", "terms", "terms"] and len(api.requests) == 3 + 30 + 30
    made = [e for part in ("training", "validation", "test") for e in read_examples(tmp_path / f"{part}_data.json")]
    assert len({e.source for e in made}) == 30 and {e.source.partition("/")[0] for e in made} == {"field 1", "field 2"}
    assert all(e.positive_document.startswith("Field ") and "holds the" in e.positive_document for e in made)


def test_a_resumed_run_sends_no_answered_request_again(api, tmp_path):
    api.behave = lambda request: good(request) if request.number <= 40 else completion("no")
    bootstrap(api, tmp_path)
    first = {request.prompt for request in api.requests if request.number <= 40}
    api.behave = good
    api.requests.clear()
    assert bootstrap(api, tmp_path, "--resume").returncode == 0
    assert not first & {request.prompt for request in api.requests}


def test_a_dry_run_sends_no_request(api, tmp_path):
    done = bootstrap(api, tmp_path, "--dry-run", "--price", 1, 1)
    assert done.returncode == 0 and "to ask      about 30 passages" in done.stdout
    assert not api.requests and not list(tmp_path.iterdir())


def test_a_dry_run_counts_reformulations(api, docs, tmp_path):
    options = ["--input-dir", docs, "--output-file", tmp_path / "t.json", "--generator", "extractive", "--dry-run"]
    done = run(SCRIPT, *options, "--augment", "reformulation=1", "--split", "90/10")
    assert "to ask      about 6 passages, 2,200 tokens to read, 550 to write" in done.stdout


def test_without_an_endpoint_the_error_says_what_is_missing(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    done = run(SCRIPT, "--domain", "law", "--output-file", tmp_path / "training_data.json")
    fails_with_one_line(done, "set OPENAI_API_KEY")


def test_a_run_after_one_without_a_key_in_the_same_process_has_the_journal(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.argv", [SCRIPT, "--domain", "law", "--output-file", str(tmp_path / "t.json")])
    args = generate_training_data.parse_args()
    with pytest.raises(ValueError, match="set OPENAI_API_KEY") as kept:  # a notebook keeps it, and with it what is open
        generate_training_data.main(args)
    with pytest.raises(ValueError, match="set OPENAI_API_KEY"):
        generate_training_data.main(args)
    assert kept.tb and not list(tmp_path.iterdir())


def test_a_model_that_lists_no_terms_is_a_one_line_error(api, tmp_path):
    api.behave = lambda request: completion('{"terms": []}')
    fails_with_one_line(bootstrap(api, tmp_path), "the model names no terms of the domain 'lorry repair'")


def test_a_model_that_writes_no_passage_is_a_one_line_error(api, tmp_path):
    api.behave = lambda request: completion("no") if "Term:" in request.prompt else good(request)
    fails_with_one_line(bootstrap(api, tmp_path), "lorry repair: no document has enough text of its own for a query")


def test_a_passage_in_a_script_without_spaces_is_not_too_short(api, tmp_path):
    text = "检查机油。更换滤芯。" * 20
    api.behave = lambda r: completion(json.dumps({"title": "机油", "text": text})) if "Term:" in r.prompt else good(r)
    model = LanguageModel("played", Journal(tmp_path / "journal", {}), api.url)
    assert [document.text for document in write_documents("卡车", 1, None, model)] == [text] and len(api.requests) == 3


def test_reformulations_come_from_the_model(api, docs, tmp_path):
    output = tmp_path / "training_data.json"
    options = ["--generator", "extractive", "--augment", "reformulation=1", "--api-base", api.url]
    done = run(SCRIPT, "--input-dir", docs, "--output-file", output, *options)
    assert done.returncode == 0, done.stderr
    made = read_examples(output)
    reformulated = [e for e in made if e.query_type.endswith("+reformulation")]
    assert len(reformulated) == len(made) / 2 and len(api.requests) == len({e.query for e in made}) / 2
    assert all(e.query.startswith("in other words:") for e in reformulated)
