"""Filters mean what they mean to BuildKit, and a wrong one says where."""

from __future__ import annotations

import pytest

from buildkit_migrate.maintenance.filters import FilterError, parse

RECORD = {
    "id": "abc",
    "parents": "p1;p2",
    "description": 'mount / from exec "x", y',
    "mutable": "",
    "private": "",
    "type": "exec.cachemount",
}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("id", True),
        ("nonsense", False),
        ("nonsense.inner", False),
        ("id.inner==abc", True),
        ("id==abc", True),
        ("id==ab", False),
        ("id!=ab", True),
        ("id~=^a.c$", True),
        ("id~=b", True),
        ("id@=b", True),
        ("id@=x", False),
        ("mutable", True),
        ("immutable", False),
        ("mutable==true", False),
        ('mutable==""', True),
        ("immutable!=true", True),
        ("inuse", False),
        ("shared", False),
        ("private,mutable", True),
        ("private,immutable", False),
        (" private , mutable ", True),
        ("type==exec.cachemount", True),
        ("type == exec.cachemount", True),
        ("parents==p1;p2", True),
        ('parents~="p2$",type', True),
        ('description~="exec \\"x\\", y"', True),
        ("description~=/from exec/", True),
        ("description~=|from exec|", True),
        ('"id"=="\\x61bc"', True),
        ('id=="\\u0061\\142c"', True),
        ("id~=[", FilterError),
        ("id=abc", FilterError),
        ("id===abc", FilterError),
        ("id==", FilterError),
        ("id== ,type", FilterError),
        ("==abc", FilterError),
        (",id", FilterError),
        ("id,", FilterError),
        ("id type", FilterError),
        ("id==abc type", FilterError),
        ("id.", FilterError),
        ("id.==x", FilterError),
        ('id=="abc', FilterError),
        ('id=="\\q"', FilterError),
        ("id==/abc", FilterError),
        ("id==/abc/", FilterError),
        ("id!=|abc|", FilterError),
        ("id~=.bc", FilterError),
        ('id~=".bc"', True),
        ("\0", FilterError),
    ],
)
def test_a_filter(text: str, matches: bool | type[FilterError]) -> None:
    if matches is FilterError:
        with pytest.raises(FilterError, match="is not"):
            parse([text])
    else:
        assert parse([text])(RECORD.get) is matches


def test_one_of_several_filters_is_enough() -> None:
    assert parse([])(RECORD.get)
    assert parse(["id==x", "type"])(RECORD.get)
    assert not parse(["id==x", "shared"])(RECORD.get)
