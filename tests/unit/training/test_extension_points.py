from typing import Any

import pytest

from seg_research.training import extension_points
from seg_research.training.extension_points import (
    ExtensionPoint,
    check_extension_points,
    check_installation,
    check_point,
)


def point(symbol: str, **lists: Any) -> ExtensionPoint:
    return ExtensionPoint(symbol, "agent_loop.py", "because", **lists)


@pytest.mark.parametrize(
    ("symbol", "lists"),
    [
        ("json:dumps", {}),
        ("textwrap:indent", {"parameters": ("text", "prefix", "predicate")}),
        ("textwrap:TextWrapper.fill", {"parameters": ("text",)}),
        ("io:IOBase", {"abstract": ()}),
        ("collections.abc:Iterator", {"abstract": ("__next__",)}),
    ],
)
def test_a_symbol_as_expected_is_ok(symbol, lists):
    assert check_point(point(symbol, **lists)).ok


@pytest.mark.parametrize(
    ("symbol", "lists", "detail"),
    [
        ("json:no_such_name", {}, "cannot be imported"),
        ("no_such_module:name", {}, "needed by agent_loop.py"),
        (
            "textwrap:indent",
            {"parameters": ("text", "prefix")},
            "takes (text, prefix, predicate), expected (text, prefix)",
        ),
        ("collections.abc:Iterator", {"abstract": ("__next__", "rewind")}, "differ: rewind"),
    ],
)
def test_what_differs_is_named(symbol, lists, detail):
    status = check_point(point(symbol, **lists))
    assert not status.ok
    assert detail in status.detail


def test_a_symbol_that_needs_an_absent_package_is_not_looked_for():
    assert check_point(point("no_such_module:name", needs="no_such_package")).ok
    assert not check_point(point("no_such_module:name", needs="json")).ok


def test_a_missing_verl_gives_one_line_that_says_how_to_install_it(monkeypatch):
    def missing(name: str) -> str:
        raise extension_points.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(extension_points.metadata, "version", missing)
    (status,) = check_extension_points()
    assert not status.ok
    assert "pip install" in status.detail


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(extension_points.metadata, "version", lambda name: "0.1")
    assert "0.1 is installed, 0.9.1 was tested" in check_installation("0.9.1").detail


def test_a_verl_outside_site_packages_is_refused(monkeypatch):
    class Spec:
        origin = "/home/me/verl/verl/__init__.py"

    monkeypatch.setattr(extension_points.metadata, "version", lambda name: "0.9.1")
    monkeypatch.setattr(extension_points.importlib.util, "find_spec", lambda name: Spec)
    assert "/home/me/verl" in check_installation("0.9.1").detail
