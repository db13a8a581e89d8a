"""Parse MDX files: Markdown with imports and JSX components, as Docusaurus, Nextra and Mintlify have it."""

import re
from pathlib import Path

from utils.documents.formats.markdown import clean_markdown
from utils.documents.formats.page import Page, decode, page_from_markdown, read_text_bytes
from utils.documents.segments import split_code

# A paragraph of imports or exports: up to an empty line.
IMPORTS = re.compile(r"(?:\A|(?<=\n\n)|(?<=^---\n))(?:import|export)\b[ {*'\"](?:.|\n(?!\n))*", re.MULTILINE)
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
    text = "".join(run if code else _drop_jsx(run) for code, run in split_code(text))
    return page_from_markdown(clean_markdown(text))


def _drop_jsx(text: str) -> str:
    """Remove imports, exports and comments; replace the tags of components by their title or label."""
    closed, end, rest = IMPORTS.sub("", text).rpartition("*/}")  # after which a search would end nowhere, each time
    text = COMMENT.sub("", closed + end) + rest
    return COMPONENT.sub(lambda tag: "".join(f"{label}: " for label in LABEL.findall(tag[1])), text)
