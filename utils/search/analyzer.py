"""The analyzer of BM25: terms by script, stop words and Snowball stems by language."""

import itertools
import os

import regex
import Stemmer

# Where JAX is installed, bm25s starts it, which would take three quarters of a GPU's memory then and there.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
from bm25s.tokenization import Tokenizer

from utils.documents.normalization import HAN_AND_KANA, SOUTHEAST_ASIAN, normalize
from utils.languages import language_name

WORD = regex.compile(r"\w+")
# Scripts whose words have no spaces between them, and Korean's, whose words carry their particles.
PAIRED = rf"{HAN_AND_KANA}{SOUTHEAST_ASIAN}\p{{Hangul}}"
PAIRED_CHARACTER = regex.compile(f"[{PAIRED}]")
SCRIPT_RUN = regex.compile(f"[{PAIRED}]+|[^{PAIRED}]+")
PAIRED_LANGUAGES = {"zh", "yue", "wuu", "ja", "ko", "th", "lo", "km", "my"}  # that are written in them
TURKIC_LANGUAGES = {"tr", "az"}  # whose I without a dot and with one are two letters, in lower case, too
TURKIC_LOWER = str.maketrans({"I": "\u0131", "\u0130": "i"})
# What bm25s calls its lists. Of its two for English the longer one (NLTK's, as those of the other languages) is better
# than Lucene's 33 words on four of five collections.
STOP_WORDS = {"en": "en_plus"} | {
    code: code for code in ["da", "de", "es", "fr", "it", "nl", "no", "pt", "ru", "sv", "tr"]
}
STANDARDS = {"nb": "no", "nn": "no"}  # Bokmål and Nynorsk have one stemmer and one list


def open_tokenizer(language: str | None) -> Tokenizer:
    """Return bm25s' tokenizer, its vocabulary still empty, for texts in the language of this ISO 639 code; None for
    neither a stemmer nor stop words."""
    code = STANDARDS.get(language, language)
    splitter = split_turkic_terms if code in TURKIC_LANGUAGES else split_terms
    return Tokenizer(lower=False, splitter=splitter, stopwords=STOP_WORDS.get(code), stemmer=_stemmer(code))


def describe_analyzer(language: str | None) -> str:
    """Return what `open_tokenizer` does with words of a language, for a line of output."""
    code = STANDARDS.get(language, language)
    if language in PAIRED_LANGUAGES:
        words = "characters and pairs of them"
    else:
        words = "Snowball stemmer" if _stemmer(code) else "no stemmer"
    stop_words = "stop words" if code in STOP_WORDS else "no stop words"
    return f"{language_name(language) if language else 'unknown language'}: {words}, {stop_words}"


def split_terms(text: str) -> list[str]:
    """Return the words of a text, normalized as documents are and in lower case; of PAIRED scripts all characters and
    all pairs of neighbors, as Lucene's CJKBigramFilter with unigrams does."""
    if text.isascii():
        return WORD.findall(text.lower())
    terms: list[str] = []
    for word in WORD.findall(normalize(text).lower()):
        if word.isascii():
            terms.append(word)
            continue
        for run in SCRIPT_RUN.findall(word):
            characters = regex.findall(r"\X", run) if PAIRED_CHARACTER.match(run) else [run]  # \X: with their marks
            terms += [*characters, *map("".join, itertools.pairwise(characters))]
    return terms


def split_turkic_terms(text: str) -> list[str]:
    """Return the `split_terms` of a text in whose language I has no dot in lower case, either, as Lucene's
    TurkishLowerCaseFilter does."""
    return split_terms(normalize(text).translate(TURKIC_LOWER))


def _stemmer(code: str | None) -> Stemmer.Stemmer | None:
    """Return Snowball's stemmer for a language, None if it has none."""
    try:
        return Stemmer.Stemmer(code or "")
    except KeyError:
        return None
