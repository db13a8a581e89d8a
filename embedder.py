"""Encode texts as sparse vectors.

    python embedder.py --model-dir ./fine_tuned_splade --text "a sentence" --text "another"
    python embedder.py --model-dir ./fine_tuned_splade --input-file documents.json --output-file vectors.jsonl

    from embedder import SpladeEmbedder
    SpladeEmbedder(model_dir="./fine_tuned_splade").generate_sparse_embeddings(["a sentence"])

A vector is {"indices": [vocabulary ids], "values": [weights]}; a line of the output file has the document's id too, and
its metadata if it has some.
"""

import json
from collections.abc import Iterable, Iterator, Sequence

from utils.arguments import ScriptArguments, ScriptParser, auto_or_positive_int, positive_int, refuse_overwriting
from utils.console import print_line, print_skipped, print_truncated, quiet_libraries, run_script
from utils.device import PRECISIONS
from utils.documents.reading import read_documents
from utils.files import check_writable, open_atomic
from utils.splade.encoder import SpladeEncoder
from utils.splade.tokenization import check_texts
from utils.splade.vectors import SparseVector


class SpladeEmbedder:
    """Encodes texts as sparse vectors with a SPLADE model.

    Args:
        model_dir: a model folder, a hub id, or `splade-tiny`.
        max_length: tokens a text at most, no more than the model has positions for; None for the limit that the model's
            folder says, 512 where it says none. `encoder.truncated` is how many of the texts that this thread encoded
            last were longer.
        device: None for the best one here, or cuda, mps, cpu.
        precision: bfloat16 or float32; auto takes bfloat16 where the device is fast at it. int8 is faster still on a
            CPU with AVX-512 VNNI, and rounds more: measure it with test_evaluate.py.
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
        self.encoder = SpladeEncoder.from_pretrained(model_dir, device, max_length, precision, threads)
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


def _as_lists(vector: SparseVector) -> dict[str, list]:
    return {"indices": vector.indices.tolist(), "values": vector.values.tolist()}


def main(args: ScriptArguments) -> None:
    for name, other in (("top_terms", "output_file"), ("batch_size", "queries")):
        if name in args.given and getattr(args, other):
            raise ValueError(f"`{name}` has no effect with `{other}`; leave it out")
    refuse_overwriting(args.output_file, args.input_file)
    if args.output_file:
        check_writable(args.output_file)
    if args.text is None:
        documents, skipped = read_documents(args.input_file)
        print_skipped(skipped)
        texts = [document.full_text for document in documents]
        names = [{"id": d.id, "metadata": d.metadata} if d.metadata else {"id": d.id} for d in documents]
    else:
        names, texts = [{"id": str(i)} for i in range(len(args.text))], args.text
    embedder = SpladeEmbedder(args.model_dir, args.max_length, args.device, args.precision, args.threads)
    encoder = embedder.encoder
    if args.queries:
        vectors = embedder.generate_query_embeddings(texts)
    else:
        vectors = embedder.stream_sparse_embeddings(texts, args.batch_size, show_progress=True)
    if args.output_file:
        terms = 0
        with open_atomic(args.output_file) as file:
            for name, vector in zip(names, vectors):
                file.write(json.dumps({**name, **vector}) + "\n")
                terms += len(vector["indices"])
        print_line(f"{len(texts):,} vectors, {terms / len(texts):.1f} terms each -> {args.output_file}")
    else:
        for text, vector in zip(texts, vectors):
            heaviest = sorted(zip(vector["values"], vector["indices"]), reverse=True)[: args.top_terms]
            words = encoder.decode_terms([index for _, index in heaviest])
            print_line(f"{' '.join(text.split())[:80]}  ({len(vector['indices'])} terms)")
            print_line("  " + ", ".join(f"{word} {value:.2f}" for word, (value, _) in zip(words, heaviest)))
    if args.queries:
        print_truncated(encoder.tokenize_and_count_queries(texts)[1], len(texts), "queries", encoder.query_max_length)
    else:
        print_truncated(encoder.truncated, len(texts), "texts", encoder.max_length)


def parse_args() -> ScriptArguments:
    parser = ScriptParser(__doc__)
    parser.add_model_argument()
    group = parser.add_argument_group("texts")
    add = group.add_mutually_exclusive_group(required=True).add_argument
    add("--text", action="append", help="a text to encode; may be given again")
    add("--input-file", metavar="PATH", help="documents to encode: a file or a folder")
    add = group.add_argument
    add("--queries", action="store_true", help="encode the texts as queries rather than documents")
    add("--max-length", type=positive_int, default=None, help="maximum tokens per text; default: the model's")
    add("--batch-size", type=auto_or_positive_int, default="auto", help="texts encoded at a time; auto: what suits")
    add = parser.add_argument_group("output").add_argument
    add("--output-file", default=None, metavar="FILE", help="JSON Lines of vectors; without it, they are shown")
    add("--top-terms", type=positive_int, default=20, help="heaviest terms shown of a text")
    parser.add_device_arguments(*PRECISIONS)
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
