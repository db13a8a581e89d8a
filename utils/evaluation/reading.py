"""Test collections of files: examples, BEIR's folders, TREC's topics and judgments, and those of ir_datasets."""

from collections.abc import Iterator
from pathlib import Path

from utils.console import print_line, print_skipped
from utils.documents.reading import read_documents
from utils.evaluation.collection import Collection, plain_fields, pool_examples
from utils.evaluation.trec import read_qrels, read_topics
from utils.records import Document, corpus_file, read_examples, read_json_records, read_passages

IR_DATASETS = "ir_datasets:"  # before the name of one of its collections


def read_test_data(
    path: str | Path,
    documents: str | Path | None = None,
    split: str | None = None,
    judgments: str | Path | None = None,
    texts: bool = True,
) -> Collection:
    """Read a test collection: a BEIR folder, a file of examples, which is pooled, one of TREC's topics, or a collection
    of ir_datasets.

    Args:
        documents: replace a BEIR folder's corpus, are those of topics, and are added to the documents of examples.
        split: names a BEIR folder's judgments.
        judgments: of TREC's topics.
        texts: read the documents, of anything but examples.

    Raises:
        ValueError, OSError, ImportError: broken or missing files, or nothing to test with.
    """
    if str(path).startswith(IR_DATASETS):
        if documents or split or judgments:
            raise ValueError(f"{path}: has its documents and judgments; leave out --docs-file, --split and --qrels")
        return read_ir_dataset(str(path).removeprefix(IR_DATASETS), texts)
    path = Path(path)
    if judgments and path.is_file() and (documents or not texts):
        if split:
            raise ValueError(f"{judgments}: --split has no effect beside --qrels; leave it out")
        return read_trec_collection(path, judgments, documents, texts)
    if judgments:
        raise ValueError(f"{path}: --qrels judges a file of TREC's topics, whose documents --docs-file names")
    if path.is_dir():
        return read_collection(path, documents, split or "test", texts)
    if not texts:
        raise ValueError(
            f"{path}: examples name no documents that `vectors` have; take a BEIR folder, or TREC's topics"
        )
    if split:
        raise ValueError(f"{path}: a file of examples has no splits; --split is for a folder in the BEIR layout")
    examples = read_examples(path)
    passages = read_passages(path, examples)
    data = pool_examples(examples, passages)
    if not data.qrels:
        raise ValueError(f"{path}: no example has both a query and a positive document")
    if documents is not None and passages:
        raise ValueError(f"{corpus_file(path)}: holds the documents that these queries search; leave out --docs-file")
    if documents is not None:
        known = {document.text for document in data.documents}
        added, skipped = read_documents(documents)
        print_skipped(skipped)
        data.documents.extend(d for d in added if d.full_text not in known)
    return data


def read_collection(
    folder: str | Path, documents: str | Path | None = None, split: str = "test", texts: bool = True
) -> Collection:
    """Read a test collection in the BEIR layout: corpus.jsonl (or `documents`, any path that `read_documents` takes),
    queries.jsonl and the judgments qrels/SPLIT.tsv. Only queries with a judgment above 0 are kept. What was not read of
    a folder of documents is printed.

    Args:
        texts: read the documents; else there are none.

    Raises:
        ValueError: a file is broken, or nothing is judged.
        OSError: a file is missing.
    """
    folder = Path(folder)
    if texts and documents is None and not (folder / "corpus.jsonl").is_file():
        raise FileNotFoundError(f"{folder}: has no corpus.jsonl; name the documents in `docs_file`")
    judgments = folder / "qrels" / f"{split}.tsv"
    if not judgments.is_file():
        others = ", ".join(sorted(file.stem for file in judgments.parent.glob("*.tsv")))
        raise FileNotFoundError(f"{judgments}: no such file" + (f"; the folder has the splits {others}" * bool(others)))
    queries, fields = {}, {}
    for place, value in read_json_records(folder / "queries.jsonl"):
        if not isinstance(value, dict) or "_id" not in value or not isinstance(value.get("text"), str):
            raise ValueError(f"{place}: a query needs the fields '_id' and 'text'")
        name = str(value.pop("_id"))
        queries[name] = value.pop("text")
        fields[name] = plain_fields(value) | plain_fields(value.get("metadata"))
    qrels = _judged(read_qrels(judgments), queries, judgments, "queries.jsonl")
    return Collection(
        _read_all(folder if documents is None else documents) if texts else [],
        {query: queries[query] for query in qrels},
        qrels,
        {query: fields[query] for query in qrels},
    )


def read_trec_collection(
    topics: str | Path, judgments: str | Path, documents: str | Path | None, texts: bool = True
) -> Collection:
    """Read a test collection of TREC's topics and judgments and of documents, any path that `read_documents` takes.

    Raises:
        ValueError: a file is broken, or nothing is judged.
        OSError: a file is missing.
    """
    queries = read_topics(topics)
    qrels = _judged(read_qrels(judgments), queries, judgments, Path(topics).name)
    return Collection(_read_all(documents) if texts else [], {query: queries[query] for query in qrels}, qrels)


def read_ir_dataset(name: str, texts: bool = True) -> Collection:
    """Read a collection of the library ir_datasets, which fetches it, such as `beir/scifact/test`.

    Raises:
        ImportError: the library is not installed.
        ValueError: it does not know the name, or the collection lacks documents, queries or judgments.
        OSError: it cannot be fetched.
    """
    try:
        import ir_datasets
    except ImportError:
        raise ImportError("collections of ir_datasets: pip install ir_datasets") from None
    try:
        dataset = ir_datasets.load(name)
    except KeyError:
        raise ValueError(f"{name}: ir_datasets knows no such collection; ir-datasets.com lists them") from None
    for part in ("docs", "queries", "qrels"):
        if not getattr(dataset, f"has_{part}")():
            raise ValueError(
                f"{name}: this collection of ir_datasets has no {part}; take one of its splits, such as test"
            )
    queries = {query.query_id: query.default_text() for query in dataset.queries_iter()}
    qrels: dict[str, dict[str, int]] = {}
    for judgment in dataset.qrels_iter():
        qrels.setdefault(judgment.query_id, {})[judgment.doc_id] = judgment.relevance
    qrels = _judged(qrels, queries, name, "its queries")
    documents = list(_ir_documents(dataset)) if texts else []
    return Collection(documents, {query: queries[query] for query in qrels}, qrels)


def _ir_documents(dataset) -> Iterator[Document]:
    for document in dataset.docs_iter():
        title = getattr(document, "title", "") or ""
        text = getattr(document, "text", None)
        yield Document(id=document.doc_id, title=title, text=document.default_text() if text is None else text)


def _read_all(path: str | Path) -> list[Document]:
    documents, skipped = read_documents(path)
    print_skipped(skipped)
    return documents


def _judged(
    qrels: dict[str, dict[str, int]], queries: dict[str, str], judgments: str | Path, source: str
) -> dict[str, dict[str, int]]:
    """Return the judgments of the queries that there are and that have one above 0; say how many are left out."""
    known = {query: grades for query, grades in qrels.items() if query in queries}
    if unknown := [query for query in qrels if query not in queries]:
        print_line(f"{judgments}: {len(unknown):,} judged queries are not in {source}, such as {unknown[0]}")
    kept = {query: grades for query, grades in known.items() if max(grades.values()) > 0}
    if not kept:
        raise ValueError(f"{judgments}: no query of {source} has a judgment above 0")
    if blank := len(known) - len(kept):
        print_line(f"{judgments}: {blank:,} queries have no judgment above 0; they are left out")
    return kept
