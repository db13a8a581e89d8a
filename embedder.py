"""Encode texts as sparse vectors, for a file or an index that test_queries.py searches.

    python embedder.py --model-dir ./fine_tuned_splade --text "a sentence" --text "another"
    python embedder.py --model-dir ./fine_tuned_splade --input-file documents.json --output-file vectors.jsonl
    python embedder.py --model-dir ./fine_tuned_splade --input-file ./docs --index-dir ./index
    python embedder.py --model-dir ./fine_tuned_splade --input-file ./docs --output-file bulk.jsonl --engine opensearch
    torchrun --nproc-per-node 2 embedder.py --input-file ./docs --output-file vectors.jsonl
    python embedder.py --index-dir ./index --delete old.html
    python embedder.py --model-dir ./fine_tuned_splade --input-file ./docs --index-url http://localhost:6333

    from embedder import DenseEmbedder, HybridEmbedder, SpladeEmbedder
    SpladeEmbedder(model_dir="./fine_tuned_splade").generate_sparse_embeddings(["a sentence"])

A vector is {"indices": [vocabulary ids], "values": [weights]} or, with --words, {"words": {word: weight}}; a line of
the output file has the document's id too, and its metadata if it has some. Interrupted, the same command goes on where
it was. An output file that ends in .npz is a SciPy CSR matrix [documents, vocabulary] with the ids beside it, which
json.loads(numpy.load(FILE)["ids"].tobytes()) reads. With --engine, the file is what a search engine loads, or answers
with --queries, and the index's definition is written beside it.

An index holds passages, with their texts and their documents' metadata. Run again, the command encodes what has changed
alone, also after it was interrupted; --prune removes the documents that the input no longer has. With --dense-model (a
model of sentence-transformers, such as minilm) it holds dense vectors, too, and hybrid search adds their scores.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch

from utils.arguments import (
    ScriptArguments,
    ScriptParser,
    auto_or_positive_int,
    check_positive,
    language_code,
    positive_int,
    refuse_idle_flags,
    refuse_overwriting,
)
from utils.console import (
    is_main_process,
    on_interrupt,
    print_line,
    print_long_documents,
    print_skipped,
    print_truncated,
    quiet_libraries,
    run_script,
)
from utils.device import PRECISIONS, process_place, resolve_device, sum_over_processes, use_own_device
from utils.documents.reading import Unread, stream_documents
from utils.export.engines.registry import ENGINES
from utils.export.vector_files import (
    Encoded,
    definition_file,
    is_matrix,
    line_format,
    open_engine,
    write_definition,
    write_lines,
    write_matrix,
)
from utils.files import check_writable, is_pipe
from utils.records import Document
from utils.search.base_index import BaseIndex
from utils.search.dense import DenseEncoder
from utils.search.locations import LAYOUT_FLAGS, SERVER_FLAGS, IndexLocation, add_server_arguments
from utils.splade.base_encoder import Encoder
from utils.splade.opening import open_encoder
from utils.splade.tokenization import check_texts
from utils.splade.vector_lines import WINDOW, VectorLines
from utils.splade.vectors import SparseMatrix, SparseVector, from_sparse_tensor, to_csr, to_sparse_tensor

PRINTED_IDS = 5  # of documents that are not in an index


class SpladeEmbedder:
    """Encodes texts as sparse vectors with a SPLADE model.

    Args:
        model_dir: a model folder, a hub id, or `splade-tiny`.
        max_length: tokens a text at most, no more than the model has positions for; None for the limit that the model's
            folder says, 512 where it says none. `encoder.truncated` is how many of the texts that this thread encoded
            last were longer.
        device: None for the best one here, or cuda, mps, cpu.
        precision: bfloat16 or float32; auto takes bfloat16 where the device is fast at it. int8 is faster still on a
            CPU for which the kernels in C++ compile, and rounds more: measure it with test_evaluate.py.
        threads: of the processor; None for OMP_NUM_THREADS, or one a core.

    Raises:
        ValueError, OSError: the model, the device or so many tokens cannot be had.
    """

    def __init__(
        self,
        model_dir: str = "./fine_tuned_splade",
        max_length: int | None = None,
        device: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        quiet_libraries()
        self.encoder = open_encoder(model_dir, device, max_length, precision, threads)
        self.encoder.check_positions(max_length=max_length)

    def generate_sparse_embeddings(
        self, texts: Sequence[str], batch_size: int | None = None, show_progress: bool = False
    ) -> list[dict[str, list]]:
        """Return [{"indices": [int], "values": [float]}, ...] in the order of `texts`; empty texts have empty vectors.

        Raises:
            TypeError: `texts` is one string rather than a list of them, or one of them is not a string.
        """
        return list(self.stream_sparse_embeddings(texts, batch_size, show_progress))

    def stream_sparse_embeddings(
        self, texts: Iterable[str], batch_size: int | None = None, show_progress: bool = False
    ) -> Iterator[dict[str, list]]:
        """Yield the same for a stream of any length, in constant memory: vectors come as their texts are read.

        Raises:
            TypeError: as above, once the text is read.
        """
        for vector in self.encoder.encode_stream(texts, batch_size=batch_size, show_progress=show_progress):
            yield _as_lists(vector)

    def generate_query_embeddings(self, queries: Iterable[str]) -> list[dict[str, list]]:
        """Return the vectors of queries: cut to the limit for queries and, with a model whose queries do not pass the
        network, made of their own tokens by weight.

        Raises:
            TypeError: `queries` is one string rather than a list of them, or one of them is not a string.
        """
        return [_as_lists(self.encoder.encode_query(query)) for query in check_texts(queries, "queries")]

    def encode_document(
        self,
        texts: Sequence[str],
        batch_size: int | None = None,
        max_active_dims: int | None = None,
        show_progress: bool = False,
        convert_to_sparse_tensor: bool = False,
    ) -> SparseMatrix:
        """Return the [texts, vocabulary] matrix of the documents' vectors; with `max_active_dims`, of the so many
        heaviest terms of each; with `convert_to_sparse_tensor`, as a sparse COO tensor of torch on the CPU.

        Raises:
            ValueError: `max_active_dims` is not at least 1.
            TypeError: as `generate_sparse_embeddings`.
        """
        check_positive(max_active_dims=max_active_dims)
        vectors = self.encoder.encode_stream(texts, batch_size=batch_size, show_progress=show_progress)
        return self._matrix(vectors, max_active_dims, convert_to_sparse_tensor)

    def encode_query(
        self, queries: Sequence[str], max_active_dims: int | None = None, convert_to_sparse_tensor: bool = False
    ) -> SparseMatrix:
        """Return the [queries, vocabulary] matrix of the queries' vectors, see `generate_query_embeddings` and
        `encode_document`.

        Raises:
            ValueError, TypeError: as `encode_document`.
        """
        check_positive(max_active_dims=max_active_dims)
        vectors = (self.encoder.encode_query(query) for query in check_texts(queries, "queries"))
        return self._matrix(vectors, max_active_dims, convert_to_sparse_tensor)

    def _matrix(self, vectors: Iterable[SparseVector], max_active_dims: int | None, as_tensor: bool) -> SparseMatrix:
        matrix = to_csr((vector.heaviest(max_active_dims) for vector in vectors), self.encoder.vocabulary_size)
        return to_sparse_tensor(matrix) if as_tensor else matrix

    @staticmethod
    def similarity(queries: SparseMatrix, documents: SparseMatrix) -> np.ndarray | torch.Tensor:
        """Return the [queries, documents] dot products of the rows of two matrices, as a tensor if the queries are
        one."""
        scores = (from_sparse_tensor(queries) @ from_sparse_tensor(documents).T).toarray()
        return torch.from_numpy(scores) if isinstance(queries, torch.Tensor) else scores

    def decode(self, vectors: SparseMatrix, top_k: int | None = None) -> list[list[tuple[str, float]]]:
        """Return the (word, weight) pairs of each row of a matrix, heaviest first, `top_k` at most.

        Raises:
            ValueError: `top_k` is not at least 1.
        """
        check_positive(top_k=top_k)
        vectors = from_sparse_tensor(vectors)
        decoded = []
        for start, end in itertools.pairwise(vectors.indptr):
            order = np.argsort(-vectors.data[start:end], kind="stable")[:top_k]
            words = self.encoder.decode_terms(vectors.indices[start:end][order])
            decoded.append(list(zip(words, vectors.data[start:end][order].tolist())))
        return decoded


class DenseEmbedder:
    """Encodes texts as dense vectors with a model of sentence-transformers, which has to be installed.

    Args:
        model_dir: a model folder, a hub id, or `minilm` (all-MiniLM-L6-v2).
        device: None for the best one here, or cuda, mps, cpu.

    Raises:
        ValueError, OSError: the model or the device cannot be had.
        ImportError: sentence-transformers is not installed.
    """

    def __init__(self, model_dir: str = "minilm", device: str | None = None) -> None:
        quiet_libraries()
        self.encoder = DenseEncoder(model_dir, device)

    def encode_document(self, texts: Sequence[str]) -> np.ndarray:
        """Return the [texts, dimensions] float32 vectors of documents, L2-normalized; a text that is longer than the
        model's limit is cut there.

        Raises:
            TypeError: `texts` is one string rather than a list of them, or one of them is not a string.
        """
        return self.encoder.encode(check_texts(texts, "texts"))

    def encode_query(self, queries: Sequence[str]) -> np.ndarray:
        """Return the same of queries, which some models encode in another way.

        Raises:
            TypeError: as `encode_document`.
        """
        return self.encoder.encode(check_texts(queries, "queries"), queries=True)

    @staticmethod
    def similarity(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return the [queries, documents] cosine similarities of the rows of two matrices."""
        return queries @ documents.T


class HybridVectors(NamedTuple):
    """Vectors of the same texts: [texts, vocabulary] and [texts, dimensions]."""

    sparse: scipy.sparse.csr_array
    dense: np.ndarray


class HybridEmbedder:
    """Encodes texts both as sparse and as dense vectors.

    Args:
        model_dir, max_length, precision, threads: see SpladeEmbedder.
        dense_model: see DenseEmbedder.
        device: of both.

    Raises:
        ValueError, OSError, ImportError: as these two.
    """

    def __init__(
        self,
        model_dir: str = "./fine_tuned_splade",
        dense_model: str = "minilm",
        max_length: int | None = None,
        device: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.sparse = SpladeEmbedder(model_dir, max_length, device, precision, threads)
        self.dense = DenseEmbedder(dense_model, device)

    def encode_document(self, texts: Sequence[str]) -> HybridVectors:
        """Return the vectors of documents.

        Raises:
            TypeError: `texts` is one string rather than a list of them, or one of them is not a string.
        """
        return HybridVectors(self.sparse.encode_document(texts), self.dense.encode_document(texts))

    def encode_query(self, queries: Sequence[str]) -> HybridVectors:
        """Return the vectors of queries.

        Raises:
            TypeError: as `encode_document`.
        """
        return HybridVectors(self.sparse.encode_query(queries), self.dense.encode_query(queries))

    @staticmethod
    def similarity(queries: HybridVectors, documents: HybridVectors, sparse_weight: float = 0.5) -> np.ndarray:
        """Return [queries, documents] scores: the weighted sum of the sparse and of the dense ones above 0, each
        divided by the query's highest (CombSUM, see utils.search.fusion)."""
        sparse = SpladeEmbedder.similarity(queries.sparse, documents.sparse)
        dense = np.maximum(DenseEmbedder.similarity(queries.dense, documents.dense), 0)
        parts = (part / np.maximum(part.max(axis=1, keepdims=True, initial=0), 1e-9) for part in (sparse, dense))
        return sum(weight * part for weight, part in zip((sparse_weight, 1 - sparse_weight), parts))


def _as_lists(vector: SparseVector) -> dict[str, list]:
    return {"indices": vector.indices.tolist(), "values": vector.values.tolist()}


def main(args: ScriptArguments) -> None:
    check_flags(args)
    if args.index_dir or args.index_url:
        update_index(args)
    else:
        encode(args)


def check_flags(args: ScriptArguments) -> None:
    """Check that the flags go together.

    Raises:
        ValueError: one is missing, or has no effect beside the others.
    """
    from_file = args.input_file is not None
    refuse_idle_flags(
        args,
        [
            (args.index_dir or args.index_url, "--index-dir or --index-url", "language dense_model prune delete"),
            (args.index_dir, "--index-dir", "rebuild"),
            (args.index_url, "--index-url", f"{SERVER_FLAGS} {LAYOUT_FLAGS}"),
            (from_file, "--input-file", "language dense_model prune"),
            (args.output_file, "--output-file", "words engine"),
        ],
    )
    indexed = args.index_dir or args.index_url
    if args.text is None and not from_file and not (indexed and (args.delete or args.rebuild)):
        raise ValueError("nothing to do: one of the arguments --text --input-file is required")
    if indexed and args.text is not None:
        raise ValueError("an index is of documents with ids: name --input-file rather than --text")
    for name, other in (
        ("top_terms", "output_file"),
        ("top_terms", "index_dir"),
        ("top_terms", "index_url"),
        ("batch_size", "queries"),
        ("queries", "index_dir"),
        ("queries", "index_url"),
    ):
        if name in args.given and getattr(args, other):
            raise ValueError(f"`{name}` has no effect with `{other}`; leave it out")
    if process_place()[1] > 1 and (not args.output_file or is_matrix(args.output_file) or is_pipe(args.output_file)):
        raise ValueError("torchrun is for JSON Lines: name an --output-file vectors.jsonl, or leave torchrun out")
    for name in ("words", "engine"):
        if name in args.given and is_matrix(args.output_file):
            raise ValueError(f"`{name}` has no effect with a .npz file; leave it out")
    if args.words and args.engine:
        raise ValueError("`words` has no effect with `engine`; leave it out")
    refuse_overwriting(args.output_file, args.input_file)
    if args.engine and not args.queries:
        refuse_overwriting(definition_file(args.output_file, ENGINES[args.engine]), args.input_file)


def open_documents(path: str, skipped: list[str]) -> Iterable[Document]:
    """Return the documents of a file or a folder, the first of which is read now: what cannot be read at all is known
    before a model loads. What was not read is added to `skipped` in the end."""
    documents = stream_documents(path, skipped)
    return documents if isinstance(documents, list) else itertools.chain([next(documents)], documents)


def update_index(args: ScriptArguments) -> None:
    """Add documents to an index, which is made if there is none, and remove some."""
    skipped: list[str] = []
    documents = open_documents(args.input_file, skipped) if args.input_file else None
    location, model, dense = IndexLocation(args), None, None
    if documents:
        own, own_dense = location.models()
        model_dir = args.model_dir if "model_dir" in args.given or not own else own
        options = args.max_length, args.device, args.precision, args.threads
        model = SpladeEmbedder(model_dir, *options).encoder
        dense_model = args.dense_model or own_dense
        dense = DenseEmbedder(dense_model, args.device).encoder if dense_model else None
    with location.open(model, dense, True, args.language, args.rebuild) as index:
        if args.delete:
            unknown = index.remove(args.delete)
            print_line(f"{len(set(args.delete) - set(unknown)):,} documents removed")
            if unknown:
                print_line(f"not in the index: {_list_ids(unknown)}")
        if documents:
            with on_interrupt(lambda: "the same command goes on with what the index does not have yet"):
                add_documents(index, documents, skipped, args.batch_size, args.prune)
        print_line(f"{index.describe()} -> {location}")


def add_documents(
    index: BaseIndex, documents: Iterable[Document], skipped: list[str], batch_size: int | None, prune: bool
) -> None:
    """Add documents to an index; say, or with `prune` remove, those that are not among them, unless some could not be
    read, which `skipped` tells in the end."""
    seen: set[str] = set()
    noted = (seen.add(d.id) or d for d in documents)
    known = list(noted) if isinstance(documents, list) else noted  # a list has a length, for the progress
    update = index.add(known, batch_size, show_progress=True)
    kinds = "new", "changed and encoded anew", "with other metadata alone", "unchanged"
    print_line("documents: " + ", ".join(f"{count:,} {kind}" for count, kind in zip(update, kinds) if count))
    print_long_documents(index.long_documents, update.added + update.changed, index.model.max_length)
    print_skipped(skipped)
    gone = [name for name in index.ids() if name not in seen]
    if gone and prune and any(isinstance(reason, Unread) for reason in skipped):
        print_line(f"nothing removed, since what could not be read may be among it: {_list_ids(gone)}")
    elif gone and prune:
        index.remove(gone)
        print_line(f"{len(gone):,} documents removed that the input does not have: {_list_ids(gone)}")
    elif gone:
        print_line(f"{len(gone):,} documents are not in the input, --prune removes them: {_list_ids(gone)}")


def _list_ids(ids: Sequence[str]) -> str:
    return ", ".join(ids[:PRINTED_IDS]) + (f" and {len(ids) - PRINTED_IDS:,} more" if len(ids) > PRINTED_IDS else "")


def encode(args: ScriptArguments) -> None:
    """Encode a stream of texts, and write or show their vectors."""
    if args.output_file:
        check_writable(args.output_file)
    skipped: list[str] = []
    if args.text is None:
        documents = open_documents(args.input_file, skipped)
    else:
        documents = (Document(id=str(number), text=text) for number, text in enumerate(args.text))
    use_own_device(resolve_device(args.device))
    embedder = SpladeEmbedder(args.model_dir, args.max_length, args.device, args.precision, args.threads)
    encoder, cut, kept, path = embedder.encoder, 0, 0, args.output_file
    engine = open_engine(args.engine, encoder) if args.engine else None
    format_line = line_format(encoder, args.words, engine, args.queries)

    def encode_all(documents: Iterable[Document], window: int | None = None) -> Encoded:
        nonlocal cut
        read: deque[Document] = deque()  # documents whose vectors are still to come

        def texts() -> Iterator[str]:
            nonlocal cut
            for document in documents:
                read.append(document)
                cut += args.queries and encoder.tokenize_and_count_queries([document.full_text])[1]
                yield document.full_text

        if args.queries:
            vectors = map(encoder.encode_query, texts())
        else:
            vectors = encoder.encode_stream(texts(), batch_size=args.batch_size, show_progress=True, window=window)
        for vector in vectors:
            yield read.popleft(), vector
        if not args.queries:
            cut = encoder.truncated

    if not path:
        count = show_vectors(encoder, encode_all(documents), args.top_terms)
    elif is_matrix(path):
        count, terms = write_matrix(path, encoder, encode_all(documents))
    elif is_pipe(path):
        count, terms = write_lines(path, encode_all(documents), format_line)
    else:
        with on_interrupt(lambda: "the same command goes on where it was"), open_lines(args, encoder) as lines:
            for document, vector in encode_all(lines.missing(documents), WINDOW):
                lines.add(document, format_line(document, vector), len(vector.indices))
            lines.flush()  # which another process reads
            cut, kept = sum_over_processes(cut, lines.kept)
            if not is_main_process():
                return
            count, terms = lines.join()
    if path:
        print_line(f"{count:,} vectors, {terms / count:.1f} terms each -> {path}")
    if engine and not args.queries:
        write_definition(path, engine)
    if kept:
        print_line(f"{kept:,} of them were there from an earlier run")
    print_skipped(skipped)
    if args.queries:
        print_truncated(cut, count - kept, "queries", encoder.query_max_length)
    else:
        print_truncated(cut, count - kept, "texts", encoder.max_length)


def open_lines(args: ScriptArguments, encoder: Encoder) -> VectorLines:
    """Return the output file, to be written by this process or by those of torchrun together."""
    work = {
        "input": Path(args.input_file).resolve().name if args.input_file else None,
        "model": encoder.fingerprint,
        "max_length": encoder.query_max_length if args.queries else encoder.max_length,
        **{name: getattr(args, name) for name in ("precision", "queries", "words")},
        **({"engine": args.engine} if args.engine else {}),
    }
    return VectorLines(args.output_file, work, *process_place())


def show_vectors(encoder: Encoder, encoded: Encoded, top_terms: int) -> int:
    """Print the heaviest terms of each text; return how many texts there were."""
    count = 0
    for document, vector in encoded:
        count += 1
        heaviest = vector.heaviest(top_terms)
        order = np.argsort(-heaviest.values, kind="stable")
        words = encoder.decode_terms(heaviest.indices[order])
        print_line(f"{' '.join(document.full_text.split())[:80]}  ({len(vector.indices)} terms)")
        print_line("  " + ", ".join(f"{word} {value:.2f}" for word, value in zip(words, heaviest.values[order])))
    return count


def parse_args() -> ScriptArguments:
    parser = ScriptParser(__doc__)
    parser.add_model_argument()
    group = parser.add_argument_group("texts")
    add = group.add_mutually_exclusive_group().add_argument
    add("--text", action="append", help="a text to encode; may be given again")
    add("--input-file", metavar="PATH", help="documents to encode: a file or a folder")
    add = group.add_argument
    add("--queries", action="store_true", help="encode the texts as queries rather than documents")
    add("--max-length", type=positive_int, default=None, help="maximum tokens per text; default: the model's")
    add("--batch-size", type=auto_or_positive_int, default="auto", help="texts encoded at a time; auto: what suits")
    group = parser.add_argument_group("output")
    add = group.add_mutually_exclusive_group().add_argument
    add("--output-file", default=None, metavar="FILE", help="vectors as JSON Lines, or .npz; else they are shown")
    add("--index-dir", default=None, metavar="DIR", help="index to make, or to add documents to")
    url = "Qdrant server or cluster with such an index (needs qdrant-client)"
    add("--index-url", default=None, metavar="URL", help=url)
    add = group.add_argument
    add("--words", action="store_true", help="write terms as words, rather than as ids of the vocabulary")
    engine = "write what this search engine loads, or its queries, see docs/deploy"
    add("--engine", choices=ENGINES, default=None, help=engine)
    add("--top-terms", type=positive_int, default=20, help="heaviest terms shown of a text")
    add = parser.add_argument_group("index").add_argument
    language = "of the texts, for the search by words: de, german; default: detected"
    add("--language", type=language_code, default=None, help=language)
    dense = "a model of sentence-transformers, such as minilm, whose vectors are held, too; default: the index's"
    add("--dense-model", default=None, metavar="NAME", help=dense)
    add("--prune", action="store_true", help="remove documents that the input does not have")
    add("--delete", nargs="+", default=[], metavar="ID", help="documents to remove")
    add("--rebuild", action="store_true", help="make the engine's files anew from the passages that are stored")
    add_server_arguments(parser, changes=True)
    parser.add_device_arguments(*PRECISIONS)
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
