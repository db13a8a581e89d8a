"""Collections of lost queries whose causes are known, since they are planted: made texts, vectors and judgments.

Each case is a query with a relevant and a wrong document of words of its own. All vectors are a text's own tokens at
random weights, a few random terms at low weights, and what the case adds, or takes away, to be lost by its cause.
"""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from utils.evaluation.collection import Collection
from utils.models import load_masked_lm
from utils.records import Document
from utils.search.lexical import TermCounter
from utils.splade.encoder import SpladeEncoder
from utils.splade.vectors import SparseVector

QUERY_LIMIT, LIMIT = 12, 40  # tokens, special ones included
JUNK = 8  # random terms of each vector, at weights up to JUNK_WEIGHT
JUNK_WEIGHT = 0.8
JUNK_TERMS = [f"##{first}{second}" for first in "bcdfgh" for second in "aeiou"]  # pieces that only rare words have, too
LOW = 6  # rank that a baseline gives a wrong document that it does not take for relevant


class Case(NamedTuple):
    """A lost query: texts of its documents by id, judgments, the baseline's ranking, and planted weights by text and
    word."""

    query: str
    documents: dict[str, str]
    grades: dict[str, int]
    baseline: list[str]
    weights: dict[str, dict[str, float]]


class PlantedEncoder(SpladeEncoder):
    """SPLADE-tiny's tokenizer with made vectors."""

    def plant(self, weights: dict[str, dict[str, float]], silent: Sequence[str] = ()) -> None:
        """Give texts these weights by word, or word piece; `silent` texts have no other terms, nor random ones."""
        self.weights, self.silent = weights, set(silent)

    def made_vector(self, text: str, limit: int) -> SparseVector:
        rng, ids = random.Random(text), self.tokenizer.convert_tokens_to_ids
        weights: dict[int, float] = {}
        if text not in self.silent:
            weights = {term: rng.uniform(1.2, 1.6) for term in self.tokenize([text], limit)[0][1:-1]}
            weights |= {ids(word): rng.uniform(0, JUNK_WEIGHT) for word in rng.sample(JUNK_TERMS, JUNK)}
        weights |= {ids(word): weight for word, weight in self.weights.get(text, {}).items()}
        terms = sorted(term for term, weight in weights.items() if weight > 0)
        return SparseVector(np.array(terms, np.int32), np.array([weights[term] for term in terms], np.float32))

    def encode_queries(self, texts):
        return [self.made_vector(text, self.query_max_length) for text in texts]

    def encode_stream(self, texts, max_length=None, batch_size=None, show_progress=False, **stream) -> Iterator:
        for text in texts:
            yield self.made_vector(text, self.max_length)


def open_planted_encoder(query_limit: int = QUERY_LIMIT, limit: int = LIMIT) -> PlantedEncoder:
    encoder = PlantedEncoder(*load_masked_lm("splade-tiny"), max_length=limit, query_max_length=query_limit)
    encoder.name = "planted"
    return encoder


class Planter:
    """Makes cases of words that no other case has."""

    def __init__(self, encoder: PlantedEncoder, seed: int) -> None:
        self.rng, self.encoder = random.Random(seed), encoder
        count, stems = TermCounter("en").number_words, set()
        vocabulary = sorted(encoder.tokenizer.get_vocab())
        self.words = []
        for word in (word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 4):
            stem = tuple(count(word).values())
            if stem and stem not in stems:  # neither a stop word nor another form of one that is there
                stems.add(stem)
                self.words.append(word)
        self.rng.shuffle(self.words)
        self.common = self.take(200)

    def take(self, count: int) -> list[str]:
        return [self.words.pop() for _ in range(count)]

    def filler(self, count: int = 12) -> list[str]:
        return self.rng.sample(self.common, count - 2) + self.take(2)

    def text(self, *words: str, filler: int = 12) -> str:
        words = [*words, *self.filler(filler)]
        self.rng.shuffle(words)
        return " ".join(words)

    def rare_word(self) -> tuple[str, list[str]]:
        """Return a word that the tokenizer splits, and its pieces."""
        while True:
            word = "".join(self.rng.choice("bcdfgklmnprstvz") + self.rng.choice("aeiou") for _ in range(4)) + "x"
            pieces = self.encoder.tokenizer.tokenize(word)
            if 2 <= len(pieces) <= 5 and len(set(pieces)) == len(pieces):
                return word, pieces

    def strong(self, words: Sequence[str], low: float = 1.5, high: float = 2.2) -> dict[str, float]:
        return {word: self.rng.uniform(low, high) for word in words}

    def judge(self, name: str) -> dict[str, int]:
        """Return the wrong document's judgment, for half of the cases."""
        return {f"{name}-wrong": 0} if self.rng.random() < 0.5 else {}

    def case(self, name: str, query: str, right: str, wrong: str, weights: dict, judged: bool | None = None) -> Case:
        """Return a case that the baseline does not lose, with the wrong document far down, or nowhere."""
        grades = {f"{name}-right": 1} | ({f"{name}-wrong": 0} if judged else self.judge(name) if judged is None else {})
        others = [f"other-{self.rng.randrange(50)}-{place}" for place in range(LOW)]
        baseline = [f"{name}-right", *others, *([f"{name}-wrong"] if self.rng.random() < 0.5 else [])]
        return Case(query, {f"{name}-right": right, f"{name}-wrong": wrong}, grades, baseline, weights)


def missing(planter: Planter, name: str, planted: bool = True) -> Case:
    """All relevant documents that are not at the top are missing."""
    words = planter.take(3)
    query, right, wrong = " ".join(words), planter.text(*words), planter.text(*words[:2])
    case = planter.case(name, query, right, wrong, {query: planter.strong(words), wrong: planter.strong(words)})
    grades = case.grades | {f"{name}-absent": 1}
    if planted:
        first = planter.rng.random() < 0.5  # another relevant one is there, and found first
        documents = {f"{name}-wrong": wrong} | ({f"{name}-right": right} if first else {})
        weights = case.weights | {right: planter.strong(words, 2.5, 3)}
        return case._replace(documents=documents, grades=grades, weights=weights)
    return case._replace(grades=grades, weights=case.weights | {right: {word: 0.4 for word in words}})


def unjudged(planter: Planter, name: str, planted: bool = True) -> Case:
    """Nobody judged the wrong document: nearly a copy of the right one, or one that both systems agree on."""
    words = planter.take(3)
    query, right = " ".join(words), planter.text(*words, filler=24)
    if planter.rng.random() < 0.5:
        parts = right.split()
        parts[planter.rng.randrange(len(parts))] = planter.take(1)[0]
        wrong = " ".join([*parts, *planter.take(1)])
        case = planter.case(name, query, right, wrong, {}, judged=not planted)
    else:
        wrong = planter.text(*words)
        case = planter.case(name, query, right, wrong, {}, judged=not planted)
        case = case._replace(baseline=[f"{name}-right", f"{name}-wrong"])
    low = {word: planter.rng.uniform(0.8, 1.2) for word in words}
    return case._replace(weights={query: planter.strong(words), wrong: planter.strong(words), right: low})


def cut(planter: Planter, name: str, planted: bool = True) -> Case:
    """The words that tell are beyond the query's limit, or spread over the passages of the right document."""
    if planter.rng.random() < 0.5:
        vague, telling = planter.take(QUERY_LIMIT - 2), planter.take(3)
        query = " ".join([*vague, *telling] if planted else [*telling, *vague])
        right, wrong = planter.text(*vague[:3], *telling), planter.text(*vague[:6])
        return planter.case(name, query, right, wrong, {})
    words = planter.take(4)
    far = planter.filler(2 * LIMIT) if planted else []
    right = " ".join([*words[:2], *planter.filler(6), *far, *planter.filler(6), *words[2:]])
    wrong = planter.text(*words[:3])
    weights = {" ".join(words): planter.strong(words), wrong: planter.strong(words[:3], 1.3, 1.6)}
    if not planted:
        weights[right] = {word: 0.5 for word in words}
    return planter.case(name, " ".join(words), right, wrong, weights)


def split(planter: Planter, name: str, planted: bool = True) -> Case:
    """A rare word in pieces weighs next to nothing; a term of its own would put the right document ahead."""
    words, (rare, pieces) = planter.take(2), planter.rare_word()
    if not planted:
        (rare,) = pieces = planter.take(1)
    query, right, wrong = " ".join([*words, rare]), planter.text(words[0], rare), planter.text(*words)
    light = {piece: planter.rng.uniform(0, 0.3) for piece in pieces}
    query_weights = planter.strong(words) | light
    return planter.case(name, query, right, wrong, {query: query_weights, right: {words[0]: 1.9, **light}})


def no_shared_term(planter: Planter, name: str, planted: bool = True) -> Case:
    """The right document's vector has no term of the query's, whether its text has a word of it or not."""
    words = planter.take(3)
    query, wrong = " ".join(words), planter.text(*words[: planter.rng.randint(1, 3)])
    right = planter.text(*words[: planter.rng.randint(0, 2)])
    own = {word: 1.5 for word in right.split() if word not in words}
    return planter.case(name, query, right, wrong, {right: own if planted else own | {words[2]: 0.2}})


def too_weak(planter: Planter, name: str, planted: bool = True) -> Case:
    """Both texts have the query's words; one or two weigh less in the right one."""
    words = planter.take(3)
    query, right, wrong = " ".join(words), planter.text(*words), planter.text(*words)
    weak = planter.rng.sample(words, planter.rng.randint(1, 2))
    weights = {word: planter.rng.uniform(0.1, 0.7) for word in weak}
    if not planted:
        right = planter.text(*(word for word in words if word not in weak))
        weights = {}
    return planter.case(name, query, right, wrong, {query: planter.strong(words), right: weights})


def not_expanded(planter: Planter, name: str, planted: bool = True) -> Case:
    """The right text says the query's words in others, which neither vector is expanded to."""
    words, synonyms = planter.take(3), planter.take(3)
    query, kept = " ".join(words), planter.rng.randint(0, 1)
    right, wrong = planter.text(*words[:kept], *synonyms[kept:]), planter.text(*words[: kept + 1])
    weights: dict[str, dict[str, float]] = {query: planter.strong(words)}
    if kept == 0 and planter.rng.random() < 0.5:  # what is ahead is wrong by expansions, which is not to be blamed
        wrong, junk = planter.text(), planter.take(2)
        weights |= {wrong: planter.strong(junk), query: weights[query] | planter.strong(junk)}
    if planted:
        weights[right] = {word: planter.rng.uniform(0, 0.05) for word in words[kept:]}
        return planter.case(name, query, right, wrong, weights)
    right = planter.text(*words)
    return planter.case(name, query, right, wrong, weights | {right: {word: 0.2 for word in words}})


def wrong_expansion(planter: Planter, name: str, planted: bool = True) -> Case:
    """The query is expanded to what the wrong text has, or the wrong text to the query's words."""
    words, drift = planter.take(2), planter.take(3)
    query, right = " ".join(words), planter.text(*words)
    if planter.rng.random() < 0.5:
        wrong = planter.text(*words[: planter.rng.randint(0, 1)], *drift)
        weights = {query: planter.strong(words, 1.2, 1.5) | planter.strong(drift, 1.5, 2)}
    else:
        wrong = planter.text()
        weights = {query: planter.strong(words), wrong: planter.strong(words, 1.8, 2.4)}
    if not planted:  # the wrong text has all of it, and so has the query
        text = " ".join([*words, *drift])
        wrong = planter.text(*words, *drift)
        weights = {text: planter.strong([*words, *drift])}
        query = text
    return planter.case(name, query, right, wrong, weights)


def collect(cases: Sequence[Case], planter: Planter) -> Collection:
    """Return the collection of the cases, with documents of no case among which they stand."""
    documents = {name: text for case in cases for name, text in case.documents.items()}
    documents |= {f"filler-{number}": planter.text() for number in range(30)}
    return Collection(
        [Document(id=name, text=text) for name, text in sorted(documents.items())],
        {f"q{number}": case.query for number, case in enumerate(cases)},
        {f"q{number}": case.grades for number, case in enumerate(cases)},
    )
