"""Teachers: models that score how well documents answer queries, to train by and to find hard negatives with.

A teacher's name is `bm25`, `minilm`, or a model folder or hub id; what its config says it is decides how it scores: a
cross-encoder reads query and document together, a dense model and a SPLADE model compare their vectors.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import scipy.sparse
from transformers import AutoConfig

from utils.arguments import parse_weights
from utils.console import progress_bar
from utils.device import autocast
from utils.journal import Journal, journal_key
from utils.models import loading, resolve_model
from utils.search.lexical import BM25Index
from utils.splade.encoder import SpladeEncoder
from utils.splade.vectors import to_csr

SAMPLE_PAIRS = 2000  # random pairs that a teacher's mean and deviation are taken of
BLOCK_QUERIES = 256  # queries against all documents at a time
JOURNAL_PAIRS = 1024  # pairs between two entries in a journal


class Scorer(Protocol):
    """Scores of pairs, given as numbers of queries and of documents."""

    name: str

    def pair_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """[pairs] scores of (query, document) pairs, both [pairs] numbers."""


class VectorScorer:
    """BM25, a dense or a SPLADE model: a score is the dot product of two vectors.

    Args:
        name: what it is called in messages.
        queries, documents: [texts, dimensions], dense arrays or sparse rows.
    """

    def __init__(self, name: str, queries, documents) -> None:
        self.name, self.queries, self.documents = name, queries, documents

    def pair_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        scores = np.empty(len(queries), np.float32)
        for start in range(0, len(queries), SAMPLE_PAIRS):
            part = slice(start, start + SAMPLE_PAIRS)
            left, right = self.queries[queries[part]], self.documents[documents[part]]
            products = left.multiply(right) if scipy.sparse.issparse(left) else left * right
            scores[part] = np.asarray(products.sum(axis=1)).ravel()
        return scores

    def block_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """[queries, documents] scores of each with each."""
        product = self.queries[queries] @ self.documents[documents].T
        return product.toarray() if scipy.sparse.issparse(product) else product

    def search(self, top_k: int):
        """For each query in turn, the numbers of its `top_k` best documents, best first, and their scores."""
        count = min(top_k, self.documents.shape[0])
        for start in range(0, self.queries.shape[0], BLOCK_QUERIES):
            product = self.queries[start : start + BLOCK_QUERIES] @ self.documents.T
            for row in product.toarray() if scipy.sparse.issparse(product) else product:
                best = np.argpartition(-row, count - 1)[:count]
                best = best[np.argsort(-row[best], kind="stable")]
                yield best, row[best]


class CrossEncoderScorer:
    """A cross-encoder, by sentence-transformers: the score is its logit. Each pair is scored once, and stands in the
    journal, where there is one, soon after."""

    def __init__(
        self, name: str, model, queries: Sequence[str], documents: Sequence[str], journal: Journal | None = None
    ) -> None:
        self.name, self.model, self.queries, self.documents = name, model, queries, documents
        self.journal = journal
        self.known = journal.found if journal else {}

    def pair_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        pairs = [(self.queries[q], self.documents[d]) for q, d in zip(queries, documents)]
        keys = [journal_key(self.name, *pair) for pair in pairs]
        missing = {key: pair for key, pair in zip(keys, pairs) if key not in self.known}
        with progress_bar(total=len(missing), desc="scoring", unit="pairs") as bar, autocast(self.model.device):
            for start in range(0, len(missing), JOURNAL_PAIRS):
                part = dict(itertools.islice(missing.items(), start, start + JOURNAL_PAIRS))
                scores = self.model.predict(list(part.values()), activation_fn=_identity, show_progress_bar=False)
                found = dict(zip(part, scores.tolist()))
                self.journal.add(found) if self.journal else self.known.update(found)
                bar.update(len(part))
        return np.array([self.known[key] for key in keys], np.float32)


class FusedScorer:
    """The sum of several teachers' scores by weight, each less its mean over random pairs and over its deviation. One
    teacher alone scores as it is.

    Attributes:
        deviation: the standard deviation of the scores over random pairs.
    """

    def __init__(self, teachers: Sequence[Scorer], weights: Sequence[float], queries: int, documents: int) -> None:
        self.name = " + ".join(teacher.name for teacher in teachers)
        self.teachers = teachers
        rng = np.random.default_rng(0)
        pairs = rng.integers(queries, size=SAMPLE_PAIRS), rng.integers(documents, size=SAMPLE_PAIRS)
        samples = [teacher.pair_scores(*pairs) for teacher in teachers]
        self.means, self.scales = [0.0], [1.0]
        if len(samples) > 1:
            self.means = [float(sample.mean()) for sample in samples]
            self.scales = [weight / float(sample.std() or 1.0) for weight, sample in zip(weights, samples)]
        self.deviation = float(self._sum(samples).std()) or 1.0

    def pair_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """[pairs], as Teacher's."""
        return self._sum([teacher.pair_scores(queries, documents) for teacher in self.teachers])

    def block_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """[queries, documents], as VectorTeacher's."""
        return self._sum([teacher.block_scores(queries, documents) for teacher in self.teachers])

    def _sum(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        return sum(scale * (part - mean) for part, mean, scale in zip(scores, self.means, self.scales))


def open_fused_scorer(
    names: Sequence[str],
    queries: Sequence[str],
    documents: Sequence[str],
    device: str | None = None,
    threads: int | None = None,
    journal: Journal | None = None,
) -> FusedScorer:
    """The teachers called `name` or `name=weight`, fused. Arguments and errors as `open_scorer`'s."""
    weights = parse_weights(names, "teacher")
    scorers = [open_scorer(name, queries, documents, device, threads, journal) for name in weights]
    return FusedScorer(scorers, list(weights.values()), len(queries), len(documents))


def open_scorer(
    name: str,
    queries: Sequence[str],
    documents: Sequence[str],
    device: str | None = None,
    threads: int | None = None,
    journal: Journal | None = None,
) -> Scorer:
    """The teacher called `name`, ready for these texts. What a cross-encoder scores is kept in `journal`.

    Raises:
        ValueError, OSError: the model cannot be had.
        ImportError: it needs sentence-transformers, which is not installed.
    """
    if name == "bm25":
        index = BM25Index(documents)
        return VectorScorer(name, index.query_matrix(queries), index.document_matrix())
    kind = _architecture(name)
    if kind.endswith("ForMaskedLM"):
        return splade_scorer(name, SpladeEncoder.from_pretrained(name, device, threads=threads), queries, documents)
    if kind.endswith("ForSequenceClassification"):
        model = _import_sentence_transformers(name).CrossEncoder(resolve_model(name), **_model_options(device))
        return CrossEncoderScorer(name, model, queries, documents, journal)
    encode = open_text_encoder(name, device, threads)
    return VectorScorer(name, encode(queries), encode(documents))


def open_text_encoder(
    name: str, device: str | None = None, threads: int | None = None
) -> Callable[[Sequence[str]], np.ndarray | scipy.sparse.csr_array]:
    """What makes of texts their [texts, dimensions] vectors of length 1, by a dense or a SPLADE model.

    Raises:
        ValueError, OSError: the model cannot be had, or is a cross-encoder.
        ImportError: it needs sentence-transformers, which is not installed.
    """
    kind = _architecture(name)
    if kind.endswith("ForSequenceClassification"):
        raise ValueError(f"'{name}' is a cross-encoder and has no vectors; name a dense or a SPLADE model")
    if kind.endswith("ForMaskedLM"):
        encoder = SpladeEncoder.from_pretrained(name, device, threads=threads)

        def sparse(texts: Sequence[str]) -> scipy.sparse.csr_array:
            rows = to_csr(encoder.encode(texts), encoder.vocabulary_size)
            lengths = np.sqrt(rows.multiply(rows).sum(axis=1))
            return scipy.sparse.diags_array(1 / np.maximum(lengths, 1e-9)) @ rows

        return sparse
    model = _import_sentence_transformers(name).SentenceTransformer(resolve_model(name), **_model_options(device))

    def dense(texts: Sequence[str]) -> np.ndarray:
        with autocast(model.device):
            return model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)

    return dense


def _architecture(name: str) -> str:
    """What the config of a model says that it is."""
    source = resolve_model(name)
    with loading(name):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    return (config.architectures or [""])[0]


def _import_sentence_transformers(name: str):
    try:
        import sentence_transformers  # seconds to import
    except ImportError:
        raise ImportError(f"'{name}' needs: pip install sentence-transformers") from None
    return sentence_transformers


def _model_options(device: str | None) -> dict:
    return {"device": device, "trust_remote_code": False, "model_kwargs": {"use_safetensors": True}}


def splade_scorer(name: str, encoder: SpladeEncoder, queries: Sequence[str], documents: Sequence[str]) -> VectorScorer:
    """A SPLADE model as a teacher."""
    asked = [
        encoder.encode_query(query) for query in progress_bar(queries, desc="queries", unit="queries", leave=False)
    ]
    return VectorScorer(
        name,
        to_csr(asked, encoder.vocabulary_size),
        to_csr(encoder.encode(documents, show_progress=True), encoder.vocabulary_size),
    )


def _identity(logits):
    return logits
