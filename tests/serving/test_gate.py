"""What is let in: bodies that come too slowly, or are left."""

import asyncio
import json
import time

import pytest

from utils.serving import gate
from utils.serving.gate import LINGER_BODY, MAX_BODY, Access, Gate
from utils.serving.metrics import Metrics


def ask(messages, headers=((b"host", b"localhost"),)):
    """Let a request through whose body comes as `messages`, and then nothing; return what was sent and what of it
    reached the application."""
    sent, reached = [], []

    async def app(scope, receive, send):
        reached.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive():
        return messages.pop(0) if messages else await asyncio.sleep(30)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/search", "headers": list(headers)}
    asyncio.run(Gate(app, Access({"localhost"}, False), Metrics(), ["/search"])(scope, receive, send))
    return sent, reached


def part(body, more):
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_parts_is_whole_behind_the_gate():
    sent, reached = ask([part(b"a", True), part(b"b", False)])
    assert reached == [b"ab"] and (b"x-content-type-options", b"nosniff") in sent[0]["headers"]


def test_a_body_that_does_not_come_in_time_is_refused(monkeypatch):
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.1)
    sent, reached = ask([part(b"a", True)])
    assert sent[0]["status"] == 408 and not reached and "in time" in json.loads(sent[1]["body"])["error"]


def test_a_client_that_leaves_is_not_answered():
    assert ask([part(b"a", True), {"type": "http.disconnect"}]) == ([], [])


def test_behind_too_large_a_body_no_more_is_read_than_the_limit(monkeypatch):
    monkeypatch.setattr(gate, "LINGER_SECONDS", 20)
    messages = [part(bytes(MAX_BODY), True) for _ in range(LINGER_BODY // MAX_BODY + 4)]
    sent, reached = ask(messages)
    assert sent[0]["status"] == 413 and not reached and not sent[-1].get("more_body")
    assert len(messages) == 2  # two went before the answer


def test_a_client_that_was_sent_away_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(gate, "LINGER_SECONDS", 0.1)
    start = time.monotonic()
    sent, _ = ask([part(bytes(MAX_BODY + 1), True)])
    assert sent[0]["status"] == 413 and not sent[-1].get("more_body") and time.monotonic() - start < 15


def test_only_behind_too_large_a_body_the_rest_is_read():
    messages = [part(b"a", True)]
    sent, _ = ask(messages, [(b"host", b"evil.example")])
    assert sent[0]["status"] == 421 and len(messages) == 1


@pytest.mark.parametrize("headers", [[], [(b"host", b"")], [(b"host", b"localhost:x")], [(b"host", b"[::1")]])
def test_without_a_host_nothing_is_answered(headers):
    sent, reached = ask([part(b"", False)], headers)
    assert sent[0]["status"] == 421 and not reached
