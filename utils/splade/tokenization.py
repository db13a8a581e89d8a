"""Token ids of texts, cut to a limit, and tensors padded from them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from utils.records import replace_surrogates
from utils.splade.word_cache import WordCache

MIN_LENGTH_RATIO = 0.7  # shortest over longest text of a padded group; bounds the share of padding in it
TOKENIZED_TOGETHER = 256  # texts tokenized in one call; bounds the memory that the cut ends of long texts take
WORTH_WORDS = 8  # fewest texts whose words are looked up; for fewer, checking the tokenizer takes as long
TOKENIZER_OPTIONS = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
SHORT_TEXT_TOKENS = 32  # tokens; texts below this length count as this long, so that short ones share a group


def check_text(text: Any, name: str) -> str:
    """Return `text`, an argument called `name`.

    Raises:
        TypeError: it is not a string.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, not {type(text).__name__}")
    return text


def check_texts(texts: Iterable[str], name: str) -> Iterator[str]:
    """Return an iterator over `texts`, an argument called `name`.

    Raises:
        TypeError: they are one string, or nothing to iterate over; the iterator raises it for one that is not a string.
    """
    if isinstance(texts, str):
        raise TypeError(f"{name} must be a list of strings, not one string")
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise TypeError(f"{name} must be a list of strings, not {type(texts).__name__}")
    return (check_text(text, f"{name}[{position}]") for position, text in enumerate(texts))


class TokenizationMixin:
    """The part of an encoder that tokenizes.

    Attributes:
        tokenizer: of the library transformers.
        max_length: limit in tokens for a text, special tokens included.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    device: torch.device
    _decoded: dict[int, str]  # terms by vocabulary id
    _words: WordCache | None  # made when first needed

    def check_limits(self, **limits: int) -> None:
        """Check limits in tokens, by name.

        Raises:
            ValueError: one leaves no room for a text beside the special tokens.
        """
        special = self.tokenizer.num_special_tokens_to_add()
        for name, limit in limits.items():
            if limit <= special:
                raise ValueError(
                    f"`{name}` must be at least {special + 1}, not {limit}: {special} of the tokens are special ones"
                )

    def check_positions(self, **limits: int | None) -> None:
        """Check limits in tokens that this encoder was asked to have, by name.

        Raises:
            ValueError: it has a lower one, as the model has no more positions.
        """
        for name, limit in limits.items():
            if limit is not None and limit > getattr(self, name):
                raise ValueError(f"`{name}`: {limit} tokens are more than there can be here, {getattr(self, name)}")

    def tokenize(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """Return the token ids of each text, special tokens included; [] for a text that has no other tokens."""
        return self.tokenize_and_count(texts, max_length)[0]

    def tokenize_and_count(self, texts: Sequence[str], max_length: int | None = None) -> tuple[list[list[int]], int]:
        """Return what `tokenize` does, and how many texts were cut.

        Raises:
            ValueError: see `check_limits`.
        """
        limit = self.max_length if max_length is None else min(max_length, self.max_length)
        self.check_limits(max_length=limit)
        ids, truncated = self.truncated_ids(texts, limit)
        special = self.tokenizer.num_special_tokens_to_add()
        return [row if len(row) > special else [] for row in ids], truncated

    def truncated_ids(
        self, texts: Sequence[str], limit: int, add_special_tokens: bool = True
    ) -> tuple[list[list[int]], int]:
        """Return the token ids of each text, `limit` at most, special tokens included; and how many texts were cut.

        They are cut here: a tokenizer of the library `tokenizers` keeps its truncation as a setting, which one thread
        would change while another one tokenizes.
        """
        ids: list[list[int]] = []
        truncated = 0
        for rows in self._rows_of_ids(texts, add_special_tokens):
            if too_long := sum(len(row) > limit for row in rows):
                truncated += too_long
                # Special tokens stand before and after the text's own, which alone are cut.
                options = {"add_special_tokens": add_special_tokens, "return_special_tokens_mask": True}
                mask = self.tokenizer("a", **options)["special_tokens_mask"]
                before, after = mask.index(0), mask[::-1].index(0)
                left = self.tokenizer.truncation_side == "left"
                rows = [row if len(row) <= limit else _cut(row, limit, before, after, left) for row in rows]
            ids += rows
        return ids, truncated

    def count_tokens(self, texts: Sequence[str]) -> Iterator[int]:
        """Yield how many tokens each text has, special tokens included, whatever the limit."""
        for rows in self._rows_of_ids(texts):
            yield from map(len, rows)

    def _rows_of_ids(self, texts: Sequence[str], add_special_tokens: bool = True) -> Iterator[list[list[int]]]:
        """Yield the token ids of TOKENIZED_TOGETHER texts at a time."""
        backend = None
        if type(self.tokenizer).__call__ is PreTrainedTokenizerBase.__call__:  # nothing is done in Python besides
            backend = getattr(self.tokenizer, "backend_tokenizer", None)
        for start in range(0, len(texts), TOKENIZED_TOGETHER):
            together = [replace_surrogates(text) for text in texts[start : start + TOKENIZED_TOGETHER]]
            unchanged = backend and not backend.truncation and not backend.padding
            if unchanged and len(texts) >= WORTH_WORDS and (cache := self._find_word_cache(backend)):
                yield cache.tokenize(together, add_special_tokens)
            elif unchanged:
                rows = backend.encode_batch_fast(together, add_special_tokens=add_special_tokens)
                yield [row.ids for row in rows]
            else:  # this takes both settings away
                options = {"add_special_tokens": add_special_tokens, **TOKENIZER_OPTIONS}
                yield self.tokenizer(together, **options)["input_ids"]

    def forget_words(self) -> None:
        """Forget the words met so far, so that texts take as long as new ones do: for measurements."""
        self._words = None

    def _find_word_cache(self, backend: Tokenizer) -> WordCache | None:
        """Return the words of the tokenizer as it is now; None for one that has to see whole texts, and beside an
        accelerator, which would wait for Python's lock."""
        if self.device.type != "cpu":
            return None
        words = self._words  # which another thread may forget
        if words is None or not words.is_of(backend):
            words = self._words = WordCache(backend)
        return words if words.splits_at_spaces else None

    def pad(self, tokens: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        """Return input_ids and attention_mask, each [batch, longest text]."""
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        longest = lengths.max(initial=0)
        places = np.arange(longest)
        left = self.tokenizer.padding_side == "left"
        mask = places >= longest - lengths[:, None] if left else places < lengths[:, None]
        ids = np.full(mask.shape, self.tokenizer.pad_token_id or 0, np.int64)  # Windows would take int32
        ids[mask] = flatten(tokens)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}

    def group_by_length(self, tokens: Sequence[list[int]]) -> tuple[dict[str, list[torch.Tensor]], torch.Tensor]:
        """Pad texts in groups of similar length, so that little of the work is padding.

        Returns:
            (input_ids and attention_mask as lists with a tensor per group; [texts] each text's row among all groups').
        """
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        groups: list[list[int]] = []
        for i in order:
            if not groups or max(len(tokens[i]), SHORT_TEXT_TOKENS) < MIN_LENGTH_RATIO * len(tokens[groups[-1][0]]):
                groups.append([])
            groups[-1].append(i)
        rows = torch.empty(len(tokens), dtype=torch.long)
        rows[order] = torch.arange(len(tokens))
        padded = [self.pad([tokens[i] for i in group]) for group in groups]
        return {name: [group[name] for group in padded] for name in ("input_ids", "attention_mask")}, rows

    def decode_terms(self, indices: Sequence[int]) -> list[str]:
        """Return the terms with these vocabulary ids, as readable text."""
        for index in {int(index) for index in indices} - self._decoded.keys():
            self._decoded[index] = self.tokenizer.decode([index]).strip()
        return [self._decoded[int(index)] for index in indices]


def flatten(tokens: Sequence[list[int]]) -> np.ndarray:
    """Return the [tokens] ids of all texts, one text after the other."""
    return np.fromiter(chain.from_iterable(tokens), np.int64, sum(map(len, tokens)))


def _cut(ids: list[int], limit: int, before: int, after: int, left: bool) -> list[int]:
    """Cut `ids` to `limit`, at the left or else at the right; the first `before` and the last `after` of them stay."""
    own = ids[before : len(ids) - after]
    room = max(0, limit - before - after)
    kept = own[len(own) - room :] if left else own[:room]
    return [*ids[:before], *kept, *ids[len(ids) - after :]]
