"""A file of any format that people write in, as Markdown: headings, paragraphs, lists, tables, code; no navigation."""

import codecs
import logging
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import chardet
from bs4 import BeautifulSoup, Tag
from markdownify import MarkdownConverter

from utils.documents.normalization import normalize

MAX_FILE_BYTES = 20_000_000  # of a text; what is larger is no document for people
MAX_BROKEN_SHARE = 0.01  # share of a text's characters that may be broken for it to count as UTF-8 still
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # the marks of UTF-16 begin like those of UTF-32
BOILERPLATE_TAGS = {
    *("head", "title", "script", "style", "noscript", "template", "svg", "iframe", "form", "button"),
    *("nav", "header", "footer", "aside"),
}
BOILERPLATE_ROLES = {"navigation", "banner", "contentinfo", "search"}
BOILERPLATE_CLASSES = {"headerlink", "sphinxsidebar", "related"}
BUILDER_DIRECTIVES = "toctree|contents|index|image|figure|raw|only|highlight|module|currentmodule|include|sectionauthor"
FENCE = re.compile(r"\s*(```|~~~)")
# Where prose may be cut: after a sentence, at an empty line, before a heading and a list's or a table's next line.
PROSE_BORDER = re.compile(r"(?<=[.!?])\s+|\n{2,}|\n(?=[ \t]*(?:[-*+#|]|\d+[.)])[ \t])")
HEADING_OR_ROW = re.compile(r"\s*(?:#{1,6}\s|\|)")


class Page(NamedTuple):
    """A title, "" where there is none, and Markdown."""

    title: str
    text: str


def read_page(file: Path) -> Page:
    """The title and text of a file, by its suffix one of READERS.

    Raises:
        ValueError: it is not what its suffix says, is larger than 20 MB, or is encrypted.
        ImportError: the library that reads it is not installed.
        OSError: it cannot be read.
    """
    if not file.is_file():
        raise ValueError(f"{file}: is not a regular file")
    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{file}: holds {size / 1e6:,.0f} MB, more than {MAX_FILE_BYTES / 1e6:.0f}; split it")
    page = READERS[file.suffix.lower()](file)
    return Page(" ".join(normalize(page.title).split()), normalize(page.text).strip())


def decode(data: bytes, place: object) -> str:
    """Text in the encoding that its byte order mark or its bytes tell; UTF-8 may have a few broken characters.

    Raises:
        ValueError: it is no text.
    """
    mark = next((mark for mark in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if mark:
        text = data.decode(BYTE_ORDER_MARKS[mark], errors="replace")
    else:
        text = data.decode("utf-8", errors="replace")
        if text.count("\ufffd") > MAX_BROKEN_SHARE * len(text):
            encoding = chardet.detect(data)["encoding"]
            text = data.decode(encoding, errors="replace") if encoding else "\0"
    if "\0" in text:
        raise ValueError(f"{place}: binary, not text")
    return text.replace("\ufffd", "").replace("\r\n", "\n").replace("\r", "\n")


def _plain(file: Path) -> Page:
    return Page("", decode(file.read_bytes(), file))


def _markdown(file: Path) -> Page:
    return _titled(clean_markdown(decode(file.read_bytes(), file)))


def _html(file: Path) -> Page:
    return _page_of_html(file, decode_html(file))


def _page_of_html(file: Path, html: str) -> Page:
    try:
        return _titled(html_to_markdown(html))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def decode_html(file: Path) -> str:
    """HTML in the encoding that it declares, else in what its bytes tell."""
    data = file.read_bytes()
    declared = re.search(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w-]+)", data[:4096], re.IGNORECASE)
    if declared:
        try:
            return data.decode(declared[1].decode())
        except (UnicodeDecodeError, LookupError):
            pass
    return decode(data, file)


def _is_content(part: Tag) -> bool:
    attributes = part.attrs
    return not (
        part.name in BOILERPLATE_TAGS
        or attributes.get("role") in BOILERPLATE_ROLES
        or "hidden" in attributes
        or BOILERPLATE_CLASSES.intersection(attributes.get("class", ()))
    )


def _language(code: Tag) -> str:
    """What the class of a <pre> or of its <code> calls its language: `language-python`."""
    classes = " ".join(c for part in (code, *code.find_all("code")) for c in part.get("class", []))
    named = re.search(r"\blang(?:uage)?-(\w+)", classes)
    return named[1] if named else ""


_TO_MARKDOWN = MarkdownConverter(
    heading_style="ATX",
    strip=["a", "img"],
    escape_asterisks=False,
    escape_underscores=False,
    code_language_callback=_language,
)


def html_to_markdown(html: str) -> str:
    """The content of a page: its <main> or <article> where it has just one, without navigation, banners, forms and
    scripts. The page's title stands first.

    Raises:
        ValueError: its elements are nested too deep.
    """
    page = BeautifulSoup(html, "lxml")
    title = " ".join(page.title.get_text().split()) if page.title else ""
    mains = page.find_all(lambda part: part.name == "main" or part.get("role") == "main") or page.find_all("article")
    body = mains[0] if len(mains) == 1 else page.body or page
    for part in body.find_all(lambda part: not _is_content(part)):
        part.decompose()
    try:
        text = _TO_MARKDOWN.convert_soup(body).strip()
    except RecursionError:
        raise ValueError("its elements are nested too deep") from None
    return text if text.startswith("# ") or not title else f"# {title}\n\n{text}"


def clean_markdown(text: str) -> str:
    """Markdown as text to search: links and images become what they say; comments and front matter go, but for its
    title. Code stays as it is."""
    front = re.match(r"---\n(.*?)\n(?:---|\.\.\.)\n", text, re.DOTALL)
    title = ""
    if front:
        named = re.search(r"^title:\s*(.+)$", front[1], re.MULTILINE)
        title, text = (named[1].strip().strip("\"'") if named else ""), text[front.end() :]
    parts = split_code(text)
    text = "".join(part if code else _clean_prose(part) for code, part in parts).strip()
    return f"# {title}\n\n{text}" if title and not text.startswith("# ") else text


def split_code(text: str) -> list[tuple[bool, str]]:
    """(is fenced code, part) for each run of lines; the parts, joined, are the text."""
    parts: list[tuple[bool, list[str]]] = []
    fence = ""
    for line in text.splitlines(keepends=True):
        mark = FENCE.match(line)
        code = bool(fence or mark)
        if not parts or parts[-1][0] != code:
            parts.append((code, []))
        parts[-1][1].append(line)
        if mark and (not fence or mark[1] == fence):
            fence = "" if fence else mark[1]
    return [(code, "".join(lines)) for code, lines in parts]


class Piece(NamedTuple):
    """Where a piece of a text stands, and whether it is prose, rather than a heading, a table's row or code."""

    start: int
    end: int
    prose: bool


def split_prose(text: str) -> list[Piece]:
    """Each sentence, list item, heading, row of a table or run of code."""
    pieces, position = [], 0
    for code, part in split_code(text):
        ends = [] if code else [border.span() for border in PROSE_BORDER.finditer(part)]
        starts = [0, *(end for _, end in ends)]
        for start, end in zip(starts, [*(start for start, _ in ends), len(part)]):
            piece = part[start:end]
            if piece.strip():
                prose = not code and not HEADING_OR_ROW.match(piece)
                pieces.append(Piece(position + start, position + end, prose))
        position += len(part)
    return pieces


def _clean_prose(text: str) -> str:
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"!?\[((?:[^][]|\[[^][]*\])*)\]\((?:[^()\s]|\([^()]*\))*(?:\s+[\"'][^\n]*?[\"'])?\)", r"\1", text)
    text = re.sub(r"!?\[([^][\n]+)\]\[[^][\n]*\]", r"\1", text)
    text = re.sub(r"^ {0,3}\[[^][\n]+\]:\s+\S+.*\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(\S[^\n]*)\n=+[ ]*$", r"# \1", text, flags=re.MULTILINE)
    text = re.sub(r"^(\w[^\n]*)\n-{3,}[ ]*$", r"## \1", text, flags=re.MULTILINE)
    return re.sub(r"</?(?:div|span|p|br|img|a|center|details|summary|sub|sup|kbd)\b[^<>]*>", "", text)


def _titled(text: str) -> Page:
    """The text's first heading, where it stands first, as the title."""
    first, _, rest = text.strip().partition("\n")
    return Page(first[2:].strip(" #"), rest) if first.startswith("# ") else Page("", text)


def _restructured(file: Path) -> Page:
    return _titled(restructured_to_markdown(decode(file.read_bytes(), file)))


def restructured_to_markdown(text: str) -> str:
    """reStructuredText as Markdown: underlined headings, code blocks, roles and links as what they say. Directives that
    only steer a builder go, comments too; of others the content stays."""
    text = _rst_headings(text)
    text = re.sub(rf"^( *)\.\. (?:{BUILDER_DIRECTIVES})::.*\n(?:(?:\1 +.*)?\n)*", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"^ *\.\. (?:_[^\n]*:|\|[^\n]*\|)[^\n]*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^( *)\.\. (?![\w-]+(?::[\w-]+)*::)[^\n]*\n(?:\1 +.*\n)*", "", text, flags=re.MULTILINE)
    code = r"^( *)\.\. (?:code-block|code|sourcecode|testcode|doctest|parsed-literal)::[^\n]*\n((?:(?:\1 +.*)?\n)+)"
    text = re.sub(code, lambda m: f"```\n{_without_options(m[2])}\n```\n\n", text + "\n", flags=re.MULTILINE)
    text = re.sub(r"^( *)\.\. [\w:-]+:: *([^\n]*)\n(?:\1 +:[\w-]+:.*\n)*", r"\1\2\n", text, flags=re.MULTILINE)
    text = re.sub(r":[\w:+.-]+:`[~!]?([^`<]*?)(?:\s*<[^`>]*>)?`", r"\1", text)
    text = re.sub(r"`([^`<\n]+?)\s*<[^`>\n]*>`__?", r"\1", text)
    text = re.sub(r"``([^`\n]+)``|`([^`\n]+)`_{0,2}", lambda m: m[1] or m[2], text)
    literal = r"^([^\n`]*\S):: *\n\n((?:(?: +[^\n]*)?\n)+)"
    text = re.sub(literal, lambda m: f"{m[1]}:\n\n```\n{_without_options(m[2])}\n```\n\n", text, flags=re.MULTILINE)
    return re.sub(r"\|(\w+)\|", r"\1", text).strip()


def _without_options(block: str) -> str:
    """A directive's block without `:option:` lines, moved to the left."""
    lines = re.sub(r"\A(?: +:[\w-]+:.*\n)+", "", block).strip("\n").splitlines()
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[indent:] for line in lines)


def _rst_headings(text: str) -> str:
    """reStructuredText's underlined headings as Markdown's; the first kind of underline is the title's."""
    levels: list[str] = []

    def heading(match: re.Match) -> str:
        mark = match[2][0]
        if mark not in levels:
            levels.append(mark)
        return f"{'#' * min(6, levels.index(mark) + 1)} {match[1].strip()}"

    underlined = r"^(?:[=\-~^\"'#*+`]{3,}\n)?(\S[^\n]*)\n(([=\-~^\"'#*+`])\3{2,})$"
    return re.sub(underlined, heading, text, flags=re.MULTILINE)


def _pdf(file: Path) -> Page:
    try:
        import pypdf
    except ImportError:
        raise ImportError("pypdf") from None
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        book = pypdf.PdfReader(file)
        if book.is_encrypted and not book.decrypt(""):
            raise ValueError(f"{file}: is encrypted")
        pages = [page.extract_text() for page in book.pages]
        title = (book.metadata.title if book.metadata else "") or ""
    except (pypdf.errors.PyPdfError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{file}: is no readable PDF: {error or type(error).__name__}") from None
    if pages and not any(page.strip() for page in pages):
        raise ValueError(f"{file}: its {len(pages)} pages hold pictures, no text; recognize the text first (OCR)")
    return Page(title, join_pages(pages))


def join_pages(pages: list[str]) -> str:
    """The running text of pages: lines that stand at the top or bottom of most of them, whatever their numbers, go;
    lines broken at the margin are joined, words broken by a hyphen too."""
    split = [[line.strip() for line in page.strip().splitlines()] for page in pages]
    numberless = [[re.sub(r"\d+", "0", line) for line in lines] for lines in split]
    edges = Counter(line for lines in numberless for line in {*lines[:2], *lines[-2:]} if line)
    running = {line for line, count in edges.items() if count > max(2, len(pages) / 2)}
    kept: list[str] = []
    for lines, keys in zip(split, numberless):
        last = len(lines) - 2
        kept += [
            line for i, (line, key) in enumerate(zip(lines, keys)) if key not in running or 2 <= i < last
        ]  # fmt: skip
    text = "\n".join(kept)
    text = re.sub(r"(?<=[^\W\d_])[-\u00ad]\n(?=[^\W\d_A-Z])", "", text)
    return re.sub(r"(?<=[^\n.!?:;])\n(?=[^\W\d_A-Z]|\d+[ ,])", " ", text)


def _docx(file: Path) -> Page:
    try:
        import mammoth
    except ImportError:
        raise ImportError("mammoth") from None
    try:
        with file.open("rb") as data:
            html = mammoth.convert_to_html(data, style_map="p[style-name='Title'] => h1:fresh").value
    except Exception as error:  # whatever a broken archive or its XML raises
        raise ValueError(f"{file}: is no readable DOCX: {error or type(error).__name__}") from None
    return _page_of_html(file, html)


READERS: dict[str, Callable[[Path], Page]] = {
    ".md": _markdown,
    ".markdown": _markdown,
    ".txt": _plain,
    ".rst": _restructured,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
}
