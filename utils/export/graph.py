"""Export of an encoder, head included, as one graph: token ids and mask in, a sparse vector's weights out.

The head runs tile by tile of the vocabulary, each a matrix product and its maximum over the tokens, so that no tensor
of batch x tokens x vocabulary is made; see `utils.splade.head` for why the maximum may be taken before the logarithm.
"""

import contextlib
import importlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from utils.splade.encoder import SpladeEncoder
from utils.splade.onnx_encoder import INPUTS
from utils.splade.projection import kept_terms

TILE_TERMS = 2048
NEEDED = "pip install onnx onnxruntime onnxscript"


class SpladeGraph(torch.nn.Module):
    """An encoder as one function of ids and mask, both int64 [batch, tokens].

    Args:
        encoder: what is exported; terms that have been cut from it have no part in the head.
        top_terms: give the indices and values of this many heaviest terms, both [batch, terms], in place of all
            weights, [batch, vocabulary].
        own_tiles: keep the head's weights apart from the embeddings of the input, which most models share with it: more
            to store, but all products are then with constants, as their quantization needs it.
    """

    def __init__(self, encoder: SpladeEncoder, top_terms: int | None, own_tiles: bool) -> None:
        super().__init__()
        self.model = encoder.model
        self.activation = encoder.activation
        self.terms = kept_terms(encoder.model)
        self.size = encoder.vocabulary_size
        self.top_terms = top_terms
        projection = encoder.model.get_output_embeddings()
        self.weight, self.bias = projection.weight, projection.bias
        self.tiles = None
        if own_tiles:
            tiles = [tile.detach().T.contiguous() for tile in self._kept(self.weight).split(TILE_TERMS)]
            self.tiles = torch.nn.ParameterList(tiles)

    def _kept(self, rows: torch.Tensor) -> torch.Tensor:
        return rows if self.terms is None else rows[self.terms]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # see detach_projection
        # Padding takes the state of the text's first token, which changes no maximum.
        first = attention_mask.argmax(1)[:, None, None].expand(-1, 1, hidden.shape[2])
        hidden = torch.where(attention_mask[:, :, None] > 0, hidden, hidden.gather(1, first))
        tiles = self.tiles or [tile.T for tile in self._kept(self.weight).split(TILE_TERMS)]
        weights = torch.cat([(hidden @ tile).amax(1) for tile in tiles], 1).float()  # (B, terms)
        if self.bias is not None:
            weights = weights + self._kept(self.bias).float()
        weights = weights.relu().log1p()
        if self.activation == "log1p_log1p_relu":
            weights = weights.log1p()
        if self.top_terms:
            values, places = weights.topk(min(self.top_terms, weights.shape[1]), dim=1)
            return places if self.terms is None else self.terms[places], values
        if self.terms is not None:
            place = torch.full((self.size,), len(self.terms))  # that of a column of zeros, for all that were cut
            place[self.terms] = torch.arange(len(self.terms))
            weights = torch.nn.functional.pad(weights, (0, 1))[:, place]
        return (weights,)


def check_libraries(graph: str) -> None:
    """Check that a graph, onnx or openvino, can be exported here.

    Raises:
        ImportError: a library is missing.
    """
    # torch's exporter imports onnxscript, and would say much more without it.
    needed = {"onnxruntime.quantization": NEEDED, "onnxscript": NEEDED}
    if graph == "openvino":
        needed["openvino"] = "pip install openvino"
    for library, command in needed.items():
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise ImportError(f"exporting a graph takes more libraries: {command} ({error})") from error


def export_graph(encoder: SpladeEncoder, path: Path, precision: str = "float32", top_terms: int | None = None) -> None:
    """Write an encoder as an ONNX graph.

    Args:
        precision: float32, float16, or int8, where each matrix product rounds both of its factors to 8 bits.

    Raises:
        ValueError: the model is of a kind that cannot be exported.
        ImportError: a library is missing; see `check_libraries`.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if encoder.pooling != "max":
        raise ValueError(f"model '{encoder.name}': its pooling is {encoder.pooling}, and a graph takes the maximum")
    graph = SpladeGraph(encoder, top_terms, own_tiles=precision == "int8").eval()
    if precision == "float16":
        graph = graph.half()
    ids = torch.tensor([[1, 2, 3], [1, 2, 3]])
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    with _quiet():
        try:
            program = torch.onnx.export(
                graph,
                (ids, torch.ones_like(ids)),
                input_names=INPUTS,
                output_names=("indices", "values") if top_terms else ("weights",),
                dynamic_shapes={name: {0: batch, 1: tokens} for name in INPUTS},
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # the exporter raises what each part of it does
            kind = type(encoder.model).__name__
            raise ValueError(f"model '{encoder.name}': {kind} cannot be exported as a graph: {error}") from error
    if precision != "int8":
        program.save(path)
        return
    with tempfile.TemporaryDirectory() as folder, _quiet():
        exact = Path(folder, "exact.onnx")
        program.save(exact)
        quantize_dynamic(exact, path, per_channel=True, weight_type=QuantType.QInt8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says of its own parts from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
