"""Whether new texts are from elsewhere than earlier ones: signals, each with its permutation test.

Texts are in units, a document or the queries of one session, since words of one unit resemble each other. A signal is
computed of the units, new against earlier, and of PERMUTATIONS relabelings of the same units, so that its bias in small
samples, such as that of the Jensen-Shannon divergence, is in both.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy.stats import permutation_test
from transformers import PreTrainedTokenizerBase

from utils.documents.normalization import split_words
from utils.evaluation.comparison import adjust_by_holm
from utils.evaluation.significance import format_chance

PERMUTATIONS = 999
BATCH = 50  # relabelings at a time; bounds memory, [vocabulary, batch]


class WordCounts(NamedTuple):
    """The words of units.

    Attributes:
        words: the vocabulary.
        shares: [units, words] share of each word in a unit's words; a unit without words has none.
        pieces: [words] how many word pieces a model's tokenizer splits a word into.
        terms: [units, terms] share of each word piece in a unit's.
    """

    words: list[str]
    shares: scipy.sparse.csr_array
    pieces: np.ndarray
    terms: scipy.sparse.csr_array

    def split_shares(self) -> np.ndarray:
        """Return [units] the share of words that are split into more than one piece."""
        return self.shares @ (self.pieces > 1)

    def risen(self, earlier: int, count: int) -> list[str]:
        """Return the words that add most to the divergence of the units after the first `earlier` from these, the most
        telling first, without those that are no more frequent."""
        before, after = self.shares[:earlier].mean(axis=0), self.shares[earlier:].mean(axis=0)
        weights = after * np.log2(np.maximum(2 * after, 1e-30) / np.maximum(before + after, 1e-30))
        best = np.argsort(-weights, kind="stable")[:count]
        return [self.words[word] for word in best if after[word] > before[word]]

    def take(self, units: np.ndarray) -> "WordCounts":
        """Return the counts of some units."""
        return self._replace(shares=self.shares[units], terms=self.terms[units])


def count_words(units: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> WordCounts:
    """Return the words of units, and the word pieces that a model's tokenizer makes of them."""
    vocabulary: dict[str, int] = {}
    columns, counts, starts = [], [], [0]
    for text in units:
        unit = Counter(vocabulary.setdefault(word, len(vocabulary)) for word in split_words(text))
        columns += unit.keys()
        counts += unit.values()
        starts.append(len(columns))
    words = list(vocabulary)
    matrix = scipy.sparse.csr_array((np.array(counts, float), columns, starts), shape=(len(starts) - 1, len(words)))
    ids = tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
    pieces = np.array([len(row) for row in ids], int)
    flat = np.array([number for row in ids for number in row], int)
    parts = (np.ones(len(flat)), flat, np.cumsum([0, *pieces]))
    split = scipy.sparse.csr_array(parts, shape=(len(words), flat.max(initial=-1) + 1))
    return WordCounts(words, _to_shares(matrix), pieces, _to_shares(matrix @ split))


def _to_shares(counts: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    totals = np.maximum(counts.sum(axis=1), 1)
    return (scipy.sparse.diags_array(1 / totals) @ counts).tocsr()


class Signal(ABC):
    """What of new units may differ from earlier ones; the higher its value, the more they do.

    Attributes:
        name: for a table.
        units: how many there are, the earlier ones first.
    """

    name: str
    units: int

    @abstractmethod
    def values(self, new: np.ndarray) -> np.ndarray:
        """Return [columns] values, each of the units that a column of `new`, [units, columns] of 0 and 1, marks."""

    def sides(self, new: np.ndarray) -> tuple[float | None, float | None]:
        """Return what it is among the earlier units and among the new ones, where there is such a figure."""
        return None, None


class MeanRise(Signal):
    """How far the mean of [units] values is higher among the new units."""

    def __init__(self, name: str, values: np.ndarray) -> None:
        self.name, self.units, self._values = name, len(values), values

    def values(self, new: np.ndarray) -> np.ndarray:
        above, count = self._values @ new, new.sum(axis=0)
        return above / count - (self._values.sum() - above) / (self.units - count)

    def sides(self, new: np.ndarray) -> tuple[float, float]:
        return float(self._values[new == 0].mean()), float(self._values[new == 1].mean())


class NewWords(Signal):
    """The mean share of a new unit's words that no earlier unit has."""

    name = "words that the reference lacks"

    def __init__(self, counts: WordCounts) -> None:
        self.units = counts.shares.shape[0]
        present = counts.shares.copy()
        present.data[:] = 1
        frequencies = present.sum(axis=0)
        shared = frequencies > 1
        # A word of one unit alone is new where that unit is; only the others need a look at all units.
        self._own = counts.shares @ ~shared
        self._shares, self._present = counts.shares[:, shared], present[:, shared]
        self._frequencies = frequencies[shared][:, None]

    def values(self, new: np.ndarray) -> np.ndarray:
        lacking = self._present.T @ new == self._frequencies
        return ((self._shares.T @ new * lacking).sum(axis=0) + self._own @ new) / new.sum(axis=0)


class TermShift(Signal):
    """The Jensen-Shannon divergence, in bits, of the mean term distributions of new and earlier units (Lin 1991,
    Divergence measures based on the Shannon entropy). Each unit counts the same, however long it is."""

    name = "terms (Jensen-Shannon, bits)"

    def __init__(self, counts: WordCounts) -> None:
        used = counts.terms.sum(axis=0) > 0
        self.units, self._terms = counts.terms.shape[0], counts.terms[:, used]
        self._total = self._terms.sum(axis=0)[:, None]

    def values(self, new: np.ndarray) -> np.ndarray:
        sums = self._terms.T @ new
        ours, theirs = (part / np.maximum(part.sum(axis=0), 1e-12) for part in (sums, self._total - sums))
        return _entropy((ours + theirs) / 2) - (_entropy(ours) + _entropy(theirs)) / 2


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Return [columns] entropies, in bits, of the columns of shares."""
    shares = shares.astype(np.float32)  # three times as fast
    return -(shares * np.log2(np.maximum(shares, 1e-30))).sum(axis=0, dtype=float)


class GainLoss(Signal):
    """How far what tuning gained in nDCG@10 is lower on new units. Each unit is a document with one query that was made
    from it, and searches the documents of its own side.

    Args:
        scores: of the tuned and of the untuned model, each [units, units], of query and document; a unit's own on the
            diagonal.
    """

    name = "nDCG@10 that tuning gains, made queries"

    def __init__(self, scores: tuple[np.ndarray, np.ndarray]) -> None:
        self.units = len(scores[0])
        self._above = [(matrix > matrix.diagonal()[:, None]).astype(np.float32) for matrix in scores]

    def gains(self, new: np.ndarray) -> np.ndarray:
        """Return [units, columns] what tuning gained on each query."""
        tuned, untuned = (self._ndcg(above, new) for above in self._above)
        return tuned - untuned

    def _ndcg(self, above: np.ndarray, new: np.ndarray) -> np.ndarray:
        among_new = above @ new.astype(np.float32)
        ranks = 1 + np.where(new == 1, among_new, above.sum(axis=1, keepdims=True) - among_new)
        return np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0)

    def values(self, new: np.ndarray) -> np.ndarray:
        gains, count = self.gains(new), new.sum(axis=0)
        among_new = (gains * new).sum(axis=0)
        return (gains.sum(axis=0) - among_new) / (self.units - count) - among_new / count

    def sides(self, new: np.ndarray) -> tuple[float, float]:
        gains = self.gains(new[:, None])[:, 0]
        return float(gains[new == 0].mean()), float(gains[new == 1].mean())


class Finding(NamedTuple):
    """What the test of a signal found.

    Attributes:
        name: of the signal.
        expected: its value among the earlier units, or, where it is of both, its mean over the relabelings.
        found: its value among the new units, or of both.
        p: share of the relabelings whose value is as high.
        adjusted_p: p by Holm's method over all signals.
        excess: how far its value is above the mean over the relabelings.
        detectable: such an excess is found with the probability 0.8, by a test at `level`.
    """

    name: str
    expected: float
    found: float
    p: float
    adjusted_p: float
    excess: float
    detectable: float

    def row(self) -> dict[str, Any]:
        """Return the row of a table."""
        return {
            "signal": self.name,
            "expected": self.expected,
            "found": self.found,
            "p": format_chance(self.adjusted_p),
        }


def find_shifts(signals: Sequence[Signal], new: Sequence[int], level: float, seed: int = 0) -> list[Finding]:
    """Return what the one-sided permutation tests of signals find, their p adjusted together.

    Args:
        new: how many units of each signal are new, its last ones.
        level: of the tests, for `detectable`.
        seed: of the relabelings.
    """
    found = []
    for signal, count in zip(signals, new, strict=True):

        def value(new_units: np.ndarray, _: np.ndarray, axis: int, signal: Signal = signal) -> np.ndarray:
            marks = np.zeros((signal.units, new_units.size // new_units.shape[-1]))
            columns = np.arange(marks.shape[1])[:, None]
            marks[new_units.reshape(marks.shape[1], -1).astype(int), columns] = 1
            return signal.values(marks).reshape(new_units.shape[:-1])

        places = np.arange(signal.units)
        sides = places[signal.units - count :], places[: signal.units - count]
        rng = np.random.default_rng(seed)
        options = {"n_resamples": PERMUTATIONS, "batch": BATCH, "alternative": "greater", "rng": rng}
        test = permutation_test(sides, value, vectorized=True, **options)
        chance, statistic = test.null_distribution, float(test.statistic)
        expected, among_new = signal.sides((places >= signal.units - count).astype(int))
        found.append(
            Finding(
                signal.name,
                float(chance.mean()) if expected is None else expected,
                statistic if among_new is None else among_new,
                float(test.pvalue),
                1.0,
                statistic - float(chance.mean()),
                float(np.quantile(chance, 1 - level / len(signals)) - chance.mean() + 0.84 * chance.std()),
            )
        )
    adjusted = adjust_by_holm([finding.p for finding in found])
    return [finding._replace(adjusted_p=p) for finding, p in zip(found, adjusted)]
