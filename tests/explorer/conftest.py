"""What all tests of the explorer share."""

import pytest


@pytest.fixture(autouse=True)
def few_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clear pictures of networks of one's own be made in a few steps, but in thorough tests."""
    from rfviz.explorer import own

    if request.node.get_closest_marker("thorough") is None:
        monkeypatch.setitem(own.CLEAR, "steps", 4)
