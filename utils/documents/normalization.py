"""One spelling for equal texts: in documents as they are read, and in a model's tokenizer, so for queries too."""

import re
import unicodedata

from tokenizers import normalizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

NORMALIZATIONS = {
    "none": [],
    "nfkc": [normalizers.NFKC()],
    "nfkc-lowercase": [normalizers.NFKC(), normalizers.Lowercase()],
}

# Soft hyphen, zero-width characters, marks of text direction, invisible operators, byte order mark.
INVISIBLE_CHARACTERS = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # but tab, line feed, carriage return


def normalize(text: str) -> str:
    """Return a text in Unicode's compatibility form NFKC (ligatures, full-width letters, exponents and spaces of all
    kinds become plain ones), with spaces for control characters, and without invisible characters, spaces at the ends
    of lines, and more than one empty line in a row."""
    if not text.isascii():
        text = INVISIBLE_CHARACTERS.sub("", unicodedata.normalize("NFKC", text))
    text = CONTROL_CHARACTERS.sub(" ", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(?<![ \t])[ \t]+$", "", text, flags=re.MULTILINE))


def text_key(text: str) -> str:
    """Return a key that is the same for texts that differ in spacing and case alone."""
    return " ".join(text.lower().split())


def split_words(text: str) -> list[str]:
    """Return the words of a text, in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def normalizing_tokenizer(tokenizer: PreTrainedTokenizerBase, kind: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer with the normalization `kind` of NORMALIZATIONS before its own. It is saved with the
    tokenizer, so that all libraries that open the model folder, transformers and sentence-transformers too, treat
    documents and queries alike.

    Raises:
        ValueError: the tokenizer is not one of the library `tokenizers`.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not NORMALIZATIONS[kind]:
        return tokenizer
    if backend is None:
        raise ValueError(f"the tokenizer of this model takes no normalization; train with --normalize none, not {kind}")
    added = normalizers.Sequence(NORMALIZATIONS[kind])
    if repr(added).rstrip("])") in repr(backend.normalizer):  # The model was trained with it before.
        return tokenizer
    original = [backend.normalizer] if backend.normalizer else []
    backend.normalizer = normalizers.Sequence([*NORMALIZATIONS[kind], *original])
    names = ("model_max_length", "model_input_names", "padding_side", "truncation_side", "extra_special_tokens")
    settings = {name: getattr(tokenizer, name) for name in names}
    # The tokenizer's own class would rebuild its normalizer from its settings when it is loaded.
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings, **tokenizer.special_tokens_map)
