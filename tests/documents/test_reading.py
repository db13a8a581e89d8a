"""Reading of files and folders of all formats."""

import json
import os
import sys
from pathlib import Path

import pytest
from conftest import run

from utils.documents.formats.registry import READERS
from utils.documents.reading import read_documents, stream_documents
from utils.records import REPORT_MARKS


def documents_by_id(folder):
    return {document.id: document for document in read_documents(folder).documents}


def test_a_folder_of_all_formats(docs):
    found = documents_by_id(docs)
    assert list(found) == [
        "brakes.txt", "engine.md", "lights.html", "more.json#1", "more.json#2", "mirror-1", "tyres.rst",
    ]  # fmt: skip
    assert found["engine.md"].title == "Engine manual" and "## Starting" in found["engine.md"].text
    assert found["tyres.rst"].title == "Tyres" and "====" not in found["tyres.rst"].text
    assert found["lights.html"].title == "Lights"
    assert "24 volts" in found["lights.html"].text
    assert "alert" not in found["lights.html"].text and "color" not in found["lights.html"].text
    assert found["mirror-1"].full_text.startswith("Mirrors\nAdjust both mirrors")
    assert found["brakes.txt"].title == ""


def test_an_unreadable_file_is_reported_and_skipped(docs):
    (docs / "broken.json").write_text('["a",\n "b" "c"]')
    (docs / "binary.md").write_bytes(b"\0\1\2")
    documents, skipped = read_documents(docs)
    assert len(documents) == 7 and len(skipped) == 2
    assert any("broken.json: line 2" in reason for reason in skipped)


def test_a_missing_library_is_named_with_the_files_that_need_it(docs, monkeypatch):
    for name in ("a.pdf", "b.pdf", "c.docx"):
        (docs / name).write_bytes(b"-")
    monkeypatch.setitem(sys.modules, "pypdf", None)
    monkeypatch.setitem(sys.modules, "mammoth", None)
    assert read_documents(docs).skipped == [
        "2 .pdf files; to read them: pip install pypdf",
        "1 .docx files; to read them: pip install mammoth",
    ]
    with pytest.raises(ImportError, match=r"c\.docx: to read it: pip install mammoth"):
        read_documents(docs / "c.docx")


def test_pages_that_a_folder_holds_in_two_formats_are_named(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    for name in ("oil", "a/tyres", "fuel"):
        text = f"Check the {name} of the truck every week, and change what is worn."
        (tmp_path / f"{name}.html").write_text(f"<p>{text}")
        (tmp_path / f"{name}.txt").write_text("Mail us.\n" if name == "fuel" else text)
    (tmp_path / "tyres.txt").write_text("Check the a/tyres of the truck every week, and change what is worn.")
    assert len(read_documents(tmp_path).documents) == 7
    assert "2 pages are there as .html and as .txt, such as a/tyres.html; both are read" in capsys.readouterr().out


def test_lines_around_every_page_are_left_out(tmp_path):
    for i in range(12):
        (tmp_path / f"{i}.md").write_text(f"Home - Docs - About\n\n# Part {i}\n\nText {i}.\n\nCopyright by us")
    texts = [document.text for document in read_documents(tmp_path).documents]
    assert texts[1] == "# Part 1\n\nText 1." and not any("Copyright" in text for text in texts)


MENU = "<ul><li>Home<li>Docs<ul><li>Engine<li>Tyres<li>Brakes</ul><li>Downloads<li>About us</ul>"
OFFER = "Our workshop in the old harbor checks your truck before every long journey, at any time."
PARTS = ["axle", "belt", "door", "fuel", "horn", "lamp", "lock", "oil", "pump", "seat", "wheel"]


def write_site(folder, content):
    """Write pages, one a part of a truck, with a banner, a menu, an offer within the text and a license."""
    folder.mkdir(parents=True)
    for day, part in enumerate(PARTS, 1):
        (folder / f"{part}.html").write_text(
            f"<title>{part}</title><div>Trucks of ours</div><div>{MENU}</div><h2>About the {part}</h2>"
            f"<p>Check the {part}.<p>{OFFER}<p>Example:<p>{content.format(part)}"
            f"<p>© us<p>Page last updated May {day}, 2024"
        )


def test_what_half_of_the_pages_of_a_site_share_is_left_out_wherever_it_stands(tmp_path):
    write_site(tmp_path / "site", "The {} of a truck that we had here.")
    for i in range(20):
        (tmp_path / f"{i}.html").write_text(f"<p>Page {i} of another kind.")
    documents, skipped = read_documents(tmp_path)
    texts = {document.id: document.text for document in documents}
    kept = "## About the {0}\n\nCheck the {0}.\n\n{1}Example:\n\nThe {0} of a truck that we had here."
    assert texts["site/wheel.html"] == kept.format("wheel", "")
    assert texts["site/axle.html"] == kept.format("axle", f"{OFFER}\n\n")  # for nothing else holds it any more
    assert texts["7.html"] == "Page 7 of another kind."
    (reason,) = skipped
    assert reason.startswith("text that many pages share, left out of 11 of 11 .html files in site: “Trucks of ours * ")
    assert "“© us Page last changed” (11)" in reason and "“Our workshop in the old harbor" in reason


FACTS = [
    *("Applies to: version 5.2", "All dimensions in millimetres", "Disconnect the battery before any work!"),
    *("You may copy and change this manual, if you tell whose it is.", "Maße in Millimeter nach DIN"),
    "切断前请务必断开电池的连接。",
]
AROUND = [
    *("Home - Docs - About us", "Prev | Up | Next", "Engine Tyres Brakes Downloads", "* Engine\n* Tyres\n* Brakes"),
    *("Small. Fast. Choose any three.", "© 2024 Trucks of ours, all of them.", "Was this page of any help to you?"),
    *("Built with a tool that makes pages of this kind.", "See also the list of all our trucks."),
    *("Report a bug on this page.", "Subscribe to hear of our new trucks first.", "Documentation for Trucks 15.4"),
    *("Enter search terms or the name of a part.", "This page was last edited by us on a Monday."),
]


@pytest.mark.parametrize("suffix", [".md", ".html"])
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_fact_around_all_pages_is_left_on_the_first_alone(tmp_path, suffix, place):
    for number, text in enumerate(FACTS + AROUND):
        shared = f"<p>{text}</p>" if suffix == ".html" else text
        for part in PARTS:
            page = f"The {part} of a truck {number}.\n"
            content = f"{shared}\n\n{page}" if place == "first" else f"{page}\n{shared}"
            (tmp_path / str(number)).mkdir(exist_ok=True)
            (tmp_path / str(number) / f"{part}{suffix}").write_text(content, encoding="utf-8")
    texts = [document.text for document in read_documents(tmp_path).documents]
    for text in FACTS:
        assert sum(text in page for page in texts) == 1
    for text in AROUND:
        assert not any(text in page for page in texts)


def test_a_heading_stays_with_the_fact_below_it_and_other_lines_around_go(tmp_path):
    content = {part: " ".join([f"The {part} of a truck is checked here."] * 5) for part in PARTS}
    for part in PARTS:
        (tmp_path / f"{part}.html").write_text(
            f"<p>For all our trucks.<p>Home - Docs<p>{content[part]}<h2>Safety</h2><p>Stop the engine first."
            "<p>Home - Docs<p>Applies to: Europe<p>© us"
        )
    texts = [document.text for document in read_documents(tmp_path).documents]
    around = "For all our trucks.\n\n{}\n\n## Safety\n\nStop the engine first.\n\nApplies to: Europe"
    assert texts == [around.format(content["axle"]), *(content[part] for part in PARTS[1:])]


def test_editions_of_a_page_do_not_lose_what_they_share(tmp_path):
    write_site(tmp_path / "site", "This is the same text in all of the pages. " * 20)
    assert all("This is the same" in document.text for document in read_documents(tmp_path).documents)


def test_long_editions_of_a_page_that_differ_in_one_line_do_not_lose_their_ends(tmp_path):
    for i in range(12):
        folder = tmp_path / f"v{i}"
        folder.mkdir()
        sections = (f"<h2>Section {k}</h2><p>{f'Edition {i}' if k == 200 else f'Text {k}'}." for k in range(600))
        (folder / "manual.html").write_text("".join(sections))
    documents, skipped = read_documents(tmp_path)
    assert not skipped and all(document.text.count("## Section") == 600 for document in documents)


def test_a_long_first_or_last_line_of_which_only_the_rest_differs_is_kept(tmp_path):
    shared = "All of our trucks are checked in the old harbor. " * 28
    for part in PARTS:
        (tmp_path / f"{part}.html").write_text(
            f"<p>{shared}The {part} is first.<p>Check the {part}.<p>The {part} is last. {shared}"
        )
    for document in read_documents(tmp_path).documents:
        part = Path(document.id).stem
        assert f"The {part} is first." in document.text and f"The {part} is last." in document.text


def test_within_documents_of_other_formats_what_is_shared_stays(tmp_path):
    for part in PARTS:
        clauses = "".join(f"Clause {i}, as all have it.\n\n" for i in range(9))
        (tmp_path / f"{part}.md").write_text(
            f"The {part} is sold.\n\n{OFFER}\n\n{f'For 10 euros, a {part}. ' * 20}\n\n{clauses}"
        )
    texts = [document.text for document in read_documents(tmp_path).documents]
    assert all(OFFER in text and "Clause 5" in text for text in texts)
    assert "Clause 6" in texts[0] and not any("Clause 6" in text for text in texts[1:])


@pytest.mark.parametrize("end", ["```\nrun()\n```", "| a | b |\n| --- | --- |\n| 1 | 2 |", "## Care"])
def test_shared_code_tables_and_headings_of_what_stays_are_kept(tmp_path, end):
    for part in PARTS:
        (tmp_path / f"{part}.md").write_text(
            f"Banner\n\n## Care\n\nAuthor:\n\nThe {part} breaks.\n\n{end}\n\nThis {part}."
        )
        (tmp_path / f"{part}.txt").write_text(f"The {part} breaks.\n\n{end}")
    texts = {document.id: document.text for document in read_documents(tmp_path).documents}
    assert texts["axle.md"] == f"## Care\n\nAuthor:\n\nThe axle breaks.\n\n{end}\n\nThis axle."
    assert texts["axle.txt"] == ("The axle breaks." if end == "## Care" else f"The axle breaks.\n\n{end}")


def test_a_folder_of_hostile_files_is_read_with_a_report(tmp_path):
    folder = tmp_path / "a folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 100)
    (folder / "broken.md").write_bytes("größer ".encode() * 99 + b"\xff\xfe\n")
    (folder / "name with\nnewline.txt").write_text("a name of two lines")
    (folder / "page.html").write_text("<p>seen</p><script>document.write('unseen')</script>")
    (folder / "nested.html").write_text("<div>" * 5000 + "x")
    (folder / "deep" / "er" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "self.txt").symlink_to(folder / "self.txt")
    os.mkfifo(folder / "pipe.txt")
    with (folder / "line.txt").open("wb") as file:
        file.truncate(100_000_000)
    for i in range(2000):
        (folder / "deep" / f"{i}.txt").write_text(f"tiny {i}")
    documents, skipped = read_documents(folder)
    assert len(documents) == 2003
    texts = {document.id: document.text for document in documents}
    assert texts["broken.md"].startswith("größer") and texts["page.html"] == "seen"
    assert texts["name with\nnewline.txt"] == "a name of two lines"
    reasons = {Path(reason.partition(":")[0]).name: reason.partition(":")[2].strip() for reason in skipped}
    assert reasons == {
        "binary.txt": "binary, not text",
        "empty.txt": "holds no text",
        "line.txt": "holds 100 MB, more than 20; split it",
        "nested.html": "its elements are nested too deep",
        "pipe.txt": "is not a regular file",
        "self.txt": "is not a regular file",
    }


def test_a_broken_file_given_by_name_raises(docs):
    (docs / "broken.jsonl").write_text('{"title": "no text"}\n')
    with pytest.raises(ValueError, match="line 1: a document needs a field"):
        read_documents(docs / "broken.jsonl")


def test_what_a_record_holds_beside_its_text_is_kept(tmp_path):
    records = [
        {"id": 1, "title": "A", "content": "one", "url": "x.y", "metadata": {"language": "de", "tags": ["a", "b"]}},
        {"_id": "b", "text": "two", "metadata": {}},
        {"text": "three", "metadata": "by hand"},
        "four",
    ]
    (tmp_path / "a.json").write_text(json.dumps(records))
    assert [document.metadata for document in read_documents(tmp_path / "a.json").documents] == [
        {"url": "x.y", "language": "de", "tags": ["a", "b"]},
        {},
        {"metadata": "by hand"},
        {},
    ]


@pytest.mark.parametrize(
    ("record", "id", "text"),
    [
        *(({name: value, "text": "one"}, "a.json#1", "one") for name in ("id", "_id") for value in (None, "", " ")),
        ({"id": None, "_id": "x", "text": "one"}, "x", "one"),
        ({"id": 0, "text": "one"}, "0", "one"),
        ({"content": "", "text": "one"}, "a.json#1", "one"),
        ({"content": None, "text": ""}, "a.json#1", ""),
    ],
)
def test_a_field_that_holds_nothing_is_as_if_it_were_not_there(tmp_path, record, id, text):
    (tmp_path / "a.json").write_text(json.dumps([record]))
    (document,) = read_documents(tmp_path / "a.json").documents
    assert (document.id, document.text) == (id, text)


def test_hidden_files_and_installed_packages_are_left_out(docs):
    for folder in (".git", "node_modules/left-pad", "venv/lib/site-packages"):
        (docs / folder).mkdir(parents=True)
        (docs / folder / "README.md").write_text("not ours")
    (docs / ".draft.md").write_text("hidden")
    documents, skipped = read_documents(docs)
    assert len(documents) == 7 and not skipped


def test_files_of_other_kinds_are_counted_by_suffix(docs):
    (docs / "deep").mkdir()
    for name in ("a.BIB", "deep/b.bib", "photo.png", "LICENSE"):
        (docs / name).write_text("not read")
    assert read_documents(docs).skipped == ["2 .bib, 1 .png, 1 without a suffix: kinds of files that are not read"]


def test_of_very_many_other_kinds_the_most_frequent_are_named(docs):
    for i in range(30):
        (docs / f"twice.x{i % 20}{'b' * (i // 20)}").write_text("")
    (docs / "again.x7").write_text("")
    (reason,) = read_documents(docs).skipped
    assert reason.startswith("2 .x7, 1 .") and reason.count(" .") == 20 and ", 10 more: kinds" in reason


@pytest.mark.parametrize(("name", "kind"), [("photo.png", "a .png file"), ("NOTES", "a file without a suffix")])
def test_a_file_of_another_kind_given_by_name_is_refused(tmp_path, name, kind):
    (tmp_path / name).write_text("some text")
    with pytest.raises(ValueError, match=rf"{name}: {kind}; what is read: .*\.md .*\(plain text is \.txt\)"):
        read_documents(tmp_path / name)


def test_a_folder_without_documents_says_what_it_holds(tmp_path):
    (tmp_path / "photo.png").write_text("")
    with pytest.raises(ValueError, match=r"no documents in this folder: 1 \.png: kinds of files that are not read"):
        read_documents(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a" "b"}', "broken JSON: Expecting ',' delimiter"),
        (b'{"title": "no text"}', "a document needs a field 'content' or 'text' that holds a string"),
        ('{"text": "größer"}'.encode("cp1252"), "not UTF-8 text"),
        (b"[" * 100_000, "nested too deep"),
        (b"1" * 5000, "broken JSON: Exceeds the limit"),
    ],
)
def test_one_broken_record_costs_no_other(tmp_path, line, reason):
    lines = [b'{"text": "text %d"}' % number for number in range(99)]
    (tmp_path / "a.JSONL").write_bytes(b"\n".join([*lines[:40], line, *lines[40:]]))
    for path in (tmp_path, tmp_path / "a.JSONL"):
        documents, skipped = read_documents(path)
        assert [d.id for d in documents] == [f"a.JSONL#{n}" for n in range(1, 101) if n != 41]
        assert len(skipped) == 1
        assert skipped[0].startswith(f"{tmp_path / 'a.JSONL'}: 1 of 100 records, such as line 41: {reason}")


def test_a_file_that_its_parser_cannot_read_costs_no_other(docs, monkeypatch):
    (docs / "deep.json").write_text("[" * 100_000)
    (docs / "torn.md").write_text("# Torn")

    def fail(path):
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setitem(READERS, ".md", fail)
    documents, skipped = read_documents(docs)
    assert len(documents) == 6
    assert skipped == [
        f"{docs / 'deep.json'}: nested too deep",
        *(f"{docs / name}: cannot be read: maximum recursion depth exceeded" for name in ("engine.md", "torn.md")),
    ]


def test_links_are_followed_within_a_folder_alone(tmp_path):
    folder, secret = tmp_path / "docs", tmp_path / "elsewhere"
    for part in (folder / "part", folder / ".data", secret):
        part.mkdir(parents=True)
        (part / "text.md").write_text(f"text of {part.name}")
    (folder / "copy.md").symlink_to("part/text.md")
    (folder / "mounted.md").symlink_to(".data/text.md")
    (folder / "secret.md").symlink_to(secret / "text.md")
    (folder / "secrets").symlink_to(secret)
    (folder / "part" / "up").symlink_to(folder)
    (tmp_path / "link").symlink_to(folder)
    for path in (folder, tmp_path / "link"):
        documents, skipped = read_documents(path)
        assert {d.id: d.text for d in documents} == {"mounted.md": "text of .data", "part/text.md": "text of part"}
        assert skipped == [f"{path}: 2 symbolic links that lead outside of it; name their targets, or copy them"]
    assert read_documents(folder / "secret.md").documents[0].text == "text of elsewhere"


def test_a_beir_folder_gives_its_corpus_alone(beir):
    assert [document.id for document in read_documents(beir).documents] == ["d1", "d2", "d3"]


def test_documents_with_one_id_get_different_ids_and_that_is_said(tmp_path, capsys):
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{"id": name, "text": "one"} for name in ("x", "y", "x", "y", "x", "a\nb", "a\nb")]))
    ids = ["x", "y", "x~2", "y~2", "x~3", "a\nb", "a\nb~2"]
    for path in (tmp_path, file):
        assert [document.id for document in read_documents(path).documents] == ids
        said = f"{path}: 4 documents have the id of an earlier one; they are called 'x~2', 'y~2', 'x~3', ...\n"
        assert capsys.readouterr().out == said
    assert [document.id for document in stream_documents(file, [])] == ids
    assert capsys.readouterr().out == said
    file.write_text(json.dumps([{"id": "a\nb", "text": "one"}] * 2))
    read_documents(file)
    assert capsys.readouterr().out.endswith(" are called 'a b~2'\n")


def test_an_id_in_two_files_names_its_file(tmp_path):
    for name, ids in {"a.csv": "12", "b.csv": "1", "c.csv": "344"}.items():
        (tmp_path / name).write_text("".join(["id,text\n", *(f"{own_id},text of {name}\n" for own_id in ids)]))
    ids = [document.id for document in read_documents(tmp_path).documents]
    assert ids == ["a.csv#1", "2", "b.csv#1", "3", "4", "4~2"]
    assert [document.id for document in read_documents(tmp_path / "a.csv").documents] == ["1", "2"]


def test_names_and_records_that_utf_8_cannot_hold_are_read_and_reported(tmp_path):
    for name in (b"caf\xe9.txt", b"caf\xe8.txt"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("text")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.json")).write_text("[")
    (tmp_path / "a.json").write_text('[{"id": "x\\ud800", "text": "one", "\\udfff": ["\\ud800"]}]')
    documents, skipped = read_documents(tmp_path)
    assert [d.id for d in documents] == ["x\ufffd", "caf\ufffd.txt", "caf\ufffd.txt~2"]
    assert documents[0].metadata == {"\ufffd": ["\ufffd"]}
    assert skipped == [f"{tmp_path}/\ufffd.json: line 1: broken JSON: Expecting value"]


def test_what_the_scripts_wrote_is_no_document(docs, tiny):
    before = read_documents(docs).documents
    for name in ("t.json", "t.jsonl"):
        done = run("generate_training_data.py", "--input-dir", docs, "--output-file", docs / "made" / name)
        assert done.returncode == 0, done.stderr
    tiny.save_pretrained(docs / "model")
    for name in ("README.md", "checkpoint-2/README.md"):
        (docs / "model" / name).parent.mkdir(exist_ok=True)
        (docs / "model" / name).write_text("a model card")
    (docs / "t.json.journal").touch()
    (docs / "vectors.jsonl").write_text('{"id": "a", "indices": [1], "values": [0.5]}\n')
    documents, skipped = read_documents(docs)
    assert documents == before
    assert skipped == [
        "made/t.json, made/t.jsonl, made/t_report.html, made/t_test.json, made/t_test.jsonl and 6 more: written by "
        "these scripts, or a model; no documents"
    ]
    with pytest.raises(ValueError, match=r"t\.json: record 1: output of one of these scripts, such as a training"):
        read_documents(docs / "made" / "t.json")


@pytest.mark.parametrize("mark", REPORT_MARKS)
def test_a_report_larger_than_a_document_may_be_is_known_by_its_start(docs, mark):
    (docs / "r.html").write_bytes(mark.ljust(21_000_000))
    assert read_documents(docs).skipped == ["r.html: written by these scripts, or a model; no documents"]


@pytest.mark.parametrize("path", ["none", "empty"])
def test_missing_and_empty_folders_are_refused(tmp_path, path):
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, OSError), match=r"no such file|no documents"):
        read_documents(tmp_path / path)
