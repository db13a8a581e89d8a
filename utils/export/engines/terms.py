"""Names of the vocabulary's terms that engines take as names of fields and as words between spaces."""

import re

from transformers import PreTrainedTokenizerBase

NUMBERED = re.compile(r"#\d+")


def term_names(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> list[str]:
    """Return the name of each term of a vocabulary, by id; no two are the same.

    A term's name is its token. That of a token with a dot or a space in it, or without any character, is `#` and the
    term's id: Elasticsearch refuses names of features with dots
    (https://github.com/elastic/elasticsearch/pull/93756), and Anserini splits at spaces. So is that of a token that
    looks like such a name, and of an id without a token.
    """
    tokens = tokenizer.convert_ids_to_tokens(range(min(vocabulary_size, len(tokenizer))))
    tokens += [None] * (vocabulary_size - len(tokens))
    return [token if _is_name(token) else f"#{index}" for index, token in enumerate(tokens)]


def _is_name(token: str | None) -> bool:
    return token is not None and "." not in token and token.split() == [token] and not NUMBERED.fullmatch(token)
