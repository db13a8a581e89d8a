"""Make training data from documents: load, chunk, ask queries, mine hard negatives, split.

    python generate_training_data.py --input-dir ./docs --output-file training_data.json
    python generate_training_data.py --input-dir documents.jsonl --output-file data/train.jsonl --negatives 2 --seed 7

Hard negatives are off by default: on Cranfield one from BM25's ranks 31 to 100 changed nDCG@10 by 0.000 beside the
batch's own documents, and training took 1.8 times as long. `--negatives N` mines them.

Input: a folder of .md .txt .rst .html .json .jsonl files, one such file, or a collection in the BEIR layout, of which
only the documents are read. Output: training examples, and validation examples beside them. Documents of one file
never stand on both sides. No API key is needed: queries are cut out of the documents themselves.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from utils.chunking import MAX_OVERLAP, MAX_SIZE, MIN_OVERLAP, MIN_SIZE, chunk_documents
from utils.console import Parser, bounded, run_script, say
from utils.documents import read_documents
from utils.negatives import add_bm25_negatives
from utils.query_generation import extractive_examples
from utils.records import TrainingExample, check_writable, write_examples

GENERATORS = {"extractive": extractive_examples}


def split_by_document(
    examples: Sequence[TrainingExample], val_ratio: float, seed: int
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """(training, validation) examples: `val_ratio` of the documents, at least one, go to validation. With a single
    document, or a ratio of 0, validation is empty."""
    sources = sorted({example.source for example in examples})
    random.Random(seed).shuffle(sources)
    count = min(len(sources) - 1, max(1, round(len(sources) * val_ratio))) if val_ratio else 0
    held_out = set(sources[:count])
    training = [example for example in examples if example.source not in held_out]
    return training, [example for example in examples if example.source in held_out]


def main(args: argparse.Namespace) -> None:
    output = Path(args.output_file)
    validation_file = Path(args.validation_file or output.with_name("validation_data" + output.suffix))
    if output.resolve() == validation_file.resolve():
        raise ValueError(f"{output}: training and validation examples cannot go to the same file")
    for file in (output, validation_file):
        check_writable(file)

    documents, skipped = read_documents(args.input_dir)
    for reason in skipped:
        say(f"skipped {reason}")
    chunks = chunk_documents(documents, args.chunk_size, args.chunk_overlap)
    examples = list(GENERATORS[args.generator](chunks, args.crops, args.seed))
    if not examples:
        raise ValueError(f"{args.input_dir}: no document has enough text to make a query from")
    training, validation = split_by_document(examples, args.val_ratio, args.seed)
    for part in (training, validation):
        sources = {example.source for example in part}
        add_bm25_negatives(part, [c for c in chunks if c.document_id in sources], args.negatives)

    write_examples(output, training)
    write_examples(validation_file, validation)
    empty = len(documents) - len({chunk.document_id for chunk in chunks})
    types = Counter(example.query_type for example in examples)
    say(f"documents   {len(documents):,} ({empty:,} empty), {len(skipped):,} files skipped")
    say(f"chunks      {len(chunks):,}")
    say(f"examples    {len(examples):,}: " + ", ".join(f"{kind} {count:,}" for kind, count in types.most_common()))
    say(f"training    {len(training):,} -> {output}")
    say(f"validation  {len(validation):,} -> {validation_file}")


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--input-dir", required=True, metavar="PATH", help="folder or file of documents")
    add("--output-file", default="training_data.json", metavar="FILE", help="training examples, .json or .jsonl")
    add("--validation-file", default=None, metavar="FILE", help="default: validation_data beside the output file")
    add("--val-ratio", type=bounded(float, 0, 0.9), default=0.1, help="share of the documents held out")
    add("--generator", choices=sorted(GENERATORS), default="extractive", help="what makes the queries")
    add("--crops", type=bounded(int, 0), default=3, help="sentences and passages cut from a chunk as queries")
    add("--negatives", type=bounded(int, 0), default=0, help="hard negatives an example, mined with BM25")
    add("--chunk-size", type=bounded(int, MIN_SIZE, MAX_SIZE), default=MAX_SIZE, help="characters a chunk at most")
    add("--chunk-overlap", type=bounded(float, MIN_OVERLAP, MAX_OVERLAP), default=0.15, help="share of a chunk")
    add("--seed", type=int, default=42, help="seed of the random choices")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
