"""Synthetic documents: a language model writes passages about a domain that has no collection yet."""

import math
from collections.abc import Iterable

from pydantic import BaseModel, Field

from utils.documents.normalization import split_words
from utils.records import Chunk, Document
from utils.training_data.language_model import LanguageModel, Request

TERMS_PER_REQUEST = 20  # terms needed per field; sets the number of fields, hence the length of each list of terms
TERM_OVERSAMPLING = 1.25  # ratio of requested to needed terms, since fields repeat each other's
MIN_PASSAGE_WORDS = 30  # words; the prompt asks for 100 to 200, and a shorter answer is requested again
TYPICAL_WORDS = 150  # assumed of a passage not yet written, for the cost estimate; it is asked for with 100 to 200
PASSAGE_TOKENS, TERM_TOKENS, PROMPT_TOKENS = 250, 8, 120  # per passage, term and prompt; rough, for the cost estimate


class Terms(BaseModel):
    """Terms of a domain."""

    terms: list[str] = Field(min_length=1)


class WrittenPassage(BaseModel):
    """A passage about a term."""

    title: str
    text: str


def field_count(count: int) -> int:
    """Return the number of fields that a domain is divided into for `count` passages."""
    return max(1, math.ceil(count / TERMS_PER_REQUEST))


def estimate_document_tokens(count: int) -> tuple[int, int]:
    """Estimate (prompt tokens, completion tokens) of `write_documents` for `count` passages."""
    fields = field_count(count)
    requests = 1 + fields + count
    written = int(count * (PASSAGE_TOKENS + TERM_OVERSAMPLING * TERM_TOKENS)) + fields * TERM_TOKENS
    return requests * PROMPT_TOKENS, written


def typical_passages(domain: str, count: int) -> list[Chunk]:
    """Return passages as long as those that `write_documents` has yet to get, to estimate costs by."""
    text = "word " * TYPICAL_WORDS
    return [Chunk(id=f"{domain}#{i}", document_id=domain, title=domain, text=text) for i in range(count)]


def write_documents(domain: str, count: int, language: str | None, model: LanguageModel) -> list[Document]:
    """Generate up to `count` passages, each about a different term of the domain, in three steps: the model lists
    fields of the domain, then terms of each field, then writes one passage per term. There are fewer where the model
    lists fewer terms or a passage has no usable answer.

    Args:
        language: the language of the passages, such as "German"; None for that of the domain's name.

    Raises:
        ValueError: the model lists no field or no term, or its endpoint fails.
    """
    in_language = f"in {language}" if language else "in the language of the domain's name above"
    answer_format = 'Answer with JSON alone: {"terms": ["...", ...]}'
    task = (
        f"Domain: {domain}\n\nName {field_count(count)} fields that it divides into, all of it covered and no two the "
        "same"
    )
    answers = model.complete([Request(f"{task}, {in_language}. {answer_format}", Terms)])
    fields = [field for _, field in _distinct_terms([(None, answers[0])], field_count(count))]
    per_field = math.ceil(count / max(1, len(fields)) * TERM_OVERSAMPLING)
    requests = [
        Request(
            f"Domain: {domain}\nField: {field}\n\nName {per_field} terms of this field that its practitioners use and "
            f"look up, {in_language}: things, methods, rules, problems, each another one, the specific rather than the "
            f"general. {answer_format}",
            Terms,
        )
        for field in fields
    ]
    terms = _distinct_terms(zip(fields, model.complete(requests)), count)
    if not terms:
        raise ValueError(f"the model names no terms of the domain '{domain}'; is it one that it knows?")
    requests = [
        Request(
            f"Domain: {domain}\nField: {field}\nTerm: {term}\n\nWrite a passage of 100 to 200 words about the term, "
            f"{in_language}, as it would stand in a manual, a handbook or a report of this domain: concrete, with "
            "facts, conditions and numbers where they belong, without introduction or praise. Answer with JSON alone: "
            '{"title": "...", "text": "..."}',
            WrittenPassage,
            lambda answer: "" if len(split_words(answer.text)) >= MIN_PASSAGE_WORDS else "malformed",
        )
        for field, term in terms
    ]
    return [
        Document(id=f"{field}/{term}", title=" ".join(passage.title.split()), text=passage.text.strip())
        for (field, term), passage in zip(terms, model.complete(requests))
        if passage
    ]


def _distinct_terms(answers: Iterable[tuple[str | None, Terms | None]], count: int) -> list[tuple[str | None, str]]:
    """Return up to `count` (field, term) pairs of distinct terms, whatever their case, from (field, answer) pairs: the
    first term of each answer, then the second of each, and so on."""
    lists = [[(field, " ".join(term.split())) for term in answer.terms] for field, answer in answers if answer]
    distinct: dict[str, tuple[str | None, str]] = {}
    for rank in range(max(map(len, lists), default=0)):
        for field, term in (terms[rank] for terms in lists if rank < len(terms)):
            if term:
                distinct.setdefault(term.lower(), (field, term))
    return list(distinct.values())[:count]
