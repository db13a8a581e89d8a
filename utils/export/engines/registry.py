"""The search engines that vectors can be written for, by name."""

from utils.export.engines.anserini import Anserini
from utils.export.engines.base import Engine
from utils.export.engines.elasticsearch import Elasticsearch, ElasticsearchRankFeatures
from utils.export.engines.milvus import Milvus
from utils.export.engines.opensearch import OpenSearch
from utils.export.engines.qdrant import Qdrant
from utils.export.engines.vespa import Vespa

ENGINES: dict[str, type[Engine]] = {
    "opensearch": OpenSearch,
    "elasticsearch": Elasticsearch,
    "elasticsearch-rank-features": ElasticsearchRankFeatures,
    "vespa": Vespa,
    "milvus": Milvus,
    "qdrant": Qdrant,
    "anserini": Anserini,
}
