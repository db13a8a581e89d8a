"""Search a document collection with a SPLADE model, at a prompt or for one query.

    python test_queries.py --model-dir ./fine_tuned_splade --docs-file documents.json
    python test_queries.py --model-dir ./fine_tuned_splade --docs-file ./docs --query "reset the device" --top-k 3
    python test_queries.py --model-dir ./fine_tuned_splade --docs-file ./docs --synonyms synonyms.txt

    from test_queries import load_splade_model, retrieve_documents
    tokenizer, model, device = load_splade_model("./fine_tuned_splade")
    retrieve_documents("reset the device", ["First document", "Second document"], tokenizer, model, device, top_k=3)

Documents are encoded once, those that are longer than the model's limit by their passages. Each hit shows its rank,
score and text (of a long document, its best passage's) and the terms that query and text share with their part of the
score.
"""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from utils.arguments import ScriptArguments, ScriptParser, check_positive, positive_int, refuse_overwriting
from utils.console import print_line, print_long_documents, print_skipped, quiet_libraries, run_script
from utils.device import PRECISIONS
from utils.documents.reading import read_documents
from utils.files import check_writable, write_json
from utils.records import Document, replace_surrogates
from utils.search.passages import DocumentIndex
from utils.search.synonyms import Synonyms
from utils.splade.encoder import SpladeEncoder
from utils.splade.tokenization import check_text, check_texts

if TYPE_CHECKING:  # importing it before utils.console would make tqdm warn in a notebook
    from transformers import PreTrainedTokenizerBase

SNIPPET_CHARACTERS = 200  # of a hit's text; about two lines of a terminal


def load_splade_model(
    model_dir: str = "./fine_tuned_splade",
    device: str | None = None,
    precision: str = "auto",
    threads: int | None = None,
) -> "tuple[PreTrainedTokenizerBase, SpladeEncoder, torch.device]":
    """Load a model folder, a hub id, or `splade-tiny`; return (tokenizer, model, device).

    Raises:
        ValueError, OSError: the model or the device cannot be had.
    """
    quiet_libraries()
    model = SpladeEncoder.from_pretrained(model_dir, device, precision=precision, threads=threads)
    return model.tokenizer, model, model.device


def retrieve_documents(
    query: str,
    documents: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    model: SpladeEncoder,
    device: torch.device,
    top_k: int = 3,
) -> list[dict[str, Any]]:
    """Return the `top_k` documents that match the query best, best first.

    The same documents are encoded once: a second call with an equal list and the same model reuses their index.

    Returns:
        [{"rank", "index", "score", "snippet", "terms"}, ...]: `index` is the document's position in `documents`,
        `score` the dot product, `snippet` the beginning of the document, `terms` the terms that query and document
        share with their part of the score, [(word, part), ...], heaviest first, parts summing to 1. Of a document
        longer than the model's limit, these are its best passage's. Documents without a shared term are never returned.

    Raises:
        ValueError: `top_k` is not at least 1.
        TypeError: `query` is not a string, `documents` is one rather than a list of them, or holds something else.
    """
    global _last
    check_positive(top_k=top_k)
    check_text(query, "query")
    documents = list(check_texts(documents, "documents"))
    search = _last  # another thread may replace it
    if search is None or search.model is not model.to(device) or search.documents != documents:
        search = _last = DocumentSearch(documents, model)
    return search.search(query, top_k)


class DocumentSearch:
    """Documents, encoded and indexed.

    Args:
        synonyms: expand queries before they are encoded.
        titles: see `utils.search.passages.DocumentIndex`.
    """

    def __init__(
        self,
        documents: Sequence[str],
        model: SpladeEncoder,
        show_progress: bool = False,
        synonyms: Synonyms | None = None,
        titles: Sequence[str] | None = None,
    ) -> None:
        self.documents, self.model, self.synonyms = list(documents), model, synonyms
        self.index = DocumentIndex(model, self.documents, titles, show_progress=show_progress)
        if show_progress:
            print_long_documents(self.index.long_documents, len(self.documents), model.max_length)

    def expand(self, query: str) -> str:
        """Return a query with its synonyms."""
        return self.synonyms.expand(query) if self.synonyms else query

    def search(self, query: str, top_k: int) -> list[dict[str, Any]]:
        """See `retrieve_documents`."""
        vector = self.model.encode_query(self.expand(query))
        results = []
        for rank, hit in enumerate(self.index.search(vector, top_k), 1):
            passage = self.index.vectors[hit.passage]
            shared, in_query, in_passage = np.intersect1d(
                vector.indices, passage.indices, assume_unique=True, return_indices=True
            )
            parts = vector.values[in_query] * passage.values[in_passage]
            order = np.argsort(-parts, kind="stable")
            words = self.model.decode_terms(shared[order])
            results.append(
                {
                    "rank": rank,
                    "index": hit.document,
                    "score": hit.score,
                    "snippet": _snippet(self.index.passages[hit.passage]),
                    "terms": [(word, float(part)) for word, part in zip(words, parts[order] / parts.sum())],
                }
            )
        return results


_last: DocumentSearch | None = None


def _snippet(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SNIPPET_CHARACTERS else line[: SNIPPET_CHARACTERS - 3].rsplit(" ", 1)[0] + "..."


def print_hits(results: Sequence[dict[str, Any]], documents: Sequence[Document], top_terms: int) -> None:
    """Print hits with their metadata, if they have some, and their matching terms."""
    if not results:
        print_line("No document shares a term with this query.")
    for result in results:
        document = documents[result["index"]]
        print_line(f"Rank {result['rank']} (Score: {result['score']:.4f}) {document.id}")
        print_line(f"  {result['snippet']}")
        if document.metadata:
            print_line("  " + _snippet(", ".join(f"{name}: {value}" for name, value in document.metadata.items())))
        print_line("  matched: " + ", ".join(f"{word} {part:.0%}" for word, part in result["terms"][:top_terms]))


def prompt_for_queries(
    search: DocumentSearch, documents: Sequence[Document], top_k: int, top_terms: int
) -> list[dict[str, Any]]:
    """Ask for queries until `quit` or the end of input; return the records of `answer_query`."""
    records = []
    sys.stdin.reconfigure(errors="replace")  # bytes that are not UTF-8 end no session
    print_line("Type a query, or quit.")
    while True:
        try:
            query = input("query> ").strip()
        except EOFError:
            break
        if query.lower() in ("quit", "exit"):
            break
        if query:
            records.append(answer_query(query, search, documents, top_k, top_terms))
    return records


def answer_query(
    query: str, search: DocumentSearch, documents: Sequence[Document], top_k: int, top_terms: int
) -> dict[str, Any]:
    """Search, print the hits, and return them for the output file: {"query", "results"}."""
    if search.model.tokenize_and_count_queries([search.expand(query)])[1]:
        print_line(f"The query is longer than {search.model.query_max_length} tokens and was cut.")
    started = time.perf_counter()
    results = search.search(query, top_k)
    milliseconds = (time.perf_counter() - started) * 1000
    print_hits(results, documents, top_terms)
    print_line(f"({milliseconds:.1f} ms)\n")
    found = [documents[result["index"]] for result in results]
    results = [{**result, "id": document.id, "metadata": document.metadata} for result, document in zip(results, found)]
    return {"query": query, "results": results}


def main(args: ScriptArguments) -> None:
    refuse_overwriting(args.output_file, args.docs_file, args.synonyms)
    if args.output_file:
        check_writable(args.output_file)
    synonyms = Synonyms(args.synonyms) if args.synonyms else None
    documents, skipped = read_documents(args.docs_file)
    print_skipped(skipped)
    _, model, device = load_splade_model(args.model_dir, args.device, args.precision, args.threads)
    print_line(f"{len(documents):,} documents, on {device}")
    titles = [document.title for document in documents]
    search = DocumentSearch([document.full_text for document in documents], model, True, synonyms, titles)
    search.search("warm up", args.top_k)  # the first query is traced, which is no query's latency
    if args.query is None:
        records = prompt_for_queries(search, documents, args.top_k, args.top_terms)
    else:
        records = [answer_query(replace_surrogates(args.query), search, documents, args.top_k, args.top_terms)]
    if args.output_file:
        write_json(args.output_file, records)
        print_line(f"{len(records):,} queries -> {args.output_file}")


def parse_args() -> ScriptArguments:
    parser = ScriptParser(__doc__)
    add = parser.add_argument_group("documents").add_argument
    add("--docs-file", required=True, metavar="PATH", help="documents to search: a file or a folder")
    add = parser.add_argument_group("queries and hits").add_argument
    add("--query", default=None, help="one query; without it, queries are asked for until quit")
    add("--top-k", type=positive_int, default=5, help="hits per query")
    add("--top-terms", type=positive_int, default=8, help="matching terms shown of a hit")
    add("--synonyms", default=None, metavar="FILE", help="lines of `a, b` or `a => b`, which expand queries")
    add("--output-file", default=None, metavar="FILE", help="JSON file for queries and hits")
    parser.add_model_argument()
    parser.add_device_arguments(*PRECISIONS)
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
