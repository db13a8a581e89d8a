"""Extractive query generation: queries from the passages' own text, without a model.

Each query is a span of its passage, or its title, and the positive document is the remaining text, so that a model
cannot succeed by matching copied words: it has to learn which words co-occur in this collection. This is the inverse
cloze task of Lee et al., arXiv 1906.00300, extended by titles and keywords.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import regex

from utils.documents.normalization import HAN_AND_KANA, SOUTHEAST_ASIAN, TOKEN, UNSPACED, count_words
from utils.documents.segments import split_prose
from utils.records import Chunk, TrainingExample

MIN_REMAINING_WORDS = 5  # words left of a passage once the query is removed; with fewer it makes no example
CROP_WORD_RANGE = (4, 32)  # words of a `sentence` query; sentences outside this range are skipped
CUT_OUT_TYPES = ("title", "sentence", "passage")  # of queries whose words stand in a row in the passage
MAX_PASSAGE_SENTENCES = 5  # sentences of a `passage` query, as of a long question
# List markers, block quotes, bold and code marks, which people do not type in queries.
MARKUP = re.compile(r"^[^\S\n]*(?:[-*+>]|\d+[.)])\s+|\*\*|`", re.MULTILINE)
WORD = regex.compile(rf"[{HAN_AND_KANA}]{{1,2}}|[{SOUTHEAST_ASIAN}]{{1,4}}|[^\W_{HAN_AND_KANA}{SOUTHEAST_ASIAN}]{{2,}}")


def extractive_examples(chunks: Sequence[Chunk], crops: int = 3, seed: int = 42) -> Iterator[TrainingExample]:
    """Yield examples without negatives, chunk by chunk, as many as each text allows. The types of queries are:

    title     the title or nearest heading; its positive document is the body without it
    sentence  a sentence, or a run of words where there is no punctuation; positive: the rest of the passage
    passage   a run of sentences, at most half of the passage, like a long question; positive: the rest of the passage
    keywords  2 to 5 of the 8 words of highest TF-IDF, where there is no title query; positive: the whole passage. Not
              in scripts without spaces, where words cannot be told

    Args:
        crops: sentence and passage queries per chunk, half of them, rounded down, of the type `passage`.
        seed: random seed.
    """
    document_frequency = Counter(word for chunk in chunks for word in set(_words(chunk.text)))
    for chunk in chunks:
        # A random sequence per chunk: an added document leaves the choices for the others as they are.
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
    chunk: Chunk, crops: int, document_frequency: Counter, chunk_count: int, rng: random.Random
) -> Iterator[tuple[str, str, str]]:
    """Yield (query type, query, positive document) of a chunk."""
    title = chunk.heading or chunk.title
    body = _without_heading(chunk.text, chunk.heading)
    has_title = bool(WORD.search(title)) and count_words(body) >= MIN_REMAINING_WORDS and body != title
    if has_title:
        yield "title", title, body
    for kind, query, rest in _crops(body, crops, rng):
        yield kind, query, f"{chunk.context}\n{rest}".strip()
    if not has_title:
        counts = Counter(_words(body))
        tf_idf = {word: n * math.log((chunk_count + 1) / document_frequency[word]) for word, n in counts.items()}
        ranked = sorted(tf_idf, key=lambda word: (-tf_idf[word], word))
        if len(ranked) >= 2 * MIN_REMAINING_WORDS:
            yield "keywords", " ".join(rng.sample(ranked[:8], rng.randint(2, 5))), chunk.full_text


def _crops(text: str, count: int, rng: random.Random) -> list[tuple[str, str, str]]:
    """Return up to `count` (query type, query, remaining text) with distinct queries. Half of `count`, rounded down,
    are runs of sentences, the others sentences; a text of one sentence, or of none in CROP_WORD_RANGE, gives runs of 4
    to 12 words instead. Code, headings and table rows are never part of a query."""
    pieces = split_prose(text)
    low, high = CROP_WORD_RANGE
    sentences = [i for i, (a, b, prose) in enumerate(pieces) if prose and low <= len(WORD.findall(text[a:b])) <= high]
    words, passages = [token.span() for token in TOKEN.finditer(text)], count // 2
    spans: list[tuple[str, int, int]] = []  # query type, start, end
    if len(pieces) > 1 and sentences:
        longest = min(MAX_PASSAGE_SENTENCES, len(pieces) // 2)
        for i in rng.sample(sentences, min(count - passages, len(sentences))):
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
    crops: dict[str, tuple[str, str]] = {}  # query -> query type, remaining text
    for kind, start, end in spans:
        query = " ".join(MARKUP.sub("", text[start:end]).split())
        before, after = text[:start], text[end:]
        gap = "\n\n" if before.endswith("\n") or after.startswith("\n") else " "
        rest = (before.rstrip() + gap + after.lstrip()).strip()
        if WORD.search(query) and count_words(rest) >= MIN_REMAINING_WORDS:
            crops[query] = (kind, rest)
    return [(kind, query, rest) for query, (kind, rest) in crops.items()]


def _without_heading(text: str, heading: str) -> str:
    """Remove the first Markdown heading line whose text is `heading`."""
    if not heading:
        return text
    return re.sub(rf"^#+\s+{re.escape(heading)}[ #]*$", "", text, count=1, flags=re.MULTILINE).strip()


def _words(text: str) -> list[str]:
    """Return the words of a text, in lower case, of scripts that separate them."""
    return [word.lower() for word in WORD.findall(text) if not UNSPACED.match(word)]
