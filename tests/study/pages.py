"""What is true of every report."""

import re

_NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def assert_loads_nothing(page):
    """The page needs no other file, and no network."""
    assert set(re.findall(r"https?://[^\s\"']+", page)) <= _NAMESPACES
    for link in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert link.startswith(("#", "data:image/"))
    assert "<script" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
