"""What all tests of the explorer share."""

import pytest


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clear pictures of networks of one's own be made in a few steps: what they show is tested elsewhere."""
    from rfviz.explorer import own

    monkeypatch.setitem(own.CLEAR, "steps", 4)
