"""The queries that a search loses: what decided each, sorted into causes, and the words that cost most."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from utils.console import progress_bar
from utils.evaluation.collection import Collection
from utils.evaluation.error_causes import MISSING, AskedQuery, SeenDocument, find_cause
from utils.evaluation.metrics import score_run
from utils.evaluation.significance import ROUNDING
from utils.evaluation.systems import Evaluation
from utils.search.analyzer import PAIRED_CHARACTER
from utils.search.lexical import TermCounter
from utils.search.searcher import DocumentSearch, EncodedQuery, explain_terms, shared_terms, snippet
from utils.search.store import StoredPassage

AGREED_RANK = 3  # systems agree on a wrong document that both rank as high as this, near the right one
RARE_SHARE, RARE_DOCUMENTS = 0.01, 2  # of the documents, or that many; a word in no more of them is rare
SHOWN_TERMS = 10  # heaviest terms that a document is shown with, and terms that an error is


class JudgedDocument(NamedTuple):
    """A document of an error, by that of its passages that the query's vector scores highest.

    Attributes:
        id, title: of the document.
        snippet: of the passage.
        rank: in the run; None where it is not among the documents that are kept of it.
        score: of the passage, by the model's vectors.
        terms: the heaviest terms of query and passage, see `utils.search.searcher.explain_terms`.
    """

    id: str
    title: str
    snippet: str
    rank: int | None
    score: float
    terms: list[dict[str, Any]]


class QueryError(NamedTuple):
    """A query that a search lost.

    Attributes:
        query_id, query: its id and its text.
        value, baseline_value: of the metric; without a baseline the second is the best that there could be.
        cause: one of CAUSES.
        explanation: of the cause, a sentence with the words concerned.
        right: the relevant document that lost most, see `_choose_right`; None where none is in the collection.
        wrong: the document above it that is taken for the wrong one, see `_choose_wrong`; None where there is none.
        lead: how much of the wrong one's lead, in units of the score, each term makes up, the most costly first.
    """

    query_id: str
    query: str
    value: float
    baseline_value: float
    cause: str
    explanation: str
    right: JudgedDocument | None
    wrong: JudgedDocument | None
    lead: list[tuple[str, float]]


class ErrorAnalysis(NamedTuple):
    """What a search lost.

    Attributes:
        errors: those that lost most first.
        causes: number of errors by cause, the most frequent first.
        words: (term, cost) the terms that cost most first: how much of the score by which wrong passages are ahead of
            right ones a term makes up, summed over the errors.
    """

    errors: list[QueryError]
    causes: dict[str, int]
    words: list[tuple[str, float]]


def check_explained(search: DocumentSearch) -> None:
    """Check that a search is by the model's vectors, which alone show why a passage matched.

    Raises:
        ValueError: it is by others.
    """
    if "splade" not in search.legs:
        raise ValueError(f"errors are explained by the model's terms, and this search is by {', '.join(search.legs)}")


def analyze_errors(
    search: DocumentSearch, data: Collection, evaluation: Evaluation, baseline: Evaluation | None, metric: str
) -> ErrorAnalysis:
    """Return the queries that are below a baseline by a metric or, without one, below the best value that there could
    be, and why.

    Args:
        search: of the collection's index, which `evaluation` is of. With other searches beside the model's or with a
            reranker, its vectors explain only its own part.
        metric: one that both have values of.

    Raises:
        ValueError: see `check_explained`.
    """
    check_explained(search)
    values = evaluation.values[metric]
    reference = baseline.values[metric] if baseline else best_values(data, metric)
    queries = list(data.qrels)
    order = np.argsort(values - reference, kind="stable").tolist()
    lost = [place for place in order if reference[place] - values[place] > ROUNDING]
    asked = search.encode_together([data.queries[queries[place]] for place in lost])
    analyzer = _Analyzer(search, data, evaluation.run, baseline.run if baseline else None, asked)
    errors, costs = [], Counter()
    for place, query in zip(progress_bar(lost, desc="errors", unit="queries", leave=False), asked):
        error = analyzer.analyze(queries[place], query, float(values[place]), float(reference[place]))
        errors.append(error)
        costs.update(dict(error.lead))
    counts = Counter(error.cause for error in errors)
    errors = [error._replace(lead=error.lead[:SHOWN_TERMS]) for error in errors]
    return ErrorAnalysis(errors, dict(counts.most_common()), costs.most_common())


def best_values(data: Collection, metric: str) -> np.ndarray:
    """Return [queries] values of a metric, as ir-measures spells it, of the documents in the order of their grades."""
    ideal = {query: {name: float(g) for name, g in grades.items() if g > 0} for query, grades in data.qrels.items()}
    return score_run(data.qrels, ideal.items(), [metric]).values[metric]


class _Analyzer:
    """Errors of one search, one at a time.

    Args:
        run, baseline: the best documents of both systems; None without a baseline, whose place the order of the grades
            then takes.
        asked: all queries that will be analyzed, whose words are counted in the collection.
    """

    def __init__(
        self,
        search: DocumentSearch,
        data: Collection,
        run: Mapping[str, Mapping[str, float]],
        baseline: Mapping[str, Mapping[str, float]] | None,
        asked: Sequence[EncodedQuery],
    ) -> None:
        self._search, self._data, self._run, self._baseline = search, data, run, baseline
        self._counter = TermCounter(search.index.language)
        numbers = {number for query in asked for number in self._counter.number_words(query.expanded).values()}
        self._frequencies: Counter[int] = Counter()
        for document in data.documents if numbers else ():
            self._frequencies.update(numbers.intersection(self._counter.count(document.full_text).indices.tolist()))

    def analyze(self, name: str, query: EncodedQuery, value: float, reference: float) -> QueryError:
        """Return why the query with this id is below its reference value."""
        grades = {document: grade for document, grade in self._data.qrels[name].items()}
        relevant = {document: grade for document, grade in grades.items() if grade > 0}
        present = [document for document in relevant if self._search.index.find(document)]
        ranks = _ranks(self._run.get(name, {}))
        ideal = sorted(relevant, key=relevant.get, reverse=True)
        other_ranks = _ranks(ideal if self._baseline is None else self._baseline.get(name, {}))
        choices = {right: _choose_wrong(grades, ranks, other_ranks, right) for right in present}
        lost = [right for right in present if choices[right] or right not in ranks]
        given = name, query.text, value, reference
        if not present or (not lost and len(present) < len(relevant)):
            absent = sorted(relevant.keys() - {*present})
            explanation = f"of {len(relevant):,} relevant documents {len(absent):,} are not in the collection, such as "
            return QueryError(*given, MISSING, f"{explanation}{absent[0]}", None, None, [])
        right = max(
            lost or present, key=lambda document: relevant[document] * _lost_discount(document, ranks, other_ranks)
        )
        wrong = choices[right]
        asked, seen_right, passage = self._ask(query), *self._see(query, right)
        shown_right = self._show(query, right, ranks, passage)
        if not wrong:
            cause = find_cause(asked, seen_right, None, alone=self._alone)
            return QueryError(*given, *cause, shown_right, None, [])
        seen_wrong, passage = self._see(query, wrong)
        agreed_ranks = ranks[wrong], ranks.get(right, math.inf), other_ranks.get(wrong, math.inf)
        agreed = self._baseline is not None and max(agreed_ranks) <= AGREED_RANK
        cause = find_cause(asked, seen_right, seen_wrong, wrong not in grades, agreed, self._alone)
        lead = _split_lead(asked, asked.weights * (seen_wrong.weights - seen_right.weights))
        return QueryError(*given, *cause, shown_right, self._show(query, wrong, ranks, passage), lead)

    @property
    def _alone(self) -> bool:
        return self._search.legs == ["splade"] and not self._search.rerank

    def _ask(self, query: EncodedQuery) -> AskedQuery:
        model, limit = self._search.model, max(self._search.model.max_length, self._search.model.query_max_length)
        (tokens,), truncated = model.tokenize_and_count_queries([query.expanded])
        words = self._counter.number_words(query.expanded)
        kept = words.values()
        if truncated:
            kept = self._counter.number_words(model.tokenizer.decode(tokens, skip_special_tokens=True)).values()
        documents, terms = len(self._data.documents), query.vector.indices
        most = max(RARE_DOCUMENTS, RARE_SHARE * documents)
        rare = [word for word, number in words.items() if self._frequencies[number] <= most]
        ids = dict(zip(words, model.truncated_ids(list(words), limit, add_special_tokens=False)[0]))
        return AskedQuery(
            model.decode_terms(terms),
            query.vector.values,
            self._has(query, tokens, kept),
            {word: _idf(self._frequencies[number], documents) for word, number in words.items()},
            [word for word, number in words.items() if number not in kept],
            [word for word in rare if len(ids[word]) > 1 and not PAIRED_CHARACTER.search(word)],
            {word: np.isin(terms, ids[word]) for word in words},
        )

    def _has(self, query: EncodedQuery, tokens: Iterable[int], numbers: Iterable[int]) -> np.ndarray:
        """Return [terms of the query] whether a text of these tokens, and of words of these numbers, has the term."""
        terms = query.vector.indices
        numbers = set(numbers)
        stems = [self._counter.number_words(term).get(term) in numbers for term in self._decode(terms)]
        return np.isin(terms, list(tokens)) | np.array(stems, bool)

    def _decode(self, terms: np.ndarray) -> list[str]:
        return [term.lower() for term in self._search.model.decode_terms(terms)]

    def _see(self, query: EncodedQuery, name: str) -> tuple[SeenDocument, StoredPassage]:
        """Return a document as the rule sees it, and its best passage."""
        index, model, terms = self._search.index, self._search.model, query.vector.indices
        passages = list(index.passages(index.passages_of(index.find(name).number)).values())
        weights = np.array([_weights_at(passage, terms) for passage in passages])
        numbers = self._counter.number_words(query.expanded)
        words = [{word for word, number in numbers.items() if number in p.words.indices} for p in passages]
        scores = weights @ query.vector.values
        best = max(range(len(passages)), key=lambda place: (scores[place], len(words[place])))
        passage = passages[best]
        tokens = model.tokenize([passage.text])[0]
        seen = SeenDocument(
            passage.text,
            weights[best],
            self._has(query, tokens, passage.words.indices.tolist()),
            float(passage.terms.values[np.isin(passage.terms.indices, tokens)].max(initial=0)),
            words[best],
            weights.max(axis=0),
            set().union(*words),
        )
        return seen, passage

    def _show(self, query: EncodedQuery, name: str, ranks: Mapping[str, int], passage: StoredPassage) -> JudgedDocument:
        model, document = self._search.model, self._search.index.find(name)
        tokens = set(model.tokenize_queries([query.expanded])[0]), set(model.tokenize([passage.text])[0])
        terms = explain_terms(model, query.vector, passage.terms, *tokens, SHOWN_TERMS)
        _, in_query, in_passage = shared_terms(query.vector, passage.terms)
        body = passage.text.removeprefix(document.title).lstrip() or passage.text
        words = [*self._search.index.shared_words(query.expanded, passage), *(row["term"] for row in terms)]
        score = float(in_query @ in_passage)
        return JudgedDocument(name, document.title, snippet(body, words), ranks.get(name), score, terms)


def _ranks(ranking: Iterable[str]) -> dict[str, int]:
    return {name: rank for rank, name in enumerate(ranking, 1)}


def _lost_discount(document: str, ranks: Mapping[str, int], other_ranks: Mapping[str, int]) -> float:
    """Return how much of nDCG's discount a document has lost to its rank in another ranking."""
    discounts = (1 / math.log2(1 + place[document]) if document in place else 0.0 for place in (other_ranks, ranks))
    return next(discounts) - next(discounts)


def _choose_wrong(
    grades: Mapping[str, int], ranks: Mapping[str, int], other_ranks: Mapping[str, int], right: str
) -> str | None:
    """Return the highest document above the right one that is not relevant and that the other ranking has below it; if
    there is none, the highest that is not relevant; if there is none, the highest of a lower grade; if any."""
    above = [name for name in ranks if ranks[name] < ranks.get(right, math.inf)]
    irrelevant = [name for name in above if grades.get(name, 0) <= 0]
    ahead = other_ranks.get(right, -math.inf)
    inverted = (name for name in irrelevant if other_ranks.get(name, math.inf) > ahead)
    lower = (name for name in above if grades.get(name, 0) < grades[right])
    return next(inverted, None) or next(iter(irrelevant), None) or next(lower, None)


def _weights_at(passage: StoredPassage, terms: np.ndarray) -> np.ndarray:
    """Return [terms] a passage's weights of terms, both in ascending order, 0 where it has none."""
    weights = np.zeros(len(terms), np.float32)
    _, places, found = np.intersect1d(terms, passage.terms.indices, assume_unique=True, return_indices=True)
    weights[places] = passage.terms.values[found]
    return weights


def _split_lead(query: AskedQuery, lead: np.ndarray) -> list[tuple[str, float]]:
    """Return the wrong passage's lead, of which there may be none, divided among the terms that put it ahead, the
    heaviest first."""
    ahead = lead.clip(min=0)
    shares = ahead / ahead.sum() * max(0.0, lead.sum()) if ahead.any() else ahead
    order = np.argsort(-shares, kind="stable").tolist()
    return [(query.terms[place], float(shares[place])) for place in order if shares[place] > 0]


def _idf(frequency: int, documents: int) -> float:
    """Return the inverse document frequency, as BM25 has it in Lucene, of a word in so many of the documents."""
    return math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5))
