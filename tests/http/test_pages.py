import re
from pathlib import Path
from typing import Any

import pytest
import structlog

import sidecar.http
from sidecar.http.application import Application
from sidecar.http.messages import HTTPError, Request, Response, json_response
from sidecar.http.openapi import document
from sidecar.http.pages import create_app
from sidecar.http.routing import Body, Route

STATIC = Path(sidecar.http.__file__).parent / "static"


async def cold(request: Request) -> Response:
    return json_response([request.method, request.path, request.query, request.headers["x-one"]])


async def refusing(request: Request) -> Response:
    raise HTTPError(503, "Later.", {"retry-after": "7"})


async def failing(request: Request) -> Response:
    raise ValueError("hunter2")


def route(path: str, handler: Any) -> Route:
    body = Body("Fine.", {"application/json": list[str]})
    return Route(
        method="GET",
        path=path,
        handler=handler,
        summary="Cold.",
        tag="cold",
        responses={200: body},
        direct=False,
    )


COLD = [route("/cold", cold), route("/refusing", refusing), route("/cold-failing", failing)]


@pytest.fixture
async def client(served: Any, routes: list[Route]) -> Any:
    table = routes + COLD
    app = create_app(table, document(table, "1.0"))
    return (await served(Application(table, fallback=app))).client


async def test_a_cold_route_gets_the_same_request_as_a_direct_one(client: Any) -> None:
    response = await client.get("/cold?a=%20b", headers=[("x-one", "1"), ("X-One", "2")])
    assert response.json() == ["GET", "/cold", "a=%20b", "1, 2"]
    head = await client.head("/cold", headers={"x-one": "1"})
    assert (head.status_code, head.content) == (200, b"")
    assert (await client.get("/hello")).text == "hello"


async def test_a_cold_route_may_refuse(client: Any) -> None:
    response = await client.get("/refusing")
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert response.json()["detail"] == "Later."


async def test_a_failing_cold_route_is_a_500_that_says_nothing_of_values(client: Any) -> None:
    with structlog.testing.capture_logs() as logs:
        response = await client.get("/cold-failing")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in response.text + str(logs)
    assert logs[0]["error"] == "ValueError"


@pytest.mark.parametrize("path", ["/nowhere", "//docs", "/docs/", "/static/../pages.py", "/static"])
async def test_what_is_not_there_is_a_problem(client: Any, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()["status"]) == (404, 404)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("path", ["/cold", "/docs", "/openapi.json"])
async def test_another_method_is_told_which_are_allowed(
    client: Any, method: str, path: str
) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.json()["status"]) == (405, 405)
    assert response.headers["allow"] == "GET, HEAD"


async def test_the_document_is_served(client: Any, routes: list[Route]) -> None:
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json()["paths"].keys() == {r.path for r in routes + COLD}


@pytest.mark.parametrize("page", ["/docs", "/redocs"])
async def test_a_page_loads_only_what_the_sidecar_serves(client: Any, page: str) -> None:
    response = await client.get(page)
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "http" not in policy
    assets = re.findall(r'(?:src|href)="([^"]*)"', response.text)
    assert len(assets) >= 3
    for asset in assets:
        assert (await client.get(f"/{asset}")).status_code == 200


@pytest.mark.parametrize("name", ["swagger-ui.css", "redoc.standalone.js", "swagger-ui-bundle.js"])
async def test_an_asset_is_the_same_with_and_without_gzip(client: Any, name: str) -> None:
    small = await client.get(f"/static/{name}", headers={"accept-encoding": "gzip"})
    plain = await client.get(f"/static/{name}", headers={"accept-encoding": "gzip;q=0, br"})
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) < int(plain.headers["content-length"]) / 3
    assert "content-encoding" not in plain.headers
    assert small.content == plain.content
    assert small.headers["content-type"] == plain.headers["content-type"]


async def test_every_vendored_file_has_a_licence_and_is_described(client: Any) -> None:
    described = (STATIC / "README.md").read_text()
    for path in STATIC.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in described
    assert (await client.get("/static/redoc.LICENSE.txt")).text.startswith("The MIT License")
