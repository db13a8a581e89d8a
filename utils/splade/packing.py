"""Packed texts through a transformer: one row with the tokens of all texts, without padding or masks.

All layers of a transformer but attention work on each token alone, so only attention must be confined to each text.
The implementation here is registered with transformers and reads the texts' lengths from the keyword argument
`text_lengths`, which the model passes on; without it, it is transformers' own scaled dot-product attention. On CUDA, in
bfloat16 and float16, it is FlashAttention over texts of any lengths (Dao, arXiv 2307.08691).
"""

import warnings
from collections.abc import Callable
from itertools import accumulate, groupby

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from utils.splade import kernels
from utils.splade.attention_cpu import NativeAttention

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10; `packs` finds that it is missing
    varlen_attn = None

ATTENTION_NAME = "within_texts"
ROW_MULTIPLE = 32  # tokens; packed rows are padded to a multiple of this, or of a larger power of 2 where they are long


def enable_packing(model: PreTrainedModel) -> bool:
    """Enable packed texts in `model`; return False, and leave it as it is, where its attention is its own or slides
    over a window."""
    windowed = any(getattr(model.config, name, None) for name in ("sliding_window", "local_attention"))
    if windowed or getattr(model.config, "_attn_implementation", None) != "sdpa":
        return False
    model.set_attn_implementation(ATTENTION_NAME)
    if packs(model, 1e-3):
        return True
    model.set_attn_implementation("sdpa")
    return False


@torch.inference_mode()
def packs(model: PreTrainedModel, tolerance: float) -> bool:
    """Return whether packed texts have the hidden states that they have alone, within a share `tolerance` of the
    largest; on CUDA this takes autocast. Dropout is left out, also of a model in training."""
    lengths = [5, 3]
    ids = torch.tensor([i for i in range(sum(lengths) + 1) if i != model.config.pad_token_id], device=model.device)[
        : sum(lengths)
    ]
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        packed = hidden_states(model, ids, lengths)
        alone = torch.cat([model(input_ids=row[None]).logits[0] for row in ids.split(lengths)])
    except (TypeError, ValueError, RuntimeError):  # of the model, which passes no arguments on, or the attention
        return False
    finally:
        for module in training:
            module.training = True
    return packed.shape == alone.shape and bool((packed - alone).abs().max() <= tolerance * alone.abs().max())


def hidden_states(model: PreTrainedModel, ids: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Return the [tokens, hidden] states of packed texts, whose token ids [tokens] stand one after the other."""
    first = first_position(model)
    positions = torch.cat([torch.arange(first, first + length) for length in lengths]).to(ids.device)
    if ids.is_cuda:
        borders = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(ids.device)
        options = {"text_lengths": lengths, "text_borders": borders}
        return model(input_ids=ids[None], position_ids=positions[None], **options).logits[0]
    # oneDNN compiles and caches a kernel for each number of rows; a last text of filler tokens keeps these numbers few.
    filler = -len(ids) % max(ROW_MULTIPLE, 2 ** (len(ids).bit_length() - 5)) if len(ids) > ROW_MULTIPLE else 0
    ids_row, positions_row = (torch.nn.functional.pad(row, (0, filler), value=row[0]) for row in (ids, positions))
    states = model(input_ids=ids_row[None], position_ids=positions_row[None], text_lengths=[*lengths, filler]).logits[0]
    return states[: len(ids)]


def trace_forward(model: PreTrainedModel) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from the [tokens] ids of one text to its [tokens, hidden] states, on the CPU.

    It is traced, because the Python between the operations takes longer than a query's matrix products. It shares the
    model's weights, so it follows their changes; a model that cannot be traced runs eagerly.
    """

    class SingleText(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.first = model, first_position(model)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            positions = torch.arange(ids.shape[0]) + self.first  # len() would be traced as a constant
            lengths = None if torch.jit.is_tracing() else [len(ids)]
            return self.model(input_ids=ids[None], position_ids=positions[None], text_lengths=lengths).logits[0]

    eager = SingleText().eval()
    short, long = (torch.arange(length) % 3 + 5 for length in (4, 17))
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(eager, short, check_trace=False)
            expected = eager(long)
            # In 8 bits, attention's last digits may change a few codes.
            same = bool((traced(long) - expected).norm() <= 1e-3 * expected.norm())
    except Exception:  # a model's code may fail under the tracer in any way; the eager model takes over
        same = False
    return (lambda ids: traced(ids)) if same else (lambda ids: eager(ids))  # lambdas do not register as submodules


def first_position(model: PreTrainedModel) -> int:
    """Return the position of a text's first token: 0, or the one after the padding id in models like RoBERTa."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else padding + 1


def _attend(
    module, query, key, value, attention_mask, text_lengths=None, text_borders=None, dropout=0.0, scaling=None, **kwargs
):
    """Attend within each text: query, key, value [1, heads, tokens, size] -> [1, tokens, heads, size]. On CUDA the
    tokens of text i are those from `text_borders`[i] on, and there is no dropout of attention."""
    if text_lengths is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if text_borders is not None:
        packed = (part[0].transpose(0, 1) for part in (query, key, value))  # (tokens, heads, size)
        longest = max(text_lengths)
        return varlen_attn(*packed, text_borders, text_borders, longest, longest, scale=scaling)[None], None
    # float32 is as fast on a CPU without AMX; in bfloat16 every text length would leave a compiled kernel in memory.
    dtype, wide = query.dtype, torch.promote_types(query.dtype, torch.float32)
    alike = query.shape == key.shape == value.shape  # not so where heads share keys and values
    if alike and wide == torch.float32 and query.device.type == "cpu" and not dropout and kernels.available():
        parts = (part.squeeze(0).transpose(0, 1) for part in (query, key, value))
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return NativeAttention.apply(*parts, text_lengths, scale)[None], None
    query, key, value = query.to(wide), key.to(wide), value.to(wide)
    runs = [(length, len(list(run))) for length, run in groupby(text_lengths) if length]
    sizes = [length * count for length, count in runs]
    # Split at once: the gradient of each slice for itself would be a zeroed copy of all tokens' gradients.
    parts = zip(*(part[0].split(sizes, dim=1) for part in (query, key, value)))
    results = []
    for (length, count), run in zip(runs, parts):  # neighboring texts of the same length share one call
        q, k, v = (part.unflatten(1, (count, length)).transpose(0, 1) for part in run)
        with torch.autocast(q.device.type, enabled=False):
            result = torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        results.append(result.transpose(1, 2).flatten(0, 1))
    return torch.cat(results)[None].to(dtype), None


AttentionInterface.register(ATTENTION_NAME, _attend)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
