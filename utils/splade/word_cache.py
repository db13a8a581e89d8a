"""Token ids of words, kept for texts that have them again."""

import json
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice

import numpy as np
from tokenizers import Tokenizer

WORDS_KEPT = 1 << 17  # most words; as many of 9 letters take 47 MB, of 32 random characters 101
LONGEST_KEPT = 32  # characters; longer words seldom come again
JOINED_WORDS = 64  # new words given to the tokenizer as one text; a text for each would take ten times as long

# Those that look at one character, or at characters that no space is between.
_NORMALIZERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents"}
_PRE_TOKENIZERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}


class WordCache:
    """Tokenizes word by word, several times as fast as the tokenizer where it has met the words before.

    Args:
        backend: a tokenizer, as it is now; see `is_of`.

    Attributes:
        splits_at_spaces: whether the tokens of a text are those of its parts between spaces, line ends and tabs, as
            `tokenize` needs it.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        self._known: dict[str, tuple[int, ...]] = {}
        self.splits_at_spaces = _splits_at_spaces(backend)
        self._settings = _settings(backend) if self.splits_at_spaces else None
        mask, ids = (encoding := backend.encode("a")).special_tokens_mask, encoding.ids
        own = mask.index(0) if 0 in mask else 0
        self._before, self._after = ids[:own], ids[own + mask[own:].count(0) :]

    def is_of(self, backend: Tokenizer) -> bool:
        """Return whether it is of this tokenizer, which is as it was; one that it does not split for may change."""
        return self._backend is backend and self._settings in (None, _settings(backend))

    def tokenize(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        """Return the token ids of each text."""
        parts = [text.replace("\n", " ").replace("\r", " ").replace("\t", " ").split(" ") for text in texts]
        words = set(chain.from_iterable(parts))
        known = self._known  # for this call, whatever other threads do
        new = dict(self._tokenize_words(list(words.difference(known))))
        kept = {word: ids for word, ids in new.items() if len(word) <= LONGEST_KEPT}
        if len(known) + len(kept) > WORDS_KEPT:
            self._known = dict(islice(kept.items(), WORDS_KEPT))
        else:
            known.update(kept)
        if not known.keys() >= new.keys():
            known = new | {word: known[word] for word in words.difference(new)}
        before, after = (self._before, self._after) if add_special_tokens else ([], [])
        return [[*before, *chain.from_iterable(map(known.__getitem__, own)), *after] for own in parts]

    def _tokenize_words(self, words: list[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
        groups = [words[i : i + JOINED_WORDS] for i in range(0, len(words), JOINED_WORDS)]
        encodings = self._backend.encode_batch(list(map(" ".join, groups)), add_special_tokens=False)
        for group, encoding in zip(groups, encodings):
            ids, places = encoding.ids, [start for start, _ in encoding.offsets]
            ends = list(accumulate(len(word) + 1 for word in group))
            bounds = np.searchsorted(places, ends).tolist()
            for word, begin, end in zip(group, [0, *bounds], bounds):
                yield word, tuple(ids[begin:end])


def _settings(backend: Tokenizer) -> list:
    parts = backend.normalizer, backend.pre_tokenizer, backend.post_processor
    added = repr(backend.get_added_tokens_decoder())
    return [added, backend.get_vocab_size(), *(part and part.__getstate__() for part in parts)]


def _splits_at_spaces(backend: Tokenizer) -> bool:
    normalizer, splitter = (
        json.loads(part.__getstate__()) if part else {} for part in (backend.normalizer, backend.pre_tokenizer)
    )
    normalizers = normalizer.get("normalizers", [normalizer] if normalizer else [])
    added = backend.get_added_tokens_decoder().values()
    # As they are found in texts: as they are, and normalized, which may make a space of another character.
    contents = [token.content for token in added]
    if backend.normalizer:
        contents += [backend.normalizer.normalize_str(content) for content in contents]
    return (
        {part["type"] for part in normalizers} <= _NORMALIZERS
        and splitter.get("type") in _PRE_TOKENIZERS
        and type(backend.model).__name__ == "WordPiece"  # BPE may drop merges at random
        and not any(set(content) & set(" \n\r\t") for content in contents)
        and not any(token.lstrip for token in added)  # their offsets begin in the word before
    )
