"""The page of a run says what the numbers say."""

import dataclasses
import html
import re

from maquette.evaluation.run_report import RunReport
from maquette.reports import render


def page(report: RunReport) -> str:
    """The sections on a run."""
    return html.unescape(render("run.html.j2", {"report": report, "figures": report.figures()}))


def test_the_page_has_every_part_and_number(report: RunReport) -> None:
    text = render("run.html.j2", {"report": report, "figures": report.figures()})
    for part in (
        "300k", "on this machine already", "9.90e12", "4.34M", "3.000",
        "8,476 steps",
        "No text was seen twice", "after 12% of training", "&lt;def&gt;", "x &lt; 1", "no run of 24 words",
        "<span>27</span>",
        "maquette sample &#34;def &#34;", "outputs/runs/x/model",
    ):  # fmt: skip
        assert part in text, part
    best = re.findall(r'class="number best" data-label="[^"]+">(.*?)</td>', text)
    assert {"1.75", "2.00"} <= set(best)
    assert text.count("<figure") == 9
    assert text.count('role="img"') == 10  # bits per byte are drawn for phones as well


def test_the_verdict_is_what_the_numbers_say(report: RunReport) -> None:
    text = page(report)
    assert "12% fewer bits" in text
    assert "15% fewer in <code>code</code>" in text
    assert "behind in legal" in text
    record = dataclasses.replace(report.record, bits_per_byte=2.5)
    assert "25% more bits" in page(dataclasses.replace(report, record=record))
    domains = {"code": report.record.domains["code"]}
    ahead = dataclasses.replace(report, record=dataclasses.replace(report.record, domains=domains))
    assert "ahead in every domain" in page(ahead)


def test_text_seen_again_is_said(report: RunReport) -> None:
    domains = {name: {**values, "epochs": 2.5} for name, values in report.record.domains.items()}
    record = dataclasses.replace(report.record, domains=domains)
    assert "up to 2.5 times" in page(dataclasses.replace(report, record=record))
