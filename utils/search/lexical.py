"""BM25 search, by bm25s: the lexical baseline of evaluation, and a source of hard negatives."""

from collections.abc import Sequence

import bm25s
import numpy as np
import scipy.sparse


class BM25Index:
    """BM25 index over a list of texts (Robertson and Zaragoza 2009, in Lucene's variant; k1 1.5, b 0.75).

    The analyzer is bm25s' tokenizer: words of two characters or more in lower case, without English stop words, not
    stemmed.

    Args:
        texts: the documents; each is identified by its position in the list.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.size = len(texts)
        self._vocabulary = bm25s.tokenization.Tokenizer(stopwords="english")
        tokens = self._vocabulary.tokenize(list(texts), return_as="ids", show_progress=False)
        # bm25s gives a text without known words this one token.
        self._blank = {self._vocabulary.get_vocab_dict().get("", -1)}
        self._bm25 = bm25s.BM25()
        self._bm25.index((tokens, self._vocabulary.get_vocab_dict()), show_progress=False)

    def mean_terms(self, texts: Sequence[str]) -> float:
        """Return the mean number of distinct words of the index's vocabulary per text."""
        tokens = self._vocabulary.tokenize(list(texts), update_vocab=False, return_as="ids", show_progress=False)
        return float(np.mean([len(set(row) - self._blank) for row in tokens]))

    def document_matrix(self) -> scipy.sparse.csr_array:
        """Return [texts, words] BM25 weights: what each occurrence of a word in a query adds to a text's score."""
        scores = self._bm25.scores
        words = len(scores["indptr"]) - 1
        parts = (scores["data"], scores["indices"], scores["indptr"])
        return scipy.sparse.csc_array(parts, shape=(self.size, words)).tocsr()

    def query_matrix(self, queries: Sequence[str]) -> scipy.sparse.csr_array:
        """Return [queries, words] term counts; the product with the transposed `document_matrix` is the BM25 scores."""
        tokens = self._vocabulary.tokenize(list(queries), update_vocab=False, return_as="ids", show_progress=False)
        rows = [[word for word in row if word not in self._blank] for row in tokens]
        starts = np.cumsum([0, *map(len, rows)])
        words = np.array([word for row in rows for word in row], np.int32)
        shape = (len(rows), len(self._bm25.scores["indptr"]) - 1)
        return scipy.sparse.csr_array((np.ones(len(words), np.float32), words, starts), shape=shape)

    def search(self, queries: Sequence[str], top_k: int) -> list[list[tuple[int, float]]]:
        """Return the `top_k` (position, score) of each query, best first, without texts that share no word with it."""
        tokens = self._vocabulary.tokenize(list(queries), update_vocab=False, return_as="ids", show_progress=False)
        hits = self._bm25.retrieve(tokens, k=min(top_k, self.size), show_progress=False, n_threads=0)
        return [
            [(int(i), float(s)) for i, s in zip(positions, scores) if s > 0 and set(row) != self._blank]
            for row, positions, scores in zip(tokens, hits.documents, hits.scores)
        ]
