"""Text that the pages of a folder repeat, such as the banner, menu and license of a site."""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

from utils.documents.normalization import count_words
from utils.records import Document

REPEATED = "text that many pages share"  # in each line on what was left out
MIN_PAGES, MIN_SHARE = 10, 0.5  # pages of a folder that have to share a text, and their share of all that count
MAX_REPEATED = 0.8  # share of a page that is repeated; of more, the page is an edition of another one
EDGE_LINES = 3  # lines at the start and at the end of a page that are compared at a time
MAX_ROUNDS = 100  # of EDGE_LINES lines; a page where they do not suffice is an edition of another one
MAX_EDGE_LINE = 1000  # characters; a longer line is no part of a banner
MIN_WORDS = 12  # words of what is shared within pages; less, such as "New in version 3.2.", is a remark on each page
MIN_STATEMENT = 4  # words of a sentence that states something; less, such as "Choose any three.", is a slogan
MIN_LOWERCASE = 1 / 3  # share of the words after the first, in what ends without a stop; of less, they are titles
SAMPLES, SAMPLE_LENGTH = 5, 100  # texts of a folder that are shown, and their characters
HTML_SUFFIXES = (".html", ".htm")
KEPT_LINE = re.compile(r"[ \t>]*(?:`{3}|~{3}|\|)")  # of code, or of a table
HEADING = re.compile(r"#{1,6} ")
BLOCK = re.compile(r"[^\n]+(?:\n[^\n]+)*")
FENCE = re.compile(r"^[ \t>]*(`{3,}|~{3,})(.*)$", re.MULTILINE)
LAST_CHANGE = re.compile(r"\blast (?:modified|updated|changed|generated)\b.{,60}", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[^\W\d_][.!?])\s+|(?<=[.!?][^\w\s])\s+|(?<=。)")
STOP = re.compile(r"[.!。][^\w\s]*\Z")
FIELD = re.compile(r"\w[^:]{,40}: \S")  # such as "Applies to: version 5.2"
# What pages say of themselves and of where to go: in sentences, and in what is none.
AROUND_CONTENT = re.compile(
    r"[©«»←→]|\(c\)|\b(?:copyright|all rights reserved|(?:built|created|generated|powered) (?:by|from|using|with)"
    r"|see also|edit (?:on|this)|(?:show|view) (?:page )?source|(?:back|skip) to|cookies?|log ?in|sign ?(?:in|up)"
    r"|last (?:changed|edited)|(?:report|found) (?:a|an) (?:bug|error|issue|mistake|problem)|subscribe|newsletter"
    r"|follow us|your feedback|(?:enter|type) (?:a )?search terms?|in the documentation|documentation for)\b",
    re.IGNORECASE,
)
MENU = re.compile(
    r"^(?:[*+>]|\d+\.) |[|•·]| (?:-+|[\u2013\u2014/*>]) "
    r"|\b(?:home|about us|contents|contact us|prev|previous|next|up|top|index|menu|search)\b",
    re.IGNORECASE,
)
Spans = list[tuple[int, int]]  # characters [start, end) of a text, in order


def drop_repeated_text(documents: Sequence[Document]) -> list[str]:
    """Remove, in place, what half of a format's pages below a folder share: of the lines at their start and end
    EDGE_LINES, of HTML pages all, and from these also blocks of MIN_WORDS words within. Code, tables, and a heading
    above what stays are kept. The first page that has it keeps a block within, and at its start or end what states
    something, so that it can still be found; a banner, menu, slogan or copyright goes from all.

    Pages of which most would go do not count, so that editions of one document do not lose what they share.

    Args:
        documents: pages, whose ids are their paths.

    Returns:
        For each folder where something was removed, a line that shows it.
    """
    below: dict[tuple[PurePosixPath, str], list[Document]] = {}
    for document in documents:
        path = PurePosixPath(document.id)
        for folder in path.parents:
            below.setdefault((folder, path.suffix.lower()), []).append(document)
    reports = []
    for (folder, suffix), pages in sorted(below.items()):
        if folder.name and len(pages) == len(below[folder.parent, suffix]):
            continue
        is_html = suffix in HTML_SUFFIXES
        removed = list(_remove(pages, functools.partial(_repeated_edges, to_the_end=is_html)))
        if is_html:
            removed += _remove(pages, _repeated_blocks)
        if removed:
            number = len({name for name, _ in removed})
            place = f" in {folder}" if folder.name else ""
            samples = _list_samples([text for _, text in removed])
            reports.append(f"{REPEATED}, left out of {number:,} of {len(pages):,} {suffix} files{place}: {samples}")
    return reports


def _list_samples(texts: Sequence[str]) -> str:
    """Return the most frequent texts, and how often each occurs."""
    counts = Counter(texts).most_common()
    samples = [
        f"“{text[:SAMPLE_LENGTH]}{'…' * (len(text) > SAMPLE_LENGTH)}” ({count:,})" for text, count in counts[:SAMPLES]
    ]
    return ", ".join(samples) + (f" and {len(counts) - SAMPLES:,} more" if len(counts) > SAMPLES else "")


def _remove(
    pages: Sequence[Document], find: Callable[[Sequence[str], Sequence[bool]], list[Spans]]
) -> Iterator[tuple[str, str]]:
    """Remove, in place, the spans that `find` returns for the texts of pages, given which of them count; yield (id of
    the page, removed text)."""
    texts = [page.text for page in pages]
    counted = [True] * len(pages)
    spans = find(texts, counted)
    removed = [sum(end - start for start, end in of_page) for of_page in spans]
    counted = [length <= MAX_REPEATED * len(text) for length, text in zip(removed, texts)]
    if not all(counted):
        spans = find(texts, counted)
    for page, of_page in zip(pages, spans):
        ends = [0, *(end for _, end in of_page)]
        starts = [*(start for start, _ in of_page), len(page.text)]
        rest = "".join(page.text[end:start] for end, start in zip(ends, starts)).strip()
        if of_page and rest:
            yield from ((page.id, _key(page.text[start:end])) for start, end in of_page)
            page.text = re.sub(r"\n{3,}", "\n\n", rest)


def _key(text: str) -> str:
    """Return what is equal in texts that say the same; the date of the last change is no difference."""
    plain = text.replace("**", "")
    if "last " in plain.lower():
        plain = LAST_CHANGE.sub("last changed", plain)
    return " ".join(plain.split()) or text.strip()


def _min_count(counted: Sequence[bool]) -> float:
    return max(MIN_PAGES, MIN_SHARE * sum(counted))


def _repeated_edges(texts: Sequence[str], counted: Sequence[bool], to_the_end: bool) -> list[Spans]:
    """Return the spans at the start and at the end of texts whose lines are among EDGE_LINES there in many of those
    that count, but for statements, see `_without_statements`; `to_the_end`, then also of what is left. Of a text of
    which too much is repeated, return the whole."""
    starts, ends = [0] * len(texts), [len(text) for text in texts]
    min_count = _min_count(counted)
    changed: set[int] = set()
    for _ in range(MAX_ROUNDS if to_the_end else 1):
        changed.clear()
        counts: Counter[str] = Counter()
        for text, start, end in itertools.compress(zip(texts, starts, ends), counted):
            first = itertools.islice(_lines(text, start, end), EDGE_LINES)
            last = itertools.islice(_lines_backward(text, start, end), EDGE_LINES)
            counts.update({key for key, _ in (*first, *last)})
        repeated = {key for key, count in counts.items() if key and count >= min_count and not KEPT_LINE.match(key)}
        for i, text in enumerate(texts):
            for key, position in _lines(text, starts[i], ends[i]):
                if key not in repeated:
                    break
                if not _leads(key):
                    starts[i] = position
                    changed.add(i)
            for key, position in _lines_backward(text, starts[i], ends[i]):
                if key not in repeated:
                    break
                ends[i] = position
                changed.add(i)
        if not changed:
            break
    if to_the_end:
        for i in changed:
            starts[i] = ends[i]
    shown: set[str] = set()
    spans: list[Spans] = []
    for text, start, end in zip(texts, starts, ends):
        if text[start:end].strip():
            edges = (0, start), (end, len(text))
            spans.append([span for edge in edges for span in _without_statements(text, *edge, shown)])
        else:
            spans.append([(0, len(text))])
    return spans


def _without_statements(text: str, start: int, end: int, shown: set[str]) -> Spans:
    """Return the spans of the blocks of text[start:end] but those that state what is not among `shown`, and those that
    lead to them; add these to `shown`."""
    blocks = [(block, _key(block[0])) for block in BLOCK.finditer(text, start, end)]
    kept: set[int] = set()  # starts of blocks
    stays = False
    for block, key in reversed(blocks):
        stays = (key not in shown and _states(key)) or (stays and _leads(key))
        if stays:
            shown.add(key)
            kept.add(block.start())
    runs = itertools.groupby((block for block, _ in blocks), lambda block: block.start() in kept)
    dropped = [list(run) for stays, run in runs if not stays]
    return [(run[0].start(), run[-1].end()) for run in dropped]


def _states(text: str) -> bool:
    """Return whether a text holds a sentence, or a remark that is no part of a menu."""
    for part in SENTENCE_END.split(text):
        if AROUND_CONTENT.search(part) or part.endswith("?"):
            continue
        if STOP.search(part):
            if count_words(part) >= MIN_STATEMENT:
                return True
        elif not MENU.search(part):
            words = part.split()[1:]
            lowercase = sum(not word[0].isupper() for word in words)
            if FIELD.match(part) or (count_words(part) >= MIN_STATEMENT and lowercase >= MIN_LOWERCASE * len(words)):
                return True
    return False


def _leads(text: str) -> bool:
    """Return whether a line or block, such as a heading, belongs to what follows."""
    return bool(HEADING.match(text)) or text.endswith(":")


def _lines(text: str, start: int, end: int) -> Iterator[tuple[str, int]]:
    """Yield the lines of text[start:end] that are not empty, (key, position after it); the key of a line longer than
    MAX_EDGE_LINE is empty."""
    while start < end:
        stop = text.find("\n", start, end) + 1 or end
        if not text[start:stop].isspace():
            yield _key(text[start:stop]) if stop - start <= MAX_EDGE_LINE else "", stop
        start = stop


def _lines_backward(text: str, start: int, end: int) -> Iterator[tuple[str, int]]:
    """Yield the same as `_lines` from the last line on, (key, position before it)."""
    while start < end:
        first = text.rfind("\n", start, end - 1) + 1 or start
        if not text[first:end].isspace():
            yield _key(text[first:end]) if end - first <= MAX_EDGE_LINE else "", first
        end = first


def _repeated_blocks(texts: Sequence[str], counted: Sequence[bool]) -> list[Spans]:
    """Return the spans of blocks that many of the texts that count hold, but for the first text that holds them."""
    counts: Counter[int] = Counter()  # by hash, for the memory
    for text in itertools.compress(texts, counted):
        counts.update({hash(key) for _, _, key in _blocks(text) if key})
    min_count = _min_count(counted)
    repeated = {key for key, count in counts.items() if count >= min_count}
    if not repeated:
        return [[] for _ in texts]
    shown: set[str] = set()
    spans: list[Spans] = []
    for text in texts:
        spans.append([])
        for shared, run in itertools.groupby(
            _blocks(text), lambda block: bool(block[2]) and hash(block[2]) in repeated
        ):
            blocks = list(run)
            keys = [key for _, _, key in blocks]
            if shared and len(" ".join(keys).split()) >= MIN_WORDS:
                if shown.issuperset(keys):
                    spans[-1].append((blocks[0][0], blocks[-1][1]))
                shown.update(keys)
    return spans


def _blocks(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the blocks of a Markdown text between empty lines, (start, end, key); the key of code, tables, headings
    and the like is empty."""
    fence = ""
    for block in BLOCK.finditer(text):
        code = bool(fence)
        for mark, rest in FENCE.findall(block[0]) if "```" in block[0] or "~~~" in block[0] else ():
            code = True
            if not fence:
                fence = mark
            elif mark.startswith(fence) and not rest.strip():
                fence = ""
        kept = code or KEPT_LINE.match(block[0]) or _leads(block[0])
        yield block.start(), block.end(), "" if kept else _key(block[0])
