"""Parse MDX files: Markdown with imports and JSX components, as Docusaurus, Nextra and Mintlify have it."""

import re
from pathlib import Path

from utils.documents.formats.markdown import clean_around_code, clean_markdown
from utils.documents.formats.page import Page, decode, page_from_markdown, read_text_bytes
from utils.documents.segments import split_code

# Imports and exports begin after an empty line, and end before the next one at which all their brackets are closed.
EMPTY_LINE = re.compile(r"\n(?=[ \t]*\n)")
STATEMENT = re.compile(r"(?:\A|\n[ \t]*\n|^---\n)(?=(?:import|export)\b[ {*'\"])", re.MULTILINE)
TOKEN = re.compile(  # what may hold a bracket or an empty line that is none, a bracket, or an empty line
    rf"""(?<!:)//[^\n]*|\\.|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|[()[\]{{}}]|{EMPTY_LINE.pattern}""",
    re.DOTALL,
)
COMMENT = re.compile(r"\{/\*.*?\*/\}", re.DOTALL)
# An opening or closing tag of a component, whose values are in quotes or in braces, these nested once.
COMPONENT = re.compile(r"</?[A-Z][\w.]{0,99}((?:[^<>{}\"']|\"[^\"]*\"|'[^']*'|\{(?:[^{}]|\{[^{}]*\})*\})*)>")
LABEL = re.compile(r"\b(?:title|label|summary)=[\"{']+([^\"'{}]+)")  # what a component shows of its attributes


def read_mdx(path: Path) -> Page:
    """Read an MDX file; its title is the `#` heading that it begins with, else that of its front matter. Of components
    the content is kept, and what they show as a title or label.

    Raises:
        ValueError: the file is binary.
    """
    text = decode(read_text_bytes(path), path)
    text = "".join(
        run if code else clean_around_code(_drop_statements(run), _drop_jsx) for code, run in split_code(text)
    )
    return page_from_markdown(clean_markdown(text))


def _drop_jsx(text: str) -> str:
    """Remove comments; replace the tags of components by their title or label."""
    closed, end, rest = text.rpartition("*/}")  # after which a search would end nowhere, each time
    text = COMMENT.sub("", closed + end) + rest
    return COMPONENT.sub(lambda tag: "".join(f"{label}: " for label in LABEL.findall(tag[1])), text)


def _drop_statements(text: str) -> str:
    """Remove imports and exports."""
    starts = [match.end() for match in STATEMENT.finditer(text)]
    kept, position = [], 0
    for start, limit in zip(starts, [*starts[1:], len(text)]):
        kept.append(text[position:start])
        position = _statement_end(text, start, limit)
    return "".join([*kept, text[position:]])


def _statement_end(text: str, start: int, limit: int) -> int:
    """Return the end of the statements from `start` on: the first empty line outside of brackets, or the very first one
    where a bracket stays open until `limit`, so that a broken statement costs no text."""
    depth = 0
    for token in TOKEN.finditer(text, start, limit):
        if token[0] == "\n" and depth <= 0:
            return token.start()
        depth += (token[0] in "([{") - (token[0] in ")]}")
    empty_line = EMPTY_LINE.search(text, start, limit) if depth > 0 else None
    return empty_line.start() if empty_line else limit
