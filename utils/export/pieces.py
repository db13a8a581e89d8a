"""Tokens cut from a tokenizer: words that had them are split into smaller ones."""

import json
from collections.abc import Collection

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

KEPT_SETTINGS = ("model_max_length", "padding_side", "truncation_side", "model_input_names")


def spelling_pieces(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return the ids of the tokens that any text can be spelled with: the special ones and single characters.

    Raises:
        ValueError: see `cut_pieces`.
    """
    prefix = _wordpiece(tokenizer)["model"]["continuing_subword_prefix"]
    letters = [id for piece, id in tokenizer.get_vocab().items() if len(piece.removeprefix(prefix)) == 1]
    return np.unique([*letters, *tokenizer.all_special_ids])


def cut_pieces(tokenizer: PreTrainedTokenizerBase, kept: Collection[int]) -> PreTrainedTokenizerBase:
    """Return the tokenizer without all tokens but those of the ids `kept`, which keep their ids.

    Raises:
        ValueError: it is not a WordPiece tokenizer of the library tokenizers: others need the pieces in between to
            arrive at a token.
    """
    content = _wordpiece(tokenizer)
    ids = {int(id) for id in kept}
    content["model"]["vocab"] = {piece: id for piece, id in content["model"]["vocab"].items() if id in ids}
    settings = {name: getattr(tokenizer, name) for name in KEPT_SETTINGS}
    backend = Tokenizer.from_str(json.dumps(content))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings, **tokenizer.special_tokens_map)


def _wordpiece(tokenizer: PreTrainedTokenizerBase) -> dict:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.loads(backend.to_str()) if backend else {"model": {"type": type(tokenizer).__name__}}
    kind = content["model"]["type"]
    if kind != "WordPiece":
        raise ValueError(
            f"input tokens can be cut from WordPiece tokenizers, and this is {kind}; leave `prune_inputs` out"
        )
    return content
