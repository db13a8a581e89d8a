"""Why a relevant document stands below a wrong one: one cause, by a rule over vectors, texts and ranks.

A passage's score is the sum, over the terms, of their weights in query and passage multiplied; so what puts a wrong
passage ahead is a sum over the terms, too. A text has a term where that is one of its tokens, or stem of one of its
words; all other terms of its vector are expansions.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from utils.documents.duplicates import NearDuplicateIndex

MISSING = "judged document missing"
UNJUDGED = "likely unjudged relevant"
CUT = "text cut"
OTHER = "not by the model's terms"
SPLIT = "rare word split into pieces"
NO_SHARED_TERM = "no shared term"
NOT_EXPANDED = "expansion missing"
WRONG_EXPANSION = "wrong expansion"
TOO_WEAK = "right term too weak"
CAUSES = (MISSING, UNJUDGED, CUT, OTHER, SPLIT, NO_SHARED_TERM, NOT_EXPANDED, WRONG_EXPANSION, TOO_WEAK)

BRIDGED = 0.1  # share of the wrong passage's score from which on the query's words reach the right one by expansion
# Share of the lead by terms that neither the query's nor the wrong passage's text has that expansions are blamed for:
# such terms also come of the words that both texts have.
BLAME = 0.5
NAMED_COST = 0.005  # of the score, that a word or term adds at least; less is 0.00 where it is shown
NAMED = 3  # words or terms that an explanation names


class AskedQuery(NamedTuple):
    """A query as the rule sees it.

    Attributes:
        terms: [terms] those of its vector, as readable text.
        weights: [terms] in its vector.
        has: [terms] whether its text has the term.
        words: inverse document frequency of each word, without stop words.
        cut: words beyond the model's limit for queries.
        split: rare words that the tokenizer splits into pieces.
        tokens: [terms] by word, whether a term is one of its tokens.
    """

    terms: list[str]
    weights: np.ndarray
    has: np.ndarray
    words: dict[str, float]
    cut: Collection[str]
    split: Collection[str]
    tokens: dict[str, np.ndarray]

    def idf(self, words: Iterable[str]) -> float:
        """Return the sum of the words' inverse document frequencies."""
        return sum(self.words[word] for word in words)

    def name_rarest(self, words: Iterable[str]) -> str:
        """Return the rarest of the words, for a sentence."""
        return _enumerate(sorted(words, key=lambda word: (-self.words[word], word)))

    def name_ahead(self, lead: np.ndarray, part: np.ndarray, without: Collection[str] = ()) -> str:
        """Return, for a sentence, what makes up most of a lead (by term) within a part of the terms (a mask): words of
        the query, `without` some, and terms that are no word's tokens."""
        lead = lead * part
        costs = {
            word: float(lead[tokens].sum())
            for word, tokens in self.tokens.items()
            if part[tokens].any() and word not in without
        }
        others = part & ~np.any([*self.tokens.values(), np.zeros_like(part)], axis=0)
        costs |= {self.terms[place]: float(lead[place]) for place in np.flatnonzero(others)}
        return _enumerate(
            word for word in sorted(costs, key=lambda word: (-costs[word], word)) if costs[word] >= NAMED_COST
        )


class SeenDocument(NamedTuple):
    """A document as the rule sees it: by its best passage, the one that the query's vector scores highest.

    Attributes:
        text: of the passage.
        weights: [terms of the query] in the passage's vector.
        has: [terms of the query] whether the passage's text has the term.
        heaviest: highest weight in the passage of a term that its text has.
        words: those of the query that stand in the passage.
        highest_weights: [terms of the query] in any passage of the document.
        all_words: those of the query that stand in any passage of the document.
    """

    text: str
    weights: np.ndarray
    has: np.ndarray
    heaviest: float
    words: Collection[str]
    highest_weights: np.ndarray
    all_words: Collection[str]


class Cause(NamedTuple):
    """One of CAUSES, and a sentence with the words concerned."""

    name: str
    explanation: str


def find_cause(
    query: AskedQuery,
    right: SeenDocument,
    wrong: SeenDocument | None,
    unjudged: bool = False,
    agreed: bool = False,
    alone: bool = True,
) -> Cause:
    """Return why a relevant document stands below a wrong one: the first of these that holds.

    likely unjudged relevant: nobody judged the wrong one, and its passage is nearly the right one's; or it has words of
        the query that together are no less rare (inverse document frequency), and both systems agree on it (`agreed`).
    text cut: of the query's words beyond the model's limit, those in the right document weigh more than those in the
        wrong passage. Or the right document is searched by several passages, and would be ahead if its best one had the
        weights of the query's words that stand in others.
    not by the model's terms: the model puts the right one ahead, and something else that is searched by, too, does not;
        or nothing wrong is above the right one, which the model finds, so that the metric counts something else.
    rare word split into pieces: such a word stands in the right passage alone, and would put it ahead if it were a term
        with the highest weights that a term of the text has in the query and in the passage.
    no shared term: no passage of the right document has a term of the query's vector.

    Else what makes up most of the wrong one's lead:

    expansion missing: terms that the query's and the wrong passage's texts have, and the right one's does not. Also
        where expansions make up most of it, but the right passage has no word of the query, and of its score next to
        none (BRIDGED) is by terms of the query's text.
    wrong expansion: terms that the query's text or the wrong passage's does not have; in part (BLAME) if neither has.
    right term too weak: terms that all three texts have.

    Args:
        wrong: None where there is none above the right one.
        agreed: whether both systems have the wrong one at the top, and the system has the right one near it.
        alone: whether nothing but the model's vectors is searched by.
    """
    if found := _unjudged(query, right, wrong, unjudged, agreed) or _cut_query(query, right, wrong):
        return found
    found_at_all = right.highest_weights.any()
    if not wrong and found_at_all:
        return Cause(OTHER, "no wrong document is above the right one; the metric counts something else")
    lead = query.weights * (wrong.weights - right.weights) if wrong else np.zeros_like(right.weights)
    if lead.sum() < 0 and not alone:
        scores = f"{query.weights @ right.weights:.2f} against {query.weights @ wrong.weights:.2f}"
        return Cause(OTHER, f"the model has the right passage ahead, {scores}; what else is searched by has not")
    if found := _cut_document(query, right, lead) or _split_word(query, right, wrong, lead):
        return found
    if not found_at_all:
        held = f", though it has {query.name_rarest(right.words)}" if right.words else ""
        return Cause(NO_SHARED_TERM, f"the vectors of the query and the right document share no term{held}")
    return _main_part(query, right, wrong, lead)


def _unjudged(
    query: AskedQuery, right: SeenDocument, wrong: SeenDocument | None, unjudged: bool, agreed: bool
) -> Cause | None:
    if not wrong or not unjudged:
        return None
    texts = NearDuplicateIndex()
    texts.add("right", right.text)
    texts.add("wrong", wrong.text)
    if texts.related:
        return Cause(UNJUDGED, "the wrong passage, which nobody judged, is nearly the same text as the right one")
    if agreed and wrong.words and query.idf(wrong.words) >= query.idf(right.words):
        words = query.name_rarest(wrong.words)
        return Cause(UNJUDGED, f"nobody judged the wrong passage, both systems rank it high, and it has {words}")
    return None


def _cut_query(query: AskedQuery, right: SeenDocument, wrong: SeenDocument | None) -> Cause | None:
    lost = set(query.cut) & set(right.all_words)
    if not lost or query.idf(lost) <= query.idf(set(query.cut) & set(wrong.words if wrong else ())):
        return None
    cut_off = query.name_rarest(lost)
    return Cause(CUT, f"the query is longer than the model's limit; cut off is what the right document has: {cut_off}")


def _cut_document(query: AskedQuery, right: SeenDocument, lead: np.ndarray) -> Cause | None:
    elsewhere = set(right.all_words) - set(right.words)
    gained = query.weights * (right.highest_weights - right.weights) * (query.has & ~right.has)
    if not elsewhere or not gained.any() or gained.sum() < lead.sum():
        return None
    words = query.name_rarest(elsewhere)
    return Cause(CUT, f"the right document was cut into passages, and its best one is without {words} of another")


def _split_word(query: AskedQuery, right: SeenDocument, wrong: SeenDocument | None, lead: np.ndarray) -> Cause | None:
    best = float(query.weights[query.has].max(initial=0)) * right.heaviest
    for word in query.split:
        pieces, alone = query.tokens[word], word in right.words and not (wrong and word in wrong.words)
        if alone and best > lead[~pieces].sum():
            shown = " ".join(term for term, piece in zip(query.terms, pieces) if piece) or "none of them a term"
            return Cause(SPLIT, f"the right passage alone has '{word}', which is rare and split into pieces: {shown}")
    return None


def _main_part(query: AskedQuery, right: SeenDocument, wrong: SeenDocument, lead: np.ndarray) -> Cause:
    in_all, not_right = query.has & wrong.has & right.has, query.has & wrong.has & ~right.has
    not_wrong, drift, neither = query.has & ~wrong.has, ~query.has & wrong.has, ~query.has & ~wrong.has
    parts = {
        NOT_EXPANDED: lead[not_right].sum(),
        # What the right passage gains by a word of the query that the wrong one's text lacks makes up for no expansion.
        WRONG_EXPANSION: lead[drift].sum() + BLAME * lead[neither].sum() + lead[not_wrong].clip(min=0).sum(),
        TOO_WEAK: lead[in_all].sum(),
    }
    name = max(parts, key=parts.get)
    if name == WRONG_EXPANSION and not right.words:
        reached = (query.weights * right.weights)[query.has].sum()
        if reached < BRIDGED * (query.weights @ wrong.weights):
            words = query.name_rarest(query.words) or "them"
            return Cause(NOT_EXPANDED, f"the right passage has no words of the query, and no expansion to {words}")
    if name == NOT_EXPANDED:
        words = query.name_ahead(lead, not_right, right.words) or "more"
        return Cause(name, f"the wrong passage has {words} of the query, which the right one's text has not")
    if name == WRONG_EXPANSION:
        words = query.name_ahead(lead, ~query.has | not_wrong)
        return Cause(name, f"the wrong passage is ahead by {words}, which it or the query is only expanded to")
    return Cause(name, f"the right passage has {query.name_ahead(lead, in_all)} with less weight than the wrong one")


def _enumerate(words: Iterable[str]) -> str:
    """Return the first of the words, NAMED at most, as "'a', 'b' and 'c'"."""
    quoted = [f"'{word}'" for word in words][:NAMED]
    return " and ".join(filter(None, (", ".join(quoted[:-1]), *quoted[-1:])))
