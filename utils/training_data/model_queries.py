"""Queries and hard negatives that a language model writes for passages, by prompting (as InPars, arXiv 2202.05144)."""

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from types import MappingProxyType

from pydantic import BaseModel, Field

from utils.documents.normalization import split_words
from utils.records import Chunk, Negative, TrainingExample
from utils.training_data.language_model import CHARACTERS_PER_TOKEN, Request
from utils.training_data.quality import Rejected

TEMPLATES = Path(__file__).with_name("templates")
PLACEHOLDERS = {"task", "passage", "title"}
MAX_FAILING = 3  # failing queries that a prompt shows
MAX_QUERY_WORDS = 64  # words; longer queries are left out
# Matches queries that refer to the passage in the prompt, which people who search have not seen.
TASK_ECHO = re.compile(r"\b(?:this|the|above|given|following) (?:passage|excerpt|paragraph)\b", re.IGNORECASE)

QUERY_TYPES = {
    "question": "a whole question, as to a colleague who knows",
    "keyword": "two to five words as for a search box, without grammar",
    "natural_language": "a sentence or half of one that describes the need, not a question",
    "reformulation": "the need of the query before it, in other words: share as few of its content words as you can",
}
NEGATIVE_STRATEGIES = {
    "topical shift": "stays in the field but is about a neighboring topic",
    "entity substitution": "says the same of another part, person, product or place",
    "temporal variance": "is about another time, version or stage",
    "scope mismatch": "is far more general, or about a far more special case",
    "premise alteration": "holds under another condition, so that its answer is another one",
    "perspective shift": "looks at the matter for somebody else, with another need",
}
# language -> example queries of the first three types; for other languages a prompt only names the language
EXAMPLE_QUERIES = {
    "english": ("how do I bleed the brakes?", "brake bleeding order", "the pedal feels soft after changing the pads"),
    "german": (
        "Wie entlüfte ich die Bremsen?",
        "Bremse entlüften Reihenfolge",
        "das Pedal ist nach dem Wechsel der Beläge weich",
    ),
    "french": (
        "comment purger les freins ?",
        "purge freins ordre",
        "la pédale est molle après le changement des plaquettes",
    ),
    "spanish": (
        "¿cómo se purgan los frenos?",
        "purgar frenos orden",
        "el pedal está blando después de cambiar las pastillas",
    ),
}


class WrittenQuery(BaseModel):
    type: str
    query: str


class WrittenNegative(BaseModel):
    strategy: str
    document: str
    explanation: str


class Written(BaseModel):
    """What a model writes for one passage."""

    queries: list[WrittenQuery] = Field(min_length=1)
    negatives: list[WrittenNegative]


def template_names() -> list[str]:
    """Return the names of the built-in prompt templates, sorted."""
    return sorted(file.stem for file in TEMPLATES.glob("*.txt"))


def load_template(name: str) -> Template:
    """Load a prompt template.

    Args:
        name: a built-in template's name, or a path.

    Raises:
        ValueError: it is neither, or the text is not UTF-8, lacks $passage or $task, or has placeholders besides these
            and the optional $title.
        OSError: the file cannot be read.
    """
    builtin = TEMPLATES / f"{name}.txt"
    path = builtin if builtin.is_file() else Path(name)
    if not path.is_file():
        raise ValueError(f"template '{name}' is neither a file nor one of {', '.join(template_names())}")
    try:
        template = Template(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    if not template.is_valid():
        raise ValueError(f"{path}: a $ stands for nothing; write $$ for the sign itself")
    placeholders = set(template.get_identifiers())
    for missing in {"task", "passage"} - placeholders:
        raise ValueError(f"{path}: lacks the placeholder ${missing}")
    for unknown in sorted(placeholders - PLACEHOLDERS):
        raise ValueError(f"{path}: has the placeholder ${unknown}; known are $passage, $task and $title")
    return template


def build_requests(
    chunks: Sequence[Chunk],
    template: Template,
    shares: dict[str, float],
    queries: int,
    negatives: int,
    language: str | None,
    seed: int,
    failing: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Request]:
    """Return one request per chunk, for queries and for passages that do not answer them.

    Args:
        shares: weight by query type; types are drawn in proportion.
        queries: number of queries per chunk.
        negatives: number of negative passages per chunk, each by another of STRATEGIES, hence at most as many.
        language: of the queries, such as "German"; None for that of the passage.
        seed: random seed of the types and strategies, which also depend on the chunk's id.
        failing: queries by a chunk's id that are shown as the kind to write, not to be repeated.
    """
    requests = []
    for chunk in chunks:
        rng = random.Random(f"{seed} {chunk.id}")
        types = sorted(rng.choices(list(shares), list(shares.values()), k=queries), key=list(QUERY_TYPES).index)
        if types[0] == "reformulation":
            types[0] = next((kind for kind in shares if kind != "reformulation"), "question")
        strategies = rng.sample(list(NEGATIVE_STRATEGIES), min(negatives, len(NEGATIVE_STRATEGIES)))
        task = _task(types, strategies, language, failing.get(chunk.id, ())[:MAX_FAILING])
        prompt = template.substitute(task=task, title=chunk.context or "(untitled)", passage=chunk.text)
        requests.append(Request(prompt, Written, _check_answer))
    return requests


def _task(types: Sequence[str], strategies: Sequence[str], language: str | None, failing: Sequence[str]) -> str:
    """Return the part of the prompt that says what to write, and in which JSON format."""
    lines = [f"Write {len(types)} search queries that this passage answers, and another one on its topic would not:"]
    lines += [f"{number}. {kind}: {QUERY_TYPES[kind]}" for number, kind in enumerate(types, 1)]
    lines.append("They stand alone: none speaks of a passage or document, and none copies more than a few words of it.")
    lines.append(f"Write in {language or 'the language of the passage'}.")
    examples = EXAMPLE_QUERIES.get((language or "").partition(" (")[0].lower())  # "German (Austria)": German
    if failing:
        lines.append(
            "A search engine fails at the following queries; yours are of their kind and level, on this passage alone, "
            f"and repeat none of them: {' / '.join(failing)}"
        )
    if examples:
        lines.append(f"For instance, of another topic: {' / '.join(examples)}")
    if strategies:
        lines.append(
            f"Then write {len(strategies)} passages of about this length and style that a search engine might mistake "
            "for the answer and that answer none of your queries, and explain each in a sentence:"
        )
        lines += [f"- {name}: it {NEGATIVE_STRATEGIES[name]}" for name in strategies]
    answer_format = '{"queries": [{"type": "...", "query": "..."}], "negatives": ['
    answer_format += '{"strategy": "...", "document": "...", "explanation": "..."}' if strategies else ""
    lines.append(f"Answer with JSON alone: {answer_format}]}}")
    return "\n".join(lines)


def _check_answer(answer: Written) -> str:
    """Return why an answer is unusable: it is "malformed" if all of its queries are; "" if it is usable."""
    return "malformed" if all(_query_defect(written) for written in answer.queries) else ""


def _query_defect(written: WrittenQuery) -> str:
    """Return what is wrong with a query, "" if nothing is."""
    words = len(split_words(written.query))
    if not words:
        return "it has no words"
    if words > MAX_QUERY_WORDS:
        return f"it has {words} words, and {MAX_QUERY_WORDS} are the most"
    if TASK_ECHO.search(written.query):
        return "it refers to the passage"
    if _type_name(written) not in QUERY_TYPES:
        return f"its type, '{written.type}', is none of {', '.join(QUERY_TYPES)}"
    return ""


def _type_name(written: WrittenQuery) -> str:
    """Return the type of a query as QUERY_TYPES spells it; models write "Natural language", too."""
    return "_".join(split_words(written.type))


def examples_from_answers(
    chunks: Sequence[Chunk], answers: Sequence[Written | None]
) -> tuple[list[TrainingExample], list[Rejected]]:
    """Make an example of each usable query, with all hard negatives of the answer.

    Args:
        answers: those to `build_requests(chunks, ...)`, None where there is none.

    Returns:
        The examples, and what was rejected: unusable queries, and passages without an answer.
    """
    examples, rejected = [], []
    for chunk, answer in zip(chunks, answers):
        if answer is None:
            rejected.append(Rejected("passage without an answer", chunk.full_text, f"of {chunk.id}"))
            continue
        negatives = [
            Negative(document=negative.document, explanation=f"{negative.strategy}: {negative.explanation}")
            for negative in answer.negatives
            if negative.document.strip() and negative.document.split() != chunk.text.split()
        ]
        for written in answer.queries:
            if defect := _query_defect(written):
                rejected.append(Rejected("unusable query", written.query, f"{defect}; of {chunk.id}"))
                continue
            examples.append(
                TrainingExample(
                    query=" ".join(written.query.split()),
                    positive_document=chunk.full_text,
                    negative_documents=negatives,
                    positive_id=chunk.id,
                    source=chunk.document_id,
                    query_type=_type_name(written),
                )
            )
    return examples, rejected


def estimate_tokens(
    requests: Sequence[Request], queries: int, negatives: int, chunks: Sequence[Chunk]
) -> tuple[int, int]:
    """Estimate (prompt tokens, completion tokens) of the requests of `build_requests` from numbers of characters: the
    prompts'; 60 per query; the passage's length and 150, for the explanation, per negative."""
    read = sum(len(request.prompt) for request in requests)
    written = sum(60 * queries + negatives * (len(chunk.text) + 150) for chunk in chunks)
    return read // CHARACTERS_PER_TOKEN, written // CHARACTERS_PER_TOKEN
