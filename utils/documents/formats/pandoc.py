"""Parse the formats that pandoc reads best, by way of HTML: AsciiDoc, Org, LaTeX, EPUB and OpenDocument texts."""

import html
import re
import subprocess
from pathlib import Path

from utils.documents.formats.html import html_to_markdown
from utils.documents.formats.page import Page, decode, page_from_markdown

TEXT_FORMATS = {".adoc": "asciidoc", ".asciidoc": "asciidoc", ".org": "org", ".tex": "latex"}  # pandoc's names
FORMATS = {**TEXT_FORMATS, ".epub": "epub", ".odt": "odt"}
TEMPLATE = Path(__file__).with_suffix(".html")  # the title, or nothing, on the first line; then the content
# Seconds a file, and for each megabyte of it. Measured: 6 a megabyte of Org and LaTeX, 12 of AsciiDoc, 30 of an EPUB of
# text, 60 of one in 1,100 chapters and of an ODT. A broken file of AsciiDoc may take no end.
TIMEOUT, TIMEOUT_PER_MB = 20, 120
MEMORY = "1G"  # at most
MAX_ATTRIBUTE = 200  # characters of an attribute's value; bounds those that are made of each other
ASCIIDOC_ATTRIBUTE = re.compile(r"^:([\w-]+):[ \t]+(.+)$", re.MULTILINE)
PREPROCESSOR_LINE = re.compile(
    r"^(?:ifn?def::[^\[\n]*\[(.+)\]|(?:include|ifdef|ifndef|ifeval|endif)::[^\[\n]*\[.*\])[ \t]*(\n|\Z)", re.MULTILINE
)  # a condition on the text in its brackets, or another line
ORG_OPTIONS = "#+OPTIONS: todo:nil tags:nil\n"  # no part of headings


def read_with_pandoc(path: Path) -> Page:
    """Read a file of one of FORMATS; its title is that of its metadata, else the heading of level 1 that it begins
    with. Files that it includes are not read.

    Raises:
        ValueError: the file is not what its suffix says, or is too much for pandoc.
        ImportError: pandoc is not installed.
    """
    try:
        import pypandoc

        pandoc = pypandoc.get_pandoc_path()
    except (ImportError, OSError):
        raise ImportError("pypandoc_binary") from None
    suffix, data = path.suffix.lower(), path.read_bytes()
    if suffix in TEXT_FORMATS:
        text = decode(data, path)
        if FORMATS[suffix] == "asciidoc":
            text = _preprocess_asciidoc(text)
        elif FORMATS[suffix] == "org":
            text = ORG_OPTIONS + text
        data = text.encode()
    options = [f"--from={FORMATS[suffix]}", "--to=html", f"--template={TEMPLATE}", "--wrap=none", "--mathjax"]
    options.append("--no-highlight")  # which would take half a second a file
    limits = ["+RTS", f"-M{MEMORY}", "-RTS", "--sandbox"]  # no other file is opened, and nothing fetched
    timeout = TIMEOUT + TIMEOUT_PER_MB * len(data) / 1e6
    try:
        done = subprocess.run([pandoc, *limits, *options], input=data, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path}: pandoc needs more than {timeout:.3g} seconds for it") from None
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if not line.startswith("[WARNING]")]
        reason = lines[0] if lines else f"exit code {done.returncode}"
        raise ValueError(f"{path}: is no readable {suffix[1:].upper()}: {reason}")
    title, _, content = done.stdout.decode().partition("\n")
    content = content.replace("tfoot>", "tbody>")  # where pandoc's reader puts the last row of a table in AsciiDoc
    try:
        text = html_to_markdown(f"<main>{content}</main>")  # all of it, which is no page of a site
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Page(html.unescape(title), text) if title.strip() else page_from_markdown(text)


def _preprocess_asciidoc(text: str) -> str:
    """Do what AsciiDoc's preprocessor does and pandoc does not: put the values of attributes in links too. Conditions
    are taken to be met, and files to include, at which pandoc would fail, are left out."""
    text = PREPROCESSOR_LINE.sub(lambda line: f"{line[1]}{line[2]}" if line[1] else "", text)
    attributes: dict[str, str] = {}
    for name, value in ASCIIDOC_ATTRIBUTE.findall(text):
        attributes[name] = _expand(value, attributes)[:MAX_ATTRIBUTE]
    return _expand(text, attributes)


def _expand(text: str, attributes: dict[str, str]) -> str:
    return re.sub(r"\{([\w-]+)\}", lambda name: attributes.get(name[1], name[0]), text)
