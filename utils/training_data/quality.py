"""Which examples are fit to learn from, and why others are not."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from utils.console import progress_bar
from utils.documents.normalization import words_of
from utils.records import Chunk, Negative, TrainingExample
from utils.search.scorers import VectorScorer, open_scorer

MAX_DOCUMENTS_PER_QUERY = 3  # that share a query; what is asked of more of them tells none apart
COPIED_RUN_WORDS = 8  # in a row, from the positive document
DUPLICATE_QUERY_JACCARD = 0.8  # Jaccard similarity of two queries' words from which on they are one


class Rejected(NamedTuple):
    """Something that makes no example: of what kind of reason, itself, and the reason in particular."""

    reason: str
    text: str
    detail: str


def filter_examples(examples: Sequence[TrainingExample]) -> tuple[list[TrainingExample], list[Rejected]]:
    """The examples without those whose query says nearly the same as an earlier one of the same passage, is one of more
    than MOST_DOCUMENTS documents, or is copied out of its positive; and without negatives that repeat the positive. The
    examples of a passage follow each other."""
    shared = _queries_of_many_documents(examples)
    kept: list[TrainingExample] = []
    rejected: list[Rejected] = []
    for passage, of_passage in itertools.groupby(examples, key=lambda example: example.positive_id):
        query_words: list[set[str]] = []  # the words of each query
        for example in of_passage:
            key = _word_string(example.query)
            words, copied = set(key.split()), _copied_run(key, _word_string(example.positive_document))
            if not words:
                rejected.append(Rejected("empty query", example.query, passage or ""))
            elif key in shared:
                detail = f"it is a query of {shared[key]} documents"
                rejected.append(Rejected("query of many documents", example.query, detail))
            elif any(len(words & other) >= DUPLICATE_QUERY_JACCARD * len(words | other) for other in query_words):
                rejected.append(Rejected("repeated query", example.query, f"of the same passage, {passage}"))
            elif copied:
                rejected.append(Rejected("copied query", example.query, f"the passage says: {copied}"))
            else:
                query_words.append(words)
                kept.append(_without_false_negatives(example, rejected))
    return kept, rejected


def _queries_of_many_documents(examples: Sequence[TrainingExample]) -> dict[str, int]:
    """The queries of more than MOST_DOCUMENTS documents, and of how many."""
    counts = Counter(
        hash(_word_string(example.query)) for example in examples
    )  # the queries themselves would fill the memory
    sources: dict[str, set[str | None]] = {}
    for example in examples:
        if counts[hash(key := _word_string(example.query))] > MAX_DOCUMENTS_PER_QUERY:
            sources.setdefault(key, set()).add(example.source)
    return {key: len(documents) for key, documents in sources.items() if len(documents) > MAX_DOCUMENTS_PER_QUERY}


def _without_false_negatives(example: TrainingExample, rejected: list[Rejected]) -> TrainingExample:
    positive = _word_string(example.positive_document)
    negatives = []
    for negative in example.negative_documents:
        text = negative.document if isinstance(negative, Negative) else negative
        if _word_string(text) in positive:
            rejected.append(Rejected("false negative", text, f"the positive document of '{example.query}' says it"))
        else:
            negatives.append(negative)
    if len(negatives) == len(example.negative_documents):
        return example
    return example.model_copy(update={"negative_documents": negatives})


def filter_by_round_trip(
    examples: Sequence[TrainingExample],
    passages: Sequence[Chunk],
    depth: int,
    name: str,
    device: str | None = None,
    threads: int | None = None,
) -> tuple[list[TrainingExample], list[Rejected]]:
    """The examples without those whose query puts `depth` passages or more above its own positive (round-trip
    consistency: Alberti et al., arXiv 1906.05416; top-k: Promptagator, arXiv 2209.11755), by the teacher called `name`.

    Raises:
        ValueError, OSError, ImportError: as `open_scorer`; a cross-encoder cannot search.
    """
    texts = [chunk.full_text for chunk in passages]
    number_of = {text: number for number, text in enumerate(texts)}
    for example in examples:  # a written query's positive is the passage itself
        if number_of.setdefault(example.positive_document, len(texts)) == len(texts):
            texts.append(example.positive_document)
    teacher = open_scorer(name, [example.query for example in examples], texts, device, threads)
    if not isinstance(teacher, VectorScorer):
        raise ValueError(f"'{name}' is a cross-encoder and cannot search; name bm25, a dense or a SPLADE model")
    positives = np.array([number_of[example.positive_document] for example in examples], int)
    own_scores = teacher.pair_scores(np.arange(len(examples)), positives)
    rankings = VectorScorer(name, teacher.queries, teacher.documents[: len(passages)]).search(depth + 1)
    kept, rejected = [], []
    bar = progress_bar(zip(examples, own_scores, rankings), total=len(examples), desc="round trip", unit="queries")
    for example, own, (found, scores) in bar:
        ahead = sum(passages[i].id != example.positive_id for i in found[scores > own])
        if ahead < depth:
            kept.append(example)
        else:
            best = passages[found[0]].id
            detail = f"{name} puts {depth} passages or more, such as {best}, above {example.positive_id}"
            rejected.append(Rejected("lost in the round trip", example.query, detail))
    return kept, rejected


def cap_per_document(
    examples: Sequence[TrainingExample], max_examples: int, seed: int
) -> tuple[list[TrainingExample], list[Rejected]]:
    """At most `max_examples` examples of a document, drawn by chance, in their order."""
    of_source: dict[str | None, list[int]] = {}
    for number, example in enumerate(examples):
        of_source.setdefault(example.source, []).append(number)
    chosen: set[int] = set()
    for source, numbers in of_source.items():
        chosen.update(random.Random(f"{seed} {source}").sample(numbers, min(max_examples, len(numbers))))
    rejected = [
        Rejected("beyond the balance", example.query, f"{example.source} has {len(of_source[example.source])} examples")
        for number, example in enumerate(examples)
        if number not in chosen
    ]
    return [example for number, example in enumerate(examples) if number in chosen], rejected


def _copied_run(query: str, document: str) -> str:
    """The first COPIED_WORDS words in a row of the query that stand so in the document, "" if there are none."""
    words, padded = query.split(), f" {document} "
    runs = (" ".join(words[i : i + COPIED_RUN_WORDS]) for i in range(len(words) - COPIED_RUN_WORDS + 1))
    return next((run for run in runs if f" {run} " in padded), "")


def _word_string(text: str) -> str:
    return " ".join(words_of(text))
