"""SPLADE encoder on top of a masked language model: text -> sparse vector over the vocabulary."""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.arguments import check_positive
from utils.device import autocast, compute_dtype, one_thread, resolve_device, use_threads
from utils.files import replacing_files
from utils.models import load_masked_lm
from utils.splade import kernels, packing
from utils.splade.base_encoder import DEFAULT_MAX_LENGTH, DEFAULT_QUERY_MAX_LENGTH, Encoder
from utils.splade.cuda_graphs import BatchGraphs
from utils.splade.head import active_terms, nonzero_terms, splade_head, sum_head
from utils.splade.int8_weights import read_int8_weights
from utils.splade.layers_cpu import use_kernels
from utils.splade.model_folder import MODEL_FILES, ModelFolder, read_model_folder, write_model_folder
from utils.splade.onnx_encoder import GRAPHS
from utils.splade.projection import detach_projection, kept_terms
from utils.splade.tokenization import flatten
from utils.splade.vectors import SparseVector

FINGERPRINT_SAMPLES = 1000  # numbers of each weight matrix that the fingerprint is made of
HALF_TOLERANCE = 0.05  # share of the largest hidden state that rounding may change in half precision
TRACED_PRECISIONS = ("auto", "float32")  # precisions in which encode_query runs without autocast on the CPU

_TRACE_LOCK = threading.Lock()  # torch.jit.trace keeps what it does in variables of its module


class SpladeEncoder(Encoder, torch.nn.Module):
    """SPLADE encoder in torch, which encodes and can be trained.

    Works with any masked language model of transformers whose logits are a linear projection of its last hidden
    states; the projection is taken out of the model's forward pass and runs in the fused head.

    Attributes:
        model: the masked language model. Inside the encoder its forward returns hidden states instead of logits.

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
        super().__init__(tokenizer, None if query_weights is None else torch.nn.Parameter(query_weights))
        self.model = model.eval()
        self.set_limits(min(max_length, _position_limit(model, tokenizer)), query_max_length)
        self.base_model = base_model
        self.precision = precision
        self._optimized_from: str | None = None  # fingerprint
        self._in_int8 = False
        self._kept_terms: np.ndarray | None = None
        self._rounded: dict[str, torch.Tensor] = {}  # weights in the precision of products, by name
        detach_projection(model, tokenizer)
        self._weight_count = sum(weights.numel() for weights in model.parameters())
        self._can_pack = packing.enable_packing(model)
        self._packs_on_cuda: bool | None = None  # not tried yet
        self._traced_forward: Callable[[torch.Tensor], torch.Tensor] | None
        self._graphs: BatchGraphs
        self.forget_trace()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str | torch.device | None = None,
        max_length: int | None = None,
        precision: str = "auto",
        threads: int | None = None,
        folder: ModelFolder | None = None,
    ) -> "SpladeEncoder":
        """Load a model from a folder, a hub id or a name in utils.models.

        Args:
            max_length: limit in tokens for documents, which the model's number of positions bounds; None for the limit
                that the model's files say.
            threads: see `utils.device.use_threads`.
            folder: what the model's files say, if they have been read.

        Raises:
            ValueError: a limit leaves no room for a text beside the special tokens, or the model is a graph, which
                `utils.splade.opening.open_encoder` opens.
            ValueError, OSError: see `utils.models.load_masked_lm` and `utils.device.resolve_device`.
        """
        check_positive(max_length=max_length)
        device = resolve_device(device)
        use_threads(threads)
        torch.backends.cuda.enable_cudnn_sdp(False)  # cuDNN's attention builds a plan for every new shape of a batch
        compute_dtype(device, precision)  # an unknown precision fails before the model loads
        folder = folder or read_model_folder(name)
        config, query_weights = folder.config, folder.query_weights
        if config.weights in GRAPHS:
            raise ValueError(f"model '{name}' is a graph of {config.weights}, which only encodes; name its original")
        state = read_int8_weights(name) if config.weights == "int8" else None
        model, tokenizer = load_masked_lm(name, folder.subfolder, state)
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
            precision=precision,
            query_weights=query_weights,
        )
        encoder.describe(str(name), config)
        encoder._optimized_from = config.fingerprint
        if device != encoder.device:
            encoder.to(device)
        own_codes = config.weights == "int8" and precision == "auto" and device.type == "cpu" and kernels.available()
        if precision == "int8" or own_codes:
            encoder._in_int8 = True
            encoder.forget_trace()
        return encoder

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def fingerprint(self) -> str:
        """Return a hash of a sample of each of the weights, rounded to bfloat16, the tokenizer, activation and pooling;
        of what `optimize_model.py` made, the original's."""
        if self._optimized_from:
            return self._optimized_from
        digest = hashlib.blake2b(self.activation.encode(), digest_size=16)
        if self.pooling != "max":
            digest.update(self.pooling.encode())
        for name, weights in sorted(self.state_dict().items()):
            step = max(1, weights.numel() // FINGERPRINT_SAMPLES)
            sample = weights.detach().flatten()[::step].to("cpu", torch.bfloat16)
            digest.update(f"{name} {tuple(weights.shape)}".encode() + sample.view(torch.int16).numpy().tobytes())
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        digest.update((backend.to_str() if backend else repr(sorted(self.tokenizer.get_vocab().items()))).encode())
        return digest.hexdigest()

    @property
    def vocabulary_size(self) -> int:
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
        in their order. With sum pooling there is no gradient.
        """
        hidden, lengths = self._hidden_states(input_ids, attention_mask)
        projection, bias = self._projection
        if terms is not None:
            projection, bias = (None if part is None else part.index_select(0, terms) for part in (projection, bias))
        if self.pooling == "sum":
            weights = sum_head(hidden, lengths, projection, bias, self._logarithms)
        else:
            weights = splade_head(hidden, lengths, projection, bias)
            if self._logarithms == 2:
                weights = weights.log1p()
        if query_ids is None:
            return weights
        # Padding sets the pad token, whose query weight is 0 as that of all special tokens.
        present = weights.new_zeros(len(query_ids), self.vocabulary_size).scatter_(1, query_ids, 1.0)
        query_weights = present * self.query_weights.relu()
        return torch.cat([weights, query_weights if terms is None else query_weights[:, terms]])

    def freeze(self) -> None:
        """Prepare for encoding alone: compute only the terms that `optimize_model.py --prune-vocabulary` has kept, and
        keep what small batches on CUDA take of the weights in the precision of their products. Later changes of these
        weights have no effect on it."""
        self.forget_trace()
        weight, bias = self._projection
        terms = kept_terms(self.model)
        if terms is not None:
            self.register_buffer("_kept_weight", weight.detach()[terms], persistent=False)
            self.register_buffer("_kept_bias", bias.detach()[terms], persistent=False)
            self._kept_terms = terms.numpy().astype(np.int32)
        if self.device.type == "cpu":
            self.encode_query("a")  # traces the model, so that the first query of a user need not
        dtype = compute_dtype(self.device, self.precision)
        if self.device.type == "cuda" and dtype != torch.float32:
            self._rounded = {
                f"{name}.weight": module.weight.detach().to(dtype)
                for name, module in self.model.named_modules()
                if isinstance(module, torch.nn.Linear) and module.weight is not weight
            }

    def forget_trace(self) -> None:
        """Trace the model anew for the next query, and capture its CUDA graphs anew; to be called when layers have been
        replaced, or `precision` has changed."""
        dtype = compute_dtype(self.device, self.precision)
        if self._in_int8:
            self._layer_precision = "int8"  # in C++
        elif dtype == torch.bfloat16 and self.device.type == "cpu" and kernels.has_bfloat16():
            self._layer_precision = "bfloat16"
        else:
            self._layer_precision = "float32"
        use_kernels(self.model, self._layer_precision)
        self._traced_forward = None
        limit = _position_limit(self.model, self.tokenizer)
        self._graphs = BatchGraphs(self._weigh_padded, self.tokenizer.pad_token_id or 0, limit)

    def _apply(self, *arguments: Any, **options: Any) -> "SpladeEncoder":
        """Move or convert the weights, which graphs would still read where they were."""
        self._rounded = {}
        moved = super()._apply(*arguments, **options)
        self.forget_trace()
        return moved

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model folder, see utils.splade.model_folder; its files appear in `folder` once all are complete, in
        place of an earlier model's.

        Raises:
            OSError: they cannot be written, such as to a full disk.
        """
        try:
            with replacing_files(folder, MODEL_FILES, "config.json") as unfinished:
                self.model.save_pretrained(unfinished)
                write_model_folder(unfinished, self.to_config(), self.tokenizer, self.query_weights)
        except SafetensorError as error:
            raise OSError(f"{folder}: cannot write the model: {error}") from None

    def _encode_single(self, tokens: list[int]) -> SparseVector:
        if (
            not self._can_pack
            or self.device.type != "cpu"
            or (self._layer_precision == "float32" and self.precision not in TRACED_PRECISIONS)
            or self.model.training
        ):
            return super()._encode_single(tokens)
        with _TRACE_LOCK:
            if self._traced_forward is None:
                self._traced_forward = packing.trace_forward(self.model)
        short = len(tokens) * self._weight_count < kernels.PRODUCTS_PER_THREAD
        with torch.inference_mode(), one_thread() if short else contextlib.nullcontext():
            return self._sparse_vectors(self._traced_forward(torch.tensor(tokens)), [len(tokens)])[0]

    @torch.inference_mode()
    def _encode_batch(self, tokens: list[list[int]]) -> list[SparseVector]:
        # The cache is one for all threads, and older torch fills it here: a stream would read what another one's
        # kernels have still to write.
        with autocast(self.device, self._encoding_precision, cache=self.device.type != "cuda"):
            if self._graphs_run() and (found := self._graphs.run(tokens, self.device, nonzero_terms)) is not None:
                return self._as_vectors(found)
            if self._packs():
                lengths = list(map(len, tokens))
                ids = torch.from_numpy(flatten(tokens)).to(self.device)
                return self._sparse_vectors(packing.hidden_states(self.model, ids, lengths), lengths)
            batch = {name: tensor.to(self.device) for name, tensor in self.pad(tokens).items()}
            return self._sparse_vectors(*self._hidden_states(**batch))

    @property
    def _encoding_precision(self) -> str:
        """The precision of torch's operations in batches."""
        return self.precision if self._layer_precision == "float32" else "float32"

    def _graphs_run(self) -> bool:
        """Return whether small batches may run as CUDA graphs."""
        if self.device.type != "cuda" or self.pooling != "max" or self.model.training:
            return False
        from utils.splade import head_cuda  # imported late: Triton takes a second to import

        return head_cuda.available(self.device)

    def _weigh_padded(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Compute what `forward` does on CUDA from [batch, tokens] ids and [batch] lengths, without waiting for it."""
        from utils.splade import head_cuda

        batch, longest = ids.shape
        mask = (torch.arange(longest, device=ids.device) < lengths[:, None]).long()
        inputs = {"input_ids": ids, "attention_mask": mask}
        hidden = torch.func.functional_call(self.model, self._rounded, kwargs=inputs).logits.flatten(0, 1)
        if torch.is_autocast_enabled("cuda"):
            hidden = hidden.to(torch.get_autocast_dtype("cuda"))
        starts = torch.arange(batch, device=ids.device) * longest
        return head_cuda.weigh_terms(hidden.contiguous(), starts, starts + lengths, longest, *self._kept_projection)[0]

    @property
    def _kept_projection(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._projection if self._kept_terms is None else (self._kept_weight, self._kept_bias)

    def _sparse_vectors(self, hidden: torch.Tensor, lengths: list[int]) -> list[SparseVector]:
        projection, bias = self._kept_projection
        if self.pooling == "sum":
            found = nonzero_terms(sum_head(hidden, lengths, projection, bias, self._logarithms))
        else:
            found = active_terms(hidden, lengths, projection, bias)
        return self._as_vectors(found)

    def _as_vectors(self, found: list[tuple[np.ndarray, np.ndarray]]) -> list[SparseVector]:
        """Return vectors of the (terms, weights) that a head has found."""
        if self._logarithms == 2 and self.pooling == "max":
            found = [(terms, np.log1p(weights)) for terms, weights in found]
        kept = self._kept_terms
        return [SparseVector(terms if kept is None else kept[terms], weights) for terms, weights in found]

    @property
    def _logarithms(self) -> int:
        return 2 if self.activation == "log1p_log1p_relu" else 1

    @property
    def _projection(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        projection = self.model.get_output_embeddings()
        return projection.weight, projection.bias

    def _hidden_states(
        self, input_ids: torch.Tensor | Sequence[torch.Tensor], attention_mask: torch.Tensor | Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[int]]:
        """Return the hidden states of all tokens without padding, and the texts' lengths."""
        if isinstance(input_ids, torch.Tensor):
            input_ids, attention_mask = [input_ids], [attention_mask]
        lengths = [length for mask in attention_mask for length in mask.sum(1).tolist()]
        if self._packs():
            ids = torch.cat([ids[mask.bool()] for ids, mask in zip(input_ids, attention_mask)])
            hidden = packing.hidden_states(self.model, ids, lengths)  # (tokens, H)
        else:
            groups = zip(input_ids, attention_mask)
            hidden = torch.cat([self.model(input_ids=ids, attention_mask=m).logits[m.bool()] for ids, m in groups])
        return hidden, lengths

    def _packs(self) -> bool:
        """Return whether batches run as packed texts; on CUDA, in half precision alone."""
        if self.device.type == "cpu" or not self._can_pack:
            return self._can_pack
        if self.device.type != "cuda" or not torch.is_autocast_enabled("cuda"):
            return False
        if self._packs_on_cuda is None:
            # Without the cache, which would give its casts of weights, made without a gradient, to a training step.
            with torch.autocast("cuda", torch.get_autocast_dtype("cuda"), cache_enabled=False):
                self._packs_on_cuda = packing.packs(self.model, HALF_TOLERANCE)
        return self._packs_on_cuda


def _position_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the longest input, in tokens, that the model has positions for."""
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return positions - packing.first_position(model)
