"""Operators are built once, into a cache of the tests' own."""

import pytest

from fl.vectorized import operators


@pytest.fixture(scope="session", autouse=True)
def _built(user_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(user_cache))
        reason = operators.unavailable_reason()
    if reason:
        pytest.skip(reason)
