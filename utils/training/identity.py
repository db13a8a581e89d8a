"""Which queries and which documents of training examples are the same, and which documents answer which query."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from utils.documents.normalization import text_key
from utils.records import TrainingExample


class Identity(NamedTuple):
    """What an example's texts are: equal numbers are the same query, or the same document.

    Attributes:
        query: number of the query.
        documents: numbers of the documents, the positive first, then the negatives.
        answers: numbers of all documents that are a positive of this query, in this example or another one.
    """

    query: int
    documents: list[int]
    answers: list[int]


def identify(examples: Sequence[TrainingExample]) -> list[Identity]:
    """Return the identity of each example's texts; equal examples give equal numbers, in every process.

    Texts that differ in spacing and case alone are the same, as positives and as negatives. So are the positives of one
    `positive_id`, whose texts may be different parts of a passage.
    """
    # 64-bit hashes, because the texts' keys would take as much memory as the texts.
    queries: dict[int, int] = {}
    nodes: dict[int | str, int] = {}  # of texts, by their hash, and of passages, by their id
    query_numbers = [queries.setdefault(hash(text_key(e.query)), len(queries)) for e in examples]
    text_nodes = [
        [nodes.setdefault(hash(text_key(text)), len(nodes)) for text in (e.positive_document, *e.negatives)]
        for e in examples
    ]
    passages = [
        nodes.setdefault(e.positive_id, len(nodes)) if e.positive_id else own[0] for e, own in zip(examples, text_nodes)
    ]
    links = coo_array((np.ones(len(examples)), ([own[0] for own in text_nodes], passages)), shape=(len(nodes),) * 2)
    numbers = connected_components(links, directed=False)[1].tolist()
    documents = [[numbers[node] for node in own] for own in text_nodes]
    answers: dict[int, set[int]] = {}
    for query, (positive, *_) in zip(query_numbers, documents):
        answers.setdefault(query, set()).add(positive)
    sorted_answers = {query: sorted(positives) for query, positives in answers.items()}
    return [Identity(query, own, sorted_answers[query]) for query, own in zip(query_numbers, documents)]
