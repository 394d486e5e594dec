"""What the command line answers."""

from types import SimpleNamespace


def refused(answer: SimpleNamespace) -> str:
    """Check that a command was refused as all bad input is; returns the reason."""
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.endswith("\n")
    assert len(answer.err.splitlines()) == 1
    assert answer.err.startswith("fednf: ")
    assert "Traceback" not in answer.err
    return answer.err.removeprefix("fednf: ").rstrip("\n")
