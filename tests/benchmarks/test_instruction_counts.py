"""Reading callgrind's files, and what counts as a regression. `make check` counts for real."""

from __future__ import annotations

import instruction_counts

DUMP = """\
version: 1
positions: line
events: Ir

ob=(1) /usr/lib/libc.so.6
fl=(1) a.c
fn=(1) memcpy
10 1000
cob=(2) /somewhere/lepton_rt/_core.cpython-311.so
cfi=(2) b.cc
cfn=(2) kernel
calls=1 20
+3 700

ob=(2)
fl=(2)
fn=(2)
20 300
+1 30
fi=(3) immintrin.h
* 7
cob=(1)
cfn=(1)
calls=2 10
-5 900
totals: 2000
"""


def test_only_what_the_extension_executes_itself_is_counted() -> None:
    assert instruction_counts.own_instructions(DUMP) == 337


def test_three_percent_either_way_is_a_difference() -> None:
    expected = {"a": 1000, "b": 1000, "c": 1000, "gone": 1}
    counted = {"a": 1031, "b": 1029, "c": 969, "new": 1}
    wrong = instruction_counts.compare(counted, expected)
    assert [line.split(":")[0] for line in wrong] == ["a", "c", "gone", "new"]
    assert "+3.1%" in wrong[0]


def test_the_compiler_is_known() -> None:
    name, version = instruction_counts.compiler().split()
    assert name in ("GCC", "clang")
    assert version.count(".") == 2
