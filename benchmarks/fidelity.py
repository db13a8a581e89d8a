"""Measure retrieval quality on a judged collection: each of our precisions against the plain formula.

    .venv/bin/python -m benchmarks.fidelity --input-dir COLLECTION

The plain formula is transformers' own forward pass in float32, one text at a time: log1p(relu(logits)), then the
maximum over tokens.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from benchmarks.common import add_precisions, model_folder, parser, precisions, report
from utils.console import quiet_libraries, run_script
from utils.evaluation.reading import read_collection
from utils.evaluation.systems import evaluate_model
from utils.splade.encoder import SpladeEncoder
from utils.splade.tokenization import TokenizationMixin
from utils.splade.vectors import SparseVector


class PlainFormula(TokenizationMixin):
    """SPLADE encoder as in the paper's formula, with what `evaluate_model` asks for."""

    def __init__(self, folder: str, max_length: int, query_max_length: int) -> None:
        self.model = AutoModelForMaskedLM.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.max_length, self.query_max_length = max_length, query_max_length

    def encode_stream(self, texts: Iterable[str], **options: object) -> Iterator[SparseVector]:
        return (self.vector(text, self.max_length) for text in texts)

    def encode_queries(self, texts: Sequence[str]) -> list[SparseVector]:
        return [self.vector(text, self.query_max_length) for text in texts]

    @torch.inference_mode()
    def vector(self, text: str, max_length: int) -> SparseVector:
        tokens = self.tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        weights = torch.log1p(torch.relu(self.model(**tokens).logits[0])).amax(0).numpy()
        terms = weights.nonzero()[0] if text.strip() else np.empty(0, np.int64)
        return SparseVector(terms.astype(np.int32), weights[terms])


def main(args: argparse.Namespace) -> None:
    quiet_libraries()
    data = read_collection(args.input_dir)
    with model_folder(args.model_name, [document.full_text for document in data.documents]) as folder:
        models = {name: SpladeEncoder.from_pretrained(folder, args.device, precision=name) for name in precisions(args)}
        limits = next(iter(models.values()))
        plain = PlainFormula(folder, limits.max_length, limits.query_max_length)
    models = {"plain formula, float32": plain} | {f"ours, {name}": model for name, model in models.items()}
    rows = [evaluate_model(name, model, data).row() for name, model in models.items()]
    for row in rows:
        row["query_latency_ms"] = row["query_latency_ms"]["p50"]
    report(args, {"documents": len(data.documents), "queries": len(data.queries)}, rows)


if __name__ == "__main__":
    arguments = parser(__doc__, rounds=1, documents=1)
    add_precisions(arguments)
    run_script(main, arguments.parse_args())
