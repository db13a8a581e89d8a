"""Dense vectors: one of a fixed number of dimensions for each text, by a model of sentence-transformers."""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.device import autocast, compute_dtype
from utils.models import loading, model_version, resolve_model


class DenseEncoder:
    """Encodes texts as dense vectors, which several threads may do at once.

    Args:
        name: a model folder, a hub id, or `minilm`.
        device: None for the best one here, or cuda, mps, cpu.

    Attributes:
        dimensions: of a vector.
        fingerprint: tells whether two encoders give the same vectors, but for how precisely they compute.
        identity: all that a vector depends on besides the text.

    Raises:
        ValueError, OSError: the model cannot be loaded.
        ImportError: sentence-transformers is not installed.
    """

    def __init__(self, name: str | Path, device: str | None = None) -> None:
        library = import_sentence_transformers(str(name))
        with loading(name, "a dense model"):
            self.model = library.SentenceTransformer(resolve_model(name), **library_options(device))
        self.name, version = str(name), model_version(name)
        self.dimensions: int = self.model.get_embedding_dimension()
        self.fingerprint = hashlib.sha256(version.encode()).hexdigest()
        computation = f"{library.__version__} {self.model.device.type} {compute_dtype(self.model.device)}"
        self.identity = f"{computation}\n{version}"
        self._lock = threading.Lock()  # the tokenizer is for one thread at a time

    def encode(self, texts: Sequence[str], queries: bool = False) -> np.ndarray:
        """Return the [texts, dimensions] float32 vectors of documents, or of queries, L2-normalized, so that the dot
        product is the cosine similarity. A model that has a prompt for either gets it; a text longer than the model's
        limit is cut there."""
        encode = self.model.encode_query if queries else self.model.encode_document
        with self._lock, autocast(self.model.device):
            vectors = encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return vectors.astype(np.float32, copy=False)  # a model in float16 gives vectors in it


def import_sentence_transformers(name: str):
    """Return the library, for the model called `name`.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import sentence_transformers  # takes seconds to import
    except ImportError:
        raise ImportError(f"'{name}' needs: pip install sentence-transformers") from None
    return sentence_transformers


def library_options(device: str | None) -> dict[str, Any]:
    """Return how its models are loaded: from safetensors, without code of their own."""
    return {"device": device, "trust_remote_code": False, "model_kwargs": {"use_safetensors": True}}
