"""Add queries that a language model wrote for a collection's documents to training data made of that collection.

    .venv/bin/python -m benchmarks.add_model_queries --collection COLLECTION --train-file training_data.json \
        --queries benchmarks/model_queries/gitbugs.jsonl --output-file with_model_queries.json

COLLECTION is a folder in the BEIR layout, of which the documents alone are read. A line of the queries' file has the
fields query, positive_id (the document's id), query_type and, where it was written from a part of a long document, the
`span` of that part in the document's text. Queries for documents whose examples are held out for validation or test are
left out: `--held-out` names these files.
"""

import argparse
from pathlib import Path

from utils.arguments import ScriptParser
from utils.console import print_line, run_script
from utils.documents.reading import read_documents
from utils.records import TrainingExample, read_examples, read_json_records, write_examples


def main(args: argparse.Namespace) -> None:
    documents = {document.id: document for document in read_documents(args.collection).documents}
    held_out = {example.source for file in args.held_out for example in read_examples(file)}
    added = []
    for place, record in read_json_records(Path(args.queries)):
        document = documents.get(record["positive_id"])
        if document is None:
            raise ValueError(f"{place}: {args.collection} has no document '{record['positive_id']}'")
        if document.id not in held_out:
            start, end = record.get("span", (0, None))
            passage = document.model_copy(update={"text": document.text[start:end]})
            added.append(
                TrainingExample(
                    query=record["query"],
                    positive_document=passage.full_text,
                    positive_id=f"{document.id} model query",
                    source=document.id,
                    query_type=record["query_type"],
                )
            )
    examples = read_examples(args.train_file)
    write_examples(args.output_file, [*examples, *added])
    print_line(f"{len(examples):,} examples and {len(added):,} queries of a model -> {args.output_file}")


def parse_args() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("--collection", required=True, metavar="DIR", help="a folder in the BEIR layout")
    add("--queries", required=True, metavar="FILE", help="the model's queries, JSON Lines")
    add("--train-file", required=True, metavar="FILE", help="training examples made of the collection")
    add("--held-out", nargs="*", default=[], metavar="FILE", help="validation and test examples made of it")
    add("--output-file", required=True, metavar="FILE", help="all of them")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
