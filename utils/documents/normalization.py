"""One spelling for the same text: in documents as they are read, and in a model's tokenizer, for queries too."""

import re
import unicodedata

from tokenizers import normalizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

NORMALIZATIONS = {
    "none": [],
    "nfkc": [normalizers.NFKC()],
    "nfkc-lowercase": [normalizers.NFKC(), normalizers.Lowercase()],
}

INVISIBLE_CHARACTERS = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def normalize(text: str) -> str:
    """Unicode's compatibility form (NFKC: ligatures, full-width letters, exponents and spaces of all kinds become plain
    ones), without invisible and control characters, spaces at the ends of lines, or more than one empty line at a
    time."""
    if not text.isascii():
        text = INVISIBLE_CHARACTERS.sub("", unicodedata.normalize("NFKC", text))
    text = CONTROL_CHARACTERS.sub(" ", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE))


def text_key(text: str) -> str:
    """Return what two copies of a text share, whatever their spacing and case."""
    return " ".join(text.lower().split())


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def normalizing_tokenizer(tokenizer: PreTrainedTokenizerBase, kind: str) -> PreTrainedTokenizerBase:
    """The tokenizer with one of NORMALIZATIONS before its own. It is saved with it, so that whatever opens the model
    folder, transformers and sentence-transformers too, treats documents and queries alike.

    Raises:
        ValueError: the tokenizer is not one of the library `tokenizers`.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not NORMALIZATIONS[kind]:
        return tokenizer
    if backend is None:
        raise ValueError(f"the tokenizer of this model takes no normalization; train with --normalize none, not {kind}")
    wanted = normalizers.Sequence(NORMALIZATIONS[kind])
    if repr(wanted).rstrip("])") in repr(backend.normalizer):  # a model that was trained here before
        return tokenizer
    own = [backend.normalizer] if backend.normalizer else []
    backend.normalizer = normalizers.Sequence([*NORMALIZATIONS[kind], *own])
    settings = {name: getattr(tokenizer, name) for name in ("model_max_length", "padding_side", "truncation_side")}
    # Its own class would make its normalizer anew from its settings when it is opened.
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings, **tokenizer.special_tokens_map)
