"""Make training data from documents: load, chunk, drop copies, ask queries, mine hard negatives, split.

    python generate_training_data.py --input-dir ./docs --output-file training_data.json
    python generate_training_data.py --input-dir documents.jsonl --output-file data/train.jsonl --negatives 2 --seed 7

Hard negatives are off by default: on Cranfield one from BM25's ranks 31 to 100 changed nDCG@10 by 0.000 beside the
batch's own documents, and training took 1.8 times as long. `--negatives N` mines them.

Input: a folder of .md .txt .rst .html .pdf .docx .json .jsonl files, one such file, or a collection in the BEIR layout,
of which only the documents are read. Output: training examples, and validation examples beside them. A document and
those that share a passage with it stand on one side. No API key is needed: queries are cut out of the documents.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from utils.chunking import MAX_OVERLAP, MAX_SIZE, MIN_OVERLAP, MIN_SIZE, chunk_documents
from utils.console import Parser, bounded, run_script, say, say_skipped
from utils.documents import read_documents
from utils.duplicates import Likeness
from utils.negatives import add_bm25_negatives
from utils.query_generation import extractive_examples
from utils.records import TrainingExample, check_writable, write_examples

GENERATORS = {"extractive": extractive_examples}


def split_by_document(
    examples: Sequence[TrainingExample], val_ratio: float, seed: int, likeness: Likeness | None = None
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """(training, validation) examples: `val_ratio` of the documents, at least one, go to validation, related documents
    together. With a single document, or a ratio of 0, validation is empty."""
    families: dict[str, list[str]] = {}
    for source in sorted({example.source for example in examples}):
        families.setdefault(likeness.family(source) if likeness else source, []).append(source)
    order = list(families.values())
    random.Random(seed).shuffle(order)
    count = max(1, round(sum(map(len, order)) * val_ratio)) if val_ratio else 0
    held_out: set[str] = set()
    for family in order[1:]:
        if len(held_out) < count:
            held_out.update(family)
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
    say_skipped(skipped)
    chunks = chunk_documents(documents, args.chunk_size, args.chunk_overlap)
    likeness = Likeness()
    passages = [chunk for chunk in chunks if likeness.add(chunk.id, chunk.text, family=chunk.document_id)]
    examples = list(GENERATORS[args.generator](passages, args.crops, args.seed))
    if not examples:
        raise ValueError(f"{args.input_dir}: no document has enough text to make a query from")
    training, validation = split_by_document(examples, args.val_ratio, args.seed, likeness)
    for part in (training, validation):
        sources = {example.source for example in part}
        add_bm25_negatives(part, [c for c in passages if c.document_id in sources], args.negatives)

    write_examples(output, training)
    write_examples(validation_file, validation)
    empty = len(documents) - len({chunk.document_id for chunk in chunks})
    types = Counter(example.query_type for example in examples)
    say(f"documents   {len(documents):,} ({empty:,} empty), {len(skipped):,} files skipped")
    say(f"passages    {len(passages):,}; {len(chunks) - len(passages):,} more are copies of one of them")
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
