import enum
import re
from typing import Annotated, Any

import jsonschema_rs
import msgspec
import pytest

from sidecar.http.messages import Request, Response
from sidecar.http.openapi import document
from sidecar.http.routing import Body, Route, problems


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Item(msgspec.Struct, forbid_unknown_fields=True):
    """A thing."""

    name: str
    level: Level = Level.LOW
    parts: list["Item"] = []


class Search(msgspec.Struct):
    key: Annotated[str, msgspec.Meta(min_length=1, description="What to look for.")]
    level: Level | None = None


async def handler(request: Request) -> Response:
    return Response()


ROUTES = [
    Route(
        method="POST",
        path="/items",
        handler=handler,
        summary="Store an item.",
        tag="items",
        request=Body("The item.", {"application/json": Item}, example={"name": "a"}),
        responses={200: Body("Stored.", {"application/json": Item}), **problems(_400="No JSON.")},
    ),
    Route(
        method="GET",
        path="/items",
        handler=handler,
        summary="Find items.",
        tag="items",
        query=Search,
        responses={200: Body("Found.", {"application/json": list[Item], "text/plain": str})},
    ),
    Route(
        method="POST",
        path="/v1/raw-data",
        handler=handler,
        summary="Send bytes.",
        tag="raw",
        request=Body("Bytes.", {"application/x-protobuf": bytes, "application/json": Any}),
        responses={204: Body("Stored.")},
    ),
]


@pytest.fixture
def made() -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(document(ROUTES, "1.2.3")), type=dict[str, Any])


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_every_reference_resolves_and_every_schema_is_used(made: dict[str, Any]) -> None:
    used = {ref.removeprefix("#/components/schemas/") for ref in references(made)}
    assert used == made["components"]["schemas"].keys() == {"Item", "Level", "Problem"}


def test_every_schema_is_a_valid_one_of_json_schema_2020_12(made: dict[str, Any]) -> None:
    for schema in made["components"]["schemas"].values():
        assert jsonschema_rs.meta.is_valid(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        )


def test_operation_ids_are_unique_names(made: dict[str, Any]) -> None:
    ids = [
        operation["operationId"] for path in made["paths"].values() for operation in path.values()
    ]
    assert sorted(ids) == ["get_items", "post_items", "post_v1_raw_data"]
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in ids)


def test_the_fields_of_a_query_struct_are_parameters(made: dict[str, Any]) -> None:
    key, level = made["paths"]["/items"]["get"]["parameters"]
    assert key == {
        "name": "key",
        "in": "query",
        "required": True,
        "description": "What to look for.",
        "schema": {"type": "string", "minLength": 1},
    }
    assert (level["name"], level["required"]) == ("level", False)


def test_bodies_and_responses_are_documented_by_media_type(made: dict[str, Any]) -> None:
    post = made["paths"]["/items"]["post"]
    assert post["requestBody"] == {
        "required": True,
        "description": "The item.",
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Item"},
                "example": {"name": "a"},
            }
        },
    }
    assert post["responses"]["400"]["content"].keys() == {"application/problem+json"}
    found = made["paths"]["/items"]["get"]["responses"]["200"]["content"]
    assert found["application/json"]["schema"]["items"] == {"$ref": "#/components/schemas/Item"}
    assert found["text/plain"]["schema"] == {"type": "string"}
    raw = made["paths"]["/v1/raw-data"]["post"]
    assert raw["requestBody"]["content"]["application/x-protobuf"]["schema"]["format"] == "binary"
    assert raw["responses"] == {"204": {"description": "Stored."}}


def test_the_document_names_its_version(made: dict[str, Any]) -> None:
    assert (made["openapi"], made["info"]["version"]) == ("3.1.0", "1.2.3")
    assert made["tags"] == [{"name": "items"}, {"name": "raw"}]
