"""What encoders have in common, whatever computes their network: texts in, sparse vectors out, with the limits and the
query side of the model."""

import abc
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from utils.splade.model_folder import ModelConfig
from utils.splade.streaming import BatchEncoder
from utils.splade.tokenization import TokenizationMixin, check_text, check_texts
from utils.splade.vectors import EMPTY_VECTOR, SparseVector

DEFAULT_MAX_LENGTH, DEFAULT_QUERY_MAX_LENGTH = 512, 128  # tokens; limits of a model that does not say its own


class Encoder(TokenizationMixin, abc.ABC):
    """SPLADE encoder: a term's weight is the maximum or the sum over a text's tokens (`pooling`) of
    log(1 + relu(logit)), or of the logarithm of 1 plus that (`activation`).

    Attributes:
        tokenizer: its tokenizer.
        max_length, query_max_length: limits in tokens for documents and queries.
        truncated: how many texts the last `encode` or `encode_stream` of this thread cut to the limit.
        name: what it was loaded by, "" for nothing.
        base_model: name of the model that this one was fine-tuned from.
        pooling: max or sum.
        activation: log1p_relu or log1p_log1p_relu, see `utils.splade.model_folder.ModelConfig`.
        max_active_dims: how many of a text's terms are kept, the heaviest; None for all.
        precision: one of utils.device.PRECISIONS, for `encode`.
        training_notes: how the model was trained; stored in splade_config.json.
        query_weights: [vocabulary] for an inference-free query encoder, where a query's vector is the weights of its
            own tokens (SPLADE-doc, arXiv 2109.10086, section 3.3; arXiv 2411.04403); None where the model encodes
            queries too.
    """

    precision = "auto"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, query_weights: torch.Tensor | None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.query_weights = query_weights
        self.name = ""
        self.base_model = ""
        self.pooling = "max"
        self.activation = "log1p_relu"
        self.max_active_dims: int | None = None
        self.training_notes: dict[str, Any] = {}
        self._truncated: dict[int, int] = {}  # by thread
        self._decoded = {}
        self._words = None
        self._batch_encoder = BatchEncoder(self._encode_batch)

    def describe(self, name: str, config: ModelConfig) -> None:
        """Take what a model folder's splade_config.json says beside the limits; `name` is what it was loaded by."""
        self.name = name
        self.base_model = config.base_model or name
        self.pooling = config.pooling
        self.activation = config.activation
        self.max_active_dims = config.max_active_dims
        self.training_notes = config.training

    def to_config(self) -> ModelConfig:
        """Return what a model folder's splade_config.json says of this encoder."""
        return ModelConfig(
            pooling=self.pooling,
            activation=self.activation,
            max_active_dims=self.max_active_dims,
            query_encoder="model" if self.query_weights is None else "idf",
            max_length=self.max_length,
            query_max_length=self.query_max_length,
            base_model=self.base_model,
            training=self.training_notes,
        )

    def set_limits(self, max_length: int, query_max_length: int) -> None:
        """Set the limits in tokens for documents and queries.

        Raises:
            ValueError: one leaves no room for a text beside the special tokens.
        """
        self.max_length, self.query_max_length = max_length, query_max_length
        self.check_limits(max_length=max_length)
        if self.query_weights is None:
            self.query_max_length = min(query_max_length, max_length)
            self.check_limits(query_max_length=self.query_max_length)

    @property
    @abc.abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abc.abstractmethod
    def vocabulary_size(self) -> int:
        """Return the number of terms in the vocabulary."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Return what encoders share whose vectors may be compared: a hash of what these depend on but for limits in
        tokens, precision, and what `optimize_model.py` changed."""

    @abc.abstractmethod
    def _encode_batch(self, tokens: list[list[int]]) -> list[SparseVector]:
        """Return the vectors of texts by their token ids, none of them without any."""

    @property
    def truncated(self) -> int:
        return self._truncated.get(threading.get_ident(), 0)

    def encode(self, texts: Sequence[str], *options: Any, **named_options: Any) -> list[SparseVector]:
        """Return the sparse vectors of `texts`, in input order. The options are those of `encode_stream`."""
        return list(self.encode_stream(texts, *options, **named_options))

    def encode_stream(
        self,
        texts: Iterable[str],
        max_length: int | None = None,
        batch_size: int | None = None,
        show_progress: bool = False,
        **stream: Any,
    ) -> Iterator[SparseVector]:
        """Yield the sparse vectors of a stream of texts, in input order; a text without tokens gets an empty vector.

        Memory is constant: texts are read and sorted by length in windows of SORT_WINDOW (utils.splade.streaming), and
        the next window is tokenized while the current one is encoded. Texts are truncated to `max_length` tokens
        (default: the model's). A batch has `batch_size` texts (default: up to the device's token budget); one that
        does not fit into memory is halved until it does. `stream` are further options of `BatchEncoder.encode_stream`.

        Raises:
            ValueError: `batch_size` is below 1, or `max_length` leaves no room for a text.
            TypeError: `texts` is one string, or one of them is not a string.
        """
        thread = threading.get_ident()  # windows are tokenized in another one
        self._truncated[thread] = 0

        def tokenize(window: Sequence[str]) -> list[list[int]]:
            ids, truncated = self.tokenize_and_count(window, max_length)
            self._truncated[thread] += truncated
            return ids

        options = batch_size, show_progress
        for vector in self._batch_encoder.encode_stream(texts, tokenize, self.device, *options, **stream):
            yield vector.heaviest(self.max_active_dims)

    def encode_query(self, text: str) -> SparseVector:
        """Return the sparse vector of one query.

        Raises:
            TypeError: `text` is not a string.
        """
        tokens = self.tokenize_queries([check_text(text, "query")])[0]
        if not tokens:
            return EMPTY_VECTOR
        if self.query_weights is not None:
            ids = np.unique(np.array(tokens, np.int32))
            weights = self.query_weights.detach()[ids].cpu().numpy()
            vector = SparseVector(ids[weights > 0], weights[weights > 0])
        else:
            vector = self._encode_single(tokens)
        return vector.heaviest(self.max_active_dims)

    def _encode_single(self, tokens: list[int]) -> SparseVector:
        return self._batch_encoder.encode_batch([tokens], self.device)[0]

    def encode_queries(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return the sparse vectors of queries, encoded together; a single one by `encode_query`, which is faster.

        Raises:
            TypeError: `texts` is one string, or one of them is not a string.
        """
        texts = list(check_texts(texts, "queries"))
        if len(texts) == 1 or self.query_weights is not None:
            return [self.encode_query(text) for text in texts]
        return self.encode(texts, self.query_max_length)

    def tokenize_queries(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize as `tokenize` does, up to `query_max_length`; without special tokens if there are query weights."""
        return self.tokenize_and_count_queries(texts)[0]

    def tokenize_and_count_queries(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Return what `tokenize_queries` does, and how many queries were cut."""
        if self.query_weights is None:
            self.check_limits(query_max_length=self.query_max_length)
            return self.tokenize_and_count(texts, self.query_max_length)
        return self.truncated_ids(texts, self.query_max_length, add_special_tokens=False)
