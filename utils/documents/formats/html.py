"""Parse HTML: the content of a page as Markdown, without navigation, banners, forms and scripts."""

import re
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from markdownify import MarkdownConverter

from utils.documents.formats.page import Page, decode, page_from_markdown, read_text_bytes
from utils.documents.segments import fence_code

BOILERPLATE_TAGS = {
    *("head", "title", "script", "style", "noscript", "template", "svg", "iframe", "form", "button"),
    *("nav", "header", "footer", "aside"),
}
CONTENT_TAGS = ["main", "article", "h1", "h2", "p"]  # of which a form to search has none, and one around a page some
BOILERPLATE_ROLES = {"navigation", "banner", "contentinfo", "search", "doc-noteref", "doc-backlink"}
BOILERPLATE_CLASSES = {"headerlink", "sphinxsidebar", "related"}


def read_html(path: Path) -> Page:
    """Read an HTML file; its title is the <h1> that its content begins with, else its <title>.

    Raises:
        ValueError: the file is binary or too large, or its elements are nested too deep.
    """
    return page_from_html(path, decode_html(path))


def page_from_html(path: Path, html: str) -> Page:
    """Convert the HTML of a file to a page; `path` is named in errors.

    Raises:
        ValueError: its elements are nested too deep.
    """
    try:
        return page_from_markdown(html_to_markdown(html))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def decode_html(path: Path) -> str:
    """Decode an HTML file; of its declared encoding, the one in its first 4,096 bytes counts.

    Raises:
        ValueError: the file is binary.
    """
    data = read_text_bytes(path)
    declaration = rb"<(?:meta[^>]{0,200}charset|\?xml[^>]{0,200}encoding)\s*=\s*[\"']?([\w.:-]+)"
    declared = re.search(declaration, data[:4096], re.IGNORECASE)
    return decode(data, path, declared[1].decode() if declared else "")


def _is_main(element: Tag) -> bool:
    return element.name == "main" or element.get("role") == "main"


def _find_boilerplate(body: Tag) -> list[Tag]:
    """Return the elements of a page that are boilerplate."""
    # Elements, by id; a look at all that is around each, or in it, would be quadratic.
    around_content: set[int] = set()
    in_main: set[int] = set()
    for element in body.find_all(CONTENT_TAGS):
        for parent in element.parents:
            if id(parent) in around_content:
                break
            around_content.add(id(parent))
    boilerplate = []
    for element in body.find_all(True):
        parent = element.parent
        if id(parent) in in_main or _is_main(parent) or parent.name == "article":
            in_main.add(id(element))
        if not _is_content(element, id(element) in in_main, id(element) in around_content):
            boilerplate.append(element)
    return boilerplate


def _is_content(element: Tag, in_main: bool, around_content: bool) -> bool:
    """Return whether an element is no boilerplate. A header or an aside in the main content holds its title or a
    remark, and a form may be around the whole content."""
    attributes = element.attrs
    tag_is_content = (
        element.name not in BOILERPLATE_TAGS
        or (element.name in ("header", "aside") and in_main)
        or (element.name == "form" and around_content)
    )
    return (
        tag_is_content
        and attributes.get("role") not in BOILERPLATE_ROLES
        and "hidden" not in attributes
        and BOILERPLATE_CLASSES.isdisjoint(attributes.get("class", ()))
    )


def _code_language(pre: Tag) -> str:
    """Return the language in the class of a <pre> or of its <code>, as in `language-python`; "" if there is none."""
    classes = " ".join(c for element in (pre, *pre.find_all("code")) for c in element.get("class", []))
    language = re.search(r"\blang(?:uage)?-(\w+)", classes)
    return language[1] if language else ""


class _Converter(MarkdownConverter):
    """Converter whose fences around code are longer than those in it."""

    def convert_pre(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        code = re.sub(r"\A[ \n]*\n", "", text).rstrip()
        return f"\n\n{fence_code(code, _code_language(el))}\n\n" if text else ""


_TO_MARKDOWN = _Converter(heading_style="ATX", strip=["a", "img"], escape_asterisks=False, escape_underscores=False)


def html_to_markdown(html: str) -> str:
    """Convert the content of a page to Markdown: its <main> or <article> if it has exactly one, with text, else its
    body, without navigation, banners, forms and scripts. The page's title comes first, unless the content begins with
    an <h1>.

    Raises:
        ValueError: its elements are nested too deep.
    """
    soup = BeautifulSoup(re.sub(r"\A\s*<\?xml[^>]*>", "", html), "lxml")  # It warns of XML, though XHTML is read well.
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    mains = soup.find_all(_is_main) or soup.find_all("article")
    body = mains[0] if len(mains) == 1 and mains[0].get_text().strip() else soup.body or soup
    for element in _find_boilerplate(body):
        element.decompose()
    try:
        text = _TO_MARKDOWN.convert_soup(body).strip()
    except RecursionError:
        raise ValueError("its elements are nested too deep") from None
    return text if text.startswith("# ") or not title else f"# {title}\n\n{text}"
