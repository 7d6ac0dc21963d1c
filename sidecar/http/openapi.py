"""The OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1), made from the route table."""

import re
from typing import Any

import msgspec

from sidecar.http.routing import Body, Route

_REF = "#/components/schemas/{name}"


def document(routes: list[Route], version: str) -> dict[str, Any]:
    """Return the document that describes the routes.

    Args:
        routes: one operation each; ``(method, path)`` is unique.
        version: of the API, as ``info.version``.
    """
    types = _types(routes)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = {_key(type_): schema for type_, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(
            route, by_type, components
        )
    # A query Struct is not the schema of anything; its fields are parameters.
    for route in routes:
        if route.query is not None:
            components.pop(route.query.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Telemetry sidecar",
            "version": version,
            "description": "Takes telemetry in, redacts personal data, passes the rest on, "
            "and shares a cache.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {"schemas": components},
    }


def _key(type_: Any) -> str:
    # Not every type is hashable (Annotated with a Meta that holds a dict), but each has a text.
    return repr(type_)


def _bodies(route: Route) -> list[Body]:
    return [*route.responses.values(), *([route.request] if route.request else [])]


def _types(routes: list[Route]) -> list[Any]:
    """Return each type once whose JSON is a body or whose fields are parameters."""
    found: dict[str, Any] = {}
    for route in routes:
        if route.query is not None:
            found[_key(route.query)] = route.query
        for body in _bodies(route):
            found.update((_key(t), t) for t in body.content.values() if t not in (str, bytes))
    return list(found.values())


def _operation(route: Route, schemas: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
        "summary": route.summary,
        "tags": [route.tag],
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    if route.query is not None:
        parameters += _parameters(schemas[_key(route.query)], components)
    if parameters:
        operation["parameters"] = parameters
    if route.request is not None:
        operation["requestBody"] = {"required": True, **_body(route.request, schemas)}
    operation["responses"] = {
        str(status): _body(body, schemas) for status, body in sorted(route.responses.items())
    }
    return operation


def _parameters(schema: dict[str, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    struct = components[schema["$ref"].rpartition("/")[2]]
    parameters = []
    for name, field in struct["properties"].items():
        parameter = {"name": name, "in": "query", "required": name in struct["required"]}
        if "description" in field:
            parameter["description"] = field["description"]
        parameter["schema"] = {k: v for k, v in field.items() if k != "description"}
        parameters.append(parameter)
    return parameters


def _body(body: Body, schemas: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": body.description}
    if body.content:
        described["content"] = {
            media_type: _media_type(type_, body.example, schemas)
            for media_type, type_ in body.content.items()
        }
    return described


def _media_type(type_: Any, example: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if type_ is bytes:
        media_type: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    elif type_ is str:
        media_type = {"schema": {"type": "string"}}
    else:
        media_type = {"schema": schemas[_key(type_)]}
    # One example stands for all media types of a body, but it is JSON.
    if example is not None and type_ not in (str, bytes):
        media_type["example"] = example
    return media_type
