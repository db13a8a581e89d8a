"""Passages of documents that are longer than the model's limit."""

import bisect
import itertools
from typing import NamedTuple

from utils.documents.chunking import find_headings, split_text
from utils.documents.segments import code_blocks
from utils.splade.base_encoder import Encoder

FILLED = 0.85  # share of the limit that parts are cut to have on average; most of them then fit at once


class Passage(NamedTuple):
    """A part of a document, as it is encoded, and the heading that most of it stands under, "" before the first."""

    text: str
    heading: str = ""


def split_document(model: Encoder, text: str, tokens: int, title: str = "") -> list[Passage]:
    """Split a text of so many tokens into passages that fit the model's limit, at the largest boundaries (paragraph,
    sentence, word); white space is one empty passage. Each begins with the title, as the text does, unless that takes
    more than half of the limit. A text that fits is one passage, as it is."""
    limit = model.max_length
    if tokens <= limit:
        return [Passage(text)]
    special = model.tokenizer.num_special_tokens_to_add()
    title = title.strip()
    title_tokens = next(model.count_tokens([title])) - special
    prefix = ""
    if 0 < title_tokens <= (limit - special) // 2:
        prefix, text = f"{title}\n", text.removeprefix(title)
        tokens, limit = tokens - title_tokens, limit - title_tokens
    headings = [(0, ""), *((position, name) for position, _, name in find_headings(text, code_blocks(text)))]
    parts = _split(model, text, 0, tokens, limit) or [(0, "")]
    return [Passage(prefix + part, _main_heading(headings, start, start + len(part))) for start, part in parts]


def _main_heading(headings: list[tuple[int, str]], start: int, end: int) -> str:
    """Return the heading, of those in order with their positions, the first of which is 0, that most of a text's
    characters from `start` to `end` stand under."""
    first = bisect.bisect_right(headings, start, key=lambda heading: heading[0]) - 1
    last = bisect.bisect_left(headings, end, lo=first + 1, key=lambda heading: heading[0])
    positions = [start, *(position for position, _ in headings[first + 1 : last]), end]
    lengths = [after - before for before, after in itertools.pairwise(positions)]
    return headings[first + lengths.index(max(lengths))][1]


def _split(model: Encoder, text: str, offset: int, tokens: int, limit: int) -> list[tuple[int, str]]:
    """Split a text that begins at `offset` by characters, and again what is still longer than the limit, into
    (position, part)."""
    if tokens <= limit or len(text) == 1:
        return [(offset, text)]
    size = max(1, int(FILLED * limit / tokens * len(text)))
    parts = []
    for start, end in split_text(text, size):
        part = text[start:end].strip()
        parts.append((offset + start + text[start:end].find(part), part))
    counts = model.count_tokens([part for _, part in parts])
    return [piece for (start, part), count in zip(parts, counts) for piece in _split(model, part, start, count, limit)]
