"""Numbers for readers, HTML that escapes, and the record of how a run was made."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import otgan as og
from otgan.metrics import NAMES
from otgan.report import provenance
from otgan.report._html import Html, join, table, tag, text
from otgan.report._words import METRICS, certified, describe_metric, number, percent, seconds


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.12345, "0.123"),
        (-0.5, "-0.5"),
        (1234.5, "1,234"),
        (99.96, "100"),
        (1e-8, "1.00 × 10⁻⁸"),
        (-2.5e12, "-2.50 × 10¹²"),
        (math.inf, "infinite"),
        (math.nan, "not known"),
    ],
)
def test_numbers(value: float, said: str) -> None:
    assert number(value) == said


def test_durations_and_shares() -> None:
    assert (seconds(0.5), seconds(125), seconds(7325)) == ("0.5 s", "2 min 5 s", "2 h 2 min")
    assert percent(0.015) == "1.5 %"


def test_every_metric_has_words() -> None:
    assert set(NAMES) <= set(METRICS)
    assert describe_metric("pixel_copies") == METRICS["copies"] + ", in pixels"
    assert describe_metric("unheard of") == ""


@pytest.mark.parametrize(("p", "name"), [(2.0, "W2"), (3.0, "W3")])
def test_the_ends_of_an_interval_are_compared_as_distances(p: float, name: str) -> None:
    """W3 between 1 and 1.1: 10 %, whatever that makes of the costs."""
    y = np.random.default_rng(0).normal(size=(9, 3))
    result = og.solve(og.Gaussian(3), y, p=p, tol=0.5, max_iter=5)
    ends = {"cost_lower": 1.0 / p, "cost_upper": 1.1**p / p, "w2_lower": 1.0, "w2_upper": 1.1}
    said = " ".join(certified(replace(result, certificate=replace(result.certificate, **ends))))
    assert f"The distance {name}" in said and "The ends are 10 % apart." in said


def test_everything_but_html_is_escaped() -> None:
    assert text("<a & 'b'>") == "&lt;a &amp; &#x27;b&#x27;&gt;"
    assert text(Html("<b>")) == "<b>"
    assert join(["<", Html("<i>")], "&") == "&lt;&amp;<i>"
    assert tag("p", "1 < 2", title='"x"', class_="a", data_x=3, hidden=None) == (
        '<p title="&quot;x&quot;" class="a" data-x="3">1 &lt; 2</p>'
    )
    assert tag("img", src="a") == '<img src="a">'
    made = table("c<", ["<", "n"], [["<r>", "<v>"]], numeric=[1])
    assert "<r>" not in made and "<v>" not in made and 'class="number"' in made


@dataclass(frozen=True, kw_only=True)
class Command:
    file: Path
    out: Path | None = None
    tol: float | None = None
    names: tuple[str, ...] = ()
    run_: str = "x"
    plots: bool = False
    json: bool = False


def test_the_command_can_be_typed_again(tmp_path: Path) -> None:
    given = Command(file=Path("my points.npy"), tol=0.5, names=("a", "b c"), run_="y", plots=True, json=True)
    line = provenance.command_line("fit", given)
    assert shlex.split(line) == [
        "otgan", "fit", "my points.npy", "--tol", "0.5", "--names", "a", "b c", "--run", "y", "--plots",
    ]  # fmt: skip
    data = tmp_path / "data"
    data.write_bytes(b"abc")
    provenance.write(tmp_path, "fit", given, [data, tmp_path])
    found = provenance.read(tmp_path)
    assert found["command"] == line and found["settings"]["tol"] == 0.5 and "json" not in found["settings"]
    assert found["inputs"][0] == {"path": str(data), "bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    assert found["inputs"][1] == {"path": str(tmp_path)}
    assert found["versions"]["otgan"] == provenance.versions()["otgan"]
    json.dumps(found, allow_nan=False)
    assert provenance.read(tmp_path / "nowhere") == {}
