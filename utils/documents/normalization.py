"""One spelling for equal texts: in documents as they are read, and in a model's tokenizer, so for queries too."""

import re
import unicodedata

import regex
from tokenizers import normalizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from utils.records import replace_surrogates

NORMALIZATIONS = {
    "none": [],
    "nfkc": [normalizers.NFKC()],
    "nfkc-lowercase": [normalizers.NFKC(), normalizers.Lowercase()],
}

# Soft hyphen, zero-width characters, marks of text direction, invisible operators, byte order mark.
INVISIBLE_CHARACTERS = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # but tab, line feed, carriage return
# Scripts without spaces between words, as parts of a character class. Words of the first have about 2 characters, of
# the second about 4: such a run of characters stands for a word.
HAN_AND_KANA, SOUTHEAST_ASIAN = r"\p{Han}\p{Hiragana}\p{Katakana}ー", r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
UNSPACED = regex.compile(f"[{HAN_AND_KANA}{SOUTHEAST_ASIAN}]")
# What stands between spaces, punctuation and all, or for a word.
TOKEN = regex.compile(rf"[{HAN_AND_KANA}]{{1,2}}|[{SOUTHEAST_ASIAN}]{{1,4}}|[^\s{HAN_AND_KANA}{SOUTHEAST_ASIAN}]+")
_SCRIPT_RUN = regex.compile(
    rf"(?P<two>[{HAN_AND_KANA}]+)|(?P<four>[{SOUTHEAST_ASIAN}]+)|[^{HAN_AND_KANA}{SOUTHEAST_ASIAN}]+"
)
_SPACE_IN_HAN = regex.compile(rf"(?<=[{HAN_AND_KANA}]) (?=[{HAN_AND_KANA}])")


def normalize(text: str) -> str:
    """Return a text in Unicode's compatibility form NFKC (ligatures, full-width letters, exponents and spaces of all
    kinds become plain ones), with "\\n" at the ends of lines, spaces for control characters, U+FFFD for halves of
    surrogate pairs, and without invisible characters, spaces at the ends of lines, and more than one empty line in a
    row."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = INVISIBLE_CHARACTERS.sub("", unicodedata.normalize("NFKC", replace_surrogates(text)))
    text = CONTROL_CHARACTERS.sub(" ", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(?<![ \t])[ \t]+$", "", text, flags=re.MULTILINE))


def text_key(text: str) -> str:
    """Return a key that is the same for texts that differ in spacing and case alone; between characters of Han or Kana,
    a line break or none is no difference either."""
    return _SPACE_IN_HAN.sub("", " ".join(text.lower().split()))


def split_words(text: str) -> list[str]:
    """Return the words of a text, in lower case, without punctuation. Where a script has no spaces, all runs of 2
    characters (Han, Kana) or 4 (Thai, Lao, Khmer, Burmese) are taken for words, overlapping as in Lucene's
    CJKBigramFilter."""
    words = regex.findall(r"\w+", text.lower())
    if text.isascii() or not UNSPACED.search(text):
        return words
    runs = (run for word in words for run in _SCRIPT_RUN.finditer(word))
    return [gram for run in runs for gram in _ngrams(run[0], {"two": 2, "four": 4}.get(run.lastgroup, len(run[0])))]


def count_words(text: str) -> int:
    """Return the number of words of a text, estimated from its characters where its script has no spaces."""
    return len(TOKEN.findall(text))


def _ngrams(text: str, length: int) -> list[str]:
    """Return all runs of `length` characters; the text itself if it is shorter."""
    return [text[i : i + length] for i in range(max(1, len(text) - length + 1))]


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
        raise ValueError(f"this model's tokenizer takes no normalization; train with `normalize='none'`, not {kind}")
    added = normalizers.Sequence(NORMALIZATIONS[kind])
    if repr(added).rstrip("])") in repr(backend.normalizer):  # The model was trained with it before.
        return tokenizer
    original = [backend.normalizer] if backend.normalizer else []
    backend.normalizer = normalizers.Sequence([*NORMALIZATIONS[kind], *original])
    names = ("model_max_length", "model_input_names", "padding_side", "truncation_side", "extra_special_tokens")
    settings = {name: getattr(tokenizer, name) for name in names}
    # The tokenizer's own class would rebuild its normalizer from its settings when it is loaded.
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings, **tokenizer.special_tokens_map)
