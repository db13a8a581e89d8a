"""Texts end to end through a transformer: one row of all their tokens, without padding and without masks.

The layers of a transformer work on each token alone, but for attention, which is taken within each text here. It is
registered with transformers as an attention implementation and reads the texts' lengths from the keyword argument
that travels through the model with them; without it, it is transformers' own scaled dot product.
"""

import warnings
from collections.abc import Callable
from itertools import groupby

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

ATTENTION_NAME = "within_texts"
ROW_MULTIPLE = 32  # what packed tokens are filled up to a multiple of; more where there are many


def enable_packing(model: PreTrainedModel) -> bool:
    """Let `model` take packed texts too. False where it cannot: attention of its own, or over a sliding window."""
    windowed = any(getattr(model.config, name, None) for name in ("sliding_window", "local_attention"))
    if windowed or getattr(model.config, "_attn_implementation", None) != "sdpa":
        return False
    model.set_attn_implementation(ATTENTION_NAME)
    texts = [5, 3]
    ids = torch.tensor([i for i in range(sum(texts) + 1) if i != model.config.pad_token_id], device=model.device)[
        : sum(texts)
    ]
    with torch.inference_mode():
        try:
            packed = hidden_states(model, ids, texts)
        except (TypeError, ValueError, RuntimeError):  # a family that takes no positions, or passes on no arguments
            packed = torch.empty(0)
        alone = torch.cat([model(input_ids=row[None]).logits[0] for row in ids.split(texts)])
    if packed.shape == alone.shape and torch.allclose(packed, alone, rtol=1e-3, atol=1e-3):
        return True
    model.set_attn_implementation("sdpa")
    return False


def hidden_states(model: PreTrainedModel, ids: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """[tokens, hidden] of texts whose token ids [tokens] stand one after the other."""
    first = first_position(model)
    positions = torch.cat([torch.arange(first, first + length) for length in lengths]).to(ids.device)
    # oneDNN compiles and keeps a product for each number of rows: a last text of fill keeps these numbers few.
    fill = -len(ids) % max(ROW_MULTIPLE, 2 ** (len(ids).bit_length() - 5)) if len(ids) > ROW_MULTIPLE else 0
    filled, places = (torch.nn.functional.pad(row, (0, fill), value=row[0]) for row in (ids, positions))
    states = model(input_ids=filled[None], position_ids=places[None], text_lengths=[*lengths, fill]).logits[0]
    return states[: len(ids)]


def trace_forward(model: PreTrainedModel) -> Callable[[torch.Tensor], torch.Tensor]:
    """[tokens] ids of one text -> its [tokens, hidden] states, on the CPU, without the Python between the operations,
    which takes longer than a query's products. It follows the model's weights; a model that cannot be traced runs as
    it is."""

    class OneText(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.first = model, first_position(model)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            positions = torch.arange(ids.shape[0]) + self.first  # not len(): the tracer would keep it
            return self.model(input_ids=ids[None], position_ids=positions[None]).logits[0]

    plain = OneText().eval()
    short, long = (torch.arange(length) % 3 + 5 for length in (4, 17))
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(plain, short, check_trace=False)
            same = torch.allclose(traced(long), plain(long), rtol=1e-4, atol=1e-5)
    except Exception:  # whatever a model's code may not let the tracer do: there is another way
        same = False
    return (lambda ids: traced(ids)) if same else (lambda ids: plain(ids))  # functions, so as not to be submodules


def first_position(model: PreTrainedModel) -> int:
    """The position of a text's first token: 0, but behind the padding id for RoBERTa and its kin."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else padding + 1


def _attend(module, query, key, value, attention_mask, text_lengths=None, dropout=0.0, scaling=None, **kwargs):
    """query, key, value: [1, heads, tokens, size] -> [1, tokens, heads, size], each text for itself."""
    if text_lengths is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    # In float32: as fast on a CPU without AMX, and in bfloat16 every length of text leaves a compiled kernel behind.
    dtype, wide = query.dtype, torch.promote_types(query.dtype, torch.float32)
    query, key, value = query.to(wide), key.to(wide), value.to(wide)
    results, start = [], 0
    for length, run in groupby(text_lengths):
        count = len(list(run))  # neighbors of one length go together
        if not length:
            continue
        q, k, v = (
            part[0, :, start : start + count * length].unflatten(1, (count, length)).transpose(0, 1)
            for part in (query, key, value)
        )
        with torch.autocast(q.device.type, enabled=False):
            result = torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        results.append(result.transpose(1, 2).flatten(0, 1))
        start += count * length
    return torch.cat(results)[None].to(dtype), None


AttentionInterface.register(ATTENTION_NAME, _attend)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
