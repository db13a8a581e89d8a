"""Two models in use: which of them a session gets, and what people say of their hits."""

import hashlib
import math
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

from utils.records import parse_json

FIRST, SECOND = "A", "B"
Z = NormalDist().inv_cdf(0.975)  # of a two-sided interval of 95 %


def assign_variant(session: str, share: float) -> str:
    """Return which variant a session gets, always the same one: SECOND for this share of all sessions."""
    return SECOND if _hash(session, b"variant") / 2**64 < share else FIRST


def session_id(session: str) -> str:
    """Return what a session is known by in records: a hash, of which the cookie cannot be had back."""
    return f"{_hash(session, b'record'):016x}"


def _hash(session: str, purpose: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(session.encode(), digest_size=8, person=purpose).digest(), "big")


class Outcome:
    """Counts judgments by variant and session. Of several by one session on the same hit of a query the last counts.

    Args:
        models: the name and the fingerprint of each variant's model.
    """

    def __init__(self, models: Mapping[str, tuple[str, str]]) -> None:
        self.models, self._lock = models, threading.Lock()
        self._judged: dict[str, dict[str, dict[tuple[str, str], bool]]] = {
            variant: defaultdict(dict) for variant in models
        }

    def read(self, file: Path) -> None:
        """Count the judgments of a file that are of these models as these variants, and pass over the rest.

        Raises:
            OSError: it cannot be read.
        """
        if not file.exists():
            return
        with file.open("rb") as lines:
            for line in lines:
                try:
                    self.count(parse_json(line, file))
                except (ValueError, TypeError, KeyError):  # another program's line, which is not of these variants
                    continue

    def count(self, judgment: Mapping[str, Any]) -> None:
        """Count a line of the file of judgments, unless it is of other models."""
        if self.models.get(judgment["variant"]) == (judgment["model"], judgment["model_fingerprint"]):
            texts = [judgment[name] for name in ("session", "query", "document_id")]
            if not all(isinstance(text, str) for text in texts) or not isinstance(judgment["liked"], bool):
                raise TypeError("is no judgment as it is recorded here")
            session, *key = texts
            with self._lock:
                self._judged[judgment["variant"]][session][tuple(key)] = judgment["liked"]

    def summary(self) -> dict[str, Any]:
        """Return the outcome.

        Returns:
            {"variants": [{"variant", "model", "sessions", "likes", "dislikes", "share", "low", "high"}, ...],
            "difference": {"share", "low", "high"}}: `share` is that of the likes, and their difference that of the
            second variant over the first, None where nothing was judged; `low` and `high` are 95 % intervals.
        """
        rows = []
        for variant, sessions in self._judged.items():
            with self._lock:
                counts = [(sum(judged.values()), len(judged)) for judged in sessions.values()]
            likes, total = sum(liked for liked, _ in counts), sum(number for _, number in counts)
            low, high = share_interval(counts)
            row = {"variant": variant, "model": Path(self.models[variant][0]).name, "sessions": len(counts)}
            row |= {"likes": likes, "dislikes": total - likes, "share": likes / total if total else None}
            rows.append(row | {"low": low, "high": high})
        return {"variants": rows, "difference": _difference(*rows) if len(rows) == 2 else None}


def share_interval(counts: list[tuple[int, int]]) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of which each session has made up (likes, judgments).

    Judgments of one session resemble each other, so that they count for less than as many of different ones: by the
    effective sample size, which is that whose binomial variance is the variance between sessions (Dean and Pagano,
    "Evaluating confidence interval methods for binomial proportions in clustered surveys", 2015).
    """
    likes, total, sessions = sum(x for x, _ in counts), sum(n for _, n in counts), len(counts)
    if not total:
        return 0.0, 1.0
    share = likes / total
    size = float(min(sessions, total))
    if sessions > 1 and 0 < share < 1:
        spread = sum((x - share * n) ** 2 for x, n in counts) * sessions / (sessions - 1)
        size = min(total, share * (1 - share) * total**2 / spread) if spread else float(total)
    center = (share + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z / (1 + Z**2 / size) * math.sqrt(share * (1 - share) / size + Z**2 / (4 * size**2))
    return max(0.0, center - half), min(1.0, center + half)


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, float] | None:
    """Return how much higher the second share is, with Newcombe's interval, made of the two of Wilson (Statistics in
    Medicine 17, 1998, method 10)."""
    if first["share"] is None or second["share"] is None:
        return None
    share = second["share"] - first["share"]
    below = math.hypot(second["share"] - second["low"], first["high"] - first["share"])
    above = math.hypot(second["high"] - second["share"], first["share"] - first["low"])
    return {"share": share, "low": share - below, "high": share + above}
