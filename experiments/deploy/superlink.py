"""Run Flower's SuperLink so that devices reach it from anywhere, and operators from here only.

Flower 1.41 serves three interfaces on one port. Devices use Fleet, and sign their requests.
Operators use Control (to submit a run or register a key) and processes use Runtime (to take a run's
task and its code); neither of the two checks who is asking. Whoever may submit a run executes code
on every device. Here Control and Runtime therefore answer this machine's own addresses alone. An
operator elsewhere connects through `ssh -L`.
"""

import sys
from ipaddress import ip_address

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fl.messages.flower_internals import guard_superlink, run_superlink

FOR_DEVICES = "/v1/fleet/"


class OperatorsFromHere:
    """Refuse requests that are neither for the devices' interface nor from this machine."""

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
    """Run `flower-superlink` with that guard in front of it, and refuse to run it without.

    Raises:
        SystemExit: this version of Flower does not put the guard first.
    """
    if not guard_superlink(OperatorsFromHere):
        sys.exit("this version of Flower would let anybody submit runs: install flwr 1.41")
    run_superlink()


if __name__ == "__main__":
    main()
