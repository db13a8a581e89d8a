"""test_queries.py --serve: the page and the API, over HTTP."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT, fails_with_one_line, run

from utils.training_data.feedback import read_feedback_examples

HOSTILE = "<script>alert('brakes')</script>"
DOCUMENTS = [
    {"id": "brakes", "title": "Brakes", "text": "To bleed the brakes, open the valve.", "metadata": {"year": 2021}},
    {"id": "heater", "text": "The heater blows warm air.", "metadata": {"year": 2019, "size": float("nan")}},
    {"id": "hostile", "title": "<img onerror=alert(1)>", "text": f"{HOSTILE} \U0001f697 brakes"},
]
TOKEN = "a token of the tests"


class Server:
    """The script, serving on a free port."""

    def __init__(self, folder, *options, **environment):
        self.feedback = folder / "feedback.jsonl"
        (folder / "docs.json").write_text(json.dumps(DOCUMENTS))
        files = ["--docs-file", folder / "docs.json", "--feedback-file", self.feedback]
        command = [sys.executable, "test_queries.py", "--model-dir", "splade-tiny", *files, "--serve", "--port", "0"]
        settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([*command, "--device", "cpu", *options], cwd=ROOT, env=settings, **output)
        line = next((line for line in self.process.stdout if "http://" in line), "") or self.process.stderr.read()
        self.port = int(re.search(r"http://\S+:(\d+)/", line)[1])

    def ask(self, path, body=None, method=None, host=None, **headers):
        """Return the status, the headers and the body of the answer; JSON is parsed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers["Host"] = host or f"127.0.0.1:{self.port}"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(connection):
            kind = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method or ("GET" if data is None else "POST"), path, data, {**kind, **headers})
            answer = connection.getresponse()
            text = answer.read().decode()
            is_json = answer.getheader("Content-Type") == "application/json"
            return answer.status, answer.headers, json.loads(text) if is_json else text

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def close(self):
        """End it as `kill` does; return its exit code and what it wrote on stderr."""
        self.process.terminate()
        errors = self.process.communicate(timeout=30)[1]
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One model, with an allowed origin."""
    server = Server(tmp_path_factory.mktemp("server"), "--allow-origin", "https://friend.example")
    yield server
    code, errors = server.close()
    assert code == 0 and not errors


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two models, one of them for half of the sessions, and a token."""
    options = "--ab-model-dir", "splade-tiny", "--ab-share", "0.5"
    server = Server(tmp_path_factory.mktemp("pair"), *options, SPLADE_TOKEN=TOKEN)
    yield server
    assert server.close() == (0, "")


def test_a_hit_shows_which_words_and_terms_matched(server):
    status, _, answer = server.ask("/search", {"query": "bleeding a brake", "top_k": 1})
    (result,) = answer["results"]
    (hit,) = result["hits"]
    assert status == 200 and (hit["id"], hit["rank"], hit["metadata"]) == ("brakes", 1, {"year": 2021})
    marked = [hit["text"][start:end] for start, end in hit["spans"]]
    assert marked == ["Brakes", "bleed", "brakes"]
    terms = {row["term"]: row for row in hit["terms"]}
    assert terms["brakes"]["expansion_of"] == ["query"] and terms["brake"]["expansion_of"] == ["passage"]
    assert set(result["milliseconds"]) == {"encode", "search"} and result["model"] == "splade-tiny"


def test_filters_and_the_kind_of_search_are_of_one_request(server):
    def found(**options):
        return [hit["id"] for hit in server.ask("/search", {"query": "brakes", **options})[2]["results"][0]["hits"]]

    assert set(found()) >= {"brakes", "hostile"} and found(filters=["year>2020"]) == ["brakes"]
    assert set(found(search="bm25")) == {"brakes", "hostile"} and found(filters=["year<2020"], search="bm25") == []
    assert server.ask("/search", {"query": "air", "search": "bm25"})[2]["results"][0]["hits"][0]["terms"] == []


def test_numbers_that_json_has_not_end_no_search(server):
    assert server.ask("/search", {"query": "warm"})[2]["results"][0]["hits"][0]["metadata"]["size"] == "NaN"


def test_places_of_words_count_as_browsers_do(server):
    hits = server.ask("/search", {"query": "brakes", "search": "bm25"})[2]["results"][0]["hits"]
    hit = next(hit for hit in hits if hit["id"] == "hostile")
    units = hit["text"].encode("utf-16-le")
    assert {units[2 * a : 2 * b].decode("utf-16-le") for a, b in hit["spans"]} == {"brakes"}


def test_the_page_loads_nothing_from_elsewhere_and_runs_no_script_but_its_own(server):
    status, headers, page = server.ask("/")
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\son\w+=", page)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy and "Set-Cookie" not in headers
    assert server.ask("/docs")[0] == server.ask("/redoc")[0] == 404
    assert "/search" in server.ask("/openapi.json")[2]["paths"]


def test_vectors_are_those_of_text_embeddings_inference(server, tiny):
    texts = ["warm air", "bleed the brakes"]
    status, _, vectors = server.ask("/embed_sparse", {"inputs": texts})
    assert status == 200 and len(vectors) == 2
    alone = server.ask("/embed_sparse", {"inputs": texts[1]})[2][0]
    # In bfloat16, where that is the precision, weights next to 0 come and go.
    for vector, expected in zip((*vectors, alone), tiny.encode([*texts, texts[1]])):
        found = {entry["index"]: entry["value"] for entry in vector}
        weights = dict(zip(expected.indices.tolist(), expected.values.tolist()))
        assert list(found) == sorted(found) and len(found) > 10
        both = [[part.get(term, 0.0) for term in sorted(found.keys() | weights.keys())] for part in (found, weights)]
        assert both[0] == pytest.approx(both[1], rel=0.05, abs=0.1)


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        ({"inputs": "word " * 600}, 413, "Validation", "at most 512 tokens"),
        ({"inputs": "word " * 200, "prompt_name": "query"}, 413, "Validation", "at most 128 tokens"),
        ({"inputs": ["a"] * 33}, 413, "Validation", "33 > maximum allowed batch size 32"),
        ({"inputs": []}, 400, "Empty", "cannot be empty"),
        ({"inputs": ["a", ""]}, 400, "Empty", "cannot be empty"),
        ({"inputs": [1, 2]}, 422, "Validation", "inputs"),
        ({}, 422, "Validation", "field 'inputs': Field required"),
    ],
)
def test_texts_that_cannot_be_encoded_are_refused_as_there(server, body, status, kind, message):
    given, _, answer = server.ask("/embed_sparse", body)
    assert (given, answer["error_type"]) == (status, kind) and message in answer["error"]
    assert server.ask("/embed_sparse", {"inputs": "word " * 600, "truncate": True})[0] == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"query": 3}, "field 'query': Input should be a valid string"),
        ({"query": ""}, "field 'query'"),
        ({"query": "a" * 2001}, "at most 2000 characters"),
        ({"query": "a", "top_k": 101}, "field 'top_k'"),
        ({"query": "a", "top_k": 0}, "field 'top_k'"),
        ({"query": "a", "top_k": "5"}, "field 'top_k'"),
        ({"query": "a", "top_k": float("nan")}, "field 'top_k'"),
        ({"query": "a", "search": "dense?"}, "field 'search'"),
        ({"query": "a", "filters": ["year"]}, "filter 'year': expected a field"),
        ({"query": "a", "filters": ["color=red"]}, "no document has this field; they have id, size, year"),
        ({"query": "a", "filters": ["year=1"] * 21}, "field 'filters'"),
        ({"query": "a", "more": 1}, "field 'more': Extra inputs"),
        ({"query": "half a pair: \ud800"}, "unicode"),
        ([], "valid"),
        (b"{", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[" * 100_000, "body"),
    ],
)
def test_what_cannot_be_searched_is_one_line(server, body, message):
    status, _, answer = server.ask("/search", body)
    assert 400 <= status < 500 and message in answer["error"] and "\n" not in answer["error"], (status, answer)


@pytest.mark.parametrize(
    "path", ["/../test_queries.py", "/..%2f..%2fetc/passwd", "//etc/passwd", "/%00", "/page.html", "/search/../metrics"]
)
def test_paths_lead_nowhere_else(server, path):
    assert server.ask(path)[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "10.1.2.3", "127.0.0.1@evil.example", "a b"]
)
def test_a_foreign_host_is_refused(server, host):
    status, _, answer = server.ask("/search", {"query": "brakes"}, host=host)
    assert status == 421 and "Host" in answer["error"]


def test_names_of_this_machine_and_of_allowed_origins_are_hosts(server):
    for host in ("localhost", f"LOCALHOST:{server.port}", "127.0.0.2", "[::1]:9000", "friend.example"):
        assert server.ask("/health", host=host)[0] == 200


def test_pages_of_other_sites_may_ask_only_if_allowed(server):
    own = f"http://127.0.0.1:{server.port}"
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "https://friend.example.evil.example"):
        status, headers, _ = server.ask("/search", {"query": "brakes"}, Origin=origin)
        assert status == 403 and "Access-Control-Allow-Origin" not in headers
    assert server.ask("/search", {"query": "brakes"}, Origin=own)[0] == 200
    status, headers, _ = server.ask("/search", {"query": "brakes"}, Origin="https://friend.example")
    assert status == 200 and headers["Access-Control-Allow-Origin"] == "https://friend.example"
    preflight = {"Origin": "https://friend.example", "Access_Control_Request_Method": "POST"}
    status, headers, _ = server.ask("/search", method="OPTIONS", **preflight)
    assert status == 200 and "POST" in headers["Access-Control-Allow-Methods"]


def test_a_body_that_is_too_large_is_not_read(server):
    for head in ("Content-Length: 99999999999999999999999", "Transfer-Encoding: chunked"):
        with server.connect() as client:
            client.sendall(f"POST /search HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
            with contextlib.suppress(OSError):  # it stops listening at the limit
                for _ in range(3 if "chunked" in head else 0):
                    client.sendall(b"80000\r\n" + b"a" * 0x80000 + b"\r\n")
            assert client.recv(100).split()[1] in (b"413", b"400")


@pytest.mark.parametrize("size", (2**20, 4 * 2**20))
def test_a_client_that_sends_on_gets_the_answer(server, size):
    status, headers, answer = server.ask("/search", b'"' + b"a" * size + b'"')
    assert (status, headers["Connection"]) == (413, "close") and "1,048,576 bytes" in answer["error"]


@pytest.mark.parametrize("host, chunks, status", [("localhost", 3, b"413"), ("evil.example", 0, b"421")])
def test_what_is_no_http_behind_an_answer_ends_the_connection(server, host, chunks, status):
    with server.connect() as client:
        client.sendall(f"POST /search HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        client.sendall((b"80000\r\n" + b"a" * 0x80000 + b"\r\n") * chunks)
        assert client.recv(2**16).split()[1] == status
        client.sendall(b"no length\r\n")
        while part := client.recv(2**16):
            assert b"HTTP/1.1" not in part  # and `server` finds no traceback at its end


def test_metrics_count_requests_and_time_the_parts(server):
    server.ask("/search", {"query": "brakes"})
    server.ask("/unknown-path")
    text = server.ask("/metrics")[2]
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(samples['splade_requests_total{path="/search",status="200"}']) >= 1
    assert float(samples['splade_requests_total{path="other",status="404"}']) >= 1
    assert float(samples['splade_query_seconds_count{part="encode",variant="A"}']) >= 1
    assert samples['splade_documents{variant="A"}'] == "3.0" and float(samples["process_resident_memory_bytes"]) > 1e7
    assert "unknown-path" not in text


def test_judgments_are_feedback_that_becomes_training_data(server, tmp_path):
    hits = server.ask("/search", {"query": "warm brakes"})[2]["results"][0]["hits"]
    for hit, liked in zip(hits, (True, False)):
        judged = {"query": "warm brakes", "passage": hit["passage"], "liked": liked}
        assert server.ask("/feedback", judged)[0] == 200
    (example,), _ = read_feedback_examples(server.feedback)
    assert example.positive_document == hits[0]["text"] and example.negatives == [hits[1]["text"]]
    out = tmp_path / "training_data.json"
    made = run(
        "generate_training_data.py", "--feedback-file", server.feedback, "--output-file", out, "--split", "90/10"
    )
    assert "feedback 1" in made.stdout, made.stderr
    for passage in (10**6, -1, 2**63, "0"):
        status, _, answer = server.ask("/feedback", {"query": "q", "passage": passage, "liked": True})
        assert status == 422 and "passage" in answer["error"]


def test_a_slow_client_keeps_nobody_waiting(server):
    with server.connect() as head, server.connect() as body:
        head.sendall(b"POST /search HT")
        body.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        started = time.monotonic()
        assert server.ask("/search", {"query": "brakes"})[0] == 200
        assert time.monotonic() - started < 5


def test_without_the_token_nothing_is_told(pair):
    body = {"query": "brakes"}
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        for path, data in (("/search", body), ("/feedback", body), ("/embed_sparse", {"inputs": "a"})):
            assert pair.ask(path, data, **given)[0] == 401
        for path in ("/info", "/metrics", "/outcome", "/openapi.json"):
            assert pair.ask(path, **given)[0] == 401
    assert pair.ask("/search", body, Authorization=f"Bearer {TOKEN}")[0] == 200
    assert pair.ask("/")[0] == pair.ask("/health")[0] == 200 and TOKEN not in pair.ask("/")[2]


def test_a_session_gets_one_variant_and_both_are_used(pair):
    key = {"Authorization": f"Bearer {TOKEN}"}
    seen = {}
    for _ in range(12):
        cookie = pair.ask("/")[1]["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie
        own = {"Cookie": cookie.partition(";")[0], **key}
        variants = {pair.ask("/search", {"query": "air"}, **own)[2]["results"][0]["variant"] for _ in range(3)}
        seen[own["Cookie"]] = variants
        assert len(variants) == 1
        assert len(pair.ask("/search", {"query": "air"}, **own)[2]["results"]) == 1
        assert {row["variant"] for row in pair.ask("/info", **own)[2]["variants"]} == variants
    assert set.union(*seen.values()) == {"A", "B"}
    for cookie, (variant,) in seen.items():  # who likes what the second model finds, and the first not
        judged = {"query": "air", "passage": 1 << 20, "liked": variant == "B", "variant": variant}
        other = judged | {"variant": "B" if variant == "A" else "A"}
        assert pair.ask("/feedback", other, Cookie=cookie, **key)[0] == 409  # of hits that it was not shown
        assert pair.ask("/feedback", {**judged, "variant": None}, Cookie=cookie, **key)[0] == 409
        assert pair.ask("/feedback", judged, Cookie=cookie, **key)[0] == 200
    outcome = pair.ask("/outcome", **key)[2]
    first, second = outcome["variants"]
    assert first["dislikes"] + second["likes"] == 12 and first["likes"] == second["dislikes"] == 0
    assert outcome["difference"]["share"] == 1 and outcome["difference"]["low"] < 1
    lines = [json.loads(line) for line in pair.feedback.read_text().splitlines()]
    assert {line["variant"] for line in lines} == {"A", "B"}
    assert not any(line["session"] in cookie for line in lines for cookie in seen)
    examples, skipped = read_feedback_examples(pair.feedback)  # it reads the further fields, too
    assert len(examples) + len(skipped) == 1


@pytest.mark.slow
def test_two_models_are_shown_side_by_side_and_the_end_loses_no_judgment(tmp_path, short_model):
    server = Server(tmp_path, "--ab-model-dir", str(short_model))
    first, second = server.ask("/search", {"query": "brakes", "top_k": 2})[2]["results"]
    assert (first["variant"], second["variant"], second["model"]) == ("A", "B", "short")
    assert {hit["id"] for hit in second["hits"]} == {"brakes", "hostile"}
    judged = {"query": "brakes", "passage": second["hits"][0]["passage"], "liked": True, "variant": "B"}
    assert server.ask("/feedback", judged)[0] == 200
    assert json.loads(server.feedback.read_text())["model"] == str(short_model)
    server.feedback.unlink()
    acknowledged = []

    def judge(number):
        for i in range(10_000):
            judged = {"query": f"{number} {i}", "passage": 0, "liked": True, "variant": "A"}
            try:
                status, *_ = server.ask("/feedback", judged)
            except (OSError, http.client.HTTPException):
                return
            if status == 200:
                acknowledged.append(judged["query"])

    threads = [threading.Thread(target=judge, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 20:
        time.sleep(0.02)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0 and not server.process.stderr.read()
    for thread in threads:
        thread.join()
    kept = [json.loads(line)["query"] for line in server.feedback.read_text().splitlines()]
    assert set(acknowledged) <= set(kept) and len(kept) == len(set(kept))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from elsewhere: set SPLADE_TOKEN"),
        (["--host", "none.invalid"], "--host none.invalid"),
        (["--allow-origin", "friend.example"], "'friend.example' is no origin, such as https://example.com"),
        (["--query", "brakes"], "--query is for the prompt"),
        (["--ab-share", "0.5"], "--ab-share has no effect without --ab-model-dir"),
        (["--port", "70000"], "from 0 to 65535"),
        (["--feedback-file", "/proc/none/feedback.jsonl"], "cannot write there"),
    ],
)
def test_what_cannot_be_served_is_one_line(docs, monkeypatch, options, message):
    monkeypatch.delenv("SPLADE_TOKEN", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = run("test_queries.py", "--model-dir", "splade-tiny", "--docs-file", docs, "--serve", *options)
    fails_with_one_line(done, message)


def test_a_port_in_use_and_a_short_token_are_one_line(server, docs, monkeypatch):
    given = ["test_queries.py", "--model-dir", "splade-tiny", "--docs-file", docs, "--serve"]
    fails_with_one_line(run(*given, "--port", server.port), "Address already in use")
    monkeypatch.setenv("SPLADE_TOKEN", "short")
    done = run(*given, "--host", "0.0.0.0")
    fails_with_one_line(done, "SPLADE_TOKEN: must have at least 16 characters")
    assert "short" not in done.stderr.replace("too short", "")
    fails_with_one_line(run(*given[:-1], "--port", 1), "--port has no effect without --serve")
