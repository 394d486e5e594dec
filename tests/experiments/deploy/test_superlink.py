"""The SuperLink answers devices from everywhere, and operators on its own machine only."""

import asyncio

import pytest
from starlette.middleware import Middleware

from experiments.deploy import superlink
from experiments.deploy.superlink import FOR_DEVICES, OperatorsFromHere


def answer(path: str, client: tuple[str, int] | None, kind: str = "http") -> int:
    """Return the status with which a request is answered; 200 where it is passed on."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "client": client, "headers": [], "method": "POST"}
    asyncio.run(OperatorsFromHere(app)(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize("path", ["/v1/control/start-run", "/v1/runtime/pull-task-input", "/docs"])
@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("::1", 200), ("10.0.0.9", 403), ("2001:db8::1", 403)],
)
def test_operators_come_from_here(path, host, status):
    assert answer(path, (host, 5)) == status


def test_a_client_without_an_address_is_not_from_here():
    assert answer("/v1/control/start-run", None) == 403


@pytest.mark.parametrize("path", ["/v1/fleet/../control/start-run", "/v1/fleet/%2e%2e/control/x"])
def test_no_path_leads_from_devices_to_operators(path):
    """Starlette matches paths as they are, so what begins as a device's never ends elsewhere."""
    from starlette.routing import Match, Route

    route = Route("/v1/control/{rest:path}", lambda request: None)
    scope = {"type": "http", "path": path, "method": "GET", "headers": []}
    assert route.matches(scope)[0] == Match.NONE


def test_devices_come_from_everywhere():
    assert answer(f"{FOR_DEVICES}pull-messages", ("10.0.0.9", 5)) == 200


@pytest.mark.slow
def test_the_guard_stands_in_front_of_flower_s_own_app(monkeypatch):
    """Of all of Flower's routes, a stranger reaches those for devices only."""
    from flwr.superlink import extensions, main

    monkeypatch.setattr(extensions, "get_middleware", extensions.get_middleware)
    monkeypatch.setattr(superlink, "run_superlink", lambda: None)
    superlink.main()
    assert main._get_middleware()[0].cls is OperatorsFromHere
    assert all(
        path.startswith(FOR_DEVICES)
        for path in map(str, (route.path for route in main.fleet_router.routes))
    )


@pytest.mark.parametrize("built", [list, None, lambda: [Middleware(object)]])
def test_without_the_guard_nothing_is_started(monkeypatch, built):
    """A Flower that has dropped the hook, or puts something else before it."""
    from flwr.superlink import extensions, main

    monkeypatch.setattr(extensions, "get_middleware", extensions.get_middleware)
    monkeypatch.setattr(superlink, "run_superlink", lambda: pytest.fail("it was started"))
    if built:
        monkeypatch.setattr(main, "_get_middleware", built)
    else:
        monkeypatch.delattr(main, "_get_middleware")
    with pytest.raises(SystemExit, match="would let anybody submit runs"):
        superlink.main()
