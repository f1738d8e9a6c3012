"""docs/audit.md names modules and tests: they exist, and every line of it is proved by one, or says why not."""

import ast
import re
from functools import lru_cache

from django.conf import settings

PAGE = (settings.BASE_DIR / "docs" / "audit.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| what must hold"))
]
NAMED = re.compile(r"`([\w./-]+\.(?:py|md|yml|toml|conf))((?:::\w+)*)`")
WITHOUT = "No test:"


@lru_cache
def _parsed(path: str) -> list[ast.stmt]:
    return ast.parse((settings.BASE_DIR / path).read_text()).body


def exists(path: str, names: list[str]) -> bool:
    """Tell whether a file is there, and in it a class and a function of these names."""
    if not (settings.BASE_DIR / path).is_file():
        return False
    body = _parsed(path) if names else []
    for name in names:
        found = [node for node in body if getattr(node, "name", "") == name]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


def test_every_module_and_test_is_there():
    named = [(path, names.split("::")[1:]) for path, names in NAMED.findall(PAGE)]

    assert len(named) > 150
    assert [(path, names) for path, names in named if not exists(path, names)] == []


def test_every_line_says_where_it_holds_and_what_proves_it():
    lacking = []
    for what, where, proof in ROWS:
        is_proved = any("::test_" in names for _, names in NAMED.findall(proof))
        if not NAMED.search(where) or not (is_proved or proof.startswith(WITHOUT)):
            lacking.append(what)

    assert len(ROWS) > 60
    assert lacking == []


def test_every_item_has_a_chapter():
    items = [
        "P0-1",
        "P0-2",
        "P0-3",
        "P0-4",
        "P0-5",
        "Recent",
        "P1-1",
        "P1-2",
        "P1-3",
        "P2-1",
        "P2-2",
        "P2-3",
        "P2-4",
        "P3-1",
        "P3-2",
        "Update",
    ]

    assert [item for item in items if not re.search(rf"^## {item}\b", PAGE, re.MULTILINE)] == []


def test_a_name_that_is_not_there_is_found():
    assert exists("imagehub/tests/test_audit_page.py", ["test_a_name_that_is_not_there_is_found"])
    assert not exists("imagehub/tests/test_audit_page.py", ["test_nothing"])
    assert not exists("imagehub/tests/test_nothing.py", [])
