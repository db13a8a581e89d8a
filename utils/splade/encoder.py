"""SPLADE encoder on top of a masked language model: text -> sparse vector over the vocabulary."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.arguments import check_positive
from utils.device import autocast, compute_dtype, resolve_device, use_threads
from utils.files import replacing_files
from utils.models import load_masked_lm
from utils.splade import packing
from utils.splade.head import active_terms, splade_head
from utils.splade.int8 import quantize
from utils.splade.model_folder import MODEL_FILES, ModelConfig, read_model_folder, write_model_folder
from utils.splade.projection import detach_projection
from utils.splade.streaming import BatchEncoder
from utils.splade.tokenization import TokenizationMixin, check_text, check_texts
from utils.splade.vectors import EMPTY_VECTOR, SparseVector

DEFAULT_MAX_LENGTH, DEFAULT_QUERY_MAX_LENGTH = 512, 128  # tokens; limits of a model that does not say its own
FINGERPRINT_SAMPLES = 1000  # numbers of each weight matrix that the fingerprint is made of
TRACED_PRECISIONS = ("auto", "float32")  # precisions in which encode_query runs a traced float32 forward on the CPU

_TRACE_LOCK = threading.Lock()  # torch.jit.trace keeps what it does in variables of its module


class SpladeEncoder(TokenizationMixin, torch.nn.Module):
    """SPLADE encoder: a term's weight is the maximum over a text's tokens of log(1 + relu(logit)), or of the logarithm
    of 1 plus that (`activation`).

    Works with any masked language model of transformers whose logits are a linear projection of its last hidden
    states; the projection is taken out of the model's forward pass and runs in the fused head.

    Attributes:
        model: the masked language model. Inside the encoder its forward returns hidden states instead of logits.
        tokenizer: its tokenizer.
        max_length, query_max_length: limits in tokens for documents and queries.
        truncated: how many texts the last `encode` or `encode_stream` of this thread cut to the limit.
        name: what it was loaded by, "" for nothing.
        base_model: name of the model that this one was fine-tuned from.
        activation: log1p_relu or log1p_log1p_relu, see `utils.splade.model_folder.ModelConfig`.
        precision: one of utils.device.PRECISIONS, for `encode`.
        training_notes: how the model was trained; stored in splade_config.json.
        query_weights: [vocabulary] for an inference-free query encoder, where a query's vector is the weights of its
            own tokens (SPLADE-doc, arXiv 2109.10086, section 3.3; arXiv 2411.04403); None where the model encodes
            queries too.

    Raises:
        ValueError: the model's logits are not a projection of its hidden states, or a limit leaves no room for a text.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int = DEFAULT_MAX_LENGTH,
        query_max_length: int = DEFAULT_QUERY_MAX_LENGTH,
        base_model: str = "",
        precision: str = "auto",
        query_weights: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length = min(max_length, _position_limit(model, tokenizer))
        self.query_max_length = query_max_length
        self.query_weights = None if query_weights is None else torch.nn.Parameter(query_weights)
        self.check_limits(max_length=self.max_length)
        if query_weights is None:
            self.query_max_length = min(query_max_length, self.max_length)
            self.check_limits(query_max_length=self.query_max_length)
        self.name = ""
        self.base_model = base_model
        self.activation = "log1p_relu"
        self.precision = precision
        self.training_notes: dict[str, Any] = {}
        self._truncated: dict[int, int] = {}  # by thread
        self._decoded = {}
        detach_projection(model, tokenizer)
        self._can_pack = packing.enable_packing(model)
        self._batch_encoder = BatchEncoder(self._encode_batch)
        self._traced_forward: Callable[[torch.Tensor], torch.Tensor] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str | torch.device | None = None,
        max_length: int | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> "SpladeEncoder":
        """Load a model from a folder, a hub id or a name in utils.models.

        Args:
            max_length: limit in tokens for documents, which the model's number of positions bounds; None for the limit
                that the model's files say.
            threads: see `utils.device.use_threads`.

        Raises:
            ValueError: a limit leaves no room for a text beside the special tokens.
            ValueError, OSError: see `utils.models.load_masked_lm` and `utils.device.resolve_device`.
        """
        check_positive(max_length=max_length)
        device = resolve_device(device)
        use_threads(threads)
        torch.backends.cuda.enable_cudnn_sdp(False)  # cuDNN's attention builds a plan for every new shape of a batch
        compute_dtype(device, precision)  # an unknown precision fails before the model loads
        folder = read_model_folder(name)
        model, tokenizer = load_masked_lm(name, folder.subfolder)
        config, query_weights = folder.config, folder.query_weights
        if query_weights is not None and len(query_weights) != model.config.vocab_size:
            raise ValueError(
                f"model '{name}': {len(query_weights):,} query weights do not fit its vocabulary of "
                f"{model.config.vocab_size:,}"
            )
        encoder = cls(
            model,
            tokenizer,
            max_length=max_length or config.max_length or min(DEFAULT_MAX_LENGTH, tokenizer.model_max_length),
            query_max_length=config.query_max_length or DEFAULT_QUERY_MAX_LENGTH,
            base_model=config.base_model or str(name),
            precision=precision,
            query_weights=query_weights,
        )
        encoder.name = str(name)
        encoder.activation = config.activation
        encoder.training_notes = config.training
        encoder.to(device)
        if precision == "int8":
            quantize(model)
        return encoder

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def fingerprint(self) -> str:
        """Return a hash of what its vectors depend on but for limits in tokens and precision: a sample of each of the
        weights, rounded to bfloat16, the tokenizer, and the activation."""
        digest = hashlib.blake2b(self.activation.encode(), digest_size=16)
        for name, weights in sorted(self.state_dict().items()):
            step = max(1, weights.numel() // FINGERPRINT_SAMPLES)
            sample = weights.detach().flatten()[::step].to("cpu", torch.bfloat16)
            digest.update(f"{name} {tuple(weights.shape)}".encode() + sample.view(torch.int16).numpy().tobytes())
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        digest.update((backend.to_str() if backend else repr(sorted(self.tokenizer.get_vocab().items()))).encode())
        return digest.hexdigest()

    @property
    def truncated(self) -> int:
        return self._truncated.get(threading.get_ident(), 0)

    @property
    def vocabulary_size(self) -> int:
        """Return the number of terms in the vocabulary."""
        return self.model.config.vocab_size

    def forward(
        self,
        input_ids: torch.Tensor | Sequence[torch.Tensor],
        attention_mask: torch.Tensor | Sequence[torch.Tensor],
        query_ids: torch.Tensor | None = None,
        terms: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute [batch, vocabulary] term weights from [batch, tokens] ids and mask; padding is left out.

        Both may also be sequences of such tensors, each padded to a length of its own (`group_by_length`); the rows
        are then those of the first group's texts, the second's, and so on. Rows for `query_ids` [queries, tokens] come
        last; their weights are those of `query_weights`. With `terms`, ids of the vocabulary, only these have a column,
        in their order.
        """
        hidden, lengths, projection, bias = self._head_inputs(input_ids, attention_mask)
        if terms is not None:
            projection, bias = projection[terms], None if bias is None else bias[terms]
        weights = splade_head(hidden, lengths, projection, bias)
        if self.activation == "log1p_log1p_relu":
            weights = weights.log1p()
        if query_ids is None:
            return weights
        # Padding sets the pad token, whose query weight is 0 as that of all special tokens.
        present = weights.new_zeros(len(query_ids), self.vocabulary_size).scatter_(1, query_ids, 1.0)
        query_weights = present * self.query_weights.relu()
        return torch.cat([weights, query_weights if terms is None else query_weights[:, terms]])

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
        yield from self._batch_encoder.encode_stream(texts, tokenize, self.device, *options, **stream)

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
            return SparseVector(ids[weights > 0], weights[weights > 0])
        if (
            not self._can_pack
            or self.device.type != "cpu"
            or self.precision not in TRACED_PRECISIONS
            or self.model.training
        ):
            return self._batch_encoder.encode_batch([tokens], self.device)[0]
        with _TRACE_LOCK:
            if self._traced_forward is None:
                self._traced_forward = packing.trace_forward(self.model)
        projection = self.model.get_output_embeddings()
        with torch.inference_mode():
            hidden = self._traced_forward(torch.tensor(tokens))
            return self._sparse_vectors(hidden, [len(tokens)], projection.weight, projection.bias)[0]

    def encode_queries(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return the sparse vectors of queries, encoded together; a single one by `encode_query`, which is faster.

        Raises:
            TypeError: `texts` is one string, or one of them is not a string.
        """
        texts = list(check_texts(texts, "queries"))
        if len(texts) == 1 or self.query_weights is not None:
            return [self.encode_query(text) for text in texts]
        return self.encode(texts, self.query_max_length)

    def forget_trace(self) -> None:
        """Trace the model anew for the next query; to be called when layers have been replaced."""
        self._traced_forward = None

    def tokenize_queries(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize as `tokenize` does, up to `query_max_length`; without special tokens if there are query weights."""
        return self.tokenize_and_count_queries(texts)[0]

    def tokenize_and_count_queries(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Return what `tokenize_queries` does, and how many queries were cut."""
        if self.query_weights is None:
            self.check_limits(query_max_length=self.query_max_length)
            return self.tokenize_and_count(texts, self.query_max_length)
        return self.truncated_ids(texts, self.query_max_length, add_special_tokens=False)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model folder, see utils.splade.model_folder; its files appear in `folder` once all are complete, in
        place of an earlier model's.

        Raises:
            OSError: they cannot be written, such as to a full disk.
        """
        try:
            with replacing_files(folder, MODEL_FILES) as unfinished:
                self.model.save_pretrained(unfinished)
                config = ModelConfig(
                    activation=self.activation,
                    query_encoder="model" if self.query_weights is None else "idf",
                    max_length=self.max_length,
                    query_max_length=self.query_max_length,
                    base_model=self.base_model,
                    training=self.training_notes,
                )
                write_model_folder(unfinished, config, self.tokenizer, self.query_weights)
        except SafetensorError as error:
            raise OSError(f"{folder}: cannot write the model: {error}") from None

    @torch.inference_mode()
    def _encode_batch(self, tokens: list[list[int]]) -> list[SparseVector]:
        with autocast(self.device, self.precision):
            batch = {name: tensor.to(self.device) for name, tensor in self.pad(tokens).items()}
            return self._sparse_vectors(*self._head_inputs(**batch))

    def _sparse_vectors(self, *head_inputs: Any) -> list[SparseVector]:
        vectors = [SparseVector(*vector) for vector in active_terms(*head_inputs)]
        if self.activation == "log1p_log1p_relu":
            return [SparseVector(indices, np.log1p(values)) for indices, values in vectors]
        return vectors

    def _head_inputs(
        self, input_ids: torch.Tensor | Sequence[torch.Tensor], attention_mask: torch.Tensor | Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[int], torch.Tensor, torch.Tensor | None]:
        """Return the hidden states of all tokens without padding, the texts' lengths, and the projection's weight and
        bias."""
        if isinstance(input_ids, torch.Tensor):
            input_ids, attention_mask = [input_ids], [attention_mask]
        lengths = [length for mask in attention_mask for length in mask.sum(1).tolist()]
        if self._can_pack and self.device.type == "cpu":
            ids = torch.cat([ids[mask.bool()] for ids, mask in zip(input_ids, attention_mask)])
            hidden = packing.hidden_states(self.model, ids, lengths)  # (tokens, H)
        else:
            groups = zip(input_ids, attention_mask)
            hidden = torch.cat([self.model(input_ids=ids, attention_mask=m).logits[m.bool()] for ids, m in groups])
        projection = self.model.get_output_embeddings()
        return hidden, lengths, projection.weight, projection.bias


def _position_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the longest input, in tokens, that the model has positions for."""
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return positions - packing.first_position(model)
