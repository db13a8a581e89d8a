"""Files of all formats as Markdown, and the detection of encodings."""

import codecs
import email.message
import importlib.util
import json
import time
import zipfile

import pypdf
import pytest
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from utils.documents.formats.html import html_to_markdown
from utils.documents.formats.markdown import clean_markdown
from utils.documents.formats.pdf import join_pages
from utils.documents.formats.registry import read_page
from utils.documents.normalization import normalize

RST = """\
======
Manual
======

.. toctree::
   :maxdepth: 2

   part one

.. _start:

Starting
--------

See :ref:`the other part <other>` and `our page <https://x.y/z>`_ on ``start()``::

    start(now=True)

.. note:: Keep the
   door closed.

.. code-block:: python
   :linenos:

   def stop():
       return 1

.. a comment
   of two lines

.. function:: wait(seconds)
   :noindex:

   Waits |long|.
"""

RST_TEXT = """\
## Starting

See the other part and our page on start():

```
start(now=True)
```

Keep the
   door closed.

```
def stop():
    return 1
```

wait(seconds)

   Waits long."""

MARKDOWN = """\
---
title: "The pump"
tags: [water]
---
<!-- hidden -->
Use [the valve](http://x.y/z_(1) "Valve") as ![a picture](x.png) shows [here][1].

Care
----

```sh
# no heading [x](y)
```

[1]: http://x.y
"""

MDX = """\
---
title: The pump
---
import Tabs from '@theme/Tabs';
import {
  Card,
} from "x";

We sell pumps, and
import `<Valve>`. {/* hidden
here */}

<Tabs values={[{label: 'L', value: 'l'}]} onChange={(x) => go({a: 1})}>
  <TabItem value="l" label="Linux">

## Steps

Press *start*, if 1 < 2 and 3 > 2.

  </TabItem>
</Tabs>
<Card title="Stop it" href="/x">Press **stop**.</Card><Break />

```jsx
import Tabs from '@theme/Tabs'
<Card title="kept">{/* kept */}</Card>
```
"""

NOTEBOOK = {
    "nbformat": 4,
    "cells": [
        {"cell_type": "markdown", "source": ["# Sorting\n", "\n", "How to [sort](x.html)."]},
        {"cell_type": "code", "source": ["# no heading\n", "sorted([2, 1])"], "outputs": [{"text": ["[1, 2]"]}]},
        {"cell_type": "code", "source": "print('```')"},
        {"cell_type": "code", "source": []},
        {"cell_type": "raw", "source": "raw"},
        {"cell_type": "markdown", "source": "## End"},
    ],
}

MAIL = """\
From: A <a@x.y>
Subject: =?utf-8?q?Gr=C3=B6=C3=9Fe?=
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="m"

--m
Content-Type: multipart/alternative; boundary="a"

--a
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

The size is 5 =E4 b.

> Which size?

-- 
A, sales
--a
Content-Type: text/html

<p>not read</p>
--a--
--m
Content-Type: text/plain
Content-Disposition: attachment; filename="b.txt"

not read
--m--
"""

HTML = """\
<html><head><meta charset="iso-8859-1"><title>Caf\xe9</title><style>p {color: red}</style></head><body>
<header>Our banner</header><nav><a href="/">Home</a></nav>
<main><h1>Coffee<a class="headerlink" href="#c">\xb6</a></h1><p>A <a href="x">cup</a> of caf\xe9 for user_name.
<pre><code class="language-python">brew("*")
  pour()</code></pre><table><tr><th>cup</th><th>ml</th></tr><tr><td>small</td><td>80</td></tr></table>
<script>alert('no')</script><form>Search</form></main><footer>All rights reserved</footer></body></html>"""


PLAIN = """\
Care of engines
===============

Oil
---
Check it, as
# a comment
says.

[[fuel]]
1.2 Fuel
~~~~~~~~
[NOTE]
====
Diesel!
----
run
----

| a | b |
---------

==========
Great bolts
==========

[part]
=== Nuts ===
Turn
== left

None.
--------------------

------
$ turn
------
"""

PLAIN_TEXT = """\
## Oil
Check it, as
 # a comment
says.

[[fuel]]
### 1.2 Fuel
[NOTE]
====
Diesel!
----
run
----

| a | b |
---------

# Great bolts

[part]
### Nuts
Turn
== left

None.
--------------------

------
$ turn
------"""


def page(tmp_path, name, data):
    """Return the page of a file with this name and content."""
    file = tmp_path / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_page(file)


def test_restructured_text_keeps_the_content_for_readers(tmp_path):
    assert page(tmp_path, "a.rst", RST) == ("Manual", RST_TEXT)


def test_plain_text_has_underlined_titles_and_those_of_asciidoc_but_no_headings_of_markdown(tmp_path):
    assert page(tmp_path, "a.txt", PLAIN) == ("Care of engines", PLAIN_TEXT)
    assert page(tmp_path, "b.txt", "= Bolts\n\nTurn.") == ("Bolts", "Turn.")


def test_markdown_loses_link_targets_comments_and_front_matter_but_no_code(tmp_path):
    found = page(tmp_path, "a.md", MARKDOWN)
    text = "Use the valve as a picture shows here.\n\n## Care\n\n```sh\n# no heading [x](y)\n```"
    assert found == ("The pump", text)


def test_of_mdx_the_content_and_labels_of_components_are_read(tmp_path):
    found = page(tmp_path, "a.mdx", MDX)
    assert found.title == "The pump"
    assert found.text == (
        "We sell pumps, and\nimport `<Valve>`.\n\n  Linux:\n\n## Steps\n\nPress *start*, if 1 < 2 and 3 > 2.\n\n"
        "Stop it: Press **stop**.\n\n"
        "```jsx\nimport Tabs from '@theme/Tabs'\n<Card title=\"kept\">{/* kept */}</Card>\n```"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "export const parts = {\n  a: 1,\n\n  b: [2,\n\n 3],\n};",
        "import A from 'a';\nexport function Note({text}) {\n  const a = '}';\n \n  return <p>don't {text}</p>;\n}",
        "export const text = `one }\n\ntwo \\` ${a}`;",
        "export const link = 'https://x.y/{';  // an open {",
        "export const broken = {\n  a: 1,",
        "export const broken = `",
    ],
)
def test_of_mdx_a_statement_is_dropped_whole_and_nothing_else(tmp_path, statement):
    assert page(tmp_path, "a.mdx", f"One.\n\n{statement}\n\nTwo (the {{end}}.\n").text == "One.\n\nTwo (the {end}."
    assert page(tmp_path, "a.mdx", f"{statement}\n\nexport const b = 1\n\nTwo.").text == "Two."


@pytest.mark.parametrize("part", ["\n\nexport const a = {", "export a`", "\\`", "'", '\\"', "{", "//", "\n\n"])
def test_mdx_is_read_in_linear_time(tmp_path, part):
    started = time.perf_counter()
    page(tmp_path, "a.mdx", f"export const a = {{ `{part * 30_000}")
    assert time.perf_counter() - started < 5


def test_a_notebook_gives_its_text_and_code(tmp_path):
    assert page(tmp_path, "a.ipynb", json.dumps(NOTEBOOK)) == (
        "Sorting",
        "How to sort.\n\n```\n# no heading\nsorted([2, 1])\n```\n\n~~~\nprint('```')\n~~~\n\n## End",
    )


@pytest.mark.parametrize("data", ['{"worksheets": []}', "[]", '{"cells": [{"cell_type": "code", "source": 1}]}'])
def test_a_broken_or_old_notebook_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match=r"a\.ipynb: is no notebook of version 4: "):
        page(tmp_path, "a.ipynb", data)


def test_a_notebook_that_is_cut_says_where(tmp_path):
    with pytest.raises(ValueError, match=r"a\.ipynb: line 2: broken JSON: "):
        page(tmp_path, "a.ipynb", '{"cells": [\n {"cell_type": "code"')


def test_an_e_mail_gives_its_subject_and_message(tmp_path):
    assert page(tmp_path, "a.eml", MAIL.replace("\n", "\r\n")) == ("Größe", "The size is 5 ä b.\n\n> Which size?")


@pytest.mark.parametrize(
    ("header", "body", "text"),
    [
        (b"Content-Type: text/html", b"<h2>Oil</h2><p>Check <b>it</b>.", "## Oil\n\nCheck **it**."),
        (b"Content-Type: text/plain; charset=unknown-8bit", "Größe".encode(), "Größe"),
        (b"Subject: without a type", "Größe".encode(), "Größe"),
        (b"Subject: The plan\nContent-Type: application/pdf", b"%PDF", ""),
        (b"\xef\xbb\xbfSubject: with a mark", b"Oil", "Oil"),
        (b"Content-Type: text/html", b"<h1>Oil</h1><p>Check it.", "# Oil\n\nCheck it."),
        (b"Content-Type: message/rfc822", b"Subject: forwarded\n\nOil", "Oil"),
        (b"Content-Type: multipart/mixed", b"without a boundary", "without a boundary"),
        (b"Content-Type: multipart/mixed; boundary=m", b"cut before the boundary", "cut before the boundary"),
        (b"Content-Type: multipart/mixed; boundary=m", b"--m\nContent-Type: text/plain\n\ncut i", "cut i"),
        (b"Content-Type: multipart/alternative; boundary=m", b"--m\n\n \n--m\nContent-Type: text/html\n\n<p>x", "x"),
        (b"Content-Type: multipart/mixed; boundary=m", b"--m\n\nabove\n--m\n\nbelow\n--m--", "above\n\nbelow"),
    ],
)
def test_an_e_mail_is_read_whatever_it_declares(tmp_path, header, body, text):
    assert page(tmp_path, "a.eml", header + b"\n\n" + body).text == text


@pytest.mark.parametrize(
    ("subject", "header", "found"),
    [
        ("Café opening hours".encode("cp1252"), b"", "Café opening hours"),
        ("Café\r\n opening hours".encode(), b"", "Café opening hours"),
        ("Часы работы".encode("koi8-r"), b"\nContent-Type: text/plain; charset=koi8-r", "Часы работы"),
        (
            "Część".encode("iso8859-2"),
            b"\nContent-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/plain; charset=iso-8859-2",
            "Część",
        ),
        (b"Opening\0 hours", b"", "Opening hours"),
        ("Größe =?utf-8?q?und_Ma=C3=9F?=".encode("cp1252"), b"", "Größe und Maß"),
    ],
)
def test_a_subject_is_read_whatever_its_encoding(tmp_path, subject, header, found):
    assert page(tmp_path, "a.eml", b"Subject: " + subject + header + b"\n\nOil").title == found


def test_each_part_of_an_e_mail_is_decoded_once_however_deep_it_is(tmp_path, monkeypatch):
    decoded = []
    get_payload = email.message.EmailMessage.get_payload

    def count(part, i=None, decode=False):
        decoded.extend([part] * decode)
        return get_payload(part, i, decode)

    monkeypatch.setattr(email.message.EmailMessage, "get_payload", count)
    levels = [f"Content-Type: multipart/alternative; boundary=m{i}\n\n--m{i}\n" for i in range(20)]
    assert page(tmp_path, "a.eml", "".join([*levels, "\nOil\n--m19\n\n \n--m19--\n"])).text == "Oil"
    assert len(decoded) == 2


@pytest.mark.parametrize("data", [b"", b"\0\1\2", b"hello\n\nworld"])
def test_a_file_without_headers_is_no_e_mail(tmp_path, data):
    with pytest.raises(ValueError, match=r"a\.eml: is no e-mail"):
        page(tmp_path, "a.eml", data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"Content-Type: application/pdf\n\n%PDF", "holds no text"),
        (
            b"Subject: S\nContent-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/pl",
            "is cut before its text",
        ),
    ],
)
def test_an_e_mail_without_text_is_refused(tmp_path, data, reason):
    with pytest.raises(ValueError, match=rf"a\.eml: {reason}"):
        page(tmp_path, "a.eml", data)


def test_markdown_links_lose_their_targets_whatever_their_titles_hold():
    text = """[a](x "it's") [b](y '"no"') [c](z) [d](w "open"""
    assert clean_markdown(f"{text}\n<!-- x --> end <!-- open") == 'a b c [d](w "open\n end <!-- open'


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("---\nCare: read this.\n\nKeep it dry.\n\n---\nEnd", "---\nCare: read this.\n\nKeep it dry.\n\n---\nEnd"),
        ("---\ntitle: >-\n  Pumps\ntags:\n- a\n\n# of ours\n--- \nEnd", "# Pumps\n\nEnd"),
        ("---\ntitle:\nid: x\n---", ""),
        ("`<!--` and `-->`, ``a` <b>``, `<br>`, `[a](b)`", "`<!--` and `-->`, ``a` <b>``, `<br>`, `[a](b)`"),
        ("<!-- don`t show this --> Shown `x` end, `<!-- a` <!-- `\n` --> b`", "Shown `x` end, `<!-- a`  b`"),
        ("[`run()`](run.md) of <a href='x'>us</a>, <a@b.c>", "`run()` of us, <a@b.c>"),
        ("One[^1].\n\n[^1]: A note.\n[x]: y.z (X)\n[care]: keep dry", "One[^1].\n\n[^1]: A note.\n[care]: keep dry"),
        ("the cell a[i][j] of [ours][1]", "the cell a[i][j] of ours"),
    ],
)  # fmt: skip
def test_of_markdown_no_text_is_taken_for_markup(text, kept):
    assert clean_markdown(text) == kept


@pytest.mark.parametrize("part", ["- a: b\n", "``a`b", "\n`", "[a]: b c\n", "``", "[a]:\n", "<a ", "<!-- "])
def test_markdown_is_cleaned_in_linear_time(part):
    started = time.perf_counter()
    clean_markdown(f"---\n{part * 20_000}")
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("<aside>of <a href=x>x</a>", "</aside>"),
        ("<div class=related><a href=x>x</a>", "</div>"),
        ("<ul><li><a href='#y'>y</a>", "</li></ul>"),
        ("<div><a rel=next href=x></a>", "</div>"),
    ],
)
def test_menus_within_each_other_cost_little_more_than_menus_beside_each_other(start, end):
    times = {"within": [], "beside": []}
    for _ in range(3):
        for place, menus in (("within", start * 450 + end * 450), ("beside", (start + end) * 450)):
            started = time.process_time()
            html_to_markdown(f"<h2>y</h2>{menus}")
            times[place].append(time.process_time() - started)
    assert min(times["within"]) < 8 * min(times["beside"])


def test_of_html_only_the_content_is_read(tmp_path):
    found = page(tmp_path, "a.html", HTML.encode("iso-8859-1"))
    assert found.title == "Coffee"
    assert found.text == (
        "A cup of café for user_name.\n\n"
        '```python\nbrew("*")\n  pour()\n```\n\n| cup | ml |\n| --- | --- |\n| small | 80 |'
    )


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ("<form><input><h1>Oil</h1><p>Check it.</form><form>Search</form>", ("Oil", "Check it.")),
        ("<header>Us</header><article><header><h1>Oil</h1></header><p>Check it.</article>", ("Oil", "Check it.")),
        ("<title>4.1. Oil</title><h2>4.1.&nbsp;<b>Oil</b></h2><p>Check it.", ("4.1. Oil", "Check it.")),
        ("<title>Oil</title><h1>Oil!</h1><h2>Oil</h2><p>Check it.", ("Oil!", "## Oil\n\nCheck it.")),
        ("<title>Oil</title><h2>Oils</h2><p>Check it.", ("Oil", "## Oils\n\nCheck it.")),
        ("<title></title><h2>?</h2><p>Check it.", ("", "## ?\n\nCheck it.")),
        ("<dl class=toc><dt><a href=o.html#a>1. A</a><dt><a href=o.html#b>2. B</a><dt><a href=o.html#c>3. C</a></dl>"
         "<h2>1. A</h2><h2>2. B</h2><h2>3. C</h2>", ("", "## 1. A\n\n## 2. B\n\n## 3. C")),
        ("<p><a href=a.html>A</a> <a href=b.html>B</a> <a href=c.html>C</a><h2>A</h2><h2>B</h2><h2>C</h2>",
         ("", "A B C\n\n## A\n\n## B\n\n## C")),
        ("<aside>Ads</aside><div role=main><p>Check it.</p><aside>Hot!</aside></div>", ("", "Check it.\n\nHot!")),
        ("<main> <div id=app></div></main><div>Check it.</div>", ("", "Check it.")),
    ],
)  # fmt: skip
def test_of_html_no_content_is_taken_for_what_is_around_it(tmp_path, html, found):
    assert page(tmp_path, "a.html", html) == found


# Pages in the form of each generator. What must go reads "no" in one word or another, and no more than this is left.
NAVIGATION = {
    "DocBook": """<html><head><title>36.2. Oil</title></head><body><div class="navheader"><table><tr>
        <th colspan="5">36.2. Oil (no)</th></tr><tr><td><a accesskey="p" href="a">Prev</a></td><td><a accesskey="u"
        href="b">Up</a></td><th>Chapter 36. Engine (no)</th><td><a accesskey="n" href="c">Next</a></td></tr></table>
        <hr></div><div class="sect1"><div class="titlepage"><h1>Oil</h1></div><p>Check it.</p><div class="note"><h3
        class="title">Note</h3><p>When cold.</p></div></div><div class="navfooter"><hr><table><tr><td><a accesskey="p"
        href="a">Prev</a></td></tr><tr><td>36.1. Fuel (no)</td></tr></table></div></body></html>""",
    "Publican": """<body><h1>Oil</h1><p>Check it.<h3>Note</h3><p>When cold.<ul class="docnav"><li class="previous"><a
        accesskey="p" href="a"><strong>Zurück</strong>5. (no)</a><li class="next"><a accesskey="n">Weiter</a></ul>""",
    "Sphinx": """<body><div class="related" role="navigation"><h3>Navigation (no)</h3><ul><li><a href="x"
        accesskey="N">next</a> |<li>Manual 1.0 »</ul></div><div class="document"><div class="documentwrapper"><div
        class="bodywrapper"><div class="body"><h1>Oil<a class="headerlink" href="#o">¶</a></h1><p>Check it.<div
        class="admonition note"><h3><a href="#i" role="doc-backlink">Note</a></h3>
        <p>When cold.</div></div></div></div><div class="sphinxsidebar"><h4>Next
        topic (no)</h4><a href="x">Tyres</a></div></div><div class="footer">© us (no)</div>""",
    "AsciiDoc": """<body><div id="header"><h1>Oil</h1><div id="toc" class="toc"><div id="toctitle">Table of Contents
        </div><ul><li><a href="#a">Note</a><li><a href="#b">1. Level</a><li><a href="#c">2. Change</a></ul></div></div>
        <div id="content"><p>Check it.<h3 id="a">Note</h3><p>When cold.<h3>Level</h3><h3>2. Change</h3></div>
        <div id="footer"><div id="footer-text">Last updated 2024-05-31 (no)</div></div>""",
    "Texinfo": """<body><div class="header"><p>Next: <a href="c" accesskey="n" rel="next">Tyres (no)</a>, Previous:
        <a href="a" rel="prev">Fuel (no)</a>, Up: <a href="b" rel="up">Engine (no)</a> &nbsp; [<a>Contents</a>][<a>Index
        </a>]</p></div><h1>Oil</h1><p>Check it.<h3>Note</h3><p>When cold.""",
    "MkDocs": """<body><div class="navbar fixed-top"><a class="navbar-brand">Site (no)</a></div><div class="container">
        <div class="col-md-3"><div class="bs-sidebar" role="complementary"><a href="#a">(no)</a></div></div><div
        class="col-md-9" role="main"><h1>Oil</h1><p>Check it.<h3>Note</h3><p>When cold.</div></div><footer>(no)</footer>
        <div class="modal" id="mkdocs_search_modal" role="dialog"><h4>Search (no)</h4></div>""",
    "Material for MkDocs": """<body><header class="md-header"><nav><a>Site (no)</a></nav></header><main class="md-main">
        <div class="md-sidebar"><a>Fuel (no)</a></div><div class="md-content"><article class="md-content__inner"><a
        class="md-content__button" href="e">Edit (no)</a><h1>Oil<a class="headerlink">¶</a></h1><p>Check it.<h3>Note
        </h3><p>When cold.</article></div></main><footer class="md-footer"><a rel="next">Tyres (no)</a></footer>""",
    "Docusaurus": """<body><div role="region"><a class="skipToContent_x">Skip (no)</a></div><nav class="navbar">Site
        </nav><div class="main-wrapper"><aside class="theme-doc-sidebar-container"><ul><li>Fuel (no)</ul></aside><main>
        <div class="row"><div class="col"><article><nav class="theme-doc-breadcrumbs">Engine (no)</nav><header><h1>Oil
        </h1></header><p>Check it.<h3>Note<a class="hash-link" href="#n">​</a></h3><p>When cold.</article><nav
        class="pagination-nav"><a>Next Tyres (no)</a></nav></div><div class="col col--3"><div
        class="theme-doc-toc-desktop"><ul><li><a href="#n">Note</a></ul></div></div></div></main></div>
        <footer>(no)</footer>""",
    "javadoc": """<body><noscript>(no)</noscript><div class="topNav"><div class="skipNav"><a href="#skip">Skip (no)</a>
        </div><ul class="navList"><li>Overview (no)<li>Class (no)</ul></div><div class="subNav"><ul class="navList"><li>
        <a>Prev Class (no)</a></ul></div><div class="header"><h1>Oil</h1></div><ul class="blockList"><li><p>Check it.
        <ul class="blockList"><li><h3>Note</h3><p>When cold.</ul></ul><div class="bottomNav"><ul class="navList"><li>
        Overview (no)</ul></div><p class="legalCopy"><small>© us (no)</small></p>""",
    "hand-written": """<body><center><table><tr><td><a href="a">&lt;&lt; Previous</a><td>Chapter 2 (no)<td><a href="c">
        Next</a></table></center><hr><h1>Oil</h1><p>Check it.<h3>Note</h3><p>When cold.<hr>[<a href="a">Previous page
        </a>] | [<a href="c">Next page</a>] | <a href="i"><img alt="up"></a>""",
}


@pytest.mark.parametrize("generator", NAVIGATION)
def test_of_a_site_navigation_goes_and_content_stays(tmp_path, generator):
    found = page(tmp_path, "a.html", NAVIGATION[generator])
    text = f"Check it.\n\n{'**Note**' if generator in ('DocBook', 'Sphinx') else '### Note'}\n\nWhen cold."
    assert found == ("Oil", text + "\n\n### Level\n\n### 2. Change" * (generator == "AsciiDoc"))


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>See the <a href=b>next</a> or <a rel=prev href=a>first</a> part.", "See the next or first part."),
        ("<ul><li><a>current</a><li><a>next</a><li><a>prev</a></ul>", "* current\n* next\n* prev"),
        ("<h2 id=pagination>Paging</h2><div id=footer><h3>Footers</h3>x</div>", "## Paging\n\n### Footers\n\nx"),
        ("<table><tr><th>a<th>b<tr class=footer><td>All<td>3</table>", "| a | b |\n| --- | --- |\n| All | 3 |"),
        ("<ul><li><a href=#a>A</a><li><a href=#b>B</a><li><a href=#c>C</a></ul><h2>A</h2>", "* A\n* B\n* C\n\n## A"),
        ("<blockquote>Oil!<footer>A. Uthor</footer></blockquote>", "> Oil!\n>\n> A. Uthor"),
        ("<header><h1>Our site</h1></header><p>x", "x"),
        ("<main>x</main>", "x"),  # which lxml takes for a part of the head
        ("<nav><a href=a>Oil</a> <a href=b>Fuel</a></nav>", "Oil Fuel"),  # a page of nothing else
        ("<frameset><frame src=a><noframes>Old</noframes></frameset>", ""),
        ('<h2><a href="#next">next</a></h2><p>Returns it.', "## next\n\nReturns it."),
        ('<h2><a href="i.html">next</a></h2><p>Returns it.', "## next\n\nReturns it."),
        ('<h3 id=next><a class=anchor href="#next">next()</a></h3><p>x', "### next()\n\nx"),
        ("<dl><dt><a href=k.html#n>next</a><dd>Moves on.</dl>", "next\nMoves on."),
        ("<details><summary><a href=n>next</a></summary><p>On.</details>", "**next**\n\nOn."),
        ('<p>See:<p><a href="#next">next</a>', "See:\n\nnext"),
        ("<p>Mount it.<p>Next, <a href=b>tighten the bolts</a>.<p>Done.",
         "Mount it.\n\nNext, tighten the bolts.\n\nDone."),
        ("<p>Mount it.<p>Next <a href=b>tighten the bolts</a>.<p>Done.",
         "Mount it.\n\nNext tighten the bolts.\n\nDone."),
        ("x<table><tr><td><a href=n>next</a><tr><td>runs<tr><td><a href=u>up</a><td>Moves up</table>",
         "x\n\n| next |  |\n| --- | --- |\n| runs |  |\n| up | Moves up |"),
        ("x<table><tr><td><a href=n>next</a><td><a href=p>prev</a><tr><td>1<td>2<tr><td>3<td>4<tr><td>5<td>6</table>",
         "x\n\n| next | prev |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |"),
        ("x<section class=pagination><h2>Pages</h2><p>Pass the cursor of the last.</section>",
         "x\n\n## Pages\n\nPass the cursor of the last."),
        ("<main>x<div class=related><h2>Related commands</h2><p><a>log</a> shows the whole history.</div></main>",
         "x\n\n## Related commands\n\nlog shows the whole history."),
        ("<div>one<hr>two</div>", "one\ntwo"),
        ("<p>x<hr><p>y", "x\n\ny"),
        ("<table><tr><td>a<td>1<hr>2<tr><td>b<td>3</table>", "| a | 1 2 |\n| --- | --- |\n| b | 3 |"),
        ("<div>Intro<nav>menu</nav>Body</div>", "Intro Body"),
        ("<div>one<form>q</form>two</div>", "one two"),
        ("<pre><span class=linenos>1</span>run()</pre>", "```\nrun()\n```"),
        ("<div><h3><a href=#a>A</a></h3><h3><a href=#b>B</a></h3><h3><a href=#c>C</a></h3></div>",
         "### A\n\n### B\n\n### C"),
    ],
)  # fmt: skip
def test_content_is_not_taken_for_navigation(tmp_path, html, text):
    assert page(tmp_path, "a.html", f"<title>T</title>{html}") == ("T", text)


@pytest.mark.parametrize(
    "html",
    [
        "<aside><h4>Menu</h4><ul><li><a>The engine</a><li><a>The tyres</a><li><a>The brakes</a></ul></aside>",
        "<dialog>Accept our cookies?</dialog>",
        "<ul class=breadcrumb><li><a>Home</a><li>Check it</ul>",
        "<div class=pagination><a>1</a> <span>Page 2 of 12</span></div>",
        "<div class=related><h3>Other parts of the truck</h3>" + "<a>The engine block</a> " * 9 + "</div>",
        "<table><tr><td><a href=a>Prev</a><td><a href=i>Up</a><td><a href=c>Next</a><tr><td>Fuel<td><td>Tyres</table>",
    ],
)
def test_menus_dialogs_and_trails_go(tmp_path, html):
    assert page(tmp_path, "a.html", f"{html}<p>x<p>y").text == "x\n\ny"


def test_the_title_of_a_drawing_is_not_that_of_the_page(tmp_path):
    assert page(tmp_path, "a.html", "<svg><title>Icon</title></svg><p>Text") == ("", "Text")


def test_notes_and_hidden_tabs_are_kept(tmp_path):
    html = (
        "<p>One.<aside><a>Mind</a> the <b>gap</b>.</aside><ul role=tablist><li role=tab>Linux<li role=tab>Windows</ul>"
        '<div role=tabpanel>ls</div><div role=tabpanel hidden>dir</div><div style="display:none">Two.</div>'
    )
    text = "One.\n\nMind the **gap**.\n\n* Linux\n* Windows\n\nls\n\ndir\n\nTwo."
    assert page(tmp_path, "a.html", html).text == text


@pytest.mark.parametrize("suffix", ["", "<main><h2>Oil</h2><p>Check it.</main>"])
def test_text_around_an_article_is_kept(tmp_path, suffix):
    text = page(tmp_path, "a.html", f"<p>Before.<article><p>In it.</article><p>After.{suffix}").text
    assert text.startswith("Before.\n\nIn it.\n\nAfter.") and ("Check it." in text) == bool(suffix)


def test_a_page_within_a_form_is_read_and_a_search_form_is_not(tmp_path):
    html = (
        '<form id="aspnetForm"><input type="hidden" name="__VIEWSTATE"><div><span>Opening hours</span><table><tr>'
        "<td>Monday<td>8 to 5<tr><td>Tuesday<td>8 to 6</table></div></form>"
    )
    text = "Opening hours\n\n| Monday | 8 to 5 |\n| --- | --- |\n| Tuesday | 8 to 6 |"
    assert page(tmp_path, "a.html", f"<form>Find <input name=q></form>{html}").text == text


def test_what_a_table_cannot_hold_is_not_squeezed_into_one(tmp_path):
    html = (
        "<table><tr><td><h2>Oil</h2><ul><li>check<li>change</ul><td><table><tr><th>a<td>1<tr><th>b<td>2</table>"
        "<tr><td><pre>run\n  it</pre></table>"
    )
    text = "## Oil\n\n* check\n* change\n\n| a | 1 |\n| --- | --- |\n| b | 2 |\n\n```\nrun\n  it\n```"
    assert page(tmp_path, "a.html", html).text == text


@pytest.mark.parametrize("kind", ["note", "Tip", "admonition warning", "caution", "important"])
def test_the_heading_of_a_note_begins_no_section(tmp_path, kind):
    html = f"<h2>Oil</h2><div class='{kind}'><h3 class=title><b>Mind</b> it</h3><p>x</p><h3>Use</h3></div><p>y"
    assert page(tmp_path, "a.html", html).text == "## Oil\n\n**Mind it**\n\nx\n\n### Use\n\ny"


def test_a_line_break_within_code_of_a_sentence_is_a_space(tmp_path):
    html = "<p>A <code>PRIMARY\n     <i>main\n KEY</i>\n</code> is <code>a  b</code>.<pre><code>x\n  y</code>\n z</pre>"
    assert page(tmp_path, "a.html", html).text == "A `PRIMARY main KEY ` is `a  b`.\n\n```\nx\n  y\n z\n```"


def test_a_term_stands_on_the_line_above_its_definition(tmp_path):
    html = (
        "<dl><dt><code>-a</code> <i>n</i> </dt><dt>--all</dt><dd><p>Takes all.</p><p>Or <i>n</i>.</p></dd><dt>-b</dt>"
        "<dd><ul><li>x<dl><dt>t</dt><dd><p>d</p></dd></dl></li></ul></dd></dl><table><tr><th>k<td><dl><dt>t<dd>d</dl>"
    )
    text = "`-a` *n*\n--all\nTakes all.\n\nOr *n*.\n\n-b\n* x\n\n  t\n  d\n\n| k | t d |\n| --- | --- |"
    assert page(tmp_path, "a.html", html).text == text


@pytest.mark.parametrize(
    "text", ["1. Open", "- dash", "# not", "+ a", "C:\\_a\\(b\\)", "a_b *c* [d](e)", "\\# a", "5 < 6 & x", "`a\\(b`"]
)
def test_no_character_of_html_is_escaped(tmp_path, text):
    html = text.replace("&", "&amp;").replace("<", "&lt;")
    found = page(tmp_path, "a.html", f"<p>It is:<p>{html}<pre>{html}").text
    assert found == f"It is:\n\n{text}\n\n```\n{text}\n```"


@pytest.mark.parametrize(
    "part",
    [*("<a rel=next>x</a>", "<p><a>next</a>", "<a href=#a>a", "<h2>a</h2><a href=#a>a</a>", "<form>x</form>"),
     *("<ul><li><a href=#a>a</ul>", "<header>x</header>", "<table><tr><td><pre>x</pre></table>", "<a>» «", "<p>\\")],
)  # fmt: skip
def test_html_is_read_in_linear_time(tmp_path, part):
    started = time.perf_counter()
    page(tmp_path, "a.html", f"<p>x</p>{part * 900}<p>y")
    once = time.perf_counter() - started
    page(tmp_path, "a.html", f"<p>x</p>{part * 900 * 8}<p>y")
    assert time.perf_counter() - started < 40 * once + 2


@pytest.mark.parametrize("part", ["<aside>x", "<form><div>x"])
def test_html_that_is_nested_too_deep_is_refused_in_linear_time(tmp_path, part):
    started = time.perf_counter()
    with pytest.raises(ValueError, match="nested too deep"):
        page(tmp_path, "a.html", f"<main>{part * 4000}<p>x")
    assert time.perf_counter() - started < 5


def test_code_with_fences_in_it_is_fenced_by_longer_ones(tmp_path):
    code = "```sh\n# no heading\n```"
    assert page(tmp_path, "a.html", f"<pre>\n{code}\n</pre><p>end").text == f"````\n{code}\n````\n\nend"
    block = code.replace("\n", "\n   ")
    assert page(tmp_path, "a.rst", f".. code-block::\n\n   {block}\n\nend").text == f"````\n{code}\n````\n\nend"


def test_xhtml_is_read_without_a_warning(tmp_path, recwarn):
    xhtml = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html><html xmlns="x"><p>größer</p></html>'
    assert page(tmp_path, "a.html", xhtml).text == "größer" and not recwarn.list


def test_html_without_headings_takes_its_title_element(tmp_path):
    found = page(tmp_path, "a.html", "<title>Lamp</title><p>one<p>two<p>three")
    assert found == ("Lamp", "one\n\ntwo\n\nthree")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Der Käse ist für die Mäuse. Die Größe kostet 5 €.", "cp1252"),
        ("café", "latin-1"),
        ("Привет, как дела? Это русский текст для проверки.", "koi8-r"),
        ("Zażółć gęślą jaźń, proszę państwa", "iso-8859-2"),
        ("これは日本語の文章です。文字コードを判定します。", "shift_jis"),
        ("größer", "utf-16"),
        ("größer", "utf-8-sig"),
    ],
)
def test_the_encoding_is_detected(tmp_path, text, encoding):
    assert normalize(text) == page(tmp_path, "a.txt", text.encode(encoding)).text


ENGLISH = "The engine burns diesel fuel. Check the oil every week.\n" * 50
CHINESE = "发动机燃烧柴油。每周检查一次机油油位,发动机热的时候千万不要打开散热器。备件可以在任何一个大城市买到。\n"
JAPANESE = "エンジンは軽油を燃やします。毎週オイルの量を確認し、熱い間は絶対にラジエーターを開けないでください。\n"
KOREAN = "엔진은 경유를 태웁니다. 매주 오일의 양을 확인하고 엔진이 뜨거울 때는 절대로 라디에이터를 열지 마십시오.\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (ENGLISH + "the café, its “naïve” résumé … déjà vu\n" + ENGLISH, "cp1252"),
        (ENGLISH + "“hot”\n", "cp1252"),
        (CHINESE * 20, "gbk"),
        (CHINESE * 20, "utf-16"),
        (ENGLISH + CHINESE + ENGLISH, "gb2312"),
        (JAPANESE * 20, "shift_jis"),
        (ENGLISH + JAPANESE, "euc_jp"),
        (JAPANESE * 20, "iso2022_jp"),
        (KOREAN * 20, "euc_kr"),
        (ENGLISH + KOREAN, "cp949"),
        (ENGLISH * 90 + "Проверяйте уровень масла каждую неделю, пока двигатель горячий.", "cp1251"),
        ("größer und größer", "utf-16-le"),
    ],
)
def test_no_character_is_lost_or_wrong(tmp_path, text, encoding):
    assert page(tmp_path, "a.txt", text.encode(encoding)).text == normalize(text).strip()


def test_utf_8_and_cp1252_in_one_file_are_read_each_as_what_it_is(tmp_path):
    data = "Größe und Maß\n".encode() * 9 + "“Größe” und Maß\n".encode("cp1252")
    assert page(tmp_path, "a.txt", data).text == "Größe und Maß\n" * 9 + "“Größe” und Maß"


def test_a_byte_that_no_encoding_has_leaves_a_mark(tmp_path):
    assert page(tmp_path, "a.txt", "Größe, ".encode() + b"Ma\x81").text == "Größe, Ma\ufffd"


@pytest.mark.parametrize(
    ("declaration", "text", "encoding"),
    [
        ('<meta charset="iso-8859-1">', "“hot” café", "cp1252"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=windows-1250">', "Částka", "cp1250"),
        ('<?xml version="1.0" encoding="windows-1250"?>', "Částka", "cp1250"),
        ('<meta charset="gb2312">', "镕基", "gbk"),
        ('<meta charset="iso-8859-1">', "größer", "utf-8"),  # declared by a server's default, and wrong
        ('<meta charset="utf-16">', "cafe au lait", "ascii"),
        ('<meta charset="idna">', "café", "cp1252"),
    ],
)
def test_html_is_read_in_the_encoding_that_it_declares_unless_it_is_utf_8(tmp_path, declaration, text, encoding):
    data = f"{declaration}<p>{text}".encode(encoding)
    assert page(tmp_path, "a.html", data).text == text


@pytest.mark.parametrize("data", [b"\0\1\2", bytes(range(256)) * 9, b"\x89PNG\r\n\x1a\n" + bytes(range(128, 256)) * 9])
def test_a_binary_file_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match=r"a\.txt: binary, not text"):
        page(tmp_path, "a.txt", data)


def test_pages_are_joined_without_running_headers_and_hyphens():
    names = ["feed", "bilge", "fire", "oil"]
    pages = [
        f"Pump manual 2026\nEvery {name} pump is in-\nstalled by hand and\nruns for {name} years.\n{i} of 4"
        for i, name in enumerate(names)
    ]
    lines = [f"Every {name} pump is installed by hand and runs for {name} years." for name in names]
    assert join_pages(pages).splitlines() == lines


def test_lines_of_chinese_are_joined_without_a_space():
    assert join_pages(["每周检查机\n油油位、\n发动机。\n打开"]) == "每周检查机油油位、发动机。\n打开"


def write_pdf(file, pages, **options):
    """Write a PDF with one text a page."""
    with PdfPages(file, **options) as book:
        for text in pages:
            figure = Figure()
            figure.text(0.1, 0.5, text)
            book.savefig(figure)


def test_a_pdf_gives_its_text_and_title(tmp_path):
    write_pdf(tmp_path / "a.pdf", ["Open the valve slowly.", "Close it at night."], metadata={"Title": "Valves"})
    assert read_page(tmp_path / "a.pdf") == ("Valves", "Open the valve slowly.\nClose it at night.")


def test_a_pdf_without_text_is_refused(tmp_path):
    write_pdf(tmp_path / "a.pdf", [""])
    with pytest.raises(ValueError, match=r"holds no text; if its pages are scans, recognize"):
        read_page(tmp_path / "a.pdf")


def encrypt_pdf(file, algorithm, user=""):
    """Encrypt a PDF; AES, which its writer cannot do without cryptography, by its label alone."""
    writer = pypdf.PdfWriter(file)
    writer.encrypt(user, "owner", algorithm="RC4-128")
    if algorithm == "AES":
        name, number = pypdf.generic.NameObject, pypdf.generic.NumberObject
        kind = pypdf.generic.DictionaryObject({name("/CFM"): name("/AESV2"), name("/Length"): number(16)})
        filters = pypdf.generic.DictionaryObject({name("/StdCF"): kind})
        writer._encrypt_entry.update({name("/V"): number(4), name("/R"): number(4), name("/CF"): filters})
        writer._encrypt_entry.update({name("/StmF"): name("/StdCF"), name("/StrF"): name("/StdCF")})
    writer.write(file)


def test_a_pdf_that_is_encrypted_for_permissions_is_read(tmp_path):
    write_pdf(tmp_path / "a.pdf", ["Open the valve slowly."])
    encrypt_pdf(tmp_path / "a.pdf", "RC4")
    assert read_page(tmp_path / "a.pdf").text == "Open the valve slowly."
    encrypt_pdf(tmp_path / "a.pdf", "RC4", user="secret")
    with pytest.raises(ValueError, match=r"a\.pdf: is encrypted"):
        read_page(tmp_path / "a.pdf")


@pytest.mark.skipif(
    importlib.util.find_spec("cryptography") is not None,
    reason="NOT RUN: cryptography is installed, so it is not missing",
)
def test_the_library_that_decrypts_a_pdf_is_named(tmp_path):
    write_pdf(tmp_path / "a.pdf", ["Open the valve slowly."])
    encrypt_pdf(tmp_path / "a.pdf", "AES")
    with pytest.raises(ImportError, match="cryptography"):
        read_page(tmp_path / "a.pdf")


def test_the_limit_of_size_is_for_text(tmp_path):
    write_pdf(tmp_path / "a.pdf", ["Open the valve slowly."])
    writer = pypdf.PdfWriter(tmp_path / "a.pdf")
    writer.add_attachment("large", bytes(21_000_000))
    writer.write(tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").stat().st_size > 20_000_000
    assert read_page(tmp_path / "a.pdf").text == "Open the valve slowly."


def write_docx(file, paragraphs):
    """Write a Word file of (style, text) paragraphs."""
    names = "http://schemas.openxmlformats.org"
    body = "".join(
        f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>'
        for style, text in paragraphs
    )
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="{name.replace(" ", "")}"><w:name w:val="{name}"/></w:style>'
        for name in ("Title", "heading 1", "Normal")
    )
    word = f'xmlns:w="{names}/wordprocessingml/2006/main"'
    content = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{names}/package/2006/content-types">'
        f'<Override PartName="/word/document.xml" ContentType="{content}"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{names}/package/2006/relationships"><Relationship Id="r" '
        f'Type="{names}/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f"<w:document {word}><w:body>{body}</w:body></w:document>",
        "word/styles.xml": f"<w:styles {word}>{styles}</w:styles>",
    }
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_a_docx_keeps_its_title_and_headings(tmp_path):
    write_docx(
        tmp_path / "a.docx", [("Title", "Pumps"), ("heading1", "Care"), ("Normal", "Clean it."), ("Normal", "Dry it.")]
    )
    assert read_page(tmp_path / "a.docx") == ("Pumps", "# Care\n\nClean it.\n\nDry it.")


@pytest.mark.parametrize("name", ["a.pdf", "a.docx"])
@pytest.mark.parametrize("data", [b"", b"no such thing", b"%PDF-1.4\n%%EOF", b"PK\3\4 torn"])
def test_a_broken_pdf_or_docx_is_refused(tmp_path, name, data):
    with pytest.raises(ValueError, match=f"{name}: is no readable {name[2:].upper()}"):
        page(tmp_path, name, data)


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    assert page(tmp_path, "a.md", codecs.BOM_UTF8 + b"# Title\n\ntext") == ("Title", "text")
