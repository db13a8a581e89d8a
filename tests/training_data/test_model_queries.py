"""Training data from a language model, over real HTTP; tests/api_server.py stands in for the model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from api_server import ApiServer, completion, failure, good, written
from conftest import ROOT, fails_with_one_line, run

from utils.journal import Journal
from utils.records import Chunk, read_examples
from utils.training_data.model_queries import (
    EXAMPLE_QUERIES,
    MAX_QUERY_WORDS,
    NEGATIVE_STRATEGIES,
    QUERY_TYPES,
    Written,
    WrittenQuery,
    examples_from_answers,
    load_template,
    template_names,
)

SCRIPT = "generate_training_data.py"
KEY = "sk-secret-0123456789"


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = ApiServer()
    yield server
    server.close()


@pytest.fixture
def pages(tmp_path):
    """Twelve short documents."""
    folder = tmp_path / "pages"
    folder.mkdir()
    parts = [
        "engine",
        "brake",
        "mirror",
        "heater",
        "tyre",
        "lamp",
        "wiper",
        "clutch",
        "radio",
        "filter",
        "pump",
        "valve",
    ]
    for i, part in enumerate(parts):
        (folder / f"{part}.txt").write_text(
            f"The {part} needs care every {i + 2} weeks. Clean the {part} with soap and warm water before winter comes."
        )
    return folder


def generate(api, pages, *options):
    return run(
        SCRIPT,
        "--input-dir",
        pages,
        "--output-file",
        pages.parent / "training_data.json",
        "--api-base",
        api.url,
        *options,
    )


def examples(pages):
    parts = ("training", "validation", "test")
    return [example for part in parts for example in read_examples(pages.parent / f"{part}_data.json")]


def test_a_model_writes_queries_of_all_types_and_negatives_with_explanations(api, pages):
    done = generate(api, pages, "--queries-per-passage", 4, "--contrastive-negatives", 2, "--price", 1, 10)
    assert done.returncode == 0, done.stderr
    made = examples(pages)
    assert len(api.requests) == 12 and len(made) == 48
    assert {example.query_type for example in made} == set(QUERY_TYPES)
    for example in made:
        assert len(example.negative_documents) == 2
        assert example.negative_documents[0].explanation.partition(":")[0] in NEGATIVE_STRATEGIES
        assert example.source in example.positive_id and "needs care" in example.positive_document
    assert "generator   openai" in done.stdout
    assert "asked       12 questions of played: 1,200 tokens to read, 240 to write: 0.00" in done.stdout
    formats = {request.body["response_format"]["type"] for request in api.requests}
    assert formats == {"json_schema"} and {request.key for request in api.requests} == {KEY}


def test_shares_of_types_are_kept(api, pages):
    generate(api, pages, "--query-types", "keyword=3", "question", "--queries-per-passage", 8)
    kinds = Counter(example.query_type for example in examples(pages))
    assert set(kinds) == {"keyword", "question"} and kinds["keyword"] > 1.5 * kinds["question"]


@pytest.mark.parametrize("given", [*EXAMPLE_QUERIES, "de", "pl"])
def test_the_prompt_names_the_language_with_examples_where_there_are_any(api, pages, given):
    assert generate(api, pages, "--language", given).returncode == 0
    language = {"de": "German", "pl": "Polish"}.get(given, given.capitalize())
    samples = EXAMPLE_QUERIES.get(language.lower(), ())
    assert len(api.requests) == 12
    for request in api.requests:
        assert f"Write in {language}." in request.prompt and all(sample in request.prompt for sample in samples)
        assert samples or "For instance" not in request.prompt


def test_a_dry_run_sends_no_request_and_writes_no_file(api, pages):
    done = generate(api, pages, "--dry-run", "--price", 100, 100)
    assert done.returncode == 0 and not api.requests
    assert "to ask      about 12 passages, " in done.stdout and "to write: 0." in done.stdout
    assert sorted(path.name for path in pages.parent.iterdir()) == ["pages"]


def once(reply):
    """Return a behavior that replies by `reply` to the first request for each prompt, then with usable answers."""
    return lambda request: reply(request) if request.attempt == 1 else good(request)


FAULTS = {
    "too many requests": (once(lambda r: failure(429, Retry_After="0.2")), 2, "none"),
    "server errors": (once(lambda r: failure(500)), 2, "none"),
    "a connection that is cut": (once(lambda r: good(r)._replace(cut=True)), 2, "none"),
    "truncated JSON": (once(lambda r: completion(written(r)[:40], "length")), 2, "12 cut short"),
    "another schema": (once(lambda r: completion('{"questions": []}')), 2, "12 malformed"),
    "no JSON": (once(lambda r: completion("I would rather talk.")), 2, "12 malformed"),
    "a refusal": (once(lambda r: completion(None, refusal="I cannot do that.")), 2, "12 refused"),
    "talk of the passage": (
        once(lambda r: completion(written(r).replace("question about", "what does this passage say about"))),
        2,
        "12 malformed",
    ),
    "an unknown type": (once(lambda r: completion(written(r).replace('"question"', '"riddle"'))), 2, "12 malformed"),
    "words around the JSON": (lambda r: completion(f"Here it is:\n```json\n{written(r)}\n```"), 1, "none"),
}


@pytest.mark.parametrize(("behave", "attempts", "unusable"), FAULTS.values(), ids=FAULTS.keys())
def test_temporary_faults_are_tolerated(api, pages, behave, attempts, unusable):
    api.behave = behave
    done = generate(api, pages, "--query-types", "question")
    assert done.returncode == 0, done.stderr
    assert len(api.requests) == 12 * attempts
    assert f"unusable    {unusable}; 0 questions without an answer" in done.stdout
    assert len(examples(pages)) == 36


def test_a_time_out_is_retried(api, pages):
    api.behave = once(lambda request: good(request)._replace(wait=1.5))
    done = generate(api, pages, "--api-timeout", 1, "--workers", 12)
    assert done.returncode == 0 and len(api.requests) == 24 and len(examples(pages)) == 36


def test_a_passage_refused_twice_is_skipped(api, pages):
    api.behave = lambda r: completion(None, refusal="no") if "brake" in r.prompt else good(r)
    done = generate(api, pages)
    assert "2 refused; 1 questions without an answer" in done.stdout
    assert "left out    1: passage without an answer 1" in done.stdout
    assert len(api.requests) == 13 and len(examples(pages)) == 33
    assert "brake.txt" not in {example.source for example in examples(pages)}


def test_a_passage_that_the_endpoint_rejects_is_left_out_and_not_asked_again(api, pages):
    api.behave = lambda r: failure(400, "Content Exists Risk") if "brake" in r.prompt else good(r)
    done = generate(api, pages)
    assert done.returncode == 0, done.stderr
    assert "rejected    HTTP 400: Content Exists Risk" in done.stdout
    assert "unusable    1 rejected; 1 questions without an answer" in done.stdout
    assert "left out    1: passage without an answer 1" in done.stdout
    assert "brake.txt" not in {example.source for example in examples(pages)} and len(examples(pages)) == 33
    api.requests.clear()
    assert generate(api, pages, "--resume").returncode == 0 and not api.requests


def test_an_endpoint_without_structured_output_gets_plain_requests(api, pages):
    api.behave = lambda r: failure(400, "response_format is not supported") if "response_format" in r.body else good(r)
    done = generate(api, pages, "--workers", 1)
    assert done.returncode == 0 and len(api.requests) == 13 and len(examples(pages)) == 36


FATAL = {
    "a wrong key": (lambda r: failure(401, f"Incorrect API key: {KEY}"), "the API key is refused (HTTP 401)"),
    "an unknown model": (lambda r: failure(404, f"no such model for {KEY}"), "HTTP 404"),
    "an endpoint that always fails": (lambda r: failure(503, f"down {KEY}", Retry_After="0.01"), "go on by --resume"),
}


@pytest.mark.parametrize(("behave", "message"), FATAL.values(), ids=FATAL.keys())
def test_a_fatal_error_is_one_line_without_the_key(api, pages, behave, message):
    api.behave = behave
    done = generate(api, pages)
    fails_with_one_line(done, message)
    output = done.stdout + done.stderr + "".join(p.read_text() for p in pages.parent.iterdir() if p.is_file())
    assert KEY not in output
    assert not (pages.parent / "training_data.json").exists()


def test_an_unreachable_endpoint_is_a_one_line_error(pages, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    output = pages.parent / "training_data.json"
    done = run(
        SCRIPT, "--input-dir", pages, "--output-file", output, "--api-base", "http://127.0.0.1:9/v1", "--api-model", "m"
    )
    fails_with_one_line(done, "127.0.0.1:9", "Connection")


def test_with_several_models_listed_one_has_to_be_named(api, pages):
    api.models = ("small", "large")
    fails_with_one_line(generate(api, pages), "name the model with --api-model: large, small")
    assert generate(api, pages, "--api-model", "large").returncode == 0
    assert {request.body["model"] for request in api.requests} == {"large"}


def test_the_rate_limit_holds_for_all_workers_together(api, pages):
    api.behave = once(lambda r: failure(429, Retry_After="0"))
    generate(api, pages, "--workers", 8, "--requests-per-minute", 600)
    times = [request.time for request in api.requests]
    assert len(times) == 24
    # Ten per second, retries included: 23 pauses of 0.1 s, less what the first may be late by on a busy machine.
    assert max(times) - min(times) > 1.3


def test_an_unusable_query_beside_a_good_one_is_left_out_alone():
    chunk = Chunk(id="a#0", document_id="a", text="The pump lifts water.")
    queries = [
        ("Natural language", "water has to go up"),
        ("question", "why " * (MAX_QUERY_WORDS + 1)),
        ("riddle", "what lifts and is no crane?"),
        ("question", "what does this passage say?"),
        ("question", "...?"),
        ("keyword", "pump"),
    ]
    answer = Written(queries=[WrittenQuery(type=kind, query=query) for kind, query in queries], negatives=[])
    made, rejected = examples_from_answers([chunk, chunk], [answer, None])
    assert [(e.query_type, e.query) for e in made] == [
        ("natural_language", "water has to go up"),
        ("keyword", "pump"),
    ]
    assert [case.reason for case in rejected] == ["unusable query"] * 4 + ["passage without an answer"]
    assert [case.detail.partition(";")[0] for case in rejected[:4]] == [
        "it has 65 words, and 64 are the most",
        "its type, 'riddle', is none of question, keyword, natural_language, reformulation",
        "it refers to the passage",
        "it has no words",
    ]


def test_a_query_that_shares_no_word_with_its_passage_is_used(api, pages):
    """As a need in other words, or in another script, shares none."""

    def behave(request):
        query = f"什么时候保养{chr(0x4E00 + request.number)}"
        return completion(json.dumps({"queries": [{"type": "question", "query": query}], "negatives": []}))

    api.behave = behave
    assert generate(api, pages).returncode == 0 and len(api.requests) == 12


@pytest.mark.slow
def test_a_killed_run_resumes_without_repeated_requests_and_writes_the_same_file(api, pages):
    output = pages.parent / "training_data.json"
    generate(api, pages)
    expected, journal = output.read_bytes(), pages.parent / "training_data.json.journal"
    journal.unlink()
    output.unlink()
    api.requests.clear()
    api.behave = lambda request: good(request)._replace(wait=0.05 if request.number <= 6 else 60)
    command = [
        sys.executable,
        SCRIPT,
        "--input-dir",
        pages,
        "--output-file",
        output,
        "--api-base",
        api.url,
        "--workers",
        "2",
    ]
    process = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ | {"OPENAI_API_KEY": KEY}
    )
    for _ in range(600):
        if journal.exists() and len(journal.read_text().splitlines()) == 7:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert not output.exists()
    answered = {request.prompt for request in api.requests if request.number <= 6}
    api.behave = good
    api.requests.clear()
    fails_with_one_line(generate(api, pages), "--resume")
    done = generate(api, pages, "--resume")
    assert done.returncode == 0 and output.read_bytes() == expected
    assert len(api.requests) == 6 and not answered & {request.prompt for request in api.requests}
    assert KEY not in journal.read_text()


def test_the_summary_counts_questions_that_got_no_reply(api, pages):
    def behave(request):
        return failure(503, Retry_After="0.01") if "The brake" in request.prompt else good(request)

    api.behave = behave
    assert "asked       12 questions" in generate(api, pages).stdout
    done = generate(api, pages, "--resume")
    assert "asked       1 questions" in done.stdout and "unanswered  1 requests" in done.stdout


def test_a_second_run_on_the_same_output_is_refused_before_it_asks(api, pages):
    first = Journal(pages.parent / "training_data.json.journal", {"work": "answers of a language model"})
    fails_with_one_line(generate(api, pages), "training_data.json.journal: another run is at work on it")
    assert not api.requests
    first.close()


def test_a_changed_document_sends_only_its_own_request_again(api, pages):
    generate(api, pages)
    (pages / "brake.txt").write_text(
        "The brake of the new model needs no care. It is cleaned by the wind of the road itself."
    )
    api.requests.clear()
    assert generate(api, pages, "--resume").returncode == 0
    assert [("new model" in request.prompt) for request in api.requests] == [True]
    assert any("new model" in example.positive_document for example in examples(pages))


def test_without_key_or_endpoint_queries_are_extractive(pages, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = run(SCRIPT, "--input-dir", pages, "--output-file", pages.parent / "training_data.json")
    assert "generator   extractive" in done.stdout and len(examples(pages)) > 24


@pytest.mark.parametrize("name", template_names())
def test_a_built_in_template_places_task_then_title_then_passage(name):
    text = load_template(name).substitute(task="TASK", title="TITLE", passage="PASSAGE")
    assert text.index("TASK") < text.index("TITLE") < text.index("PASSAGE")


def test_a_custom_template_is_checked_before_any_request(api, pages, tmp_path):
    own = tmp_path / "own.txt"
    for text, message in (
        ("Only $passage", "lacks the placeholder $task"),
        ("$task $passage $name", "has the placeholder $name"),
        ("$task $passage costs 5 $", "a $ stands for nothing"),
    ):
        own.write_text(text)
        fails_with_one_line(generate(api, pages, "--template", own), message)
    fails_with_one_line(generate(api, pages, "--template", "poetry"), "neither a file nor one of code, finance")
    assert not api.requests
    own.write_text("Ask as a sailor. $task\nPassage:\n$passage")
    assert generate(api, pages, "--template", own).returncode == 0
    assert all(request.prompt.startswith("Ask as a sailor.") for request in api.requests)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--query-types", "riddle"], "unknown query type 'riddle': use"),
        (["--query-types", "keyword=-1"], "the weight after = must be a number above 0"),
        (["--generator", "extractive", "--dry-run"], "--dry-run is for what a language model is asked"),
    ],
)
def test_invalid_options_are_a_one_line_error(api, pages, options, message):
    fails_with_one_line(generate(api, pages, *options), message)
    assert not api.requests and not list(pages.parent.glob("*.json*"))
