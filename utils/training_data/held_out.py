"""Validation and test data: the examples that are held out, and the one collection that their queries search."""

import random
from collections.abc import Iterable, Mapping, Sequence

import regex

from utils.documents.families import Families
from utils.documents.normalization import HAN_AND_KANA, SOUTHEAST_ASIAN, count_words, split_words
from utils.records import Negative, Passage, TrainingExample
from utils.training_data.extractive import CUT_OUT_TYPES, MARKUP, MIN_REMAINING_WORDS
from utils.training_data.quality import COPIED_RUN_WORDS, Rejected

MIN_RUN_WORDS = 3  # words; a shorter title is a term, which other passages use too: it cannot be cut out of all of them
MIN_SHARE_LEFT = 0.5  # share of a passage's words that its own queries leave: else it is no answer to them any more
# Parts of a run that is cut out: a word, or a character of a script without spaces.
_RUN_WORD = regex.compile(rf"[{HAN_AND_KANA}{SOUTHEAST_ASIAN}]|[^\W_{HAN_AND_KANA}{SOUTHEAST_ASIAN}]+")
# Punctuation that goes with a run: what opens before it, and what ends it.
_OPENING = regex.compile(
    r"(?<![^\w\s.,;:!?%)\]}>。、])[^\w\s.,;:!?%)\]}>。、]++$"
)  # tried once a row: linear in the text
_CLOSING = regex.compile(r"^(?:[^\w\s]+| [.,;:!?]+(?!\S))")


def hold_out(
    examples: Sequence[TrainingExample], families: Families, seed: int
) -> tuple[list[TrainingExample], list[Passage], list[Rejected]]:
    """Make test data of examples: the examples, the passages that they search, and what was left out.

    The passages are those of all documents, each once, without the queries that were cut out of one of them: such a
    query is removed wherever its words, or COPIED_RUN_WORDS of them, stand in a row. Positives are these passages, and
    negatives lose the same words. Left out are queries that are no such run of words (keywords, and titles of fewer
    than MIN_RUN_WORDS words); queries, at random, that would leave their passage less than MIN_SHARE_LEFT; and passages
    of which the queries of others leave fewer than MIN_REMAINING_WORDS words. Where a model or a person wrote the
    queries, nothing is removed.

    Args:
        examples: the queries that were cut out have the id of one of the families' passages.
        seed: of the choice among the queries of a passage.
    """
    whole = {chunk.id: chunk.full_text for chunk in families.passages}
    usable, rejected = _choose_queries(examples, whole, seed)
    runs = _Runs(example.query for example in usable if example.query_type in CUT_OUT_TYPES)

    left = {id_: runs.remove(text) for id_, text in whole.items()}
    left = {id_: text for id_, text in left.items() if text == whole[id_] or count_words(text) >= MIN_REMAINING_WORDS}
    pool = dict.fromkeys(left.items())
    kept = []
    for example in usable:
        passage_id = families.copy_of.get(example.positive_id, example.positive_id)
        # Feedback may be on a document that is none of these passages.
        positive = left.get(passage_id, "") if passage_id in whole else runs.remove(example.positive_document)
        if not positive:
            detail = f"the test queries of others leave too little of {passage_id or 'its document'}"
            rejected.append(Rejected("passage made of test queries", example.query, detail))
            continue
        pool[passage_id, positive] = None
        fields = {"positive_document": positive, "positive_id": passage_id}
        if example.negative_documents:
            negatives = [_without(runs, negative) for negative in example.negative_documents]
            fields["negative_documents"] = [negative for negative in negatives if _text(negative) not in ("", positive)]
        kept.append(example.model_copy(update=fields))
    return kept, [Passage(passage_id=id_, passage=text) for id_, text in pool], rejected


def _choose_queries(
    examples: Sequence[TrainingExample], whole: Mapping[str, str], seed: int
) -> tuple[list[TrainingExample], list[Rejected]]:
    """Return the examples whose queries can be cut out, or need not be, in order, and what was left out."""
    rejected = []
    chosen: set[int] = set()
    cut_out: dict[str | None, list[int]] = {}  # passage -> positions of the examples that were cut out of it
    for position, example in enumerate(examples):
        is_run = len(split_words(example.query)) >= MIN_RUN_WORDS <= len(_run_words(example.query))
        if example.query_type == "keywords" or (example.query_type in CUT_OUT_TYPES and not is_run):
            detail = "its words cannot be cut out of all passages"
            rejected.append(Rejected("term as a test query", example.query, detail))
        elif example.query_type in CUT_OUT_TYPES:
            cut_out.setdefault(example.positive_id, []).append(position)
        else:
            chosen.add(position)
    for passage_id, positions in cut_out.items():
        text = whole[passage_id]
        fewest = max(MIN_REMAINING_WORDS, MIN_SHARE_LEFT * count_words(text))
        for position in random.Random(f"{seed} {passage_id}").sample(positions, len(positions)):
            query = examples[position].query
            rest = _Runs([query]).remove(text)
            if count_words(rest) >= fewest:
                chosen.add(position)
                text = rest
            else:
                detail = f"too little would be left of {passage_id} without its test queries"
                rejected.append(Rejected("more test queries than a passage holds", query, detail))
    return [examples[position] for position in sorted(chosen)], rejected


def _text(negative: str | Negative) -> str:
    return negative.document if isinstance(negative, Negative) else negative


def _without(runs: "_Runs", negative: str | Negative) -> str | Negative:
    if isinstance(negative, Negative):
        return negative.model_copy(update={"document": runs.remove(negative.document)})
    return runs.remove(negative)


class _Runs:
    """The words of queries, to find in texts where all of them, or COPIED_RUN_WORDS, stand in a row, whatever the case,
    spacing, punctuation and markup.

    Args:
        queries: of MIN_RUN_WORDS words or more.
    """

    def __init__(self, queries: Iterable[str]) -> None:
        self._by_start: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
        for words in map(_run_words, queries):
            for first in range(max(1, len(words) - COPIED_RUN_WORDS + 1)):
                run = words[first : first + COPIED_RUN_WORDS]
                self._by_start.setdefault(run[:MIN_RUN_WORDS], set()).add(run)

    def remove(self, text: str) -> str:
        """Return the text without any of the runs; again, where what is left joins up to one."""
        while spans := self._find(text):
            for start, end in reversed(spans):
                text = _cut_out(text, start, end)
        return text

    def _find(self, text: str) -> list[tuple[int, int]]:
        """Return the (start, end) of the parts of the text that runs cover, none of which overlap.

        Runs are found with and without MARKUP: "3." at the start of a line may be a word of its sentence.
        """
        found = self._match(text)
        unmarked = MARKUP.sub("", text)
        if unmarked != text and (matches := self._match(unmarked)):
            places = _unmarked_places(text)
            found += [(places[start], places[end - 1] + 1) for start, end in matches]
        spans: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if spans and start <= spans[-1][1]:
                earlier = spans.pop()
                start, end = earlier[0], max(earlier[1], end)
            spans.append((start, end))
        return spans

    def _match(self, text: str) -> list[tuple[int, int]]:
        """Return the (start, end) of each run in the text, its markup taken for words and punctuation."""
        words = _lower_words(text)
        found = [
            (first, first + len(run) - 1)
            for first, start in enumerate(zip(*(words[i:] for i in range(MIN_RUN_WORDS))))
            for run in self._by_start.get(start, ())
            if words[first : first + len(run)] == run
        ]
        places = [word.span() for word in _RUN_WORD.finditer(text)] if found else []
        return [(places[first][0], places[last][1]) for first, last in found]


def _run_words(text: str) -> tuple[str, ...]:
    """Return the words of a text without its MARKUP, in lower case."""
    return _lower_words(MARKUP.sub("", text))


def _lower_words(text: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _RUN_WORD.findall(text))


def _unmarked_places(text: str) -> list[int]:
    """Return where each character of the text without its MARKUP stands in the text."""
    places = list(range(len(text)))
    for mark in reversed(list(MARKUP.finditer(text))):
        del places[mark.start() : mark.end()]
    return places


def _cut_out(text: str, start: int, end: int) -> str:
    """Return the text without what stands from `start` to `end`, the punctuation next to it, and what else its line
    has, if that is no word."""
    before, after = _OPENING.sub("", text[:start]), _CLOSING.sub("", text[end:])
    above, left = before[: before.rfind("\n") + 1], before[before.rfind("\n") + 1 :]
    right, newline, below = after.partition("\n")
    if not _RUN_WORD.search(left + right):
        before, after = above, newline + below
    gap = "\n\n" if before.endswith("\n") or after.startswith("\n") else " "
    return (before.rstrip() + gap + after.lstrip()).strip()
