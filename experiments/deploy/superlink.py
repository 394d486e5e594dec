"""Flower's SuperLink, which listens to devices from everywhere and to operators from here only.

Flower 1.41 serves three interfaces on one port: Fleet to devices, which sign what they ask; Control
(submit a run, register a key) and Runtime (take a run's task and its code), both without a word of
who is asking. Whoever may submit a run executes code on every device, so here these two answer
this machine's own addresses alone. An operator elsewhere comes by `ssh -L`.
"""

import sys
from ipaddress import ip_address

from flwr.superlink import extensions
from flwr.superlink import main as flower
from flwr.superlink.cli import flower_superlink
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

FOR_DEVICES = "/v1/fleet/"


class OperatorsFromHere:
    """Refuses whatever is neither for devices nor from this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 403."""
        strange = scope["type"] != "lifespan" and not _from_here(scope.get("client"))
        if strange and not scope["path"].startswith(FOR_DEVICES):
            refusal = PlainTextResponse("only from the SuperLink's own machine", status_code=403)
            await refusal(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _from_here(client: tuple[str, int] | None) -> bool:
    return client is not None and ip_address(client[0]).is_loopback


def main() -> None:
    """Run `flower-superlink` with that guard in front of it; without it, don't.

    Raises:
        SystemExit: this Flower does not put the guard first.
    """
    theirs = extensions.get_middleware()  # outermost first
    extensions.get_middleware = lambda: (Middleware(OperatorsFromHere), *theirs)
    if not _is_guarded():
        sys.exit("this version of Flower would let anybody submit runs: install flwr 1.41")
    flower_superlink()


def _is_guarded() -> bool:
    """Return whether Flower, whose private hook that is, has taken the guard in."""
    build = getattr(flower, "_get_middleware", list)
    return any(layer.cls is OperatorsFromHere for layer in build()[:1])


if __name__ == "__main__":
    main()
