"""Replies as servers send them: OpenAI, OpenRouter, DeepSeek, Mistral, vLLM, llama.cpp, LM Studio."""

from typing import Any

import pytest
from api_server import completion
from pydantic import BaseModel

from utils.training_data.chat_replies import count_tokens, read_answer

ANSWER = '{"word": "pump"}'
DRAFT = 'It says {"word": "..."}. Perhaps {"word": "valve"}? No, {so}.'


class Word(BaseModel):
    word: str


def reply(finish: str | None = "stop", **message: Any) -> dict:
    """The reply with a message that has these fields alone."""
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


THOUGHTS = {"type": "thinking", "thinking": [{"type": "text", "text": DRAFT}]}
READABLE = {
    "a string": reply(content=ANSWER),
    "a list of parts": reply(content=[THOUGHTS, {"type": "text", "text": ANSWER}]),
    "a list of strings": reply(content=[ANSWER[:7], ANSWER[7:]]),
    "reasoning before it": reply(content=f"<think>{DRAFT}</think>\n\n{ANSWER}"),
    "reasoning without its first tag": reply(content=f"{DRAFT}\n</think>{ANSWER}"),
    "reasoning in other tags": reply(content=f"[THINK]{DRAFT}[/THINK]{ANSWER}"),
    "reasoning in a field": reply(content=ANSWER, reasoning_content=DRAFT),
    "the answer in the field of DeepSeek's reasoning": reply(content="", reasoning_content=ANSWER),
    "the answer in the field of OpenRouter's reasoning": reply(content=None, reasoning=ANSWER),
    "a fence and prose": reply(content=f"Not {{that}}, but:\n```json\n{ANSWER}\n```\nIs it {{well}}?"),
    "an object around it": reply(content=f'{{"answer": {ANSWER}}}'),
    "a line break in a string": reply(content='{"why": "one\nother", "word": "pump"}'),
    "complete though cut": reply("length", content=f"{ANSWER} And"),
    "no finish reason": reply(None, content=ANSWER),
}


@pytest.mark.parametrize("body", READABLE.values(), ids=READABLE.keys())
def test_an_answer_is_read_wherever_a_server_puts_it(body):
    assert read_answer(body, Word) == ("", Word(word="pump"))


@pytest.mark.parametrize("word", ["</think>", "<think>", "{", "}{"])
def test_an_answer_may_speak_of_tags_and_braces(word):
    assert read_answer(reply(content=f'{{"word": "{word}"}}'), Word) == ("", Word(word=word))


UNUSABLE = {
    "refused": (reply(content=None, refusal="no"), "refused"),
    "filtered": (reply("content_filter", content=ANSWER), "refused"),
    "cut short": (reply("length", content=ANSWER[:9]), "cut short"),
    "cut short while it reasoned": (reply("length", content=f"<think>{DRAFT}"), "cut short"),
    "cut short while it reasoned in a field": (reply("length", content=None, reasoning_content=DRAFT), "cut short"),
    "a draft without an answer": (reply(content=f"<think>{DRAFT}</think>I cannot."), "malformed"),
    "another schema": (reply(content='{"words": ["pump"]}'), "malformed"),
    "nested too deep": (reply(content='{"a":' * 100_000), "malformed"),
    "nothing": (reply(), "malformed"),
    "no message": ({"choices": [{"message": None}]}, "malformed"),
}


@pytest.mark.parametrize(("body", "reason"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_why_there_is_no_answer_is_said(body, reason):
    assert read_answer(body, Word) == (reason, None)


@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {}}, {"usage": {"prompt_tokens": None}}])
def test_tokens_that_are_not_counted_are_none(usage):
    assert count_tokens(reply() | usage) == (0, 0)
    assert count_tokens(completion(ANSWER).body) == (100, 20)
