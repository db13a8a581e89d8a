"""Folders of optimized models: what `optimize_model.py` writes, and the encoders open."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError

from utils.export.calibration import round_weights
from utils.export.graph import check_libraries, export_graph
from utils.export.pieces import cut_pieces
from utils.files import lock_folder, replacing_files
from utils.models import card_header
from utils.splade.encoder import SpladeEncoder
from utils.splade.int8_weights import write_int8_weights
from utils.splade.model_folder import MODEL_FILES, write_model_folder
from utils.splade.onnx_encoder import GRAPHS
from utils.splade.projection import cut_terms


class Optimization(NamedTuple):
    """What is done to a model.

    Attributes:
        terms: ids of the terms that stay in the head, ascending; None for all.
        pieces: ids of the tokens that stay in the input, ascending; None for all.
        precision: of the weights: float32, int8, or float16, which graphs alone can have.
        moments: of the inputs that weights in int8 are rounded for, see `utils.export.calibration`; None to round each
            to the nearest.
        graph: onnx or openvino, for a graph in place of weights for torch.
        top_terms: of a text, that such a graph gives; None for the weights of all.
    """

    terms: np.ndarray | None = None
    pieces: np.ndarray | None = None
    precision: str = "float32"
    moments: dict[str, torch.Tensor] | None = None
    graph: str | None = None
    top_terms: int | None = None

    def describe(self) -> str:
        """Return what is done, in short."""
        parts = [] if self.terms is None else [f"{len(self.terms):,} terms"]
        parts += [] if self.pieces is None else [f"{len(self.pieces):,} tokens"]
        parts += [part for part in (self.precision, self.graph) if part not in (None, "float32")]
        parts += [f"top {self.top_terms}"] if self.top_terms else []
        return ", ".join(parts) or "original"


def write_optimized(name: str, optimization: Optimization, folder: str | Path, notes: dict[str, Any]) -> None:
    """Write the model called `name`, optimized, to a folder; its files appear there once all are complete.

    Args:
        notes: what is to be known of it, for splade_config.json.

    Raises:
        ValueError: the model is of a kind for which this cannot be done.
        ValueError: another process writes there.
        OSError: the files cannot be written.
        ImportError: a library is missing.
    """
    if optimization.graph:
        check_libraries(optimization.graph)
    encoder = SpladeEncoder.from_pretrained(name, "cpu", precision="float32")
    if (optimization.top_terms or 0) > encoder.vocabulary_size:
        raise ValueError(f"model '{name}' has {encoder.vocabulary_size:,} terms; `top_terms` must be fewer")
    config = encoder.to_config()
    config.fingerprint = encoder.fingerprint
    config.optimization = {"model": name, "summary": optimization.describe(), **notes}
    config.weights = optimization.graph or ("int8" if optimization.precision == "int8" else "float32")
    model, tokenizer = encoder.model, encoder.tokenizer
    if optimization.terms is not None:
        cut_terms(model, torch.from_numpy(optimization.terms))
    if optimization.precision == "int8" and optimization.moments:
        round_weights(encoder, optimization.moments)
    pieces = None
    if optimization.pieces is not None:
        pieces = torch.from_numpy(optimization.pieces)
        tokenizer = cut_pieces(tokenizer, optimization.pieces)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with lock_folder(folder), replacing_files(folder, MODEL_FILES, "config.json") as unfinished:
            if optimization.graph:
                model.config.save_pretrained(unfinished)
                file = unfinished / GRAPHS["onnx"]
                export_graph(encoder, file, optimization.precision, optimization.top_terms)
                if optimization.graph == "openvino":
                    convert_to_openvino(file)
            elif optimization.precision == "int8":
                model.config.save_pretrained(unfinished)
                write_int8_weights(model, unfinished, pieces)
            else:
                model.save_pretrained(unfinished)
            write_model_folder(unfinished, config, tokenizer, encoder.query_weights)
            card = optimized_card(name, optimization, encoder.vocabulary_size)
            (unfinished / "README.md").write_text(card, encoding="utf-8")
    except SafetensorError as error:
        raise OSError(f"{folder}: cannot write the model: {error}") from None


def optimized_card(base: str, optimization: Optimization, size: int) -> str:
    """Return the model card, README.md, of what was made of the model `base`, whose vocabulary has `size` terms."""
    base = Path(base).name if Path(base).exists() else base
    made = [] if optimization.terms is None else [f"{len(optimization.terms):,} of {size:,} terms are computed"]
    if optimization.pieces is not None:
        made.append(f"{len(optimization.pieces):,} of {size:,} tokens are read")
    if optimization.precision != "float32":
        rounding = ", rounded for documents of its domain" * bool(optimization.moments)
        made.append(f"weights are in {optimization.precision}{rounding}")
    if optimization.graph:
        made.append(f"network and head are one graph, for {optimization.graph}")
    if optimization.top_terms:
        made.append(f"of a text, the {optimization.top_terms:,} heaviest terms are given")
    return f"""{card_header(base)}
# {base}, made smaller or faster

A SPLADE model, made of `{base}` by `optimize_model.py`. It turns a text into weights of the same terms, and an index
that `{base}` made stays good.

{chr(10).join(f"- {line}" for line in made)}

```python
from embedder import SpladeEmbedder

SpladeEmbedder("path/to/this/folder").generate_sparse_embeddings(["a text"])
```
"""


def convert_to_openvino(file: Path) -> None:
    """Replace an ONNX graph by OpenVINO's files of it."""
    import openvino

    model = openvino.convert_model(file)
    openvino.save_model(model, file.with_suffix(".xml"), compress_to_fp16=False)
    file.unlink()
