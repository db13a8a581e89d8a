"""Variants of training queries: the same need, written otherwise."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from pydantic import BaseModel

from utils.records import TrainingExample
from utils.search.synonyms import Synonyms
from utils.training_data.extractive import WORD
from utils.training_data.language_model import LanguageModel, Request

VARIANT_KINDS = ("keyword", "typo", "synonym", "reformulation")
DEFAULT_SHARE = 0.2  # of the queries that get a variant of a kind
REPHRASING_TOKENS = 100, 25  # that a language model reads and writes for one query, about
MAX_KEYWORDS = 4  # that a query is reduced to, at most
MIN_TYPO_LETTERS = 4  # letters from which on a word may have a typo
KEYBOARD_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # rows of neighbors


class Rephrased(BaseModel):
    """A query in other words."""

    query: str


def augment_queries(
    examples: Sequence[TrainingExample],
    shares: dict[str, float],
    seed: int,
    synonyms: Synonyms | None = None,
    model: LanguageModel | None = None,
) -> list[TrainingExample]:
    """Further examples, with a variant of the query and `query_type` such as `question+typo`:

    keyword         its few most telling words (by document frequency among the positive documents), in their order
    typo            one letter left out, doubled, swapped with the next or hit beside the key, in a longer word
    synonym         one phrase replaced by what `synonyms` says may stand for it; abbreviations too
    reformulation   the same need in other words, by a language model

    Args:
        shares: for each kind the share of the examples, drawn by chance, that get one.
        synonyms, model: what the last two kinds need.
    """
    frequency: Counter[str] = Counter()
    if "keyword" in shares:
        for text in {example.positive_document for example in examples}:
            frequency.update({word.lower() for word in WORD.findall(text)})
    makers: dict[str, Callable[[str, random.Random], str]] = {
        "keyword": lambda query, rng: _keywords(query, frequency),
        "typo": _typo,
        "synonym": lambda query, rng: rng.choice(list(synonyms.variants(query)) or [query]),
    }
    made: list[TrainingExample] = []
    for kind, share in shares.items():
        rng = random.Random(f"{seed} {kind}")
        chosen = [example for example in examples if rng.random() < share]
        if kind == "reformulation":
            queries = _reformulated(chosen, model)
        else:
            queries = [makers[kind](example.query, rng) for example in chosen]
        made += [
            example.model_copy(update={"query": query, "query_type": f"{example.query_type or 'query'}+{kind}"})
            for example, query in zip(chosen, queries)
            if query.lower().split() != example.query.lower().split()
        ]
    return made


def _reformulated(examples: Sequence[TrainingExample], model: LanguageModel) -> list[str]:
    """Each example's query in other words, or itself where the model had no answer."""
    task = (
        "Somebody searches documents with the query below. Write the query that another person would type who needs "
        "the same and thinks of other words: in its language, about as long, sharing as few of its content words as "
        'you can. Answer with JSON alone: {"query": "..."}'
    )
    asked = [
        Request(f"{task}\n\nQuery: {example.query}", Rephrased, lambda a: "" if a.query.strip() else "malformed")
        for example in examples
    ]
    return [" ".join(a.query.split()) if a else e.query for e, a in zip(examples, model.complete(asked))]


def _keywords(query: str, frequency: Counter[str]) -> str:
    """At most KEYWORDS words of the query, the rarest that documents have; all of it if it has hardly more."""
    words = list(dict.fromkeys(WORD.findall(query)))
    known = [word for word in words if frequency[word.lower()]]
    if len(words) <= MAX_KEYWORDS or len(known) < 2:
        return query
    rarest = set(sorted(known, key=lambda word: (frequency[word.lower()], word))[:MAX_KEYWORDS])
    return " ".join(word for word in words if word in rarest)


def _typo(query: str, rng: random.Random) -> str:
    words = [match for match in WORD.finditer(query) if len(match[0]) >= MIN_TYPO_LETTERS and match[0].isalpha()]
    if not words:
        return query
    word = rng.choice(words)
    place = rng.randrange(word.start() + 1, word.end() - 1)  # neither the first nor the last letter
    letter = query[place]
    row = next((row for row in KEYBOARD_ROWS if letter in row), "")
    beside = [row[i] for i in (row.find(letter) - 1, row.find(letter) + 1) if row and 0 <= i < len(row)]
    kinds = {
        "left out": "",
        "doubled": letter * 2,
        "swapped": query[place + 1] + letter,
        "beside": rng.choice(beside or [""]),
    }
    kind = rng.choice(list(kinds))
    return query[:place] + kinds[kind] + query[place + (2 if kind == "swapped" else 1) :]
