"""Queries for passages, made from the text alone (the extractive generator).

Each query is cut out of its passage or stands above it, and the positive document is what remains, so that a model
cannot succeed by copying: it has to learn which words belong together in this collection (the inverse cloze task of
Lee et al., arXiv 1906.00300, with titles and keywords beside it).
"""

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from utils.documents.formats import split_prose
from utils.records import Chunk, TrainingExample

MIN_REMAINING_WORDS = 5  # words that a passage keeps when a query is taken out
CROP_WORD_RANGE = (4, 32)  # length of a cropped sentence
MAX_PASSAGE_SENTENCES = 5  # of a cropped passage, at most
MARKUP = re.compile(r"^\s*(?:[-*+>]|\d+[.)])\s+|\*\*|`", re.MULTILINE)
WORD = re.compile(r"[^\W_]{2,}")


def extractive_examples(chunks: Sequence[Chunk], crops: int = 3, seed: int = 42) -> Iterator[TrainingExample]:
    """Examples without negatives for each chunk, as many as its text allows; of the `crops`, every second is a
    passage:

    title     the title, or the nearest heading, against the body without it
    sentence  a sentence (or a run of words, where there is no punctuation) against the passage without it
    passage   a run of sentences, of half of the passage at most, against the rest: what a long question is like
    keywords  the most salient words by TF-IDF against the passage, in place of a title or heading that it lacks
    """
    document_frequency = Counter(word for chunk in chunks for word in set(_words(chunk.text)))
    for chunk in chunks:
        # A generator of its own for each chunk: adding a document does not change the others' queries.
        rng = random.Random(f"{seed} {chunk.id}")
        for kind, query, positive in _queries(chunk, crops, document_frequency, len(chunks), rng):
            yield TrainingExample(
                query=query,
                positive_document=positive,
                positive_id=chunk.id,
                source=chunk.document_id,
                query_type=kind,
            )


def _queries(
    chunk: Chunk, crops: int, document_frequency: Counter, total: int, rng: random.Random
) -> Iterator[tuple[str, str, str]]:
    """(query type, query, positive document)"""
    name = chunk.heading or chunk.title
    body = _without_heading(chunk.text, chunk.heading)
    named = bool(WORD.search(name)) and len(body.split()) >= MIN_REMAINING_WORDS and body != name
    if named:
        yield "title", name, body
    for kind, query, rest in _crops(body, crops, rng):
        yield kind, query, f"{chunk.context}\n{rest}".strip()
    if not named:
        counts = Counter(_words(body))
        salience = {word: n * math.log((total + 1) / document_frequency[word]) for word, n in counts.items()}
        salient = sorted(salience, key=lambda word: (-salience[word], word))
        if len(salient) >= 2 * MIN_REMAINING_WORDS:
            yield "keywords", " ".join(rng.sample(salient[:8], rng.randint(2, 5))), chunk.full_text


def _crops(text: str, count: int, rng: random.Random) -> list[tuple[str, str, str]]:
    """Up to `count` different (kind, cropped piece, what remains), the half of them, rounded down, passages: sentences
    and runs of them where there are several, else runs of words. Code, headings and tables are not cropped."""
    pieces = split_prose(text)
    low, high = CROP_WORD_RANGE
    fitting = [i for i, (a, b, prose) in enumerate(pieces) if prose and low <= len(WORD.findall(text[a:b])) <= high]
    words, passages = [word.span() for word in re.finditer(r"\S+", text)], count // 2
    spans: list[tuple[str, int, int]] = []  # kind, start, end
    if len(pieces) > 1 and fitting:
        longest = min(MAX_PASSAGE_SENTENCES, len(pieces) // 2)
        for i in rng.sample(fitting, min(count - passages, len(fitting))):
            spans.append(("sentence", *pieces[i][:2]))
        for _ in range(passages if longest > 1 else 0):
            length = rng.randint(2, longest)
            runs = [pieces[i : i + length] for i in range(len(pieces) - length + 1)]
            runs = [run for run in runs if all(piece.prose for piece in run)]
            if runs:
                run = rng.choice(runs)
                spans.append(("passage", run[0].start, run[-1].end))
    elif len(words) >= low + MIN_REMAINING_WORDS and all(piece.prose for piece in pieces):
        for _ in range(count - passages):
            length = rng.randint(low, max(low, min(12, len(words) - MIN_REMAINING_WORDS)))
            start = rng.randint(0, len(words) - length)
            spans.append(("sentence", words[start][0], words[start + length - 1][1]))
    cut = {}
    for kind, start, end in spans:
        query = " ".join(MARKUP.sub("", text[start:end]).split())
        before, after = text[:start], text[end:]
        gap = "\n\n" if before.endswith("\n") or after.startswith("\n") else " "
        rest = (before.rstrip() + gap + after.lstrip()).strip()
        if WORD.search(query) and len(rest.split()) >= MIN_REMAINING_WORDS:
            cut[query] = (kind, rest)
    return [(kind, query, rest) for query, (kind, rest) in cut.items()]


def _without_heading(text: str, heading: str) -> str:
    """The text without the Markdown heading line that says `heading`."""
    if not heading:
        return text
    return re.sub(rf"^#+\s+{re.escape(heading)}[ #]*$", "", text, count=1, flags=re.MULTILINE).strip()


def _words(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]
