"""test_evaluate.py: metrics on judged collections and on training-format files."""

import json

import pytest
from conftest import fails_with_one_line, run
from lxml import html

from utils.evaluation.reading import read_test_data
from utils.splade.encoder import SpladeEncoder

SCRIPT = "test_evaluate.py"
EXAMPLES = [
    {"query": "red fruit", "positive_document": "apples are red", "negative_documents": ["the sea is blue"]},
    {"query": "red fruit", "positive_document": "cherries are red", "negative_documents": ["apples are red"]},
    {"query": "yellow fruit", "positive_document": "a banana is yellow", "negative_documents": [{"document": ""}]},
]


def test_documents_of_a_file_are_pooled_and_queries_merged(tmp_path):
    path = tmp_path / "test.json"
    path.write_text(json.dumps(EXAMPLES))
    data = read_test_data(path)
    texts = {document.id: document.text for document in data.documents}
    assert sorted(texts.values()) == ["a banana is yellow", "apples are red", "cherries are red", "the sea is blue"]
    assert {data.queries[q]: {texts[d] for d in grades} for q, grades in data.qrels.items()} == {
        "red fruit": {"apples are red", "cherries are red"},
        "yellow fruit": {"a banana is yellow"},
    }


def test_a_beir_folder_with_baseline_and_comparison(beir, tmp_path):
    out = tmp_path / "metrics.json"
    options = ["--test-file", beir, "--baseline", "bm25", "--compare", "splade-tiny", "--output-file", out]
    done = run(SCRIPT, "--model-dir", "splade-tiny", *options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("model"))
    columns = ["nDCG@10", "RR@10", "P@5", "R@100", "doc_terms", "query_terms", "query_latency_ms"]
    assert lines[head].split() == ["model", *columns]
    assert [line.split()[0] for line in lines[head + 1 : head + 4]] == ["BM25", "splade-tiny", "splade-tiny"]
    report = json.loads(out.read_text())
    assert report["queries"] == 2 and report["documents"] == 3
    assert report["nDCG@10"] == 1.0 and set(report["query_latency_ms"]) == {"p50", "p95", "p99"}
    assert report["compared"][0]["model"] == "BM25" and report["doc_terms"] > 3
    description = "BM25: k1 1.5, b 0.75; English: Snowball stemmer, stop words"
    assert lines[head + 4] == report["compared"][0]["description"] == description


def test_the_baseline_takes_the_language_that_is_named(tmp_path):
    examples = [
        {"query": "Haus", "positive_document": "Häuser am See"},
        {"query": "Boot", "positive_document": "Boote"},
    ]
    (tmp_path / "test.json").write_text(json.dumps(examples))
    for language, name, found in (("de", "German", "1.0000"), ("finnish", "Finnish", "0.0000")):
        options = ["--baseline", "bm25", "--language", language, "--metrics", "R@1"]
        done = run(SCRIPT, "--model-dir", "splade-tiny", "--test-file", tmp_path / "test.json", *options)
        assert next(line for line in done.stdout.splitlines() if line.startswith("BM25 ")).split()[1] == found
        assert f"; {name}: Snowball stemmer, " in done.stdout


def test_searches_are_rows_and_weights_are_learned_on_other_queries(tmp_path):
    (tmp_path / "test.json").write_text(json.dumps(EXAMPLES))
    learned = [{"query": "what is blue", "positive_document": "the sea is blue", "negative_documents": ["the red sea"]}]
    (tmp_path / "dev.json").write_text(json.dumps(learned))
    options = ["--test-file", tmp_path / "test.json", "--search", "splade", "bm25", "hybrid", "--metrics", "RR@10"]
    options += ["--learn-weights", tmp_path / "dev.json", "--output-file", tmp_path / "out.json"]
    done = run(SCRIPT, "--model-dir", "splade-tiny", *options)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    names = [row["model"] for row in [*report.pop("compared"), report]]
    assert names[:3] == ["splade-tiny", "splade-tiny, bm25", "splade-tiny, hybrid"]
    weights = names[3].removeprefix("splade-tiny, hybrid ")
    assert f"splade-tiny: --weights {weights}" in done.stdout and weights == "splade=0.5 bm25=0.5"
    options[-3] = tmp_path / "test.json"
    message = "2 of its queries are in the test data, too; weights are learned on other queries"
    fails_with_one_line(run(SCRIPT, "--model-dir", "splade-tiny", *options), message)


def test_documents_can_come_from_elsewhere_and_missing_ones_are_reported(beir, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "photo.png").write_text("not read")
    corpus = (beir / "corpus.jsonl").rename(folder / "other.jsonl")
    corpus.write_text("\n".join(corpus.read_text().splitlines()[:1]))
    done = run(SCRIPT, "--model-dir", "splade-tiny", "--test-file", beir, "--docs-file", folder, "--metrics", "P@1")
    assert done.returncode == 0, done.stderr
    assert "skipped 1 .png: kinds of files that are not read" in done.stdout
    assert "2 judged documents are not in the collection" in done.stdout
    assert "0.5000" in done.stdout


BAD = {
    "missing file": (["--test-file", "{tmp}/none.json"], "No such file"),
    "no input": ([], "--test-file"),
    "empty file": (["--test-file", "{tmp}/empty.json"], "line 1: broken JSON"),
    "nothing usable": (["--test-file", "{tmp}/hollow.json"], "no example has both"),
    "folder without a corpus": (["--test-file", "{tmp}"], "has no corpus.jsonl"),
    "unknown language": (
        ["--test-file", "{tmp}/good.json", "--baseline", "bm25", "--language", "moonish"],
        "argument --language: unknown language 'moonish': use a code or an English name, such as de or german",
    ),
    "a language for no baseline": (["--test-file", "{tmp}/good.json", "--language", "de"], "without --baseline"),
    "weights for no hybrid": (["--test-file", "{tmp}/good.json", "--weights", "bm25"], "without --search hybrid"),
    "a dense model for nothing": (
        ["--test-file", "{tmp}/good.json", "--dense-model", "minilm"],
        "--dense-model has no effect without --search hybrid or dense",
    ),
    "an unknown part": (
        ["--test-file", "{tmp}/good.json", "--search", "hybrid", "--weights", "words=2"],
        "unknown part of the search 'words': use splade, bm25, dense",
    ),
    "no dense vectors": (["--test-file", "{tmp}/good.json", "--search", "dense"], "search by dense: the index has no"),
    "weights given and learned": (
        [
            "--test-file",
            "{tmp}/good.json",
            "--search",
            "hybrid",
            "--weights",
            "bm25",
            "--learn-weights",
            "{tmp}/good.json",
        ],
        "--weights has no effect beside --learn-weights",
    ),
    "unknown metric": (["--test-file", "{tmp}/good.json", "--metrics", "nonsense"], "unknown metric"),
    "a split of examples": (["--test-file", "{tmp}/good.json", "--split", "dev"], "has no splits"),
    "no room": (["--test-file", "{tmp}/good.json", "--max-length", "1"], "--max-length must be at least 3, not 1"),
    "missing model": (["--test-file", "{tmp}/good.json", "--model-dir", "{tmp}/none"], "no such model folder"),
    "output over input": (["--test-file", "{tmp}/good.json", "--output-file", "{tmp}/good.json"], "it is read, too"),
    "no documents": (["--test-file", "{tmp}/good.json", "--docs-file", ""], "argument --docs-file: must not be empty"),
    "run of others": (["--test-file", "{tmp}/good.json", "--run-file", "x={tmp}/other.run"], "none of the 2 judged"),
    "broken run": (["--test-file", "{tmp}/good.json", "--run-file", "{tmp}/good.json"], "line 1: expected a run's"),
    "missing run": (["--test-file", "{tmp}/good.json", "--run-file", "x={tmp}/none"], "No such file"),
    "judgments of examples": (["--test-file", "{tmp}/good.json", "--qrels", "{tmp}/other.run"], "--docs-file names"),
    "a split elsewhere": (["--test-file", "ir_datasets:x", "--split", "dev"], "leave out --docs-file, --split"),
    "the same data twice": (["--test-file", "{tmp}/good.json", "--also", "{tmp}/good.json"], "is the test data"),
    "a file for runs": (
        ["--test-file", "{tmp}/good.json", "--run-dir", "{tmp}/good.json"],
        "cannot write there: Not a directory",
    ),
    "unwritable output": (["--test-file", "{tmp}/good.json", "--output-file", "{tmp}"], "is a folder"),
    "unwritable errors": (["--test-file", "{tmp}/good.json", "--export-errors", "{tmp}"], "is a folder"),
    "errors over input": (["--test-file", "{tmp}/good.json", "--export-errors", "{tmp}/good.json"], "it is read, too"),
    "errors over figures": (
        ["--test-file", "{tmp}/good.json", "--output-file", "{tmp}/o.json", "--export-errors", "{tmp}/o.json"],
        "two outputs in one place; name another one",
    ),
    "errors of words": (
        ["--test-file", "{tmp}/good.json", "--search", "splade", "bm25", "--errors", "3"],
        "--errors has no effect without the model's vectors in the last --search",
    ),
    "errors of a hybrid without the model": (
        [
            "--test-file",
            "{tmp}/good.json",
            "--search",
            "hybrid",
            "--weights",
            "bm25",
            "--export-errors",
            "{tmp}/e.json",
        ],
        "--export-errors has no effect without the model's vectors in the last --search",
    ),
    "errors of vectors": (
        ["--test-file", "{tmp}/good.json", "--vectors", "{tmp}/v.npz", "--errors", "3"],
        "--errors has no effect beside --vectors",
    ),
}


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_collection_is_not_overwritten(beir, name):
    options = ["--model-dir", "splade-tiny", "--test-file", beir, "--output-file", beir / name]
    fails_with_one_line(run(SCRIPT, *options), name, "it is read, too, and would be overwritten")


def test_a_missing_model_is_found_before_another_is_measured(beir, tmp_path, monkeypatch):
    measured = []
    for name in ("evaluate_bm25", "evaluate_search"):
        monkeypatch.setattr(f"utils.evaluation.systems.{name}", lambda *arguments: measured.append(arguments))
    options = ["--test-file", beir, "--baseline", "bm25", "--compare", "splade-tiny", "--model-dir", tmp_path / "none"]
    fails_with_one_line(run(SCRIPT, *options), "no such model folder")
    assert not measured
    options[-1:] = ["splade-tiny", "--max-length", 513]
    fails_with_one_line(run(SCRIPT, *options), "--max-length: 513 tokens are more than there can be here, 512")


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(tmp_path, arguments, message):
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "hollow.json").write_text('[{"query": "", "positive_document": "p"}]')
    (tmp_path / "good.json").write_text(json.dumps(EXAMPLES))
    (tmp_path / "other.run").write_text("x9 Q0 d1 1 2.0 run\n")
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    fails_with_one_line(run(SCRIPT, *(["--model-dir", "splade-tiny", *arguments])), message)


def test_texts_longer_than_the_limits_are_counted(tmp_path, short_model):
    examples = [{**EXAMPLES[0], "positive_document": "apples " * 20}, {**EXAMPLES[2], "query": "yellow fruit " * 5}]
    (tmp_path / "long.json").write_text(json.dumps(examples))
    done = run(SCRIPT, "--model-dir", short_model, "--test-file", tmp_path / "long.json")
    assert (
        f"1 of 3 documents are longer than 12 tokens and are searched by their passages with {short_model}"
        in done.stdout
    )
    assert f"1 of 2 queries are longer than 6 tokens and are cut there by {short_model}" in done.stdout


def lines_of(done) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_difference_is_said_with_its_chance_and_what_is_asked_by_group(beir, tmp_path):
    out = tmp_path / "metrics.json"
    options = ["--test-file", beir, "--baseline", "bm25", "--metrics", "RR@10", "nDCG@10", "--output-file", out]
    lines = lines_of(run(SCRIPT, "--model-dir", "splade-tiny", *options, "--group-by", "query length"))
    sentence = next(line for line in lines if line.startswith("splade-tiny is as good as BM25: RR@10 "))
    assert sentence.endswith("; 0 won, 2 tied, 0 lost")
    place = lines.index("RR@10 by query length")
    assert lines[place + 1].split()[0] == "group" and lines[place + 2].startswith("1 to 3 words        2")
    report = json.loads(out.read_text())
    assert report["comparisons"][0]["difference"]["mean"] == 0 and report["groups"]["query length"][0]["queries"] == 2
    assert report["flops"] > 0 and report["index_bytes"] > 0 and report["queries_per_second"] > 0
    assert set(report["search_latency_ms"]) == set(report["encode_latency_ms"]) == {"p50", "p95", "p99"}
    options[1:1] = [beir, "--group-by", "colour", "--test-file"]
    fails_with_one_line(run(SCRIPT, "--model-dir", "splade-tiny", *options), "--group-by 'colour': the queries can be")


def test_runs_are_written_and_read_again_with_the_same_figures(beir, tmp_path):
    options = ["--model-dir", "splade-tiny", "--test-file", beir, "--metrics", "AP", "nDCG@2"]
    lines_of(
        run(SCRIPT, *options, "--baseline", "bm25", "--search", "splade", "hybrid", "--run-dir", tmp_path / "runs")
    )
    names = ["BM25.run", "qrels.txt", "splade-tiny.run", "splade-tiny_hybrid.run", "values.csv"]
    assert sorted(file.name for file in (tmp_path / "runs").iterdir()) == names
    files = [f"theirs={tmp_path / 'runs' / 'splade-tiny.run'}", tmp_path / "runs" / "BM25.run"]
    again = lines_of(run(SCRIPT, *options, "--run-file", files[0], "--run-file", files[1]))
    head = next(i for i, line in enumerate(again) if line.startswith("model"))
    theirs, lexical, ours = (line.split() for line in again[head + 1 : head + 4])
    assert (theirs[0], lexical[0], ours[0]) == ("theirs", "BM25", "splade-tiny") and theirs[1:3] == ours[1:3]
    rows = (tmp_path / "runs" / "values.csv").read_text().splitlines()
    assert rows[0] == "query_id,system,AP,nDCG@2,query" and len(rows) == 1 + 2 * 3
    assert rows[1].startswith("q1,BM25,") and rows[1].endswith(",red fruit")
    (tmp_path / "half.run").write_text("q1 Q0 d1 1 2.0 half\n")
    said = lines_of(run(SCRIPT, *options, "--run-file", tmp_path / "half.run"))
    assert f"{tmp_path / 'half.run'}: 1 judged queries have no hits, such as q2; they count as 0" in said


def test_topics_are_searched_in_the_documents_that_are_named(beir, tmp_path):
    (tmp_path / "topics.tsv").write_text("1\tred fruit\n2\tyellow fruit\n")
    (tmp_path / "qrels").write_text("1 0 d1 1\n2 0 d2 1\n2 0 d99 1\n3 0 d1 1\n")
    options = ["--model-dir", "splade-tiny", "--test-file", tmp_path / "topics.tsv", "--qrels", tmp_path / "qrels"]
    lines = lines_of(run(SCRIPT, *options, "--docs-file", beir / "corpus.jsonl", "--metrics", "RR@1"))
    assert f"{tmp_path / 'qrels'}: 1 judged queries are not in topics.tsv, such as 3" in lines
    assert "1 judged documents are not in the collection, such as d99" in lines
    assert next(line for line in lines if line.startswith("splade-tiny")).split()[1] == "1.0000"
    fails_with_one_line(
        run(SCRIPT, *options), "--qrels judges a file of TREC's topics, whose documents --docs-file names"
    )


def test_vectors_in_a_file_are_searched_in_place_of_the_documents(beir, tmp_path):
    options = ["--model-dir", "splade-tiny", "--precision", "float32"]
    inputs = ["--input-file", beir / "corpus.jsonl", "--output-file", tmp_path / "v.npz"]
    lines_of(run("embedder.py", *options, *inputs))
    table = ["--test-file", beir, "--metrics", "AP@5", "nDCG@10"]
    whole = lines_of(run(SCRIPT, *options, *table))
    (beir / "corpus.jsonl").unlink()
    lines = lines_of(run(SCRIPT, *options, *table, "--vectors", tmp_path / "v.npz"))
    rows = [next(line.split() for line in found if line.startswith("splade-tiny ")) for found in (whole, lines)]
    assert rows[0][:5] == rows[1][:5] and f"splade-tiny: 3 documents' vectors of {tmp_path / 'v.npz'}" in lines
    message = "--metrics AP: give each a cutoff, such as AP@1000, where --vectors are searched"
    options += ["--test-file", beir, "--vectors", tmp_path / "v.npz"]
    fails_with_one_line(run(SCRIPT, *options, "--metrics", "AP", "R@9"), message)
    fails_with_one_line(run(SCRIPT, *options, "--baseline", "bm25"), "--baseline has no effect beside --vectors")


def test_what_tuning_lost_elsewhere_stands_in_tables_of_their_own(beir, tmp_path):
    (tmp_path / "other.json").write_text(json.dumps(EXAMPLES))
    out = tmp_path / "metrics.json"
    options = ["--test-file", beir, "--also", tmp_path / "other.json", "--compare", "splade-tiny", "--output-file", out]
    lines = lines_of(run(SCRIPT, "--model-dir", "splade-tiny", *options))
    assert f"{beir}: 3 documents, 2 queries" in lines and f"{tmp_path / 'other.json'}: 4 documents, 2 queries" in lines
    assert len([line for line in lines if line.startswith(("splade-tiny  ", "splade-tiny (2)  "))]) == 4
    also = json.loads(out.read_text())["also"][str(tmp_path / "other.json")]
    assert also["queries"] == 2 and len(also["compared"]) == len(also["comparisons"]) == 1


def test_the_report_is_a_page_of_all_results_with_its_plots_beside_it(beir, tmp_path):
    (tmp_path / "other.json").write_text(json.dumps(EXAMPLES))
    page = tmp_path / "made" / "report.html"
    inputs = ["--model-dir", "splade-tiny", "--test-file", beir, "--also", tmp_path / "other.json"]
    lines = lines_of(run(SCRIPT, *inputs, "--baseline", "bm25", "--report", page))
    assert f"report -> {page}" in lines
    tree = html.parse(str(page))
    assert tree.find("//section[@id='errors']") is not None
    tables = {table.find("caption").text: table for table in tree.iter("table")}
    for caption in ("Quality, active terms, size", f"Systems on {tmp_path / 'other.json'}"):
        names = [row.find("th").text for row in tables[caption].find("tbody")]
        assert names == ["BM25", "splade-tiny"]
    assert (page.parent / "report_plots" / "latency.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--report", "{tmp}/report.pdf"], "report.pdf: it is a page; name a file that ends in .html"),
        (["--report", "{tmp}"], "is a folder, and a file is to be written there"),
        (["--report", "{tmp}/file/report.html"], "file: cannot write there: Not a directory"),
        (["--report", "{tmp}/beir/notes.html"], "notes.html: it is read, too, and would be overwritten"),
        (["--report", "{tmp}/a.html", "--output-file", "{tmp}/a.html"], "two outputs in one place"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_the_work(beir, tmp_path, given, message):
    (tmp_path / "file").write_text("")
    (beir / "notes.html").write_text("<p>one's own</p>")
    given = [argument.format(tmp=tmp_path) for argument in given]
    fails_with_one_line(run(SCRIPT, "--model-dir", "none", "--test-file", beir, *given), message)


def test_precisions_are_rows(beir):
    options = ["--test-file", beir, "--precision", "float32", "bfloat16", "--device", "cpu"]
    lines = lines_of(run(SCRIPT, "--model-dir", "splade-tiny", *options))
    assert [line.split()[1] for line in lines if line.startswith("splade-tiny ")][:2] == ["float32", "bfloat16"]


def test_errors_are_said_and_exported_as_seed_queries(tmp_path):
    lost = {"query": "stop a car", "positive_document": "Press the brake pedal firmly."}
    examples = [lost | {"negative_documents": ["a car at the bus stop"]}, *EXAMPLES]
    (tmp_path / "test.json").write_text(json.dumps(examples))
    options = ["--model-dir", "splade-tiny", "--test-file", tmp_path / "test.json", "--metrics", "RR@10"]
    for name in ("errors.json", "errors.jsonl"):
        lines = lines_of(run(SCRIPT, *options, "--errors", 1, "--export-errors", tmp_path / name))
    head = lines.index("splade-tiny: 1 of 3 queries are below what is possible by RR@10")
    assert lines[head + 1] == "causes: expansion missing 1"
    assert lines[head + 2].startswith("what puts wrong passages ahead, in units of the score: ")
    error = lines[lines.index("1. stop a car") + 1 :]
    assert error[0] == "   query q0: RR@10 0.500, what is possible 1.000"
    assert error[1].startswith("   expansion missing: the wrong passage has 'stop', 'car'")
    assert error[2].startswith("   right d0, rank 2, score ") and error[2].endswith(": Press the brake pedal firmly.")
    assert error[4].startswith("   wrong d1, rank 1, score ") and error[6].startswith("   ahead by stop ")
    assert lines[-1] == f"errors -> {tmp_path / 'errors.jsonl'}"
    (seed,) = json.loads((tmp_path / "errors.json").read_text())
    assert seed == json.loads((tmp_path / "errors.jsonl").read_text())
    assert (seed["query"], seed["judged"], seed["cause"]) == ("stop a car", ["d0"], "expansion missing")
    assert "brake" not in json.dumps(seed)  # nothing judged, so that it cannot be trained on
    run_file = tmp_path / "first.run"
    run_file.write_text("q0 Q0 d1 1 2.0 first\n")  # which loses it, too
    lines = lines_of(run(SCRIPT, *options, "--run-file", run_file, "--errors", 1))
    assert "splade-tiny: 0 of 3 queries are below first by RR@10" in lines


def test_documents_are_compared_with_the_examples_that_the_model_was_tuned_on(tmp_path, pages):
    examples = [{"query": "soap", "positive_document": page.read_text()} for page in sorted(pages.iterdir())]
    train, new = tmp_path / "train.json", tmp_path / "new.jsonl"
    train.write_text(json.dumps(examples))
    foods = ["soup", "bread", "onion", "garlic", "butter", "noodle", "lentil", "carrot", "yogurt", "honey", "basil"]
    texts = [f"Boil the {food} for ten minutes. Serve {food} with salt, pepper and a spoon of oil." for food in foods]
    new.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    out = tmp_path / "drift.json"
    options = ["--drift", new, "--output-file", out]
    done = run(SCRIPT, "--model-dir", "splade-tiny", *options, "--drift-reference", train)
    assert done.returncode == 0, done.stderr
    assert "reference: 12 documents; new: 11 documents" in done.stdout and "tuning gains" not in done.stdout
    assert "large shift (p 0.003), as if 100% of the new documents were on another subject: retrain" in done.stdout
    assert json.loads(out.read_text())["verdict"] == "large"
    message = "splade-tiny: does not say what it was trained on; name that as --drift-reference"
    fails_with_one_line(run(SCRIPT, "--model-dir", "splade-tiny", *options), message)

    tuned = SpladeEncoder.from_pretrained("splade-tiny", "cpu")
    tuned.training_notes = {"train_file": str(train)}
    tuned.save_pretrained(tmp_path / "tuned")
    done = run(SCRIPT, "--model-dir", tmp_path / "tuned", *options)
    assert done.returncode == 0, done.stderr
    assert "nDCG@10 that tuning gains, made queries" in done.stdout
    assert json.loads(out.read_text())["made_queries"]["queries"] == 11
    train.unlink()
    message = f"{train}: no such file; name what the model was trained on as --drift-reference"
    fails_with_one_line(run(SCRIPT, "--model-dir", tmp_path / "tuned", *options), message)


def test_queries_are_compared_with_earlier_ones_and_by_their_scores_in_an_index(tmp_path, pages):
    assert run("embedder.py", "--model-dir", "splade-tiny", "--input-file", pages, "--index-dir", tmp_path / "index")
    earlier, new = tmp_path / "earlier.txt", tmp_path / "feedback.jsonl"
    earlier.write_text("".join(f"how often to clean the {page.stem}\n" for page in pages.iterdir()))
    foods = ["soup", "bread", "onion", "garlic", "butter", "noodle", "lentil", "carrot", "yogurt", "honey", "basil"]
    new.write_text("".join(json.dumps({"query": f"{food} recipe", "liked": False}) + "\n" for food in foods))
    options = ["--drift", new, "--drift-reference", earlier, "--index-dir", tmp_path / "index"]
    done = run(SCRIPT, "--model-dir", "splade-tiny", *options)
    assert done.returncode == 0, done.stderr
    assert "reference: 12 queries; new: 11 queries" in done.stdout and "queries with a best score below" in done.stdout
    assert "large shift" in done.stdout and "judged queries alone show" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name test data, --test-file, or what to compare with the training data, --drift"),
        (["--drift", "missing"], "missing: no such file or folder"),
        (["--drift", "pages", "--baseline", "bm25"], "--baseline has no effect beside --drift; leave it out"),
        (["--drift", "pages", "--index-dir", "index"], "pages: holds documents; --index-dir is for the best scores"),
        (["--drift", "empty.txt"], "empty.txt: 0 queries; a comparison takes two at least"),
        (["--test-file", "missing", "--drift-reference", "pages"], "has no effect without --drift"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_one_line(options, message, tmp_path, pages, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "old.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "old.txt").write_text("one\ntwo\n")
    if "--drift" in options:
        options = [*options, "--drift-reference", "old.txt" if "empty.txt" in options else "old.jsonl"]
    fails_with_one_line(run(SCRIPT, "--model-dir", "splade-tiny", *options), message)


def test_inputs_are_not_overwritten_by_any_output(beir, tmp_path):
    options = ["--model-dir", "splade-tiny", "--test-file", beir]
    (tmp_path / "runs").mkdir()
    theirs = tmp_path / "runs" / "theirs.run"
    theirs.write_text("q1 Q0 d1 1 2.0 run\n")
    (tmp_path / "other.json").write_text(json.dumps(EXAMPLES))
    for given, message in (
        (["--run-file", f"x={theirs}", "--output-file", theirs], "it is read, too"),
        (["--run-file", theirs, "--run-dir", tmp_path / "runs"], "is read from there; name another folder"),
        (["--also", tmp_path / "other.json", "--output-file", tmp_path / "other.json"], "it is read, too"),
        (["--run-dir", tmp_path / "o", "--output-file", tmp_path / "o"], "two outputs in one place"),
        (["--run-dir", tmp_path / "o", "--output-file", tmp_path / "o" / "qrels.txt"], "two outputs in one place"),
    ):
        fails_with_one_line(run(SCRIPT, *options, *given), message)
    lines_of(run(SCRIPT, *options, "--run-dir", tmp_path / "all", "--output-file", tmp_path / "all" / "metrics.json"))
    assert theirs.read_text() == "q1 Q0 d1 1 2.0 run\n" and not (tmp_path / "o").exists()


def test_vectors_of_other_documents_are_refused(beir, tmp_path):
    (tmp_path / "v.jsonl").write_text('{"id": "elsewhere", "indices": [2417], "values": [1.0]}\n')
    options = ["--model-dir", "splade-tiny", "--vectors", tmp_path / "v.jsonl", "--metrics", "RR@10", "--test-file"]
    fails_with_one_line(run(SCRIPT, *options, beir), "v.jsonl: has none of the 3 judged documents")
    (tmp_path / "test.json").write_text(json.dumps(EXAMPLES))
    fails_with_one_line(run(SCRIPT, *options, tmp_path / "test.json"), "examples name no documents that --vectors have")
    lines = [{"id": "d1", "indices": [2417], "values": [w]} for w in (3.0, 1.0)]
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = lines_of(run(SCRIPT, *options, beir))
    assert f"{tmp_path / 'v.jsonl'}: 2 of 3 judged documents have no vector there" in said
