"""Measure how fast web pages are read and what is kept of them: this toolkit against other libraries, in one run.

    .venv/bin/pip install trafilatura resiliparse markdownify
    .venv/bin/python -m benchmarks.pages --input-dir /usr/share/doc/python3-doc/html --documents 200

The time to decode the pages is not counted. Outside the navigation, a heading is kept if a line that begins with # says
it, code if it stands in the text but for spaces, a cell if it is between bars, a note if its letters stand in the text
in one run. The last column is the share of pages in whose text a block of navigation stands. What the pages of a folder
share goes after all of this, and is not measured here.
"""

import argparse
import random
import re
from collections.abc import Callable
from pathlib import Path

import trafilatura
from lxml.html import HTMLParser, document_fromstring
from markdownify import markdownify
from resiliparse.extract.html2text import extract_plain_text

from benchmarks.common import contest, processor
from utils.arguments import ScriptParser, positive_int
from utils.console import format_table, print_line, run_script
from utils.documents.formats.html import decode_html, html_to_markdown

READERS: dict[str, Callable[[str], str | None]] = {
    "ours": html_to_markdown,
    "trafilatura": lambda page: trafilatura.extract(page, output_format="markdown", favor_recall=True),
    "resiliparse": lambda page: extract_plain_text(page, main_content=True),
    "markdownify": lambda page: markdownify(page, heading_style="ATX", strip=["a", "img"]),
}
CLASSES = ("nav", "Nav", "related", "sphinxsidebar", "breadcrumb", "footer", "toc", "linenos", "modal")
AROUND = "self::nav or self::header or self::footer or self::noscript or @role[.!='main'] or " + " or ".join(
    f"contains(@class, '{name}') or contains(@id, '{name}')" for name in CLASSES
)
PARTS = {
    "headings": "self::h1 or self::h2 or self::h3 or self::h4",
    "code": "self::pre",
    "cells": "(self::td or self::th) and ancestor::table//th and not(descendant::table or descendant::pre)",
    "notes": "self::aside or contains(@class, 'admonition') or @class='note' or @class='warning' or @class='tip'",
}
NAVIGATION = "self::nav or @role='navigation' or @class='navheader' or @class='navfooter'"
MIN_LETTERS = 4  # of a part; fewer are found anywhere


def main(args: argparse.Namespace) -> None:
    files = sorted(file for file in Path(args.input_dir).rglob("*.htm*") if file.is_file())
    pages = [decode_html(file) for file in random.Random(0).sample(files, min(args.documents, len(files)))]
    contestants = {name: lambda read=read: [read(page) for page in pages] for name, read in READERS.items()}
    seconds = contest(contestants, args.rounds)
    parts = [parts_of_page(page) for page in pages]
    rows = []
    for name, read in READERS.items():
        texts = [parts_of_text(read(page) or "") for page in pages]
        row = {"reader": name, "pages/s": len(pages) / seconds[name], "times ours": seconds["ours"] / seconds[name]}
        for kind in PARTS:
            found = [part in text[kind] for text, of_page in zip(texts, parts) for part in of_page[kind]]
            row[f"{kind} %"] = 100 * sum(found) / max(1, len(found))
        shown = [any(part in text["notes"] for part in page["navigation"]) for text, page in zip(texts, parts)]
        rows.append({**row, "navigation %": 100 * sum(shown) / len(pages)})
    size = sum(map(len, pages)) / len(pages)
    print_line(f"{len(pages)} pages of {size:,.0f} characters, rounds {args.rounds}, machine {processor()}")
    print_line(format_table(rows))


def parts_of_page(page: str) -> dict[str, list[str]]:
    """Return what has to be kept of a page, by kind, and what has to go, as "navigation"."""
    parser = HTMLParser(encoding="utf-8", remove_comments=True, huge_tree=True)
    root = document_fromstring(page.encode(), parser)
    for unseen in root.xpath("//script|//style"):
        unseen.drop_tree()
    tests = {kind: f"({test}) and not(ancestor-or-self::*[{AROUND}])" for kind, test in PARTS.items()}
    found = {}
    for kind, test in (tests | {"navigation": NAVIGATION}).items():
        clean = without_spaces if kind == "code" else letters
        texts = [clean(element.text_content()) for element in root.xpath(f"//body//*[{test}]")]
        found[kind] = [text for text in texts if len(text) >= MIN_LETTERS]
    return found


def parts_of_text(text: str) -> dict[str, str | set[str]]:
    """Return where each kind of part has to be found in a text in Markdown."""
    lines = text.splitlines()
    return {
        "headings": {letters(line) for line in lines if line.startswith("#")},
        "code": without_spaces(text),
        "cells": {letters(cell) for line in lines if "|" in line for cell in line.split("|")},
        "notes": letters(text),
    }


def letters(text: str) -> str:
    """Return a text without what differs between ways to write it down."""
    return re.sub(r"[\W_]", "", text)


def without_spaces(text: str) -> str:
    return "".join(text.split())


def parse_args() -> argparse.Namespace:
    arguments = ScriptParser(__doc__)
    arguments.add_argument("--input-dir", required=True, metavar="PATH", help="folder of web pages")
    arguments.add_argument("--documents", type=positive_int, default=200, help="pages sampled")
    arguments.add_argument("--rounds", type=positive_int, default=3, help="rounds per contestant")
    return arguments.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
