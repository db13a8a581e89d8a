"""Where in a passage the words stand that a query matched, and the terms that did."""

import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from utils.documents.normalization import normalize
from utils.search.analyzer import PAIRED_CHARACTER, WORD
from utils.search.lexical import TermCounter
from utils.search.searcher import DocumentSearch, EncodedQuery, explain_terms, shared_terms
from utils.search.store import StoredPassage
from utils.splade.tokenization import TOKENIZER_OPTIONS
from utils.splade.vectors import SparseVector

MIN_SHARE = 0.05  # of the model's score, that a term has to have to be marked

KEPT_PASSAGES = 4096  # whose tokens are kept for the next query, about 5 KB each

Span = tuple[int, int]  # start and end, in characters


class Highlighter:
    """Shows why passages of an index match a query.

    Args:
        limit: terms of a passage that are shown, heaviest first.
    """

    def __init__(self, search: DocumentSearch, limit: int) -> None:
        self._model, self._limit = search.model, limit
        self._counter = TermCounter(search.index.language)
        self._tokenize = functools.lru_cache(KEPT_PASSAGES)(self._find_tokens)

    def explain(
        self, query: EncodedQuery, passages: Sequence[StoredPassage], legs: Collection[str]
    ) -> Iterator[tuple[list[Span], list[dict[str, Any]]]]:
        """Yield of each passage (where the matched words stand in its text, in order; the heaviest terms, as
        `DocumentSearch.explain` has them). What the search has no leg for, of `DocumentSearch.legs`, is left out.

        A word of the passage is marked where BM25 finds it in the query, or where the model matches it with a term of
        the query that has at least MIN_SHARE of the score.
        """
        asked = set(self._counter.number_words(query.expanded).values()) if "bm25" in legs else set()
        query_tokens = set(self._model.tokenize_queries([query.expanded])[0])
        for passage in passages:
            spans, rows = list(self._find_words(asked, passage.text)) if asked else [], []
            if "splade" in legs:
                tokens, places = self._tokenize(passage.text)
                rows = explain_terms(self._model, query.vector, passage.terms, query_tokens, tokens, self._limit)
                found = places[np.isin(tokens, _heavy_terms(query.vector, passage.terms))].tolist()
                spans += [_whole_word(passage.text, *place) for place in found if WORD.search(passage.text, *place)]
            yield _merge(spans), rows

    def _find_words(self, asked: set[int], text: str) -> Iterator[Span]:
        found = {word for word, number in self._counter.number_words(text).items() if number in asked}
        paired = {word for word in found if PAIRED_CHARACTER.match(word)}
        fold = str.lower if text.isascii() else lambda word: normalize(word).lower()
        for word in WORD.finditer(text) if found - paired else ():
            if fold(word[0]) in found:
                yield word.span()
        for word in {word for word in paired if len(word) > 1} or paired:  # a pair says more than its characters
            start = text.find(word)
            while start >= 0:
                yield start, start + len(word)
                start = text.find(word, start + 1)

    def _find_tokens(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return [tokens] a text's tokens and [tokens, 2] where they stand; that is nowhere if the tokenizer does not
        say it."""
        fast = self._model.tokenizer.is_fast
        tokens = self._model.tokenizer(text, **TOKENIZER_OPTIONS, return_offsets_mapping=fast)
        ids = np.array(tokens["input_ids"], np.int32)
        places = tokens["offset_mapping"] if fast else np.zeros((len(ids), 2))
        return ids, np.array(places, np.int32)


def _heavy_terms(query: SparseVector, passage: SparseVector) -> np.ndarray:
    shared, in_query, in_passage = shared_terms(query, passage)
    parts = in_query * in_passage
    return shared[parts >= MIN_SHARE * parts.sum()]


def _whole_word(text: str, start: int, end: int) -> Span:
    """Return the span of the word that a token is a piece of; in scripts without spaces that of the token."""
    if not PAIRED_CHARACTER.search(text, start, end):
        while start and _in_word(text[start - 1]):
            start -= 1
        while end < len(text) and _in_word(text[end]):
            end += 1
    return start, end


def _in_word(character: str) -> bool:
    return bool(WORD.match(character)) and not PAIRED_CHARACTER.match(character)


def _merge(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
