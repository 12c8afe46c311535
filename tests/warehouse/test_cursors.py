"""What can be said of cursors."""

from __future__ import annotations

from include.warehouse.cursors import is_behind


def test_only_numbers_can_be_behind_each_other() -> None:
    assert is_behind("9", "10")
    assert not is_behind("10", "9")
    assert not is_behind("10", "10")
    assert not is_behind("a", "b")
    assert not is_behind("9", "b")
