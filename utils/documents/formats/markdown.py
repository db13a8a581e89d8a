"""Parse Markdown files: drop front matter, comments and link targets."""

import re
import textwrap
from pathlib import Path

from utils.documents.formats.page import Page, decode, page_from_markdown, read_text_bytes
from utils.documents.segments import code_blocks, fence_code


def read_markdown(path: Path) -> Page:
    """Read a Markdown file; its title is the `#` heading that it begins with, else that of its front matter.

    Raises:
        ValueError: the file is binary, or too large.
    """
    return page_from_markdown(clean_markdown(decode(read_text_bytes(path), path)))


def clean_markdown(text: str) -> str:
    """Return Markdown as text to search: links and images become their text, comments and front matter are dropped;
    the title of the front matter becomes a heading, unless the text begins with one. Code is kept as it is, indented
    code between fences."""
    front_matter = re.match(r"---\n(.*?)\n(?:---|\.\.\.)\n", text, re.DOTALL)
    title = ""
    if front_matter:
        field = re.search(r"^title:\s*(.+)$", front_matter[1], re.MULTILINE)
        title, text = (field[1].strip().strip("\"'") if field else ""), text[front_matter.end() :]
    parts, position = [], 0
    for start, end, fence in code_blocks(text, strict=True):
        code = text[start:end] if fence else f"{fence_code(textwrap.dedent(text[start:end]).rstrip())}\n"
        parts += [_clean_prose(text[position:start]), code]
        position = end
    text = "".join([*parts, _clean_prose(text[position:])]).strip()
    return f"# {title}\n\n{text}" if title and not text.startswith("# ") else text


def _clean_prose(text: str) -> str:
    """Replace links by their text, underlined headings by `#` ones; drop comments, link definitions and HTML tags."""
    commented, end, rest = text.rpartition("-->")  # The search for an end that is not there would be quadratic.
    text = re.sub(r"<!--.*?-->", "", commented + end, flags=re.DOTALL) + rest
    text = re.sub(
        r"!?\[((?:[^][]|\[[^][]*\])*)\]\((?:[^()\s]|\([^()]*\))*(?:\s+(?:\"[^\"\n]*\"|'[^'\n]*'))?\)", r"\1", text
    )
    text = re.sub(r"!?\[([^][\n]+)\]\[[^][\n]*\]", r"\1", text)
    text = re.sub(r"^ {0,3}\[[^][\n]+\]:\s+\S+.*\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(\S[^\n]*)\n=+[ ]*$", r"# \1", text, flags=re.MULTILINE)
    text = re.sub(r"^(\w[^\n]*)\n-{3,}[ ]*$", r"## \1", text, flags=re.MULTILINE)
    return re.sub(r"</?(?:div|span|p|br|img|a|center|details|summary|sub|sup|kbd)\b[^<>]*>", "", text)
