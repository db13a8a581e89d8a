"""Files of the formats that pandoc reads."""

import sys
import time

import pypandoc
import pytest

from utils.documents.formats import pandoc
from utils.documents.formats.registry import read_page
from utils.documents.reading import read_documents

ASCIIDOC = """\
= The pump
A. Uthor <a@x.y>
:host: x.y
:site: https://{host}
ifdef::env-github[]
:tip-caption: :bulb:
endif::[]

ifndef::print[Read [this].]
Use {site}[our site] and <<care,the part on care>>.footnote:[Or call.]

== Care

NOTE: Keep it *dry*.

include::secret.adoc[]

[source,python]
----
# no heading
run(1)
----

|===
|Part |Torque

|Bolt |20 Nm
|Nut |9 Nm
|===
"""

ORG = """\
#+TITLE: The pump
#+SUBTITLE: A manual
* TODO Care :work:
  :PROPERTIES:
  :CUSTOM_ID: care
  :END:
See [[https://x.y][our site]].
#+BEGIN_SRC python
# no heading
#+END_SRC
** Oil
- weekly
"""

LATEX = r"""
\documentclass{article}
\usepackage{unknown}
\newcommand{\pump}{pump}
\title{The \pump}
\begin{document}
\maketitle
\begin{abstract}
Of pumps.

And oil.
\end{abstract}
\section{Care}
The \pump{} costs \$5 \& runs at $v_0^2$. % a comment
\input{secret}
\begin{verbatim}
# no heading
\end{verbatim}
\end{document}
"""


def page(tmp_path, name, data):
    """Return the page of a file with this name and content."""
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_page(tmp_path / name)


def test_asciidoc_keeps_headings_code_tables_and_notes(tmp_path):
    (tmp_path / "secret.adoc").write_text("not read here")
    assert page(tmp_path, "a.adoc", ASCIIDOC) == (
        "The pump",
        "Read [this]. Use our site and the part on care.\n\n# Care\n\nNote\n\nKeep it **dry**.\n\n"
        "```\n# no heading\nrun(1)\n```\n\n"
        "| Part | Torque |\n| --- | --- |\n| Bolt | 20 Nm |\n| Nut | 9 Nm |\n\n1. Or call.",
    )


def test_brackets_of_asciidoc_cost_linear_time(tmp_path):
    (tmp_path / "a.adoc").write_text("endif::" + "[]" * 20_000 + "x\n\nOil")
    started = time.perf_counter()
    assert read_page(tmp_path / "a.adoc").text.endswith("Oil")
    assert time.perf_counter() - started < 10


def test_org_loses_keywords_tags_and_drawers(tmp_path):
    text = "A manual\n\n# Care\n\nSee our site.\n\n```\n# no heading\n```\n\n## Oil\n\n* weekly"
    assert page(tmp_path, "a.org", ORG) == ("The pump", text)


def test_latex_is_read_with_its_macros_and_without_other_files(tmp_path):
    (tmp_path / "secret.tex").write_text("not read here")
    text = "Of pumps.\n\nAnd oil.\n\n# Care\n\nThe pump costs $5 & runs at \\(v_0^2\\).\n\n```\n# no heading\n```"
    assert page(tmp_path, "a.tex", LATEX) == ("The pump", text)


@pytest.mark.parametrize("suffix", ["epub", "odt"])
def test_books_and_office_texts_keep_headings_and_lists(tmp_path, suffix):
    file, text = tmp_path / f"a.{suffix}", "# Care\n\nKeep it dry, Jürgen.\n\n## Oil\n\n- weekly\n- or daily\n"
    options = ["--standalone", *(["--metadata=title:The pump"] if suffix == "epub" else [])]
    pypandoc.convert_text(text, suffix, "markdown", extra_args=options, outputfile=str(file))
    title, found = read_page(file)
    assert title == ("The pump" if suffix == "epub" else "Care")
    assert found.removeprefix("# Care\n\n") == "Keep it dry, Jürgen.\n\n## Oil\n\n* weekly\n* or daily"


def test_a_book_is_read_whole_whatever_stands_in_its_chapters(tmp_path):
    chapters = "One.\n\n# Two\n\n<article>In two.</article>\n\n# Three\n\n<aside>Mind it.</aside>\n"
    pypandoc.convert_text(chapters, "epub", "markdown", outputfile=str(tmp_path / "a.epub"))
    text = read_page(tmp_path / "a.epub").text
    assert all(part in text for part in ("One.", "In two.", "Three", "Mind it."))


def test_text_files_may_be_in_another_encoding(tmp_path):
    text = "Für die Mäuse, die Größe kostet 5 €."
    assert page(tmp_path, "a.org", f"* Käse\n{text}\n".encode("cp1252")) == ("Käse", text)


@pytest.mark.parametrize("name", ["a.epub", "a.odt", "a.tex"])
def test_a_broken_file_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: is no readable {name[2:].upper()}: \S"):
        page(tmp_path, name, r"\begin{a} PK \end{b}")


def test_a_file_that_takes_too_long_for_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pandoc, "TIMEOUT", 0.001)
    monkeypatch.setattr(pandoc, "TIMEOUT_PER_MB", 1e6)
    assert page(tmp_path, "a.org", ORG).title == "The pump"
    monkeypatch.setattr(pandoc, "TIMEOUT_PER_MB", 0)
    with pytest.raises(ValueError, match=r"a\.org: pandoc needs more than 0\.001 seconds"):
        page(tmp_path, "a.org", ORG)


def test_where_pandoc_is_missing_it_is_named_with_the_files_that_need_it(docs, monkeypatch):
    for name in ("a.adoc", "b.adoc", "c.epub"):
        (docs / name).write_text("= A")
    monkeypatch.setitem(sys.modules, "pypandoc", None)
    assert read_documents(docs).skipped == [
        "2 .adoc files; to read them: pip install pypandoc_binary",
        "1 .epub files; to read them: pip install pypandoc_binary",
    ]
