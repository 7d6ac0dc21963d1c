from tests.proxy.conftest import Start
from tests.upstream import Behaviour, Upstream


async def test_a_call_goes_to_the_upstream_of_its_route(start: Start, upstream: Upstream) -> None:
    served = await start({"name": "up", "upstream": f"{upstream.url}/echo", "redact": "none"})
    response = await served.client.post("/up/a%20b?c=d&c=e", content=b"body")
    assert response.status_code == 200
    told = response.json()
    assert (told["method"], told["target"], told["body"]) == (
        "POST",
        "/echo/a%20b?c=d&c=e",
        "body",
    )


async def test_what_the_upstream_does_not_answer_is_a_502(start: Start, upstream: Upstream) -> None:
    served = await start({"name": "up", "upstream": upstream.url, "redact": "none"})
    upstream.answers.extend([Behaviour(cut="before_head")] * 2)
    response = await served.client.get("/up/v1/models")
    assert response.status_code == 502
    assert response.headers["content-type"] == "application/problem+json"
