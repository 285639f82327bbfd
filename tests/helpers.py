"""What several test files assert in the same way."""

from __future__ import annotations

import pytest


def one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    """The message is one line that holds these words."""
    text = str(error.value)
    assert text
    assert "\n" not in text
    for word in words:
        assert word in text
