"""Drift: whether what a model is asked, or searches, is still what it was trained on, and whether to train it anew."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from utils.console import format_table, print_line, progress_bar
from utils.documents.chunking import chunk_documents
from utils.evaluation.drift_texts import Units
from utils.evaluation.shift import Finding, GainLoss, MeanRise, NewWords, Signal, TermShift, count_words, find_shifts
from utils.records import Chunk, Document, TrainingExample
from utils.search.document_index import DocumentIndex
from utils.splade.base_encoder import Encoder
from utils.splade.vectors import to_csr

CHANCE = 0.01  # of a false alarm: a check is made again and again, once a week for one in two years
SMALL, LARGE = 0.1, 0.25  # equivalent shares; see `Drift.share`
# Mean divergence, in bits, of two collections on different subjects, and what power of an observed one is proportional
# to the share of the documents that are from elsewhere: fitted on mixtures of five collections (docs/maintenance.md).
UNRELATED, EXPONENT = 0.28, 2 / 3
# nDCG@10 that a model tuned on another collection loses to one tuned on the collection that is searched, on queries of
# people: the mean of sixteen pairs, the lowest and the highest (docs/maintenance.md).
LOSS = (0.040, 0.015, 0.060)
LOW_QUANTILE = 0.1  # of all queries' best scores; one below is low
MADE_QUERIES = 300  # documents of either side that a query is made from, one each
TOP_WORDS = 8
SPLIT_WORDS = "words split into pieces"

MakeExamples = Callable[[Sequence[Chunk]], Iterable[TrainingExample]]


class MadeQueries(NamedTuple):
    """What tuning gains in nDCG@10 on queries made from documents: of the reference, of the new ones, and how much less
    that is, with its 95 % interval; `queries` on either side."""

    queries: int
    reference: float
    new: float
    loss: float
    low: float
    high: float


class Drift(NamedTuple):
    """What has changed since a model was trained.

    Attributes:
        reference, new: what was compared.
        findings: of each signal.
        share: of the new units that, were they from a collection on another subject and the others as the reference's,
            would make terms differ as much as they do (see UNRELATED).
        detectable: a share that would be found in four of five cases.
        words: that are more frequent now, the most telling first.
        made_queries: None for queries, and where there is no untuned model to compare with.
    """

    reference: Units
    new: Units
    findings: list[Finding]
    share: float
    detectable: float
    words: list[str]
    made_queries: MadeQueries | None

    @property
    def p(self) -> float:
        """The lowest of the adjusted p."""
        return min(finding.adjusted_p for finding in self.findings)

    @property
    def verdict(self) -> str:
        """ "none", "undecided", "mix" (more of what the reference has some of), "small", "moderate" or "large"."""
        if self.p >= CHANCE:
            return "none" if self.detectable <= LARGE else "undecided"
        found = {finding.name for finding in self.findings if finding.adjusted_p < CHANCE}
        if found <= {TermShift.name, SPLIT_WORDS}:  # a subject of the reference has its own terms, and rare words
            return "mix"
        if self.share >= LARGE:
            return "large"
        return "moderate" if GainLoss.name in found or self.share >= SMALL else "small"

    @property
    def needed(self) -> int | None:
        """How many new units would show a share of LARGE, where these do not: samples diverge the less, the larger they
        are. None where the reference is the smaller sample, so that more new ones do not help."""
        if self.verdict != "undecided" or len(self.new) > len(self.reference) or self.detectable >= 1:
            return None
        return round(len(self.new) * (self.detectable / LARGE) ** (1 / EXPONENT))

    def conclusion(self) -> str:
        """Return the verdict as a sentence."""
        kind, p = self.new.kind, f"p {self.p:.3f}"
        if self.verdict == "undecided" and not self.needed:
            return (
                f"not enough to tell ({p}): the reference is {len(self.reference):,}, the new {kind} {len(self.new):,}"
            )
        if self.verdict == "undecided":
            return (
                f"not enough to tell ({p}): with about {self.needed:,} new {kind} it would be, these are "
                f"{len(self.new):,}"
            )
        if self.verdict == "none":
            return (
                f"no shift found ({p}); one as large as if {self.detectable:.0%} of the new {kind} were on another "
                "subject would be seen in four of five cases"
            )
        share = f"as if {self.share:.0%} of the new {kind} were on another subject"
        if self.verdict == "mix":
            return f"another mix ({p}), {share}, but one that the reference has: retraining is unlikely to pay"
        advice = {
            "small": "retraining is unlikely to pay",
            "moderate": "retraining may pay",
            "large": "retrain" if kind == "documents" else "retraining may pay",
        }[self.verdict]
        return f"{self.verdict} shift ({p}), {share}: {advice}"

    def reasons(self) -> list[str]:
        """Return what retraining may bring, as sentences; none without a shift."""
        if self.verdict in ("none", "undecided"):
            return []
        found = {finding.name: finding for finding in self.findings}[NewWords.name]
        lines = [
            f"{found.found:.1%} of the words of new {self.new.kind} are not in the reference (by chance "
            f"{found.expected:.1%}); more frequent now: {', '.join(self.words)}"
        ]
        if self.new.kind == "queries":
            return [*lines, "what retraining brings for other queries on the same documents, judged queries alone show"]
        if self.verdict != "mix":
            mean, low, high = (self.share * loss for loss in LOSS)
            lines.append(
                f"by that share retraining brings about {mean:+.3f} nDCG@10 ({low:+.3f} to {high:+.3f}) on queries that"
                " new documents answer"
            )
        if made := self.made_queries:
            lines.append(
                f"on made queries the model is {made.reference:+.3f} nDCG@10 over its untuned one for documents of the "
                f"reference, {made.new:+.3f} for new ones: {made.loss:.3f} less ({made.low:+.3f} to {made.high:+.3f})"
            )
        return lines

    def print(self) -> None:
        """Print what was compared, a table of the signals, the conclusion and its reasons."""
        print_line(f"reference: {self.reference.describe()}; new: {self.new.describe()}")
        print_line(format_table([finding.row() for finding in self.findings]))
        for line in (self.conclusion(), *self.reasons()):
            print_line(line)

    def report(self) -> dict[str, Any]:
        """Return the figures for a file."""
        return {
            "verdict": self.verdict,
            "conclusion": self.conclusion(),
            "p": self.p,
            "share": self.share,
            "detectable_share": self.detectable,
            **({"needed": self.needed} if self.needed else {}),
            "kind": self.new.kind,
            "reference": {"total": self.reference.total, "compared": len(self.reference)},
            "new": {"total": self.new.total, "compared": len(self.new), "known": self.new.known},
            "signals": [finding._asdict() for finding in self.findings],
            "words": self.words,
            **({"made_queries": self.made_queries._asdict()} if self.made_queries else {}),
        }


def check_drift(
    reference: Units,
    new: Units,
    model: Encoder,
    make_examples: MakeExamples,
    untuned: Encoder | None = None,
    index: DocumentIndex | None = None,
) -> Drift:
    """Return how far new documents or queries are from those that a model was trained on.

    Args:
        reference, new: see utils.evaluation.drift_texts.read_units.
        make_examples: of passages, such as utils.training_data.extractive.extractive_examples.
        untuned: what the model was tuned from, to compare what tuning gains on documents.
        index: what queries search, to compare their best scores.

    Raises:
        ValueError: the reference is training examples, and fewer than two of the new documents make any.
    """
    if reference.from_examples:
        long = [document for document in new.documents if _example(document, make_examples)]
        if len(long) < 2:
            raise ValueError(f"{len(long)} of the new documents have enough text for a query; two are the least")
        new = replace(new, documents=long, short=len(new) - len(long))
    counts = count_words([*reference.texts, *new.texts], model.tokenizer)
    terms = TermShift(counts)
    signals: list[Signal] = [MeanRise(SPLIT_WORDS, counts.split_shares()), NewWords(counts), terms]
    sizes = [len(new)] * 3
    if index:
        signals.append(low_scores([*reference.sessions, *new.sessions], model, index))
        sizes.append(len(new))
    made = None
    if untuned and (pairs := make_pairs(reference.documents, new.documents, make_examples)):
        signals.append(GainLoss(tuple(score_pairs(encoder, pairs) for encoder in (model, untuned))))
        sizes.append(len(pairs) // 2)
        made = _compare_gains(signals[-1])
    findings = find_shifts(signals, sizes, CHANCE)
    shift = findings[signals.index(terms)]
    share, detectable = equivalent_share(shift.excess), equivalent_share(shift.detectable)
    return Drift(reference, new, findings, share, detectable, counts.risen(len(reference), TOP_WORDS), made)


def equivalent_share(excess: float) -> float:
    """Return the share of documents on another subject that makes terms diverge by so many bits, see UNRELATED."""
    return min(1.0, (max(0.0, excess) / UNRELATED) ** EXPONENT)


def low_scores(sessions: Sequence[Sequence[str]], model: Encoder, index: DocumentIndex) -> MeanRise:
    """Return the signal that queries find less: the share of a session's queries whose best score in the index is in
    the lowest LOW_QUANTILE of all queries'."""
    queries = [query for session in sessions for query in session]
    best = []
    for vector in progress_bar(
        map(model.encode_query, queries), total=len(queries), desc="searching", unit="queries", leave=False
    ):
        hits = index.search(vector, top_k=1)
        best.append(hits[0].score if hits else 0.0)
    limit = float(np.quantile(best, LOW_QUANTILE))
    parts = np.split(np.array(best), np.cumsum([len(session) for session in sessions])[:-1])
    return MeanRise(f"queries with a best score below {limit:.1f}", np.array([np.mean(p < limit) for p in parts]))


def make_pairs(
    before: Sequence[Document], after: Sequence[Document], make_examples: MakeExamples, seed: int = 0
) -> list[tuple[str, str]]:
    """Return a query and the rest of its passage for each of up to MADE_QUERIES documents of either side, as many of
    each, the earlier ones first; none where a side has fewer than two such documents."""
    sides = []
    for documents in (before, after):
        pairs = []
        for document in random.Random(seed).sample(documents, len(documents)):
            if len(pairs) == MADE_QUERIES:
                break
            if example := _example(document, make_examples, seed):
                pairs.append((example.query, example.positive_document))
        sides.append(pairs)
    count = min(map(len, sides))
    return [pair for pairs in sides for pair in pairs[:count]] if count > 1 else []


def _example(document: Document, make_examples: MakeExamples, seed: int = 0) -> TrainingExample | None:
    """Return one of the examples that can be made from a document, drawn at random; None where none can."""
    examples = list(make_examples(chunk_documents([document])))
    return random.Random(f"{seed} {document.id}").choice(examples) if examples else None


def score_pairs(model: Encoder, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return [pairs, pairs] a model's scores of each query for each document."""
    queries, documents = zip(*pairs)
    vectors = list(model.encode_stream(documents, show_progress=True))
    matrix = to_csr(vectors, model.vocabulary_size)
    return (to_csr(model.encode_queries(queries), model.vocabulary_size) @ matrix.T).toarray()


def _compare_gains(signal: GainLoss) -> MadeQueries:
    count = signal.units // 2
    marks = (np.arange(signal.units) >= count).astype(float)
    gains = signal.gains(marks[:, None])[:, 0]
    earlier, new = gains[:count], gains[count:]
    loss = float(earlier.mean() - new.mean())
    half = 1.96 * float(np.sqrt((earlier.var(ddof=1) + new.var(ddof=1)) / count))
    return MadeQueries(count, float(earlier.mean()), float(new.mean()), loss, loss - half, loss + half)
