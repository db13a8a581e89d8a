"""Quality filters for training examples; each also returns what it rejected, with the reason."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from utils.console import progress_bar
from utils.documents.normalization import split_words
from utils.records import Chunk, Negative, TrainingExample
from utils.search.scorers import VectorScorer, open_scorer

MAX_DOCUMENTS_PER_QUERY = 3  # documents; a query with positives in more, such as "See also", does not tell them apart
COPIED_RUN_WORDS = 8  # consecutive words; a query that shares them with its positive teaches matching of copied text
DUPLICATE_QUERY_JACCARD = 0.8  # Jaccard similarity of their sets of words from which on two queries are duplicates


class Rejected(NamedTuple):
    """A rejected query or document: the kind of reason, its text, and the reason in detail."""

    reason: str
    text: str
    detail: str


def filter_examples(examples: Sequence[TrainingExample]) -> tuple[list[TrainingExample], list[Rejected]]:
    """Drop examples whose query is empty, a near duplicate of an earlier one of the same passage, one that more than
    MAX_DOCUMENTS_PER_QUERY documents have, or copied from its positive document; and negatives whose text the positive
    contains. The examples of a passage have to be consecutive.

    Returns:
        The remaining examples, in order, and what was rejected.
    """
    shared = _queries_of_many_documents(examples)
    kept: list[TrainingExample] = []
    rejected: list[Rejected] = []
    for passage, group in itertools.groupby(examples, key=lambda example: example.positive_id):
        kept_words: list[set[str]] = []  # words of each query kept of this passage
        for example in group:
            key = _word_string(example.query)
            words, copied = set(key.split()), _copied_run(key, _word_string(example.positive_document))
            if not words:
                rejected.append(Rejected("empty query", example.query, passage or ""))
            elif key in shared:
                detail = f"it is a query of {shared[key]} documents"
                rejected.append(Rejected("query of many documents", example.query, detail))
            elif any(len(words & other) >= DUPLICATE_QUERY_JACCARD * len(words | other) for other in kept_words):
                rejected.append(Rejected("repeated query", example.query, f"of the same passage, {passage}"))
            elif copied:
                rejected.append(Rejected("copied query", example.query, f"the passage says: {copied}"))
            else:
                kept_words.append(words)
                kept.append(_without_false_negatives(example, rejected))
    return kept, rejected


def _queries_of_many_documents(examples: Sequence[TrainingExample]) -> dict[str, int]:
    """Return the number of documents of each query, by its words, that has more than MAX_DOCUMENTS_PER_QUERY."""
    # Hashes take less memory than the queries; a collision only adds a query to those that are counted exactly.
    counts = Counter(hash(_word_string(example.query)) for example in examples)
    sources: dict[str, set[str | None]] = {}
    for example in examples:
        if counts[hash(key := _word_string(example.query))] > MAX_DOCUMENTS_PER_QUERY:
            sources.setdefault(key, set()).add(example.source)
    return {key: len(documents) for key, documents in sources.items() if len(documents) > MAX_DOCUMENTS_PER_QUERY}


def _without_false_negatives(example: TrainingExample, rejected: list[Rejected]) -> TrainingExample:
    """Return the example without negatives whose words, in a row, the positive document contains; append these to
    `rejected`."""
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
    language: str | None = None,
) -> tuple[list[TrainingExample], list[Rejected]]:
    """Drop examples whose query does not retrieve its own passage: those where `depth` passages or more of others score
    above the positive (round-trip consistency: Alberti et al., arXiv 1906.05416; by rank: Promptagator, arXiv
    2209.11755).

    Args:
        passages: the collection that is searched.
        name: of the scorer, as in `open_scorer`.
        language: of the texts, as there.

    Returns:
        The remaining examples, in order, and what was rejected.

    Raises:
        ValueError: the model cannot be loaded, or is a cross-encoder, which cannot search.
        OSError, ImportError: as `open_scorer`.
    """
    texts = [chunk.full_text for chunk in passages]
    position_of = {text: position for position, text in enumerate(texts)}
    for example in examples:  # adds the positives that are not a whole passage, as those of extractive queries
        if position_of.setdefault(example.positive_document, len(texts)) == len(texts):
            texts.append(example.positive_document)
    scorer = open_scorer(name, [example.query for example in examples], texts, device, threads, language=language)
    if not isinstance(scorer, VectorScorer):
        raise ValueError(f"'{name}' is a cross-encoder and cannot search; name bm25, a dense or a SPLADE model")
    positives = np.array([position_of[example.positive_document] for example in examples], int)
    positive_scores = scorer.pair_scores(np.arange(len(examples)), positives)
    rankings = VectorScorer(name, scorer.queries, scorer.documents[: len(passages)]).search(depth + 1)
    kept, rejected = [], []
    bar = progress_bar(zip(examples, positive_scores, rankings), total=len(examples), desc="round trip", unit="queries")
    for example, positive_score, (found, scores) in bar:
        ahead = [passages[i].id for i in found[scores > positive_score] if passages[i].id != example.positive_id]
        if len(ahead) < depth:
            kept.append(example)
        else:
            detail = f"{name} puts {depth} passages or more, such as {ahead[0]}, above {example.positive_id}"
            rejected.append(Rejected("lost in the round trip", example.query, detail))
    return kept, rejected


def cap_per_document(
    examples: Sequence[TrainingExample], max_examples: int, seed: int
) -> tuple[list[TrainingExample], list[Rejected]]:
    """Keep at most `max_examples` random examples of each document (`source`).

    Returns:
        The remaining examples, in order, and what was rejected.
    """
    by_source: dict[str | None, list[int]] = {}
    for position, example in enumerate(examples):
        by_source.setdefault(example.source, []).append(position)
    sampled: set[int] = set()
    for source, positions in by_source.items():
        sampled.update(random.Random(f"{seed} {source}").sample(positions, min(max_examples, len(positions))))
    rejected = [
        Rejected("over the cap per document", e.query, f"{e.source} has {len(by_source[e.source])} examples")
        for position, e in enumerate(examples)
        if position not in sampled
    ]
    return [example for position, example in enumerate(examples) if position in sampled], rejected


def _copied_run(query: str, document: str) -> str:
    """Return the first COPIED_RUN_WORDS consecutive words of the query that the document contains, "" if none. Both
    are word strings."""
    words = query.split()
    runs = (" ".join(words[i : i + COPIED_RUN_WORDS]) for i in range(len(words) - COPIED_RUN_WORDS + 1))
    return next((run for run in runs if f" {run} " in document), "")


def _word_string(text: str) -> str:
    """Return the words of a text in lower case, without punctuation, with a space before and after each, so that a
    substring test compares whole words."""
    return " ".join(["", *split_words(text), ""])
