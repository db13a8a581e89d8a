"""The vocabulary projection of a masked language model, taken out of its forward pass."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
