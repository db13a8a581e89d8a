"""Requests to a server: its URL, its key, and the filters that it is sent."""

import uuid

import numpy as np
import pytest

from utils.search.collection import Point, PointCollection, Query, field_key, matches
from utils.search.filters import field_values, parse_filters
from utils.search.qdrant import Server, server_url
from utils.splade.vectors import SparseVector


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://here", "http://here:6333"),
        ("https://here:443/qdrant/", "https://here:443/qdrant"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_a_url_has_a_port(url, expected):
    assert server_url(url) == expected


@pytest.mark.parametrize("url", ["here:6333", "ftp://here", "http://", "http://here:port", "http://here?key=secret"])
def test_what_is_no_url_is_named(url):
    with pytest.raises(ValueError, match="is no URL of a server, such as http://localhost:6333"):
        server_url(url)


def test_the_key_comes_from_the_environment_alone(monkeypatch, capsys):
    with pytest.raises(ValueError, match="must not hold a name or a key: set QDRANT_API_KEY") as refused:
        server_url("http://user:secret@here:99999")
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    Server("http://qdrant.invalid", 0, 1)
    Server("https://qdrant.invalid", 0, 1)
    assert capsys.readouterr().out.splitlines() == [
        "http://qdrant.invalid:6333: QDRANT_API_KEY is sent there unencrypted, which https:// would not do"
    ]
    for key in ("se\ncret", "s\u00e9cret"):
        monkeypatch.setenv("QDRANT_API_KEY", key)
        with pytest.raises(ValueError, match=r"^QDRANT_API_KEY holds characters that no key has$"):
            Server("https://qdrant.invalid", 0, 1)


def test_filters_mean_on_a_server_what_they_mean_elsewhere(qdrant):
    collection = PointCollection(qdrant.url, "points")
    collection.create({}, None)
    rows = [
        {"year": 2020, "by": {"name": "Ann Lee"}, "tags": ["a", "b"]},
        {"year": "2021", "when": "2024-05-01", "tags": ["b"], 'odd "né.': True},
        {"year": 2022.5, "when": "2024-05-01T10:00:00Z"},
    ]
    vector = SparseVector(np.array([7], np.int32), np.ones(1, np.float32))
    points = []
    for place, row in enumerate(rows):
        fields = {field_key(n, kind): v for n, values in field_values(row).items() for kind, v in values.items()}
        points.append(Point(str(uuid.UUID(int=place)), {"splade": vector}, {"place": place, "fields": fields}))
    collection.upsert(points)
    for filters, expected in (
        ([], {0, 1, 2}),
        (["year>=2021"], {1, 2}),
        (["year<2021"], {0}),
        (["year=2020", "year=2021"], {0, 1}),
        (["tags!=a"], {1, 2}),
        (["by.name=Ann Lee", "tags=b"], {0}),
        (["when=2024-05-01"], {1, 2}),
        (["when>2024-05-01T09:00:00Z"], {2}),
        (['odd "né.=TRUE'], {1}),
    ):
        (hits,) = collection.search([Query("splade", vector, 9)], ["place"], parse_filters(filters))
        assert {point.payload["place"] for point, _ in hits} == expected, filters
    assert collection.count(matches(place=range(1, 3))) == 2 and collection.count(matches(place=[0, 2])) == 2
    collection.delete(matches(place=0), matches(place=2))
    assert [payload["place"] for payload in collection.list_payloads(["place"], matches())] == [1]


def test_long_lists_come_in_pages(qdrant, monkeypatch):
    monkeypatch.setattr("utils.search.collection.PAGE_POINTS", 2)
    collection = PointCollection(qdrant.url, "points")
    collection.create({}, None)
    collection.upsert([Point(str(uuid.UUID(int=place)), {}, {"place": place}) for place in range(5)])
    assert sorted(payload["place"] for payload in collection.list_payloads(["place"], matches())) == list(range(5))
    assert sum(request.path.endswith("/scroll") for request in qdrant.requests) == 3
