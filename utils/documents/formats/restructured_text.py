"""Parse reStructuredText files: headings, code blocks, roles and links as Markdown."""

import re
from pathlib import Path

from utils.documents.formats.page import Page, decode, page_from_markdown, read_text_bytes
from utils.documents.segments import fence_code

# Directives without text for readers; they are dropped with their content.
BUILDER_DIRECTIVES = "toctree|contents|index|image|figure|raw|only|highlight|module|currentmodule|include|sectionauthor"


def read_restructured_text(path: Path) -> Page:
    """Read a reStructuredText file; its title is the heading that it begins with.

    Raises:
        ValueError: the file is binary, or too large.
    """
    return page_from_markdown(restructured_to_markdown(decode(read_text_bytes(path), path)))


def restructured_to_markdown(text: str) -> str:
    """Convert reStructuredText to Markdown: underlined headings and code blocks become Markdown's, roles and links
    become their text. Comments and BUILDER_DIRECTIVES are dropped; of other directives the content is kept."""
    text = _convert_headings(text)
    text = re.sub(rf"^( *)\.\. (?:{BUILDER_DIRECTIVES})::.*\n(?:(?:\1 +.*)?\n)*", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"^ *\.\. (?:_[^\n]*:|\|[^\n]*\|)[^\n]*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^( *)\.\. (?![\w-]+(?::[\w-]+)*::)[^\n]*\n(?:\1 +.*\n)*", "", text, flags=re.MULTILINE)
    code = r"^( *)\.\. (?:code-block|code|sourcecode|testcode|doctest|parsed-literal)::[^\n]*\n((?:(?:\1 +.*)?\n)+)"
    text = re.sub(code, lambda m: f"{fence_code(_dedent_block(m[2]))}\n\n", text + "\n", flags=re.MULTILINE)
    text = re.sub(r"^( *)\.\. [\w:-]+:: *([^\n]*)\n(?:\1 +:[\w-]+:.*\n)*", r"\1\2\n", text, flags=re.MULTILINE)
    text = re.sub(r"(?<![\w:+.]):[\w:+.-]+:`[~!]?([^`<]*?)(?:\s*<[^`>]*>)?`", r"\1", text)
    text = re.sub(r"`([^`<\n]+?)\s*<[^`>\n]*>`__?", r"\1", text)
    text = re.sub(r"``([^`\n]+)``|`([^`\n]+)`_{0,2}", lambda m: m[1] or m[2], text)
    literal = r"^([^\n`]*\S):: *\n\n((?:(?: +[^\n]*)?\n)+)"
    text = re.sub(literal, lambda m: f"{m[1]}:\n\n{fence_code(_dedent_block(m[2]))}\n\n", text, flags=re.MULTILINE)
    return re.sub(r"\|(\w+)\|", r"\1", text).strip()


def _dedent_block(block: str) -> str:
    """Return a directive's block without its `:option:` lines and common indent."""
    lines = re.sub(r"\A(?: +:[\w-]+:.*\n)+", "", block).strip("\n").splitlines()
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[indent:] for line in lines)


def _convert_headings(text: str) -> str:
    """Replace underlined headings by Markdown's; levels are in the order in which the underline characters first
    appear, so that the first is the title's."""
    underlines: list[str] = []

    def heading(match: re.Match) -> str:
        underline = match[2][0]
        if underline not in underlines:
            underlines.append(underline)
        return f"{'#' * min(6, underlines.index(underline) + 1)} {match[1].strip()}"

    underlined = r"^(?:[=\-~^\"'#*+`]{3,}\n)?(\S[^\n]*)\n(([=\-~^\"'#*+`])\3{2,})$"
    return re.sub(underlined, heading, text, flags=re.MULTILINE)
