"""The client of a language model, over real HTTP; tests/api_server.py stands in for the endpoint.

The errors are as OpenAI, Azure, OpenRouter, TGI, LM Studio and Ollama send them.
"""

import html
import json
import logging
import queue
import threading
from typing import Any
from urllib.parse import quote

import pytest
from api_server import ApiServer, Reply, completion, failure
from pydantic import BaseModel

from utils.journal import Journal
from utils.training_data.language_model import LanguageModel, Request, mask_secret

KEY = "sk-secret-0123456789"
ANSWER = '{"word": "pump"}'


class Word(BaseModel):
    word: str


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = ApiServer(lambda request: completion(ANSWER))
    yield server
    server.close()


def ask(api, folder, *prompts, base="", model="played", resume=False):
    """The words that the model answers to each prompt, None where there is none, and the model."""
    journal = Journal(folder / "journal", {}, resume)
    try:
        language_model = LanguageModel(model, journal, base or api.url, workers=2)
        answers = language_model.complete([Request(prompt, Word) for prompt in prompts])
    finally:
        journal.close()
    return [answer and answer.word for answer in answers], language_model


def test_an_answer_that_the_client_cannot_take_is_read_and_paid_once(api, tmp_path):
    parts = {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
    usage = {"prompt_tokens": None, "completion_tokens": None}
    api.behave = lambda request: Reply({"choices": [{"message": parts}], "usage": usage})
    answers, model = ask(api, tmp_path, "a part?")
    assert answers == ["pump"] and len(api.requests) == 1
    assert model.entries == [{"answer": {"word": "pump"}, "failed": [], "read": 0, "written": 0}]


def test_half_an_emoji_in_an_answer_is_replaced_in_a_journal_too(api, tmp_path):
    api.behave = lambda request: completion('{"word": "pump \\ud83d"}')
    for resume in (False, True):
        assert ask(api, tmp_path, "a part?", resume=resume)[0] == ["pump \ufffd"]
    assert len(api.requests) == 1


def test_an_unusable_answer_is_asked_for_twice_then_counted_and_left_out(api, tmp_path):
    api.behave = lambda request: completion(ANSWER[:9] if request.prompt == "bad" else ANSWER, "length")
    answers, model = ask(api, tmp_path, "bad", "good")
    assert answers == [None, "pump"] and len(api.requests) == 3
    assert sorted(entry["failed"] for entry in model.entries) == [[], ["cut short"] * 2]


def error(code: Any, text: str = "Provider returned error") -> dict:
    return {"error": {"message": text, "code": code}, "choices": None, "usage": None}


HIDDEN_ERRORS = {
    "too many requests": error(429),
    "no provider, as text": error("503"),
    "while it was writing": {"choices": [{"finish_reason": "error", "message": {"content": ANSWER}, **error(502)}]},
}


@pytest.mark.parametrize("body", HIDDEN_ERRORS.values(), ids=HIDDEN_ERRORS.keys())
def test_an_error_under_http_200_is_tried_again_as_any_other(api, tmp_path, body):
    passing = {"Retry-After": "0.01"}
    api.behave = lambda request: Reply(body, headers=passing) if request.attempt < 3 else completion(ANSWER)
    answers, model = ask(api, tmp_path, "a part?")
    assert answers == ["pump"] and len(api.requests) == 3 and model.entries[0]["failed"] == []


@pytest.mark.parametrize("body", [error(None), {"choices": []}, [], "", "<p>Busy</p>", {"error": "busy"}])
def test_a_reply_without_an_answer_is_not_journaled_and_a_resumed_run_asks_again(api, tmp_path, body):
    api.behave = lambda request: Reply(body) if request.prompt == "bad" else completion(ANSWER)
    answers, model = ask(api, tmp_path, "bad", "good")
    assert answers == [None, "pump"] and model.unanswered == 1 and len(model.entries) == 1
    api.behave = lambda request: completion(ANSWER)
    api.requests.clear()
    assert ask(api, tmp_path, "bad", "good", resume=True)[0] == ["pump", "pump"]
    assert [request.prompt for request in api.requests] == ["bad"]


LM_STUDIO = {"error": "Unexpected endpoint or method. (POST /chat/completions)"}


@pytest.mark.parametrize("model", [None, "played"])
@pytest.mark.parametrize(
    ("elsewhere", "message"),
    [
        (Reply("<!doctype html><title>Hello</title>"), "HTTP 200 without JSON: it does not speak the API"),
        (Reply(LM_STUDIO), "Unexpected endpoint or method. (POST /chat/completions): it does not speak the API"),
        (Reply("404 page not found", 404), "HTTP 404: 404 page not found"),
    ],
)
def test_a_base_url_without_v1_is_guessed(api, tmp_path, model, elsewhere, message):
    api.elsewhere = elsewhere
    with pytest.raises(ValueError) as caught:
        ask(api, tmp_path, "a part?", base=api.url.removesuffix("/v1"), model=model)
    assert str(caught.value).endswith(f"{message}; does --api-base miss /v1?")
    assert not list(tmp_path.iterdir())


REJECTIONS = {
    "a filter": (400, {"message": "was filtered", "type": None, "param": "prompt", "code": "content_filter"}),
    "OpenRouter's filter": (403, {"message": "Your input was flagged", "code": 403}),
    "OpenRouter's filter, late": (200, {"message": "Your input was flagged", "code": 403}),
    "TGI's limit": (422, "`inputs` must have less than 1024 tokens"),
    "a proxy's limit": (413, "too large"),
}


@pytest.mark.parametrize(("status", "problem"), REJECTIONS.values(), ids=REJECTIONS.keys())
def test_a_rejected_prompt_is_left_out_and_not_asked_again(api, tmp_path, capsys, status, problem):
    """Even if it comes first, and as often as it comes."""
    api.behave = lambda r: Reply({"error": problem}, status) if "bad" in r.prompt else completion(ANSWER)
    prompts = [*(f"bad {i}" for i in range(6)), "good"]
    answers, model = ask(api, tmp_path, *prompts)
    assert answers == [None] * 6 + ["pump"] and model.unanswered == 0
    assert [entry["failed"] for entry in model.entries].count(["rejected"]) == 6
    assert f"rejected    HTTP {status if status != 200 else 403}: " in capsys.readouterr().out
    api.requests.clear()
    assert ask(api, tmp_path, *prompts, resume=True)[0] == answers and not api.requests


def test_a_prompt_may_be_rejected_where_structured_output_is_too(api, tmp_path):
    rejected = failure(400, "no")
    api.behave = lambda r: rejected if "response_format" in r.body or r.prompt == "bad" else completion(ANSWER)
    answers, model = ask(api, tmp_path, "bad", "good", "better")
    assert answers == [None, "pump", "pump"] and ["rejected"] in [entry["failed"] for entry in model.entries]
    assert "response_format" not in api.requests[-1].body


@pytest.mark.parametrize("status", [400, 404])
def test_a_rejection_of_every_prompt_ends_the_run_with_one_line(api, tmp_path, status):
    api.behave = lambda request: failure(status, "no model 'played' here")
    with pytest.raises(ValueError, match=f"HTTP {status}: no model 'played' here; what was answered is kept"):
        ask(api, tmp_path, "a part?", "another?")
    assert not (tmp_path / "journal").exists()


def test_when_a_model_is_gone_in_the_middle_the_rest_is_not_taken_for_rejected(api, tmp_path):
    gone = failure(400, "no such model")
    api.behave = lambda request: gone if request.number > 3 else completion(ANSWER)
    with pytest.raises(ValueError, match="no such model"):
        ask(api, tmp_path, *(f"part {i}?" for i in range(9)))
    assert len((tmp_path / "journal").read_text().splitlines()) == 1 + 3


def test_when_all_of_a_few_requests_fail_the_run_ends(api, tmp_path):
    api.behave = lambda request: failure(503, "overloaded", Retry_After="0.01")
    with pytest.raises(ValueError, match="HTTP 503: overloaded; what was answered is kept, go on by --resume"):
        ask(api, tmp_path, "a part?", "another?")


def test_a_run_that_ends_waits_for_no_request_in_flight(api, tmp_path):
    is_asked, has_ended, outcome = threading.Event(), threading.Event(), queue.SimpleQueue()

    def behave(request):
        if request.prompt == "slow":
            is_asked.set()
            outcome.put(has_ended.wait(30))
        else:
            is_asked.wait(30)
        return failure(401)

    api.behave = behave
    with pytest.raises(ValueError, match="HTTP 401"):
        ask(api, tmp_path, "slow", "bad")
    has_ended.set()
    assert outcome.get(timeout=30)


@pytest.mark.parametrize("space", ["\r\n", " "])
def test_space_around_the_key_is_no_part_of_it(api, tmp_path, monkeypatch, space):
    monkeypatch.setenv("OPENAI_API_KEY", KEY + space)
    assert ask(api, tmp_path, "a part?")[0] == ["pump"] and api.requests[0].key == KEY


@pytest.mark.parametrize("key", [f"{KEY[:9]}\n{KEY[9:]}", f"{KEY}\r{KEY}", f"ключ{KEY}", f"{KEY}\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(api, tmp_path, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match="OPENAI_API_KEY: holds a character that no key has") as caught:
        ask(api, tmp_path, "a part?")
    assert KEY[9:] not in str(caught.value) and not api.requests


SECRET = "sk-Geheim_0123456789&'\"\\9876543210zyxw"
ECHOES = {
    "plain": f"no access for Bearer {SECRET}",
    "in part": f"no access for {SECRET[:-4]}...",
    "in capitals": SECRET.upper(),
    "as Python writes it": repr({"key": SECRET}),
    "as JSON in JSON": json.dumps({"headers": json.dumps({"Authorization": SECRET})}),
    "as HTML": f"<p>{html.escape(SECRET)}</p>",
    "in a URL": f"https://there/?key={quote(SECRET)}",
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_a_secret_is_masked_in_each_form_that_it_takes(echo):
    masked = mask_secret(echo, SECRET).lower()
    assert "***" in masked and not any(part in masked for part in ("geheim", "01234567", "98765432", "zyxw"))


def test_other_text_is_not_masked():
    assert mask_secret("no model of sk-x", "sk-secret-0123456789") == "no model of sk-x"
    assert mask_secret("no key", "") == "no key" and mask_secret("key: none", "none") == "key: ***"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 503])
def test_the_key_is_in_no_output_log_journal_or_error(api, tmp_path, monkeypatch, capsys, caplog, status):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    caplog.set_level(logging.DEBUG)

    def echo(request):
        assert request.key == SECRET
        return failure(status, ECHOES["plain"] + ECHOES["as JSON in JSON"], Retry_After="0.01")

    api.behave = lambda request: echo(request) if "bad" in request.prompt else completion(ANSWER)
    model = LanguageModel("played", Journal(tmp_path / "journal", {}), api.url, workers=1)
    assert model.complete([Request("good", Word)]) == [Word(word="pump")]
    shown = ""
    try:
        model.complete([Request("bad", Word)])  # rejected, where a probe is not
        api.behave = echo
        model.complete([Request("another", Word)])
    except ValueError as problem:
        assert problem.__context__ is None
        shown = str(problem)
    shown += "".join(capsys.readouterr()) + caplog.text + (tmp_path / "journal").read_text()
    assert f"HTTP {status}" in shown
    assert not any(part in shown.lower() for part in ("geheim", "01234567", "98765432", "zyxw"))


def test_secrets_in_the_base_url_are_not_shown(api, tmp_path):
    api.behave = lambda request: failure(404, "no")
    base = api.url.replace("http://", "http://user:password@").replace("/v1", f"/{KEY}/v1?token=0123")
    with pytest.raises(ValueError) as caught:
        ask(api, tmp_path, "a part?", base=base)
    assert not any(part in str(caught.value) for part in ("user", "password", KEY, "0123"))


@pytest.mark.parametrize("base", ["localhost:11434/v1", "http://", "http://localhost:port/v1", "ftp://localhost/v1"])
def test_a_base_url_that_is_none_is_said_at_once(api, tmp_path, base):
    with pytest.raises(ValueError, match="--api-base: must be an address such as http://localhost:11434/v1"):
        ask(api, tmp_path, "a part?", base=base)
