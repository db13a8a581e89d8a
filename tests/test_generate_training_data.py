"""Training data from documents, through the script."""

import html
import json
import os
import re
from collections import Counter

import pytest
from conftest import fails_with_one_line, run

from utils.documents.families import Families
from utils.records import Chunk, TrainingExample, read_examples
from utils.training_data.extractive import extractive_examples
from utils.training_data.negatives_bm25 import add_bm25_negatives
from utils.training_data.splitting import explain_shares, split_by_document
from utils.training_data.summary import describe_negatives

SCRIPT = "generate_training_data.py"


def chunk(name, text, title="", heading=""):
    return Chunk(id=f"{name}#0", document_id=name, title=title, headings=[heading] if heading else [], text=text)


def unrelated(chunks, family_of=None, related_to=None):
    """Return the chunks as passages of documents that are each a family, but for `family_of` and `related_to`."""
    families = {chunk.document_id: number for number, chunk in enumerate(chunks)}
    return Families(chunks, {}, {}, families | (family_of or {}), related_to or {})


def sections(*names):
    """Return a page of a section for each name, long enough to be a passage each and unlike those of other names."""
    sentences = {
        name: [f"The {name} has {name}{i} and its {i}{name} is used here." for i in range(13)] for name in names
    }
    return "\n\n".join(f"## {name}\n\n{' '.join(sentences[name])}" for name in names)


def test_examples_of_all_types_from_a_mixed_folder(docs, tmp_path):
    (docs / "broken.json").write_text("{")
    for name in ("a.bib", "b.bib", "photo.png"):
        (docs / name).write_text("not read")
    out = tmp_path / "out" / "training_data.json"
    done = run(SCRIPT, "--input-dir", docs, "--output-file", out, "--split", "60/30/10", "--negatives", 2)
    assert done.returncode == 0, done.stderr
    parts = [read_examples(out.with_name(f"{part}_data.json")) for part in ("training", "validation", "test")]
    types = Counter(example.query_type for part in parts for example in part)
    assert set(types) == {"title", "sentence", "passage", "keywords"}
    unread = "2 .bib, 1 .png: kinds of files that are not read"
    for part in (
        "documents   7 (1 empty)\n",
        f"skipped {unread}\n",
        f"skipped {docs / 'broken.json'}: line 1",
    ):
        assert done.stdout.count(part) == 1
    assert done.stdout.count(unread) == 1
    assert f"sentence {types['sentence']}" in done.stdout and unread in out.with_name("data_report.html").read_text()
    sources = [{example.source for example in part} for part in parts]
    assert list(map(len, sources)) == [3, 2, 1] and len(set.union(*sources)) == 6
    assert f"negatives   0 mined for {len(parts[0])} training examples: 3 passages of 3 unrelated" in done.stdout
    for example in (example for part in parts for example in part):
        assert example.model_extra == ({"metadata": {"truck": "T 7"}} if example.source == "mirror-1" else {})
    assert "report" in done.stdout and "engine.md" in out.with_name("data_report.html").read_text()


def test_the_same_seed_makes_the_same_files_and_another_does_not(docs, tmp_path):
    files = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / name / "training_data.json"
        run(SCRIPT, "--input-dir", docs, "--output-file", out, "--seed", seed)
        files[name] = [file.read_bytes() for file in sorted(out.parent.glob("*.json"))]
    assert files["a"] == files["b"] != files["c"]


def test_what_a_run_wrote_into_its_input_folder_is_replaced_by_the_next(docs, monkeypatch):
    monkeypatch.chdir(docs)
    for seed in (1, 2):
        done = run(SCRIPT, "--input-dir", ".", "--output-file", "training_data.json", "--seed", seed)
        assert done.returncode == 0, done.stderr
        assert "documents   7 (1 empty)" in done.stdout


def test_outputs_of_two_names_in_a_folder_share_no_file(docs, tmp_path):
    out = tmp_path / "out"
    for seed, name in enumerate(("a.json", "b.jsonl")):
        assert run(SCRIPT, "--input-dir", docs, "--output-file", out / name, "--seed", seed).returncode == 0
    names = {"a.json", "a_validation.json", "a_test.json", "a_report.html"}
    names |= {"b.jsonl", "b_validation.jsonl", "b_test.jsonl", "b_report.html"}
    names |= {f"{name}_{part}_corpus.jsonl" for name in "ab" for part in ("validation", "test")}
    assert {path.name for path in out.iterdir()} == names


def test_a_part_of_an_earlier_run_that_this_one_does_not_make_is_named(docs, tmp_path):
    command = [SCRIPT, "--input-dir", docs, "--output-file", tmp_path / "training_data.json", "--split"]
    first = run(*command, "60/20/20").stdout
    before = (tmp_path / "test_data.json").read_bytes()
    second = run(*command, "80/20").stdout
    told = f"kept        {tmp_path / 'test_data.json'}: of an earlier run"
    assert told in second and "an earlier run" not in first and (tmp_path / "test_data.json").read_bytes() == before


def test_an_empty_part_removes_the_file_of_an_earlier_run_and_no_other(docs, tmp_path):
    """One document: there is none for validation and test."""
    out, gold, pipe = tmp_path / "training_data.json", tmp_path / "gold.json", tmp_path / "pipe"
    assert run(SCRIPT, "--input-dir", docs, "--output-file", out).returncode == 0
    one = [SCRIPT, "--input-dir", docs / "engine.md", "--output-file", out]
    done = run(*one)
    removed = tmp_path / "validation_data.json"
    assert f"removed     {removed}: it held the validation examples of an earlier run" in done.stdout
    assert not removed.exists() and not list(tmp_path.glob("test_data*")) and not list(tmp_path.glob("*_corpus.jsonl"))
    assert "removed" not in run(*one).stdout
    os.mkfifo(pipe)
    for text in ("gold", json.dumps([{"query": "by hand", "positive_document": "a judged text"}])):
        gold.write_text(text)
        done = run(*one, "--validation-file", gold, "--test-file", pipe)
        assert done.returncode == 0 and gold.read_text() == text and pipe.exists()
        for name, path in (("validation", gold), ("test", pipe)):
            assert f"kept        {path}: there are no {name} examples" in done.stdout


def test_queries_and_judgments_of_a_beir_folder_are_never_read(beir, tmp_path):
    out = tmp_path / "training_data.json"
    parts = ("engine", "brake", "mirror", "heater")
    corpus = [
        {"_id": part, "text": f"One {part} is for you. Another {part} follows it now. A third {part} makes the end."}
        for part in parts
    ]
    (beir / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in corpus))
    others = ["--validation-file", tmp_path / "v.jsonl", "--test-file", tmp_path / "t.json"]
    assert run(SCRIPT, "--input-dir", beir, "--output-file", out, *others).returncode == 0
    written = "".join((tmp_path / name).read_text() for name in (out.name, "v.jsonl", "t.json"))
    assert "fruit" not in written and all(f"Another {part} follows" in written for part in parts)


def test_the_query_is_taken_out_of_its_positive():
    text = "The pump moves water uphill. A filter holds back the sand. Valves stop the flow at night."
    made = list(extractive_examples([chunk("a", f"## Pumps\n\n{text}", "Manual", "Pumps")]))
    title = next(example for example in made if example.query_type == "title")
    assert title.query == "Pumps" and "Pumps" not in title.positive_document
    sentences = [example for example in made if example.query_type == "sentence"]
    assert len({example.query for example in sentences}) == 2
    for example in sentences:
        assert example.query in text and example.query not in example.positive_document
        assert example.positive_document.startswith("Manual\n")


def test_every_second_crop_is_a_passage_where_there_are_sentences_enough():
    parts = [f"The pump number {i} moves water uphill." for i in range(12)]
    made = list(extractive_examples([chunk("a", " ".join(parts), "Manual")], crops=5))
    passages = [example.query for example in made if example.query_type == "passage"]
    assert Counter(example.query_type for example in made) == {"title": 1, "sentence": 3, "passage": 2}
    for query in passages:
        taken = [part for part in parts if part in query]
        assert 2 <= len(taken) <= 5 and query in " ".join(parts)  # whole sentences that follow each other
        positive = next(example.positive_document for example in made if example.query == query)
        assert positive.split() == ["Manual", *" ".join(part for part in parts if part not in taken).split()]


@pytest.mark.parametrize(
    "text",
    [
        "no punctuation and no title only a run of plain words that goes on for quite a while until it ends",
        "eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn",
    ],
)
def test_text_without_title_or_punctuation_still_makes_queries(text):
    made = list(extractive_examples([chunk("a", text), chunk("b", "something else")]))
    assert {example.query_type for example in made} == {"sentence", "keywords"}
    for example in made:
        assert len(example.positive_document.split()) >= 5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("每周检查机油。发动机热的时候不要打开散热器。备件可以在大城市买到。长途旅行之前请测量轮胎的压力。", r".+。"),
        ("毎週オイルを確認する。エンジンが熱い間は開けないでください。部品は町で買えます。水も確認する。", r".+。"),
        ("ตรวจสอบระดับน้ำมันทุกสัปดาห์ และห้ามเปิดหม้อน้ำขณะที่ร้อน อะไหล่สามารถหาซื้อได้ในเมือง", r"\S+"),
        ("每周检查机油和轮胎的压力以及散热器的水位并且记录在本子上以便长途旅行之前再看一次", r".{8,24}"),
    ],
)
def test_texts_of_scripts_without_spaces_make_queries(text, sentence):
    made = list(extractive_examples([chunk("a", text), chunk("b", "something else")]))
    assert sum(example.query_type == "sentence" for example in made) == 2
    for example in made:
        assert example.query_type == "passage" or re.fullmatch(sentence, example.query)
        assert example.query in text and example.query not in example.positive_document


def test_a_chunk_too_short_for_a_query_makes_none():
    assert not list(extractive_examples([chunk("a", "two words"), chunk("b", "...")]))


def test_keywords_are_salient_words_of_the_passage():
    common = "the report says that the numbers of this year are as the numbers of the year before"
    chunks = [chunk(str(i), common) for i in range(20)] + [chunk("x", f"{common} turbine blade erosion sand turbine")]
    made = [e for e in extractive_examples(chunks) if e.source == "x" and e.query_type == "keywords"]
    assert {"turbine", "blade", "erosion", "sand"} & set(made[0].query.split())


def ranked(count):
    """Return chunks of as many documents, in BM25's order for the query "engine oil"."""
    return [chunk(f"d{i}", "engine oil " * (count - i) + f"w{i} " * 2 * i) for i in range(count)]


def test_negatives_come_from_a_window_of_ranks_and_are_neither_copies_nor_related():
    chunks = ranked(60)
    chunks += [Chunk(id="d0#1", document_id="d0", text=chunks[1].text), chunk("copy", chunks[0].text.upper())]
    example = TrainingExample(query="Engine oil", positive_document="cut", positive_id="d0#0")
    families = unrelated(chunks, {"d0": -1, "d1": -1}, {"d0#0": {"d0#0", "d2#0"}})
    assert add_bm25_negatives([example], chunks, 50, families) == 6
    # Of 62 passages the first 4 that may be taken, d3 to d6, are skipped, and rank 10 is the last.
    assert example.negatives == [chunks[i].text.strip() for i in range(7, 13)]


def test_negatives_are_found_in_the_language_that_is_named():
    words = ["Pumpe", "Pumpen", *(f"Pumpen im Werk {i}" for i in range(20)), *(f"Wald {i}" for i in range(20))]
    chunks = [chunk(f"d{i}", text) for i, text in enumerate(words)]
    for language, count in (("german", 4), ("ukrainian", 0)):  # which has no stemmer
        example = TrainingExample(query="Pumpe", positive_document="cut", positive_id="d0#0")
        assert add_bm25_negatives([example], chunks, 50, unrelated(chunks), language) == count


def test_a_query_that_two_passages_answer_has_neither_as_a_negative():
    chunks = ranked(20)
    examples = [
        TrainingExample(query=query, positive_document=chunks[i].text, positive_id=chunks[i].id)
        for i, query in ((0, "Engine oil"), (2, "engine  oil"))
    ]
    add_bm25_negatives(examples, chunks, 18, unrelated(chunks))
    assert [example.negatives for example in examples] == [[chunks[3].text.strip(), chunks[4].text.strip()]] * 2


@pytest.mark.parametrize(("size", "ranks"), [(11, []), (12, [2]), (40, [3, 4, 5, 6]), (700, range(31, 100))])
def test_the_window_of_ranks_fits_the_size_of_the_collection(size, ranks):
    chunks = ranked(size)
    example = TrainingExample(query="engine oil", positive_document="cut", positive_id="d0#0")
    assert add_bm25_negatives([example], chunks, 100, unrelated(chunks)) == len(ranks)
    assert example.negatives == [chunks[i].text.strip() for i in ranks]  # d0 has no rank among the candidates


def test_that_nothing_was_mined_has_a_reason():
    chunks = [chunk(f"d{i}", f"{word} {word}") for i, word in enumerate(["oil", "air", "sea", "ink"] * 5)]
    example = TrainingExample(query="none of the words", positive_document="cut", positive_id="d0#0", source="d0")
    families = unrelated(chunks)
    mined = add_bm25_negatives([example], chunks, 2, families)
    said = describe_negatives(mined, [example], chunks, families)
    assert said == "0 mined for 1 training examples: 20 passages of 1 unrelated documents are too few"
    other = example.model_copy(update={"source": "d1"})
    said = describe_negatives(mined, [example, other], chunks, families)
    assert said.endswith(
        ": BM25 finds 1 unrelated passages at most for a query, and the first 1 are left out as likely answers"
    )


def test_split_keeps_documents_apart_and_holds_out_at_least_one():
    examples = [TrainingExample(query="q", positive_document="p", source=str(i // 3)) for i in range(30)]
    parts = split_by_document(examples, (80, 10, 10), 0)
    sources = [{example.source for example in part} for part in parts]
    assert list(map(len, sources)) == [8, 1, 1] and len(set.union(*sources)) == 10
    assert sum(map(len, parts)) == 30
    assert split_by_document(examples[:3], (80, 10, 10), 0) == [examples[:3], [], []]
    assert [len(part) for part in split_by_document(examples[:6], (80, 10, 10), 0)] == [3, 3, 0]
    assert split_by_document(examples, (90, 0), 0) == [examples, []]


@pytest.mark.parametrize(
    ("families", "counts", "note"),
    [
        ([1] * 20, [16, 2, 2], ""),
        ([6, 3, 2] + [1] * 9, [16, 2, 2], ""),  # the families that fit are held out, whatever their order
        ([18, 1, 1], [18, 1, 1], "90/5/5 of the documents, not 80/10/10: those that share text stay together"),
        ([11, 5, 4], [11, 4, 5], "of 20 the largest such family has 11"),
        ([20], [20, 0, 0], "100/0/0 of the documents, not 80/10/10"),
    ],
)
def test_the_shares_asked_for_are_the_shares_got_or_a_line_says_why(families, counts, note):
    family_of = {f"{family}-{i}": family for family, size in enumerate(families) for i in range(size)}
    examples = [TrainingExample(query="q", positive_document="p", source=source) for source in family_of]
    for seed in range(5):
        parts = split_by_document(examples, (80, 10, 10), seed, family_of)
        assert list(map(len, parts)) == counts
        sides = [{family_of[example.source] for example in part} for part in parts]
        assert len(set.union(*sides)) == sum(map(len, sides))
        said = explain_shares(parts, (80, 10, 10), family_of)
        assert note in said if note else not said


def test_copies_make_no_examples_and_related_documents_stay_on_one_side(tmp_path):
    """Twenty documents, each in a second edition that differs somewhat, and one of them twice."""
    folder, out = tmp_path / "docs", tmp_path / "training_data.json"
    folder.mkdir()
    for i in range(20):
        sentences = [
            f"Part {i} number {k} of machine {i * k} is made of {['steel', 'brass', 'zinc'][k % 3]}." for k in range(9)
        ]
        (folder / f"{i}-old.txt").write_text(" ".join(sentences))
        (folder / f"{i}-new.txt").write_text(" ".join([*sentences[2:], f"In edition two the color {i} of it is new."]))
    (folder / "7-copy.txt").write_text((folder / "7-old.txt").read_text())
    done = run(SCRIPT, "--input-dir", folder, "--output-file", out, "--split", "70/30")
    assert "passages    40; 1 more are copies of one of them" in done.stdout
    sides = [
        {e.source.partition("-")[0] for e in read_examples(tmp_path / f"{p}_data.json")}
        for p in ("training", "validation")
    ]
    assert not sides[0] & sides[1] and len(sides[1]) == 6 and not (tmp_path / "test_data.json").exists()


def test_a_section_of_most_documents_is_in_no_example_and_leaves_the_shares_as_they_are(tmp_path):
    """Thirty pages with two texts of their own each; of them 27 have a section on getting help between these."""
    pages = [sections(*(f"page{i}", "helpdesk", f"end{i}") if i < 27 else (f"page{i}", f"end{i}")) for i in range(30)]
    folder, out = tmp_path / "docs.json", tmp_path / "training_data.json"
    folder.write_text(json.dumps(pages))
    options = ["--negatives", 1, "--round-trip", 60, "--language", "ukrainian"]
    done = run(SCRIPT, "--input-dir", folder, "--output-file", out, *options)
    assert done.returncode == 0, done.stderr
    said = "BM25: k1 1.5, b 0.75; Ukrainian: no stemmer, no stop words\n"
    assert done.stdout.count(said) == 2  # of the filter and of the negatives
    assert "passages    60; 0 more are copies of one of them, 27 boilerplate" in done.stdout
    assert "\nsplit " not in done.stdout
    parts = [read_examples(tmp_path / f"{part}_data.json") for part in ("training", "validation", "test")]
    assert [len({example.source for example in part}) for part in parts] == [24, 3, 3]
    mined = [sum(len(example.negatives) for example in part) for part in parts]
    assert mined[0] > 48 and mined[1:] == [0, 0]  # what the model is measured on gets no passage that nobody judged
    assert f"negatives   {mined[0]} mined for {len(parts[0])} training examples\n" in done.stdout
    assert "helpdesk" not in json.dumps([example.model_dump() for part in parts for example in part])
    report = (tmp_path / "data_report.html").read_text()
    assert "boilerplate passage: 5 of 27" in report and "is shared by 27 documents" in report


def test_what_pages_share_is_printed_and_in_the_report(tmp_path):
    for part in ("axle", "belt", "door", "fuel", "horn", "lamp", "lock", "pump", "seat", "wheel"):
        (tmp_path / "docs").mkdir(exist_ok=True)
        text = f"Look at the {part} of the truck every week. A {part} that is old has to be replaced at once."
        (tmp_path / "docs" / f"{part}.html").write_text(f"<p>Trucks & more<h1>About the {part}</h1><p>{text}")
    done = run(SCRIPT, "--input-dir", tmp_path / "docs", "--output-file", tmp_path / "training_data.json")
    line = "text that many pages share, left out of 10 of 10 .html files: “Trucks & more” (10)"
    assert done.returncode == 0 and f"skipped {line}\n" in done.stdout
    report = html.unescape((tmp_path / "data_report.html").read_text())
    assert "repeated text: 1 of 1" in report and line in report
    assert "Trucks" not in (tmp_path / "training_data.json").read_text()


def test_shares_that_a_family_does_not_allow_are_said(tmp_path):
    """Three of four pages share a section: too few for it to be boilerplate."""
    folder, out = tmp_path / "docs.json", tmp_path / "training_data.json"
    folder.write_text(json.dumps([*(sections(f"page{i}", "shared") for i in range(3)), sections("other")]))
    done = run(SCRIPT, "--input-dir", folder, "--output-file", out, "--split", "50/50")
    assert "split       75/25 of the documents, not 50/50: those that share text stay together" in done.stdout


IDLE = {
    "--input-dir docs --generator extractive": {
        "--bootstrap 100": "--domain",
        "--chunking-model minilm": "documents and --chunking semantic",
        "--queries-per-passage 3": "documents and --generator openai or seq2seq",
        "--seq2seq-model t5": "documents and --generator seq2seq",
        "--query-types keyword": "documents and --generator openai",
        "--template generic": "documents and --generator openai",
        "--contrastive-negatives 0": "documents and --generator openai",
        "--language German": "--generator openai, --domain, --seed-queries, or --negatives or --round-trip by BM25",
        "--round-trip 5 --round-trip-model minilm --language de": "--generator openai, --domain, --seed-queries, or "
        "--negatives or --round-trip by BM25",
        "--api-base http://localhost:1/v1": "--generator openai, --domain or --augment reformulation",
        "--api-model m": "--generator openai, --domain or --augment reformulation",
        "--api-timeout 9": "--generator openai, --domain or --augment reformulation",
        "--workers 8": "--generator openai, --domain or --augment reformulation",
        "--requests-per-minute 9": "--generator openai, --domain or --augment reformulation",
        "--price 1 1": "--generator openai, --domain or --augment reformulation",
        "--resume": "a model that writes queries or documents",
        "--round-trip-model bm25": "--round-trip",
        "--synonyms synonyms.txt": "--augment synonym",
        "--split 90/10 --test-file t.json": "a third share in --split",
        "--split 90/0/10 --validation-file v.json": "a second share in --split",
        "--chunking semantic --chunking-model minilm --chunk-overlap 0.15": "documents and --chunking size",
    },
    "--input-dir docs --generator seq2seq --seq2seq-model t5": {"--crops 3": "documents and --generator extractive"},
    "--feedback-file feedback.jsonl": {
        "--chunk-size 2000": "--input-dir or --domain",
        "--chunking size": "--input-dir or --domain",
        "--generator extractive": "--input-dir or --domain",
        "--round-trip 3": "--input-dir or --domain",
        "--balance 3": "--input-dir or --domain",
        "--negatives 0": "--input-dir or --domain",
        "--seed-queries seeds.jsonl": "--input-dir or --domain",
        "--crops 3": "documents and --generator extractive",
    },
}


def test_a_flag_without_effect_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "synonyms.txt").write_text("a, b")
    (tmp_path / "feedback.jsonl").touch()
    (tmp_path / "seeds.jsonl").write_text('{"query": "brakes"}')
    (tmp_path / "docs").mkdir()
    for given, idle in IDLE.items():
        for flags, needed in idle.items():
            flag = next(part for part in reversed(flags.split()) if part.startswith("--"))
            message = f"{flag} has no effect without {needed}; leave it out, or add that"
            fails_with_one_line(run(SCRIPT, *given.split(), *flags.split()), message)
    assert {path.name for path in tmp_path.iterdir()} == {"docs", "feedback.jsonl", "seeds.jsonl", "synonyms.txt"}


BAD = {
    "missing folder": (
        ["--input-dir", "{tmp}/none", "--output-file", "{tmp}/new/x.json"],
        "none: no such file or folder",
    ),
    "missing feedback": (["--feedback-file", "{tmp}/none.jsonl"], "none.jsonl: no such file or folder"),
    "empty folder": (["--input-dir", "{tmp}/empty"], "no documents in this folder"),
    "broken file": (["--input-dir", "{tmp}/bad.jsonl"], "bad.jsonl: line 1: broken JSON"),
    "nothing but short texts": (["--input-dir", "{tmp}/short"], "enough text"),
    "unwritable output": (["--input-dir", "{tmp}/short", "--output-file", "{tmp}/bad.jsonl/x.json"], "cannot write"),
    "no output": (["--input-dir", "{tmp}/short", "--output-file", ""], "argument --output-file: must not be empty"),
    "output over the feedback": (
        ["--feedback-file", "{tmp}/bad.jsonl", "--output-file", "{tmp}/short/../bad.jsonl"],
        "bad.jsonl: it is read, too, and would be overwritten; name another output file",
    ),
    "validation over the documents": (
        ["--input-dir", "{tmp}/short/a.txt", "--validation-file", "{tmp}/short/a.txt"],
        "a.txt: it is read, too",
    ),
    "report over the documents": (
        ["--input-dir", "{tmp}/page_report.html", "--output-file", "{tmp}/page.json"],
        "page_report.html: it is read, too, and would be overwritten; name another output file",
    ),
    "output over a document of the folder": (
        ["--input-dir", "{tmp}/short", "--output-file", "{tmp}/short/a.txt"],
        "a.txt: it is read, too",
    ),
    "output over the report": (
        ["--input-dir", "{tmp}/short", "--validation-file", "{tmp}/data_report.html"],
        "data_report.html: the report goes there",
    ),
    "an unknown device that nothing needs": (["--input-dir", "{tmp}/short", "--device", "moon"], "unknown device"),
    "a wait that is endless": (["--domain", "law", "--api-timeout", "inf"], "from 1 to 86400, not inf"),
    "shares beyond numbers": (["--input-dir", "{tmp}/short", "--split", "1e308/1e308"], "shares such as 80/10/10"),
    "one file for both": (
        ["--input-dir", "{tmp}/short", "--output-file", "{tmp}/o.json", "--validation-file", "{tmp}/o.json"],
        "same file",
    ),
    "one collection for both": (
        ["--input-dir", "{tmp}/short", "--validation-file", "{tmp}/o.json", "--test-file", "{tmp}/o.jsonl"],
        "same file",
    ),
    "collection over a document of the folder": (
        ["--input-dir", "{tmp}", "--test-file", "{tmp}/pages.json"],
        "pages_corpus.jsonl: it is read, too",
    ),
    "chunk size": (["--input-dir", "{tmp}/short", "--chunk-size", "10"], "from 500 to 2000"),
    "no input": ([], "give --input-dir, --domain or --feedback-file"),
    "a split that is none": (["--input-dir", "{tmp}/short", "--split", "0/1"], "shares such as 80/10/10"),
    "a model to write queries": (["--input-dir", "{tmp}/short", "--generator", "seq2seq"], "needs --seq2seq-model"),
    "a model to cut by": (["--input-dir", "{tmp}/short", "--chunking", "semantic"], "needs --chunking-model"),
    "a file of synonyms": (["--input-dir", "{tmp}/short", "--augment", "synonym"], "needs a file of --synonyms"),
    "more than all": (["--input-dir", "{tmp}/short", "--augment", "typo=2"], "a number above 0, 1 at most"),
    "an unknown variant": (
        ["--input-dir", "{tmp}/short", "--augment", "pun"],
        "unknown augmentation 'pun': use",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "a.txt").write_text("hi")
    (tmp_path / "bad.jsonl").write_text("{")
    (tmp_path / "pages_corpus.jsonl").write_text('{"text": "a document"}')
    (tmp_path / "page_report.html").write_text("<p>Pages read.</p>")
    before = sorted(tmp_path.rglob("*"))
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    if "--output-file" not in arguments:
        arguments += ["--output-file", str(tmp_path / "training_data.json")]
    fails_with_one_line(run(SCRIPT, *arguments), message)
    assert sorted(tmp_path.rglob("*")) == before
