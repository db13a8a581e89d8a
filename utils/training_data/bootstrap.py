"""Documents that a language model writes about a domain, for whoever has none yet."""

import math

from pydantic import BaseModel, Field

from utils.records import Document
from utils.training_data.language_model import LanguageModel, Request

TERMS_PER_REQUEST = 20  # that one question asks for, at most
TERM_OVERSAMPLING = 1.25  # terms asked for over those needed, since some come twice
MIN_PASSAGE_WORDS = 30  # of a passage
PASSAGE_TOKENS, TERM_TOKENS, QUESTION_TOKENS = 250, 8, 120  # about, for the estimate


class Terms(BaseModel):
    """Terms of a domain."""

    terms: list[str] = Field(min_length=1)


class WrittenPassage(BaseModel):
    """A passage about a term."""

    title: str
    text: str


def field_count(count: int) -> int:
    """Into how many fields a domain is divided for `count` passages."""
    return max(1, math.ceil(count / TERMS_PER_REQUEST))


def estimate_document_tokens(count: int) -> tuple[int, int]:
    """(tokens to be read, tokens to be written), about."""
    asked = 1 + field_count(count) + count
    return asked * QUESTION_TOKENS, int(count * (PASSAGE_TOKENS + TERM_OVERSAMPLING * TERM_TOKENS)) + field_count(
        count
    ) * TERM_TOKENS


def write_documents(domain: str, count: int, language: str | None, model: LanguageModel) -> list[Document]:
    """`count` passages, each about another term of the domain, or fewer where the model knows no more terms: first it
    names fields of the domain, then terms of each field, then it writes about each term.

    Raises:
        ValueError: the model names no field or no term.
    """
    named = f"in {language}" if language else "in the language of the domain's name above"
    shape = 'Answer with JSON alone: {"terms": ["...", ...]}'
    ask = (
        f"Domain: {domain}\n\nName {field_count(count)} fields that it divides into, all of it covered and no two the "
        "same"
    )
    areas = _distinct_terms(
        [(None, model.complete([Request(f"{ask}, {named}. {shape}", Terms)])[0])], field_count(count)
    )
    each = math.ceil(count / max(1, len(areas)) * TERM_OVERSAMPLING)
    questions = [
        Request(
            f"Domain: {domain}\nField: {area}\n\nName {each} terms of this field that its practitioners use and look "
            f"up, {named}: things, methods, rules, problems, each another one, the specific rather than the general. "
            f"{shape}",
            Terms,
        )
        for _, area in areas
    ]
    terms = _distinct_terms(zip([area for _, area in areas], model.complete(questions)), count)
    if not terms:
        raise ValueError(f"the model names no terms of the domain '{domain}'; is it one that it knows?")
    questions = [
        Request(
            f"Domain: {domain}\nField: {area}\nTerm: {term}\n\nWrite a passage of 100 to 200 words about the term, "
            f"{named}, as it would stand in a manual, a handbook or a report of this domain: concrete, with facts, "
            "conditions and numbers where they belong, without introduction or praise. Answer with JSON alone: "
            '{"title": "...", "text": "..."}',
            WrittenPassage,
            lambda answer: "" if len(answer.text.split()) >= MIN_PASSAGE_WORDS else "malformed",
        )
        for area, term in terms
    ]
    return [
        Document(id=f"{area}/{term}", title=" ".join(written.title.split()), text=written.text.strip())
        for (area, term), written in zip(terms, model.complete(questions))
        if written
    ]


def _distinct_terms(named, count: int) -> list[tuple[str | None, str]]:
    """At most `count` different (origin, term) of (origin, answer), the first of each answer first."""
    columns = [[(origin, " ".join(term.split())) for term in answer.terms] for origin, answer in named if answer]
    seen: dict[str, tuple[str | None, str]] = {}
    for rank in range(max(map(len, columns), default=0)):
        for origin, term in (column[rank] for column in columns if rank < len(column)):
            if term:
                seen.setdefault(term.lower(), (origin, term))
    return list(seen.values())[:count]
