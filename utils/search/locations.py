"""Where an index is: in a folder, --index-dir, or in a collection on a server, --index-url."""

from utils.arguments import ScriptArguments, ScriptParser, number_in_range, positive_int
from utils.search.base_index import BaseIndex
from utils.search.dense import DenseEncoder
from utils.search.document_index import DocumentIndex, models_of_index
from utils.splade.base_encoder import Encoder

SERVER_FLAGS = "collection retries timeout"
LAYOUT_FLAGS = "shards replicas upsert_points"


def add_server_arguments(parser: ScriptParser, changes: bool = False) -> None:
    """Add SERVER_FLAGS, which go with --index-url, in a group of their own; for what `changes` an index LAYOUT_FLAGS,
    too."""
    add = parser.add_argument_group("index on a server (the API key is that of QDRANT_API_KEY)").add_argument
    add("--collection", default="documents", metavar="NAME", help="its name on the server")
    add("--retries", type=number_in_range(int, 0), default=5, metavar="N", help="further tries of a failed request")
    add("--timeout", type=positive_int, default=60, metavar="SECONDS", help="that a request may take")
    if changes:
        shards = "parts that a new one is stored in; default: the server's choice"
        add("--shards", type=positive_int, default=None, metavar="N", help=shards)
        replicas = "copies of each part of a new one; default: the server's choice"
        add("--replicas", type=positive_int, default=None, metavar="N", help=replicas)
        add("--upsert-points", type=positive_int, default=256, metavar="N", help="passages that a request adds at most")


class IndexLocation:
    """The place that the flags name.

    Raises:
        ValueError, OSError, ImportError: the server cannot be asked.
    """

    def __init__(self, args: ScriptArguments) -> None:
        self._args, self._collection = args, None
        if args.index_url:
            try:
                from utils.search.collection import PointCollection
            except ModuleNotFoundError:
                raise ImportError("--index-url needs: pip install qdrant-client") from None
            self._collection = PointCollection(args.index_url, args.collection, args.retries, args.timeout)

    def __str__(self) -> str:
        return self._collection.place if self._collection else self._args.index_dir

    def models(self) -> tuple[str | None, str | None]:
        """Return the names, or the folders, of the model and of the dense model of the index there; None for none, and
        where there is no index.

        Raises:
            ValueError, OSError: it is damaged, or cannot be read.
        """
        if self._collection:
            return self._collection.about.get("model_name"), self._collection.about.get("dense_model_name")
        return models_of_index(self._args.index_dir)

    def open(
        self,
        model: Encoder | None,
        dense: DenseEncoder | None = None,
        write: bool = False,
        language: str | None = None,
        rebuild: bool = False,
    ) -> BaseIndex:
        """Open the index there, see DocumentIndex and RemoteIndex.

        Raises:
            ValueError, OSError: it does not fit, or cannot be read.
        """
        if not self._collection:
            return DocumentIndex(model, self._args.index_dir, write, language, rebuild, dense)
        from utils.search.remote_index import RemoteIndex

        layout = {name: getattr(self._args, name) for name in LAYOUT_FLAGS.split()} if write else {}
        return RemoteIndex(model, self._collection, write, language, dense, **layout)
