"""The vocabulary projection of a masked language model, taken out of its forward pass."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

CUT_BIAS = -10_000.0  # of a term that has been cut: its weight is 0, in every library that opens the model


def detach_projection(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the model's forward return the input of its vocabulary projection.

    Raises:
        ValueError: there is no linear projection, or forward and projection together do not give the logits.
    """
    projection = model.get_output_embeddings()
    if not isinstance(projection, torch.nn.Linear):
        raise ValueError(f"{type(model).__name__} has no linear projection to the vocabulary")
    ids = torch.tensor([tokenizer("a b", add_special_tokens=True)["input_ids"]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
        projection.forward = lambda hidden: hidden  # from here on, the model's .logits are hidden states
        hidden = model(input_ids=ids).logits
        rebuilt = torch.nn.functional.linear(hidden, projection.weight, projection.bias)
    if rebuilt.shape != logits.shape or not torch.allclose(rebuilt, logits, rtol=1e-3, atol=1e-3):
        raise ValueError(f"{type(model).__name__}: its logits are not a projection of its hidden states")


def cut_terms(model: PreTrainedModel, kept: torch.Tensor) -> None:
    """Give all terms but those of the ids `kept` the weight 0, whatever the text.

    Raises:
        ValueError: the projection has no bias.
    """
    bias = model.get_output_embeddings().bias
    if bias is None:
        raise ValueError(f"{type(model).__name__}: its projection to the vocabulary has no bias, so no term can be cut")
    cut = torch.ones(len(bias), dtype=torch.bool)
    cut[kept] = False
    with torch.no_grad():
        bias[cut] = CUT_BIAS


def kept_terms(model: PreTrainedModel) -> torch.Tensor | None:
    """Return the ids of the terms that have not been cut, ascending; None where none has been."""
    bias = model.get_output_embeddings().bias
    kept = None if bias is None else (bias > CUT_BIAS).nonzero().squeeze(1).cpu()
    return None if kept is None or len(kept) == len(bias) else kept
