"""Vespa: a schema, documents for `vespa feed`, and queries for its search API.

https://docs.vespa.ai/en/reference/query-language-reference.html#dotproduct
"""

import json
import re

from utils.export.engines.base import HITS, Engine, dump_document, ids, scale_to_integers, shown_fields
from utils.records import ENGINE_VECTOR, Document
from utils.splade.vectors import SparseVector

SCHEMA = "splade"
TERMS = "splade_terms"
SCALE = 1000  # of the weights that are integers
# Code points that a string of Vespa must not have, beside control characters, which texts here do not have.
NONCHARACTERS = re.compile(f"[\ufdd0-\ufdef{''.join(chr(n) for n in range(0x110000) if n & 0xFFFE == 0xFFFE)}]")


class Vespa(Engine):
    """The weights as a tensor, which ranks, and, times SCALE, as a weighted set, by which documents are found: those
    that have a term of the query, all of them."""

    definition_suffix = "_index.sd"

    def index_definition(self) -> str:
        return f"""schema {SCHEMA} {{
    document {SCHEMA} {{
        field title type string {{
            indexing: summary | index
            index: enable-bm25
        }}
        field text type string {{
            indexing: summary | index
            index: enable-bm25
        }}
        field metadata type string {{
            indexing: summary
        }}
        field {ENGINE_VECTOR} type tensor<float>(term{{}}) {{
            indexing: attribute
            attribute: fast-rank
        }}
        field {TERMS} type weightedset<string> {{
            indexing: attribute
            attribute: fast-search
        }}
    }}
    rank-profile {SCHEMA} {{
        inputs {{
            query({SCHEMA}) tensor<float>(term{{}})
        }}
        first-phase {{
            expression: sum(query({SCHEMA}) * attribute({ENGINE_VECTOR}))
        }}
    }}
    rank-profile {SCHEMA}_integers {{
        first-phase {{
            expression: rawScore({TERMS}) / {SCALE * SCALE}
        }}
    }}
}}"""

    def format_document(self, document: Document, vector: SparseVector) -> str:
        fields = {name: value for name, value in shown_fields(document).items() if name != "metadata"}
        fields = {name: NONCHARACTERS.sub(" ", text) for name, text in fields.items()}
        fields["metadata"] = dump_document(document, document.metadata)
        fields |= {ENGINE_VECTOR: ids(vector), TERMS: _integers(vector)}
        return json.dumps({"put": f"id:{SCHEMA}:{SCHEMA}::{document.id}", "fields": fields})

    def format_query(self, query: Document, vector: SparseVector) -> str:
        cells = ",".join(f"{{term:{term}}}:{weight!r}" for term, weight in ids(vector).items())
        terms = ",".join(f"{term}:{weight}" for term, weight in _integers(vector).items())
        body = {
            "yql": f"select * from {SCHEMA} where {f'dotProduct({TERMS}, @terms)' if terms else 'false'}",
            "terms": f"{{{terms}}}",
            "ranking": SCHEMA,
            f"input.query({SCHEMA})": f"{{{cells}}}",
            "hits": HITS,
        }
        return json.dumps(body)


def _integers(vector: SparseVector) -> dict[str, int]:
    """Return weights times SCALE, 1 at least: each term finds its documents."""
    return {
        str(index): max(1, weight)
        for index, weight in zip(vector.indices.tolist(), scale_to_integers(vector.values, SCALE))
    }
