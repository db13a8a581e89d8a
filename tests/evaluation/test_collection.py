"""Test collections in the BEIR layout, and those that training examples make."""

import json

import pytest

from utils.evaluation.collection import Collection, keep_nearest, pool_examples
from utils.evaluation.reading import read_collection, read_ir_dataset, read_trec_collection
from utils.records import Document, Passage, TrainingExample


def test_a_collection_keeps_judged_queries(beir):
    collection = read_collection(beir)
    assert collection.queries == {"q1": "red fruit", "q2": "yellow fruit"}
    assert collection.qrels == {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1}}


@pytest.mark.parametrize(
    "lines",
    [
        "q1\td1\t1.0\nq1\td3\t-1\nq2\td2\t0\n",
        "q1 0 d1 1\n\nq1 0 d3 -1\n",
        "query-id\titeration\tcorpus-id\tRel\nq1\tQ0\td1\t1\nq1\tQ0\td3\t-1",
    ],
)
def test_judgments_of_a_split_may_have_trecs_columns_and_grades_of_all_signs(lines, beir):
    (beir / "qrels" / "dev.tsv").write_text(lines, encoding="utf-8-sig")
    collection = read_collection(beir, split="dev")
    assert collection.queries == {"q1": "red fruit"}
    assert collection.qrels == {"q1": {"d1": 1, "d3": -1}}


@pytest.mark.parametrize("line", ["q1 d1", "q1\td1\thigh", "q1 d1 0.5", "q1 0 d1 1 run", "q1\td1\tnan"])
def test_a_broken_judgment_is_named_with_its_line(line, beir):
    (beir / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{line}\n")
    with pytest.raises(ValueError, match=r"test\.tsv: line 2.*whole number"):
        read_collection(beir)


def test_judgments_that_cannot_be_read_are_named(beir):
    with pytest.raises(FileNotFoundError, match=r"dev\.tsv: no such file; the folder has the splits test"):
        read_collection(beir, split="dev")
    (beir / "qrels" / "test.tsv").write_bytes(b"q1\td1\t1\xff")
    with pytest.raises(ValueError, match=r"test\.tsv: not UTF-8"):
        read_collection(beir)


def test_pooled_examples_judge_all_that_was_made_from_a_passage():
    rows = [
        ("title", "the body", "p1", []),
        ("a sentence", "the rest of the body", "p1", ["a stranger"]),
        ("another", "elsewhere", None, ["the body"]),
        ("title", "a second answer", "p2", []),
        ("", "asked by nobody", "p3", []),
    ]
    pooled = pool_examples(
        TrainingExample(query=query, positive_document=text, positive_id=name, negative_documents=negatives)
        for query, text, name, negatives in rows
    )
    texts = {document.id: document.text for document in pooled.documents}
    judged = {pooled.queries[query]: {texts[d] for d in grades} for query, grades in pooled.qrels.items()}
    passage = {"the body", "the rest of the body"}
    assert judged == {"title": passage | {"a second answer"}, "a sentence": passage, "another": {"elsewhere"}}
    assert set(texts.values()) == passage | {"a stranger", "elsewhere", "a second answer", "asked by nobody"}


def test_the_collection_of_examples_is_their_passages_and_further_documents_each_once():
    passages = [Passage(passage_id=name, passage=text) for name, text in (("p1", "one"), ("p2", "two"), ("p3", "two"))]
    rows = [TrainingExample(query="first", positive_document="one", positive_id="p1", negative_documents=["two", "no"])]
    pooled = pool_examples(rows, passages)
    assert [document.text for document in pooled.documents] == ["one", "two", "no"]
    assert pooled.qrels == {"q0": {"d0": 1}}


def test_the_nearest_documents_are_the_judged_ones_and_the_first_ranks_of_all_queries():
    words = ("engine", "brake")
    texts = [f"{word} " * (9 - i) + f"w{i} " * 3 * i for i in range(9) for word in words] + ["neither of them"] * 4
    passages = [Passage(passage_id=None, passage=f"{text} n{i}") for i, text in enumerate(texts)]
    answers = [passages[-1].passage, passages[-2].passage]
    rows = [TrainingExample(query=word, positive_document=text) for word, text in zip(words, answers)]
    data = pool_examples(rows, passages)
    nearest = [document.text for document in keep_nearest(data, 7).documents]
    assert nearest == [passage.passage for passage in passages[:5]] + [passages[-2].passage, passages[-1].passage]
    assert keep_nearest(data, 22) == data and len(keep_nearest(data, 21).documents) == 20
    assert [document.text for document in keep_nearest(data, 1).documents] == answers[::-1]


def test_fields_of_queries_are_kept(beir):
    lines = [
        {"_id": "q1", "text": "red fruit", "query_type": "keyword", "metadata": {"year": 2020, "tags": ["a"]}},
        {"_id": "q2", "text": "yellow fruit"},
    ]
    (beir / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_collection(beir).fields == {"q1": {"query_type": "keyword", "year": "2020"}, "q2": {}}
    example = TrainingExample(
        query="q", positive_document="p", query_type="how", metadata={"source": "manual", "nested": {"a": 1}}
    )
    assert pool_examples([example]).fields == {"q0": {"query_type": "how", "source": "manual"}}


def test_judged_queries_that_are_not_there_or_have_no_answer_are_said(beir, capsys):
    (beir / "qrels" / "test.tsv").write_text("q1\td1\t1\nq2\td2\t0\nq8\td1\t1\nq9\td1\t1\n")
    assert read_collection(beir).queries.keys() == {"q1"}
    assert capsys.readouterr().out.splitlines() == [
        f"{beir / 'qrels' / 'test.tsv'}: 2 judged queries are not in queries.jsonl, such as q8",
        f"{beir / 'qrels' / 'test.tsv'}: 1 queries have no judgment above 0; they are left out",
    ]


def test_a_query_that_is_a_document_does_not_ask_for_itself():
    documents = [Document(id=name, title="T", text="the same argument") for name in ("a", "b", "c")]
    documents += [Document(id="d", text="1"), Document(id="e", title="e", text="said elsewhere")]
    queries = {
        "a": "the same argument",
        "b": "T\nthe same argument",
        "c": "the same argument",
        "d": "another",
        "e": "e",
    }
    qrels = {"a": {"b": 1}, "b": {"a": 1}, "c": {"c": 1}, "d": {"a": 1}, "e": {"a": 1}}
    assert Collection(documents, queries, qrels).own_documents() == {"a": "a", "b": "b", "e": "e"}


def test_topics_and_judgments_of_trec_are_a_collection(beir, tmp_path):
    (tmp_path / "topics").write_text("<top><num> Number: 7 <title> red fruit </top>")
    (tmp_path / "qrels").write_text("7 0 d1 1\n7 0 d2 -2\n")
    data = read_trec_collection(tmp_path / "topics", tmp_path / "qrels", beir)
    assert data.queries == {"7": "red fruit"} and data.qrels == {"7": {"d1": 1, "d2": -2}} and len(data.documents) == 3
    (tmp_path / "qrels").write_text("8 0 d1 1\n")
    with pytest.raises(ValueError, match="qrels: no query of topics has a judgment above 0"):
        read_trec_collection(tmp_path / "topics", tmp_path / "qrels", beir)


def test_a_collection_of_ir_datasets_is_read_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path))
    import ir_datasets
    from ir_datasets.datasets.base import Dataset
    from ir_datasets.formats import TrecQrels, TsvDocs, TsvQueries
    from ir_datasets.util import LocalDownload

    files = {
        "docs": "d1\tapples are red\nd2\tthe sea\n",
        "queries": "q1\tred fruit\n",
        "qrels": "q1 0 d1 2\nq1 0 d2 -1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    parts = [
        TsvDocs(LocalDownload(tmp_path / "docs"), namespace="test", lang="en"),
        TsvQueries(LocalDownload(tmp_path / "queries"), namespace="test", lang="en"),
        TrecQrels(LocalDownload(tmp_path / "qrels"), {1: "relevant"}),
    ]
    monkeypatch.setitem(ir_datasets.registry._registered, "fruit/test", Dataset(*parts))
    monkeypatch.setitem(ir_datasets.registry._registered, "fruit/docs", Dataset(*parts[:2]))
    data = read_ir_dataset("fruit/test")
    assert [(document.id, document.text) for document in data.documents] == [
        ("d1", "apples are red"),
        ("d2", "the sea"),
    ]
    assert data.queries == {"q1": "red fruit"} and data.qrels == {"q1": {"d1": 2, "d2": -1}}
    assert read_ir_dataset("fruit/test", texts=False).documents == []
    with pytest.raises(ValueError, match="fruit/docs: this collection of ir_datasets has no qrels"):
        read_ir_dataset("fruit/docs")
    with pytest.raises(ValueError, match="nonsense/x: ir_datasets knows no such collection"):
        read_ir_dataset("nonsense/x")
