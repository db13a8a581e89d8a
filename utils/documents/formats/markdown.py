"""Parse Markdown files: drop front matter, comments and link targets."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from utils.documents.formats.page import Page, decode, page_from_markdown, read_text_bytes
from utils.documents.segments import code_blocks, fence_code

# Lines of YAML alone: keys, list items, comments, and lines that go on with one; text between two rules is none.
FRONT_MATTER = re.compile(
    r"---[ \t]*\n((?:(?:[\w\"'.$][^:\n]*:(?:[ \t].*)?|[ \t#\]}].*|-[ \t].*|)\n)+)(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
)
TITLE = re.compile(r"^title:[ \t]*(?:[>|][+-]?[ \t]*\n[ \t]+)?(\S.*)$", re.MULTILINE)
# A comment or code, whichever begins first. The search for a comment's end stops where another begins: without an end,
# it would be quadratic.
COMMENT_OR_CODE = re.compile(r"<!--(?:(?!<!--|-->).)*-->|(?<!\\)(?:`[^`\n]+`|``[^`\n]+(?:`[^`\n]+)*``)", re.DOTALL)


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
    text = text.replace("\0", " ")
    front_matter = FRONT_MATTER.match(text)
    title = ""
    if front_matter:
        field = TITLE.search(front_matter[1])
        title, text = (field[1].strip().strip("\"'") if field else ""), text[front_matter.end() :]
    parts, position = [], 0
    for start, end, fence in code_blocks(text, strict=True):
        code = text[start:end] if fence else f"{fence_code(textwrap.dedent(text[start:end]).rstrip())}\n"
        parts += [clean_around_code(text[position:start], _clean_prose), code]
        position = end
    text = "".join([*parts, clean_around_code(text[position:], _clean_prose)]).strip()
    return f"# {title}\n\n{text}" if title and not text.startswith("# ") else text


def clean_around_code(text: str, clean: Callable[[str], str]) -> str:
    """Return `clean(text)` with the code within its lines kept as it is, unless it is in a comment; the text holds no
    "\\0"."""
    codes: list[str] = []

    def set_aside(code: re.Match) -> str:
        if code[0].startswith("<!--"):
            return code[0]
        codes.append(code[0])
        return f"\0{len(codes) - 1}\0"

    return re.sub(r"\0(\d+)\0", lambda code: codes[int(code[1])], clean(COMMENT_OR_CODE.sub(set_aside, text)))


def _clean_prose(text: str) -> str:
    """Replace links by their text, underlined headings by `#` ones; drop comments, link definitions and HTML tags."""
    commented, end, rest = text.rpartition("-->")  # The search for an end that is not there would be quadratic.
    text = re.sub(r"<!--.*?-->", "", commented + end, flags=re.DOTALL) + rest
    text = re.sub(
        r"!?\[((?:[^][]|\[[^][]*\])*)\]\((?:[^()\s]|\([^()]*\))*(?:\s+(?:\"[^\"\n]*\"|'[^'\n]*'))?\)", r"\1", text
    )
    text = re.sub(r"(?<![A-Za-z0-9_])!?\[([^][\n]+)\]\[[^][\n]*\]", r"\1", text)
    definition = r"^ {0,3}\[(?!\^)[^][\n]+\]:\s+\S+(?:[ \t]+(?:\"[^\"\n]*\"|'[^'\n]*'|\([^()\n]*\)))?[ \t]*(?:\n|\Z)"
    text = re.sub(definition, "", text, flags=re.MULTILINE)
    text = re.sub(r"^(\S[^\n]*)\n=+[ ]*$", r"# \1", text, flags=re.MULTILINE)
    text = re.sub(r"^(\w[^\n]*)\n-{3,}[ ]*$", r"## \1", text, flags=re.MULTILINE)
    return re.sub(r"</?(?:div|span|p|br|img|a|center|details|summary|sub|sup|kbd)(?=[\s/>])[^<>]*>", "", text)
