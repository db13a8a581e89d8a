"""The flags that say how documents are ranked, which are those of searching as of measuring."""

from collections.abc import Collection
from typing import Any

from utils.arguments import ScriptArguments, ScriptParser, parse_weights, positive_int, refuse_idle_flags
from utils.search.fusion import FUSIONS
from utils.search.legs import LEGS
from utils.search.scorers import open_reranker
from utils.search.searcher import RERANKED


def add_ranking_arguments(parser: ScriptParser) -> None:
    """Add the flags, in a group of their own."""
    add = parser.add_argument_group("ranking").add_argument
    dense = "a model of sentence-transformers, such as minilm, for dense vectors beside the others"
    add("--dense-model", default=None, metavar="NAME", help=dense)
    add("--fusion", choices=FUSIONS, default="scores", help="what the parts of a hybrid search are added by")
    weights = "the parts of a hybrid search, as splade=0.6 bm25=0.4; default: all that there are, with 1 each"
    add("--weights", nargs="+", default=None, metavar="PART=WEIGHT", help=weights)
    terms = "search by the N heaviest terms of a query's vector alone; default: all"
    add("--query-terms", type=positive_int, default=None, metavar="N", help=terms)
    rerank = "a cross-encoder, which scores the best hits anew (needs sentence-transformers)"
    add("--rerank-model", default=None, metavar="NAME", help=rerank)
    add("--rerank-depth", type=positive_int, default=RERANKED, metavar="N", help="hits that it scores")


def ranking_options(args: ScriptArguments, searches: Collection[str]) -> dict[str, Any]:
    """Return the options of DocumentSearch that the flags say; the reranker is opened.

    Args:
        searches: the kinds of search that there will be, see utils.search.searcher.SEARCHES.

    Raises:
        ValueError: a flag has no effect, or a weight is none.
        ValueError, OSError, ImportError: the reranker cannot be opened.
    """
    refuse_idle_flags(
        args,
        [
            (args.rerank_model, "--rerank-model", "rerank_depth"),
            ("hybrid" in searches, "--search hybrid", "fusion weights"),
            ({"hybrid", "dense"} & {*searches}, "--search hybrid or dense", "dense_model"),
            ({"hybrid", "splade"} & {*searches}, "--search hybrid or splade", "query_terms"),
        ],
    )
    weights = parse_weights(args.weights, "part of the search", LEGS) if args.weights else None
    rerank = open_reranker(args.rerank_model, args.device) if args.rerank_model else None
    given = {name: getattr(args, name) for name in ("fusion", "rerank_depth", "query_terms")}
    return {**given, "weights": weights, "rerank": rerank}
