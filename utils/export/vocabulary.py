"""What of a model's vocabulary a collection uses, to cut the rest."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from utils.console import progress_bar
from utils.records import Document
from utils.search.ingestion import read_windows
from utils.search.passages import split_document
from utils.splade.base_encoder import Encoder

LEAST = 1e-9  # of a term that is in queries alone, below any weight


class VocabularyUse(NamedTuple):
    """What texts use of a vocabulary.

    Attributes:
        weights: [vocabulary] sums of the terms' weights over all passages; a term of a query alone has LEAST.
        pieces: [vocabulary] whether a token is in a text, as input.
        passages, queries: how many there are.
    """

    weights: np.ndarray
    pieces: np.ndarray
    passages: int
    queries: int

    def terms(self, count: int | None = None) -> np.ndarray:
        """Return the ids of the terms that are active in any text, ascending: of the `count` with the largest sums."""
        active = np.flatnonzero(self.weights)
        if count is not None and count < len(active):
            heaviest = np.argsort(-self.weights[active], kind="stable")[:count]
            active = np.sort(active[heaviest])
        return active


def measure_use(
    encoder: Encoder, documents: Iterable[Document], queries: Sequence[str], inputs: bool = False
) -> VocabularyUse:
    """Return what documents, as an index holds them, and queries use of a model's vocabulary; with `inputs`, also which
    tokens are in them."""
    weights = np.zeros(encoder.vocabulary_size)
    pieces = np.zeros(encoder.vocabulary_size, bool)
    passages = 0

    def texts() -> Iterator[str]:
        for window in read_windows(documents):
            full_texts = [document.full_text for document in window]
            counts = encoder.count_tokens(full_texts)
            found = [
                passage.text
                for document, text, tokens in zip(window, full_texts, counts)
                for passage in split_document(encoder, text, tokens, document.title)
            ]
            if inputs:
                pieces[list(itertools.chain(*encoder.tokenize(found)))] = True
            yield from found

    with progress_bar(desc="vocabulary", unit="passages") as bar:
        for vector in encoder.encode_stream(texts(), progress=bar):
            weights[vector.indices] += vector.values
            passages += 1
    for vector in encoder.encode_queries(queries):
        weights[vector.indices] += LEAST
    if inputs:
        pieces[list(itertools.chain(*encoder.tokenize_queries(queries)))] = True
    return VocabularyUse(weights, pieces, passages, len(queries))
