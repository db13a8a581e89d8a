"""Search documents with a SPLADE model and by words, at a prompt or for one query.

    python test_queries.py --model-dir ./fine_tuned_splade --docs-file documents.json
    python test_queries.py --model-dir ./fine_tuned_splade --docs-file ./docs --query "reset the device" --top-k 3
    python test_queries.py --docs-file ./docs --suggest-synonyms synonyms.txt
    python test_queries.py --model-dir ./fine_tuned_splade --docs-file ./docs --synonyms synonyms.txt
    python test_queries.py --model-dir ./fine_tuned_splade --index-dir ./index --filter "year>=2020"
    python test_queries.py --index-url http://localhost:6333
    python test_queries.py --model-dir ./fine_tuned_splade --index-dir ./index --serve --port 8000

    from test_queries import load_splade_model, retrieve_documents
    tokenizer, model, device = load_splade_model("./fine_tuned_splade")
    retrieve_documents("reset the device", ["First document", "Second document"], tokenizer, model, device, top_k=3)

Documents of --docs-file are encoded at each start; embedder.py makes an --index-dir that opens at once, with its own
models unless others are named. Documents that are longer than the model's limit are searched by their passages. The
search is hybrid: the scores of the model, of BM25 and, where there are some, of dense vectors, each divided by the
query's highest, are added; --search splade, bm25 or dense is one of them alone. Each hit shows its rank, score and text
(of a long document, its best passage's) and the terms that query and text share with their part of the model's score.
At the prompt, :help lists what can be done with hits.

--suggest-synonyms finds the abbreviations that the documents define, as "central processing unit (CPU)", and writes
them for a person to approve; no model is loaded.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from utils.arguments import (
    ScriptArguments,
    ScriptParser,
    check_positive,
    language_code,
    number_in_range,
    positive_int,
    refuse_idle_flags,
    refuse_overwriting,
)
from utils.console import print_line, print_long_documents, print_skipped, progress_bar, quiet_libraries, run_script
from utils.device import PRECISIONS
from utils.documents.reading import read_documents, stream_documents
from utils.files import check_writable, write_json
from utils.records import Document, replace_surrogates
from utils.search.abbreviations import suggest_synonyms
from utils.search.base_index import BaseIndex
from utils.search.comparison import read_documents_of, search_with
from utils.search.dense import DenseEncoder
from utils.search.document_index import DocumentIndex
from utils.search.filters import parse_filters
from utils.search.locations import SERVER_FLAGS, IndexLocation, add_server_arguments
from utils.search.prompt import Prompt
from utils.search.searcher import SEARCHES, DocumentSearch
from utils.search.settings import add_ranking_arguments, ranking_options
from utils.search.synonyms import Synonyms
from utils.splade.base_encoder import Encoder
from utils.splade.opening import open_encoder
from utils.splade.tokenization import check_text, check_texts
from utils.training_data.feedback import check_feedback_file

if TYPE_CHECKING:  # importing it before utils.console would make tqdm warn in a notebook
    import socket

    from transformers import PreTrainedTokenizerBase

    from utils.serving.gate import Access


def load_splade_model(
    model_dir: str = "./fine_tuned_splade",
    device: str | None = None,
    precision: str = "auto",
    threads: int | None = None,
) -> "tuple[PreTrainedTokenizerBase, Encoder, torch.device]":
    """Load a model folder, a hub id, or `splade-tiny`; return (tokenizer, model, device).

    Raises:
        ValueError, OSError: the model or the device cannot be had.
    """
    quiet_libraries()
    model = open_encoder(model_dir, device, precision=precision, threads=threads)
    return model.tokenizer, model, model.device


def retrieve_documents(
    query: str,
    documents: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    model: Encoder,
    device: torch.device,
    top_k: int = 3,
) -> list[dict[str, Any]]:
    """Return the `top_k` documents that match the query best, best first.

    The same documents are encoded once: a second call with an equal list and the same model reuses their index.

    Returns:
        [{"rank", "index", "score", "snippet", "terms"}, ...]: `index` is the document's position in `documents`,
        `score` the dot product, `terms` the terms that query and document share with their part of the score,
        [(word, part), ...], heaviest first, parts summing to 1, `snippet` the document from the sentence or line on
        that holds the most of these. Of a document longer than the model's limit, these are its best passage's.
        Documents without a shared term are never returned.

    Raises:
        ValueError: `top_k` is not at least 1.
        TypeError: `query` is not a string, `documents` is one rather than a list of them, or holds something else.
    """
    global _last
    check_positive(top_k=top_k)
    check_text(query, "query")
    documents = list(check_texts(documents, "documents"))
    last = _last  # another thread may replace it
    if last is None or last[1].model is not model.to(device) or last[0] != documents:
        index = DocumentIndex(model)
        index.add([Document(id=str(position), text=text) for position, text in enumerate(documents)])
        last = _last = documents, DocumentSearch(index, model, "splade")
    names = ("rank", "index", "score", "snippet", "terms")
    return [{name: hit[name] for name in names} for hit in last[1].search(query, top_k)]


_last: tuple[list[str], DocumentSearch] | None = None


def open_index(args: ScriptArguments) -> tuple[BaseIndex, Encoder]:
    """Open the index, or make one of the documents, and load its models."""
    location = None
    if args.docs_file:
        documents, skipped = read_documents(args.docs_file)
        print_skipped(skipped)
    else:
        location = IndexLocation(args)
    own = location.models()[0] if location and "model_dir" not in args.given else None
    if location and not own and "model_dir" not in args.given:
        raise FileNotFoundError(f"{location}: there is no index; make it with embedder.py")
    _, model, device = load_splade_model(own or args.model_dir, args.device, args.precision, args.threads)
    dense = DenseEncoder(args.dense_model, args.device) if args.dense_model else None
    if location:
        index = location.open(model, dense)
        print_line(f"{index.describe()}, on {device}")
        return index, model
    index = DocumentIndex(model, language=args.language, dense=dense)
    print_line(f"{len(documents):,} documents, on {device}")
    index.add(documents, show_progress=True)
    print_long_documents(index.long_documents, len(documents), model.max_length)
    return index, model


def write_suggestions(args: ScriptArguments) -> None:
    """Write the abbreviations that the documents define to a file, which must not be there yet."""
    path = args.suggest_synonyms
    effective = {"suggest_synonyms", "docs_file", "index_dir", "index_url", "debug"}
    effective |= set(SERVER_FLAGS.split() if args.index_url else ())
    for name in sorted(args.given - effective):
        raise ValueError(f"`{name}` has no effect with `suggest_synonyms`; leave it out")
    if Path(path).exists():
        raise FileExistsError(f"{path}: is there already, and may hold what was approved; name another file")
    check_writable(path)
    skipped: list[str] = []
    with nullcontext() if args.docs_file else IndexLocation(args).open(None) as index:
        documents = read_documents_of(index) if index else stream_documents(args.docs_file, skipped)
        bar = progress_bar(documents, desc="reading", unit="documents")
        found, total = suggest_synonyms(path, (document.full_text for document in bar))
    print_skipped(skipped)
    if found:
        print_line(f"{found:,} abbreviations in {total:,} documents -> {path}; the lines that are right need approval")
    else:
        print_line(f"no abbreviation is defined in {total:,} documents")


def open_service(args: ScriptArguments) -> "tuple[Access, socket.socket]":
    """Return who may ask, and the socket; what is wrong with either is known before the model is loaded."""
    prompted = args.given & {"query", "output_file", "top_k", "top_terms"}
    if prompted:
        raise ValueError(f"`{min(prompted)}` is for the prompt and for one query; leave it out with `serve=True`")
    try:
        from utils.serving.server import open_socket, resolve_access
    except ImportError as error:
        raise ImportError(f"`serve=True` needs: pip install fastapi uvicorn prometheus-client ({error})") from None
    check_writable(args.feedback_file)
    access = resolve_access(args.host, args.allow_origin)
    return access, open_socket(args.host, args.port)


def serve_search(args: ScriptArguments, search: DocumentSearch, access: "Access", listening: "socket.socket") -> None:
    """Answer at a page and an API until a signal ends it."""
    from utils.serving.server import serve
    from utils.serving.service import Served, build_app

    searches = {"A": search}
    if args.ab_model_dir:
        searches["B"] = search_with(search, args.ab_model_dir, args.ab_index_dir)
        searches["B"].search("warm up", 1)
    try:
        serve(build_app(Served(searches, args.ab_share, Path(args.feedback_file)), access), listening)
    finally:
        if args.ab_model_dir:
            searches["B"].index.close()


def main(args: ScriptArguments) -> None:
    if args.suggest_synonyms:
        return write_suggestions(args)
    refuse_idle_flags(
        args,
        [
            (args.docs_file, "--docs-file", "language"),
            (args.index_url, "--index-url", SERVER_FLAGS),
            (args.serve, "--serve", "host port allow_origin ab_model_dir"),
            (args.ab_model_dir, "--ab-model-dir", "ab_index_dir ab_share"),
        ],
    )
    refuse_overwriting(args.output_file, args.docs_file, args.synonyms, args.index_dir, args.feedback_file)
    if args.query is None:
        check_feedback_file(args.feedback_file)
    if args.output_file:
        check_writable(args.output_file)
    service = open_service(args) if args.serve else None
    synonyms = Synonyms(args.synonyms) if args.synonyms else None
    where = parse_filters(args.filter)
    options = ranking_options(args, [args.search])
    index, model = open_index(args)
    with index:
        search = DocumentSearch(index, model, args.search, synonyms, where, **options)
        search.search("warm up", args.top_k)  # the first query is traced, which is no query's latency
        if service:
            return serve_search(args, search, *service)
        prompt = Prompt(search, args.top_k, args.top_terms, Path(args.feedback_file), args.filter)
        if args.query is None:
            prompt.run()
        else:
            prompt.answer(replace_surrogates(args.query))
    if args.output_file:
        write_json(args.output_file, prompt.records)
        print_line(f"{len(prompt.records):,} queries -> {args.output_file}")


def parse_args() -> ScriptArguments:
    parser = ScriptParser(__doc__)
    group = parser.add_argument_group("documents")
    add = group.add_mutually_exclusive_group(required=True).add_argument
    add("--docs-file", metavar="PATH", help="documents to search: a file or a folder")
    add("--index-dir", metavar="DIR", help="index to search, which embedder.py has made")
    add("--index-url", metavar="URL", help="Qdrant server or cluster with such an index (needs qdrant-client)")
    add = group.add_argument
    filters = "only documents with such metadata, as year>=2020 or kind=manual (= != < <= > >=); of several all hold, "
    filters += "and of several = of one field any"
    add("--filter", action="append", default=[], metavar="CONDITION", help=filters)
    language = "of the texts of --docs-file, for BM25: de, german; default: detected"
    add("--language", type=language_code, default=None, help=language)
    add = parser.add_argument_group("queries and hits").add_argument
    add("--query", default=None, help="one query; without it, queries are asked for until quit")
    add("--search", choices=SEARCHES, default="hybrid", help="what scores documents")
    add("--top-k", type=positive_int, default=5, help="hits per query")
    add("--top-terms", type=positive_int, default=8, help="matching terms shown of a hit")
    add("--synonyms", default=None, metavar="FILE", help="lines of `a, b` or `a => b`, which expand queries")
    suggest = "write the abbreviations that the documents define to this new file, to be approved for --synonyms"
    add("--suggest-synonyms", default=None, metavar="FILE", help=suggest)
    feedback = "where :like and :dislike record judgments, for generate_training_data.py"
    add("--feedback-file", default="feedback.jsonl", metavar="FILE", help=feedback)
    add("--output-file", default=None, metavar="FILE", help="JSON file for queries and hits")
    add_ranking_arguments(parser)
    add_server_arguments(parser)
    add = parser.add_argument_group("page and API").add_argument
    add("--serve", action="store_true", help="serve a page and an API (needs fastapi, uvicorn, prometheus-client)")
    token = "address to serve on; one that others can reach needs a token in the environment, SPLADE_TOKEN"
    add("--host", default="127.0.0.1", help=token)
    add("--port", type=number_in_range(int, 0, 65535), default=8000, help="0 for a free one")
    origins = "a site, as https://example.com, whose pages may ask too, or by whose name a proxy does"
    add("--allow-origin", action="append", default=[], metavar="ORIGIN", help=origins)
    add("--ab-model-dir", default=None, metavar="MODEL", help="a second model, whose hits are shown beside")
    add("--ab-index-dir", default=None, metavar="DIR", help="its index; default: the documents are encoded anew")
    share = "share of the sessions that get the second model, and the others the first, each alone"
    add("--ab-share", type=number_in_range(float, 0, 1), default=None, metavar="SHARE", help=share)
    parser.add_model_argument()
    parser.add_device_arguments(*PRECISIONS)
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
