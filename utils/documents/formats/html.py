"""Parse HTML: the content of a page as Markdown, without navigation, banners, search forms and scripts."""

import functools
import itertools
import re
import string
from collections.abc import Iterator
from pathlib import Path

import html_to_markdown as h2m
from lxml import etree
from lxml.html import HtmlElement, HTMLParser, document_fromstring

from utils.documents.formats.page import Page, decode, page_from_markdown, read_text_bytes

UNSEEN_TAGS = (
    *("script", "style", "noscript", "noframes", "template", "svg", "iframe"),
    *("button", "select", "datalist"),
)
BOILERPLATE_ROLES = {"navigation", "banner", "contentinfo", "search", "dialog", "doc-noteref", "doc-backlink"}
# Classes, in lower case, of what generators of sites put around the content of a page and into it.
BOILERPLATE_CLASSES = {
    *("headerlink", "viewcode-link", "linenos", "lineno", "sphinxsidebar", "related-pages"),  # Sphinx
    *("prev-next-area", "prev-next-footer", "bottom-of-page", "back-to-top", "toc-drawer", "bd-sidebar"),
    *("rst-footer-buttons", "rst-versions", "wy-nav-side", "wy-nav-top", "wy-breadcrumbs"),
    *("navheader", "navfooter", "docnav", "nav-panel"),  # DocBook, Publican, Texinfo
    *("md-header", "md-footer", "md-sidebar", "md-skip", "md-source-file", "md-content__button"),  # MkDocs
    *("bs-sidebar", "skip-link"),
    *("hash-link", "pagination-nav", "theme-doc-sidebar-container", "theme-doc-breadcrumbs"),  # Docusaurus
    *("theme-doc-footer", "theme-doc-toc-mobile", "theme-doc-toc-desktop", "theme-edit-this-page"),
    *("topnav", "bottomnav", "skipnav", "navlist", "subnavlist", "navbarcell1", "legalcopy"),  # javadoc
}
# Classes that may also name a section with content; such an element is dropped if it hardly holds words but in links.
LINK_CLASSES = {"breadcrumb", "breadcrumbs", "pagination", "navbar", "subnav", "related"}
MAX_UNLINKED_WORDS = 4  # such as "Page 1 of 12"
MIN_LINKED, MIN_MENU_LINKS = 0.8, 3  # share of the words of a menu that are in links; fewer links are a note's
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
ADMONITION_CLASSES = {"admonition", "note", "tip", "important", "caution", "warning"}  # DocBook, Sphinx
CONTENT_TAGS = (*HEADINGS, "p", "pre", "li", "dd", "table")  # a form to fill in has none, one around a page some
MAX_FORM_WORDS = 20  # words of a form to fill in
MAX_DEPTH = 1000  # elements within each other
TOO_DEEP = etree.XPath(f"boolean({'/*' * (MAX_DEPTH + 1)})")
BLOCK_TAGS = {
    *("p", "div", "ul", "ol", "dl", "table", "center", "section", "article", "nav", "header", "footer", "aside"),
    *("form", "dialog"),
}
TITLE_TAGS = (*HEADINGS, "dt", "summary", "caption", "th")  # of what may be a term called "next"
PART_TAGS = {"li", "dd", "tr", "td"}  # of what may hold content elsewhere
# Links to the pages before and after this one: what they read, and what stands between them and others beside them.
STEP = re.compile(r"\b(?:prev|previous|next)\b", re.IGNORECASE)
PAGER_LINK = re.compile(
    r"[\W_]*(?:prev|previous|next|up|home|top|contents|table of contents|index|back)?"
    r"(?: (?:page|chapter|section|topic))?(?:[\W_]*|\W*[:»→>]\s.*)",
    re.IGNORECASE | re.DOTALL,
)
STEP_BEFORE = re.compile(r"\b(?:prev|previous|next)\b[^\w,.]*\Z", re.IGNORECASE)  # before a title
PAGER_TEXT = re.compile(r"(?:[\W_]|\b(?:prev|previous|next|up|page|chapter|section|topic)\b)*", re.IGNORECASE)
MAX_PAGER_LINKS, MAX_PAGER_LENGTH = 8, 400  # length in characters, of titles too
MAX_PAGER_ROWS = 3  # of a table
MIN_CONTENTS_LINKS = 3  # links to headings of the same page; fewer are no table of contents
CONTENTS_TITLES = {"", "contents", "tableofcontents", "onthispage"}
BACKSLASH = "\ufdd0"  # no character, so in no text; stands for a backslash of the page, beside those that escape
TERM_END = "\ufdd1"  # no character either; what it ends is defined in the next paragraph
ESCAPE = re.compile(r"\\(?![|`~])")  # other than of what would be a cell or a fence
BROKEN_CODE = etree.XPath("descendant::code[not(ancestor::pre)]//text()[contains(., '\n')]")
NO_LETTER = re.compile(r"[\W_]")
_WORD = re.compile(r"\w+")
_OPTIONS = h2m.ConversionOptions(
    extract_metadata=False,
    skip_images=True,
    strip_tags=["a"],
    bullets="*",
    compact_tables=True,
    highlight_style="none",
    expand_abbreviations=False,
    hidden_content="reachable",
    preprocessing=h2m.PreprocessingOptions(enabled=False),
)


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


def html_to_markdown(html: str) -> str:
    """Convert the content of a page to Markdown: its <main> if it has exactly one, with text, and no article beside it,
    else its body; without scripts, navigation, banners, search forms, links to neighboring pages, and a table of
    contents of the page itself, unless it holds nothing else. The page's title comes first, in place of a heading with
    the same letters, unless the content begins with an <h1>.

    Raises:
        ValueError: its elements are nested too deep.
    """
    title, content = _parse(html)
    for find in (_boilerplate, _pagers, _tables_of_contents):
        for element in list(find(content)):
            _drop(element)
    text = _convert(content) or _convert(_parse(html)[1])
    first, _, rest = text.partition("\n")
    if title and first.startswith("##") and NO_LETTER.sub("", first) == NO_LETTER.sub("", title):
        return f"# {title}\n{rest}"
    return text if text.startswith("# ") or not title else f"# {title}\n\n{text}"


def _parse(html: str) -> tuple[str, HtmlElement]:
    """Return the title of a page and the element with its content."""
    parser = HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    root = document_fromstring(f"<html><body>{html}".encode("utf-8", "replace"), parser)  # else <main> may be in <head>
    if TOO_DEEP(root):
        raise ValueError("its elements are nested too deep")
    etree.strip_elements(root, *UNSEEN_TAGS, with_tail=False)
    for rule in root.iter("hr"):
        rule.tag = "br"
    title = " ".join(root.findtext(".//title", "").split())  # and not that of a drawing
    return title, _main_content(root.find("body"))


def _drop(element: HtmlElement) -> None:
    """Remove an element; in the place of a block stays a space between the words around it."""
    if element.tag in BLOCK_TAGS:
        element.tail = f" {element.tail or ''}"
    element.drop_tree()


def _convert(content: HtmlElement) -> str:
    """Convert an element to Markdown."""
    etree.strip_elements(content, "title", with_tail=False)
    _unwrap_layout(content)
    for term in content.iter("dt"):
        etree.SubElement(term, "span").text = TERM_END
    html = etree.tostring(content, encoding="unicode", method="html", with_tail=False).replace("\\", BACKSLASH)
    text = ESCAPE.sub("", h2m.convert(html, _OPTIONS).content).replace(BACKSLASH, "\\")
    return re.sub(rf" *{TERM_END} *\n+", "\n", text).replace(TERM_END, "").strip()


def _main_content(body: HtmlElement) -> HtmlElement:
    """Return the <main> of a page if it has exactly one, with text, and no article beside it; else its body."""
    outside = "not(ancestor::main or ancestor::*[@role='main'])"
    mains = body.xpath(f"descendant::*[(self::main or @role='main') and {outside}]")
    if len(mains) != 1 or not mains[0].text_content().strip():
        return body
    beside = f"descendant::article[{outside} and not(descendant::main or descendant::*[@role='main'])]"
    return body if body.xpath(f"boolean({beside})") else mains[0]


def _boilerplate(body: HtmlElement) -> Iterator[HtmlElement]:
    """Yield the elements within `body` whose own names and attributes tell that they are no content."""
    with_title = _headers_with_title(body)
    candidates: set[HtmlElement] = set()
    for element in body.iterdescendants():
        if element.tag in ("nav", "dialog") or element.get("role") in BOILERPLATE_ROLES:
            dropped = element.getparent().tag not in HEADINGS  # whose text Sphinx links to the table of contents
        elif element.tag == "footer":
            dropped = not element.xpath("boolean(ancestor::blockquote)")  # where it names the source
        elif element.tag == "header":
            in_content = body.tag != "body" or element.xpath("boolean(ancestor::article)")
            dropped = not in_content and element not in with_title
        elif element.tag == "form":
            filled_in = next(element.iterdescendants(*CONTENT_TAGS), None) is None
            dropped = filled_in and len(element.text_content().split()) <= MAX_FORM_WORDS
        else:
            names = element.get("class") or ""
            classes = _split_classes(names)
            dropped = not BOILERPLATE_CLASSES.isdisjoint(classes) and element.find(".//h1") is None
            if element.tag == "aside" or not LINK_CLASSES.isdisjoint(classes):
                candidates.add(element)
            if element.tag == "div" and "footer" in (element.get("id"), *names.split()):  # and no section on footers
                dropped = next(element.iter(*HEADINGS), None) is None
        if dropped:
            yield element
    if candidates:
        yield from _menus(body, candidates)


def _headers_with_title(body: HtmlElement) -> set[HtmlElement]:
    """Return the headers, which may be those of a site, that hold the only <h1> of a page, with which its <title>
    begins."""
    headings, titles = list(body.iter("h1")), list(body.getroottree().iter("title"))
    if len(headings) == 1 and all(_letters(title).startswith(_letters(headings[0])) for title in titles):
        return set(headings[0].iterancestors("header"))
    return set()


def _menus(body: HtmlElement, candidates: set[HtmlElement]) -> Iterator[HtmlElement]:
    """Yield those of the elements within `body` that hold hardly a word but in links, the inner ones first; all are
    counted in one pass, however deep they are nested."""
    words = linked = links = titles = depth = 0  # so far, in the order of the page; `depth` is of links
    before: dict[HtmlElement, tuple[int, int, int, int]] = {}
    for event, element in etree.iterwalk(body, ("start", "end")):
        if event == "start":
            if element in candidates:
                before[element] = words, linked, links, titles
            titles += element.tag == "h1"
            links += element.tag == "a"
            depth += element.tag == "a"
            text = element.text
        else:
            if element in before:
                counts = (now - then for now, then in zip((words, linked, links, titles), before[element]))
                if _is_menu(element, *counts):
                    yield element
            depth -= element.tag == "a"
            text = element.tail
        count = len(_WORD.findall(text)) if text else 0
        words += count
        linked += count if depth else 0


def _is_menu(element: HtmlElement, words: int, linked: int, links: int, titles: int) -> bool:
    """Return whether an element of these counts holds several links, or by its class is made for links, and hardly a
    word outside them."""
    mostly_linked = linked >= MIN_LINKED * words
    if element.tag == "aside" and links >= MIN_MENU_LINKS and mostly_linked:
        return True
    classes = _split_classes(element.get("class") or "")
    is_made_for_links = not LINK_CLASSES.isdisjoint(classes) and not titles
    return is_made_for_links and (words - linked <= MAX_UNLINKED_WORDS or mostly_linked)


@functools.lru_cache(maxsize=10_000)
def _split_classes(names: str) -> frozenset[str]:
    return frozenset(names.lower().split())


def _pagers(body: HtmlElement) -> Iterator[HtmlElement]:
    """Yield the elements that hold nothing but links to the pages before and after this one, up, and the like."""
    judged: set[HtmlElement] = set()
    for link in body.iter("a"):
        if not _is_step(link):
            continue
        pager, element = link, link.getparent()
        while element is not body and element not in judged and _is_pager(element):
            judged.add(element)
            pager, element = element, element.getparent()
        judged.add(element)
        if pager.tag in BLOCK_TAGS or (_is_marked(link) if pager.tag in PART_TAGS else _stands_alone(pager)):
            yield pager


def _is_step(link: HtmlElement) -> bool:
    """Return whether a link leads to the page before or after this one."""
    if link.get("href", "").startswith("#") and not _is_marked(link):
        return False
    text = link.text_content()
    leads = len(text) <= MAX_PAGER_LENGTH and STEP.search(text) and _leads_around(link)
    if not (leads or _is_marked(link) or _follows_step(link)):
        return False
    return next(link.iterancestors(*TITLE_TAGS), None) is None


def _follows_step(link: HtmlElement) -> bool:
    """Return whether a word such as "next" is directly before a link."""
    return bool(STEP_BEFORE.search(_before(link)[-MAX_PAGER_LENGTH:]))


def _is_marked(link: HtmlElement) -> bool:
    relations = link.get("rel", "").split()
    return link.get("accesskey", "").lower() in ("p", "n") or not {"prev", "next"}.isdisjoint(relations)


def _is_pager(element: HtmlElement) -> bool:
    """Return whether an element around a link to a neighboring page holds no content."""
    links = list(itertools.islice(element.iter("a"), MAX_PAGER_LINKS + 1))
    if element.tag in TITLE_TAGS or len(links) > MAX_PAGER_LINKS or len(element.text_content()) > MAX_PAGER_LENGTH:
        return False
    if next(element.iterdescendants("h1", "h2", "h3", "pre"), None) is not None:
        return False
    if element.tag in ("table", "tbody", "tr"):
        rows = list(element.iter("tr"))
        if len(rows) > MAX_PAGER_ROWS:
            return False
        if any(map(_is_pager_row, rows)):
            return True
    between = "".join(element.xpath("descendant::text()[not(ancestor::a)]"))
    before = any(map(_follows_step, links)) and not between.rstrip().endswith(".")  # else it is a sentence
    known = before or any(map(_is_marked, links)) or all(map(_leads_around, links))
    return bool(known and PAGER_TEXT.fullmatch(between))


def _is_pager_row(row: HtmlElement) -> bool:
    """Return whether a row of a table holds links to pages around this one, in its first or last cell too."""
    links = [sum(_is_step(a) or _leads_around(a) for a in cell.iter("a")) for cell in row]
    return sum(links) > 1 and bool(links[0] or links[-1])


def _leads_around(link: HtmlElement) -> bool:
    return bool(PAGER_LINK.fullmatch(link.text_content().strip()))


def _stands_alone(element: HtmlElement) -> bool:
    """Return whether there is no word before and after an element, up to the next ones beside it; then also remove what
    there is, such as a bar between two links."""
    if re.search(r"\w", f"{_before(element)} {element.tail or ''}"):
        return False
    element.tail, previous = " ", element.getprevious()
    if previous is None:
        element.getparent().text = " "
    else:
        previous.tail = " "
    return True


def _before(element: HtmlElement) -> str:
    """Return the text between an element and what is before it."""
    previous = element.getprevious()
    return (element.getparent().text if previous is None else previous.tail) or ""


def _tables_of_contents(body: HtmlElement) -> Iterator[HtmlElement]:
    """Yield the elements that hold nothing but links to headings of the page itself."""
    headings = {_letters(heading).lstrip(string.digits) for heading in body.iter(*HEADINGS)} - {""}
    judged: set[HtmlElement] = set()
    found: set[HtmlElement] = set()  # links within what was yielded
    for link in body.iter("a"):
        if link in found:
            continue
        contents, element = None, link
        while element is not body and element not in judged and _is_contents(element, headings):
            judged.add(element)
            contents, element = element, element.getparent()
        judged.add(element)
        if contents is not None and len(links := list(contents.iter("a"))) >= MIN_CONTENTS_LINKS:
            found.update(links)
            yield contents


def _is_contents(element: HtmlElement, headings: set[str]) -> bool:
    """Return whether an element holds links to headings of the page alone, maybe below the word "Contents"."""
    linked = ""
    for link in element.iter("a"):
        text = _letters(link)
        if text.lower() not in CONTENTS_TITLES:
            if "#" not in link.get("href", "") or text.lstrip(string.digits) not in headings:
                return False
            linked += text
    titles = {_letters(heading).lower() for heading in element.iter(*HEADINGS)}
    if not CONTENTS_TITLES.issuperset(titles):  # It is the section itself, with links to its headings in these.
        return False
    text = _letters(element)
    return text.endswith(linked) and text.removesuffix(linked).lower() in CONTENTS_TITLES


def _letters(element: HtmlElement) -> str:
    return NO_LETTER.sub("", element.text_content())


def _unwrap_layout(body: HtmlElement) -> None:
    """Replace, in place, tables and lists that hold what Markdown's cannot by the blocks in them, and headings of notes
    within a section, which begin none, by paragraphs. A line break in code that is no block becomes a space."""
    layout = {table for table in body.iter("table") if _is_layout(table)}
    for block in body.iter(*HEADINGS, "pre", "table"):
        around = block.iterancestors(*(("table", "ul", "ol") if block.tag in HEADINGS else ("table",)))
        layout.update(around)
    for element in layout:
        parts = "*[not(self::caption)]|*/tr|tr/*|*/tr/*" if element.tag == "table" else "li"
        for part in (element, *element.xpath(parts)):
            part.tag = "div"
    for media in body.iter("video", "audio"):
        media.tag = "div"
    for heading in list(body.iter(*HEADINGS[1:])):
        classes = _split_classes(heading.getparent().get("class") or "")
        if heading.getprevious() is None and not ADMONITION_CLASSES.isdisjoint(classes):
            heading.tag = "summary"  # a bold paragraph in Markdown
    for pre in list(body.iter("pre")):
        for code in list(pre.iterancestors("code", "tt", "kbd", "samp")):
            code.drop_tag()
    for text in BROKEN_CODE(body):
        setattr(text.getparent(), "tail" if text.is_tail else "text", re.sub(r"\s*\n\s*", " ", text))


def _is_layout(table: HtmlElement) -> bool:
    """Return whether a table without headings of columns or rows is one of a single row, or holds lists."""
    if table.get("role") in ("presentation", "none"):
        return True
    if next(table.iter("th"), None) is not None:
        return False
    return len(list(table.iter("tr"))) < 2 or next(table.iter("ul", "ol", "dl", "blockquote"), None) is not None
