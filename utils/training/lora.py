"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685), by peft: a few percent of the weights are trained, and the
model that is saved has the plain architecture."""

import copy

import torch
from transformers import PreTrainedModel

ALPHA_PER_RANK = 2  # lora_alpha over the rank: the factor on an adapter's output


def add_adapters(model: PreTrainedModel, rank: int) -> None:
    """Give each linear layer but the vocabulary projection an adapter of `rank`. Only the adapters stay trainable, and
    the projection's bias, which sets how sparse vectors are.

    Raises:
        ImportError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # seconds to import
    except ImportError:
        raise ImportError("LoRA needs the package peft: pip install peft") from None
    vars(model).pop("peft_config", None)  # of adapters that were merged
    projection = model.get_output_embeddings()
    linear = [n for n, part in model.named_modules() if isinstance(part, torch.nn.Linear) and part is not projection]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=ALPHA_PER_RANK * rank, target_modules=linear), model)
    if projection.bias is not None:
        projection.bias.requires_grad_()


def merge_adapters(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """Replace adapted layers by plain ones with the adapters merged in; return the adapted ones by name, for
    `restore_adapters`."""
    from peft.tuners.lora import LoraLayer

    adapted = {name: part for name, part in model.named_modules() if isinstance(part, LoraLayer)}
    for name, part in adapted.items():
        plain = copy.deepcopy(part.get_base_layer())
        with torch.no_grad():
            plain.weight += part.get_delta_weight("default")
        model.set_submodule(name, plain)
    return adapted


def restore_adapters(model: PreTrainedModel, adapted: dict[str, torch.nn.Module]) -> None:
    """Undo `merge_adapters`."""
    for name, part in adapted.items():
        model.set_submodule(name, part)
