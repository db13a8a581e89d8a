"""Answer `benchmarks.optimize` with the rates and vectors of sentence-transformers' own ONNX models.

Run by an interpreter that has `sentence-transformers[onnx]`, which need not be the one of this toolkit: nothing of it
is imported here. A line of JSON is a request, [name, arguments]; a line with `result`, or with `error`, is the answer.
"""

import json
import os
import sys
import traceback

import onnxruntime
import scipy.sparse
import sentence_transformers
import torch
import transformers
from sentence_transformers import SparseEncoder
from sentence_transformers.backend import export_dynamic_quantized_onnx_model
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling

models: dict[str, SparseEncoder] = {}
texts: list[str] = []


def open_models(folder: str, work: str, config: str, threads: int, documents: list[str]) -> dict[str, str]:
    """Export the model in `folder` to `work`, in float32 and in INT8 by `config` of sentence-transformers' own; return
    the paths of the graphs and versions."""
    torch.set_num_threads(threads)
    texts.extend(documents)
    saved = f"{work}/torch"
    modules = [Transformer(folder, transformer_task="fill-mask"), SpladePooling("max")]
    SparseEncoder(modules=modules, device="cpu").save_pretrained(saved)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    settings = {"provider": "CPUExecutionProvider", "session_options": options}
    models["float32"] = SparseEncoder(saved, device="cpu", backend="onnx", model_kwargs=settings)
    models["float32"].save_pretrained(f"{work}/onnx")
    export_dynamic_quantized_onnx_model(models["float32"], config, f"{work}/onnx")
    file = f"onnx/model_{'quint8' if config == 'avx2' else 'qint8'}_{config}.onnx"
    if not os.path.isfile(f"{work}/onnx/{file}"):
        raise OSError(f"{file} is not among {os.listdir(f'{work}/onnx/onnx')}")
    settings = settings | {"file_name": file}
    models["int8"] = SparseEncoder(f"{work}/onnx", device="cpu", backend="onnx", model_kwargs=settings)
    libraries = {"its transformers": transformers, "its onnxruntime": onnxruntime}
    versions = {"its version": sentence_transformers.__version__}
    versions |= {name: library.__version__ for name, library in libraries.items()}
    return {"float32": f"{work}/onnx/onnx/model.onnx", "int8": f"{work}/onnx/{file}", "versions": versions}


def encode(model: str, batch: int) -> None:
    """Encode the documents that are timed."""
    models[model].encode(texts, batch_size=batch, show_progress_bar=False)


def write_vectors(model: str, batch: int, path: str, others: list[str]) -> None:
    """Write the vectors of texts as a CSR matrix, as scipy.sparse.load_npz reads it."""
    blocks = []
    for start in range(0, len(others), 256):
        found = models[model].encode(others[start : start + 256], batch_size=batch, show_progress_bar=False)
        found = found.coalesce()
        parts = found.values().numpy(), tuple(found.indices().numpy())
        blocks.append(scipy.sparse.coo_array(parts, shape=tuple(found.shape)).tocsr())
    scipy.sparse.save_npz(path, scipy.sparse.vstack(blocks, format="csr"))


REQUESTS = {function.__name__: function for function in (open_models, encode, write_vectors)}

if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr  # what the libraries print is no answer
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"result": REQUESTS[name](**arguments)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
