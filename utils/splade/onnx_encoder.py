"""Encoder whose network and head are one graph in a file, computed by onnxruntime or by OpenVINO."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer
from transformers.utils import cached_file

from utils.arguments import check_positive
from utils.device import use_threads
from utils.models import load_config, loading, resolve_model
from utils.splade.base_encoder import DEFAULT_MAX_LENGTH, DEFAULT_QUERY_MAX_LENGTH, Encoder
from utils.splade.model_folder import ModelFolder
from utils.splade.vectors import SparseVector

GRAPHS = {"onnx": "model.onnx", "openvino": "model.xml"}  # by the weights that splade_config.json names
INPUTS = ("input_ids", "attention_mask")  # both int64 [batch, tokens]

Run = Callable[[np.ndarray, np.ndarray], list[np.ndarray]]  # the values of INPUTS -> the outputs


class OnnxEncoder(Encoder):
    """SPLADE encoder by a graph that `optimize_model.py --export` wrote.

    The graph takes INPUTS and gives the weights [batch, vocabulary], float32, or the indices and the values of each
    text's heaviest terms, both [batch, terms], where a value of 0 stands for no term.

    Args:
        name: the folder or hub id.
        folder: what its files say.
        device: None for cuda where onnxruntime has it, else cpu.
        max_length: limit in tokens for documents, at most the one that the graph was made for; None for that.
        precision: auto; the graph has its precision already.
        threads: see `utils.device.use_threads`.

    Raises:
        ValueError: the precision or the device is none that the graph can have, or the graph is broken.
        OSError: a file is missing.
        ImportError: onnxruntime or openvino is not installed.
    """

    def __init__(
        self,
        name: str | Path,
        folder: ModelFolder,
        device: str | torch.device | None = None,
        max_length: int | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        check_positive(max_length=max_length)
        use_threads(threads)
        kind = folder.config.weights
        if precision != "auto":
            raise ValueError(f"model '{name}': its {kind} graph has a precision already; leave `precision` at auto")
        with loading(name):
            tokenizer = AutoTokenizer.from_pretrained(resolve_model(name), trust_remote_code=False)
        super().__init__(tokenizer, folder.query_weights)
        self._batch_encoder.cuda_streams = 1
        config = folder.config
        self.describe(str(name), config)
        limit = config.max_length or DEFAULT_MAX_LENGTH
        self.set_limits(min(max_length or limit, limit), config.query_max_length or DEFAULT_QUERY_MAX_LENGTH)
        self._fingerprint = config.fingerprint or ""
        self._vocabulary_size = load_config(name).vocab_size
        with loading(name, f"a graph of {kind}"):
            path = cached_file(resolve_model(name), GRAPHS[kind])
            self._device, self._run = (_open_onnx if kind == "onnx" else _open_openvino)(path, str(device or "auto"))

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def vocabulary_size(self) -> int:
        return self._vocabulary_size

    def to(self, device: str | torch.device) -> "OnnxEncoder":
        """Return this encoder.

        Raises:
            ValueError: it is on another device.
        """
        if torch.device(device).type != self.device.type:
            raise ValueError(f"model '{self.name}' is on {self.device}; open it anew for {device}")
        return self

    def _encode_batch(self, tokens: list[list[int]]) -> list[SparseVector]:
        batch = self.pad(tokens)
        outputs = self._run(*(batch[name].numpy() for name in INPUTS))
        if len(outputs) == 1:
            rows, terms = outputs[0].nonzero()
            borders = np.searchsorted(rows, np.arange(1, len(tokens)))
            values = outputs[0][rows, terms]
            return [
                SparseVector(indices, weights)
                for indices, weights in zip(np.split(terms.astype(np.int32), borders), np.split(values, borders))
            ]
        vectors = []
        for indices, values in zip(*outputs):
            order = np.argsort(indices[values > 0])
            vectors.append(SparseVector(indices[values > 0][order].astype(np.int32), values[values > 0][order]))
        return vectors


def _open_onnx(path: str, device: str) -> tuple[torch.device, Run]:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{path}: opening it takes onnxruntime: pip install onnxruntime ({error})") from error
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    kind = torch.device("cuda" if device == "auto" and cuda else "cpu" if device == "auto" else device).type
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not cuda):
        offered = "cpu and cuda" if cuda else "cpu; for cuda: pip install onnxruntime-gpu"
        raise ValueError(f"{path}: onnxruntime has no device '{device}' here, but {offered}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # every thread computes a batch of its own
    options.add_session_config_entry("session.x64quantprecision", "1")  # else int8 saturates where there is no VNNI
    providers = [*(["CUDAExecutionProvider"] if kind == "cuda" else []), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    return torch.device(kind), lambda *values: session.run(None, dict(zip(INPUTS, values)))


def _open_openvino(path: str, device: str) -> tuple[torch.device, Run]:
    try:
        import openvino
    except ImportError as error:
        raise ImportError(f"{path}: opening it takes openvino: pip install openvino ({error})") from error
    if device not in ("auto", "cpu"):
        raise ValueError(f"{path}: an OpenVINO graph runs on the cpu here, not on '{device}'")
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", settings)

    def run(*values: np.ndarray) -> list[np.ndarray]:
        request = model.create_infer_request()
        results = request.infer(dict(zip(INPUTS, values)))
        return [results[output].copy() for output in model.outputs]

    return torch.device("cpu"), run
