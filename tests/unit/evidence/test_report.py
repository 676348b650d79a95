"""The page of matches: what is in it, and that names of files never become markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.evidence import report
from engine.evidence.report import clock, write_report
from engine.records import Descriptors, Match
from tests.unit.evidence.worlds import pan, write

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
EVIL_FILE = "<img src=x onerror=alert(3)> \"'&amp;.mp4"


class Page(HTMLParser):
    """The elements of a page, as (tag, attributes), and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("footage")
    write(root / "Q0.mp4", pan(1, num_seconds=4))
    write(root / "R0.mp4", pan(1, num_seconds=6))
    (root / "Q0.mp4").rename(root / EVIL_FILE)
    return root


def described(video_id: str, num_rows: int) -> Descriptors:
    times = np.arange(num_rows, dtype=np.float32)
    rows = np.random.default_rng(num_rows).normal(size=(num_rows, 8)).astype(np.float32)
    return Descriptors(video_id, np.stack([times, times + 1], axis=1), rows)


MATCHES = [
    Match(EVIL, "R0", 0.0, 4.0, 1.0, 5.0, 2.5, speed=1.0, mirrored=True),
    Match(EVIL, "R0", 1.0, 3.0, 5.0, 4.0, 1.5, speed=-0.5),
    Match("gone\u202e\udcff", "R0", 0.0, 4.0, 1.0, 5.0, 0.5),
    Match("gone\u202e\udcff", "cut", 0.0, 4.0, 1.0, 5.0, 9.5),
]


def written(tmp_path: Path, footage: Path, matches: list[Match], **options: Any) -> Page:
    (tmp_path / "cut.mp4").write_bytes(b"no video" * 99)
    queries = {EVIL: footage / EVIL_FILE}
    references = {"R0": footage / "R0.mp4", "cut": tmp_path / "cut.mp4"}
    write_report(tmp_path / "report.html", matches, queries, references, **options)
    return Page(tmp_path / "report.html")


def test_a_page_shows_both_videos_of_each_match(tmp_path: Path, footage: Path) -> None:
    rows = {EVIL: described(EVIL, 4)}
    page = written(
        tmp_path,
        footage,
        MATCHES,
        verdicts={(EVIL, "R0"): "copy", (MATCHES[2].query_id, "R0"): "look again"},
        query_rows=rows,
        ref_rows={"R0": described("R0", 6)},
    )
    assert [entry["data-score"] for entry in page.named("details")] == ["2.5", "1.5", "9.5", "0.5"]
    assert [entry["data-verdict"] for entry in page.named("details")] == ["copy", "copy", "", "look again"]
    alts = [str(image["alt"]) for image in page.named("img")]
    assert [alt for alt in alts if alt.startswith(f"query {EVIL}")] == [
        f"query {EVIL} at 0:0{time_s}" for time_s in (0.5, 1.5, 2.5, 3.5, 1.2, 1.8, 2.2, 2.8)
    ]
    assert sum(alt.startswith("reference R0") for alt in alts) == 12
    assert sum(alt.startswith("Similarity") for alt in alts) == 2
    assert all(re.match("data:image/(jpeg|png);base64,", str(image["src"])) for image in page.named("img"))
    for words in ("mirrored", "backward", "speed 0.50", "score 2.500", "look again", "4 matches of 2 queries"):
        assert words in page.text
    assert page.text.count("not readable: the file was not found") == 2
    assert page.text.count("not readable: ") == 3


def test_a_backward_copy_is_shown_backward(tmp_path: Path, footage: Path) -> None:
    page = written(tmp_path, footage, [Match(EVIL, "R0", 0.0, 4.0, 1.0, 5.0, 1.0, speed=-1.0)])
    alts = [str(image["alt"])[-6:] for image in page.named("img")]
    assert alts == ["0:00.5", "0:01.5", "0:02.5", "0:03.5", "0:04.5", "0:03.5", "0:02.5", "0:01.5"]


def test_names_never_become_markup(tmp_path: Path, footage: Path) -> None:
    page = written(tmp_path, footage, MATCHES, verdicts={(EVIL, "R0"): EVIL}, title=EVIL)
    assert len(page.named("script")) == 1
    assert {key for _, attributes in page.elements for key in attributes if key.startswith("on")} == set()
    assert all(str(image["src"]).startswith("data:") for image in page.named("img"))
    assert EVIL in page.text
    assert EVIL_FILE in page.text
    assert "gone\\u202e\\xff" in page.text
    assert {str(link["href"]).partition(":")[0] for link in page.named("a")} == {"file"}


def test_a_page_needs_no_network(tmp_path: Path, footage: Path) -> None:
    page = written(tmp_path, footage, MATCHES)
    (policy,) = (meta["content"] for meta in page.named("meta") if "http-equiv" in meta)
    assert str(policy).startswith("default-src 'none'; img-src data:")
    outside = [attributes for _, attributes in page.elements if re.match("(http|//)", str(attributes.get("src", "")))]
    assert not outside
    assert "url(" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_is_left_out_is_said(tmp_path: Path, footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_LISTED", 3)
    page = written(tmp_path, footage, MATCHES, max_pictured=2)
    assert len(page.named("details")) == 3
    assert len(page.named("img")) == 8, "those of the second, the first has no files"
    assert "Pictures are shown for the best 2." in page.text
    assert "This page lists the best 3; 1 more are in the table of matches only." in page.text


def test_a_page_without_matches(tmp_path: Path, footage: Path) -> None:
    page = written(tmp_path, footage, [])
    assert "No matches." in page.text
    assert not page.named("img")


def test_bars_lie_inside_a_line(tmp_path: Path, footage: Path) -> None:
    page = written(tmp_path, footage, MATCHES)
    bars = [
        [float(number) for number in re.findall(r"[\d.]+", str(span["style"]))]
        for span in page.named("span")
        if "style" in span
    ]
    assert len(bars) == 2 * (2 + 2 + 1 + 1)
    assert all(left + width <= 100.01 for left, width in bars)
    assert [16.67, 66.67] in bars, "1 to 5 s of a video of 6 s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.0"), (59.96, "1:00.0"), (75.04, "1:15.0"), (3723.5, "1:02:03.5"), (-1, "0:00.0")]
)
def test_times_as_people_read_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_page_works_in_a_browser(tmp_path: Path, footage: Path, browser: Any) -> None:
    more = [Match(f"Q{number:04}", "R0", 0.0, 1.0 + number % 7, 1.0, 5.0, -number / 10) for number in range(300)]
    written(tmp_path, footage, MATCHES + more, verdicts={(EVIL, "R0"): "copy", ("Q0005", "R0"): "review"}, title=EVIL)
    page = browser.new_page()
    said: list[str] = []
    asked_for: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked_for.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())

    def shown() -> list[str]:
        return list(page.eval_on_selector_all(".match:not([hidden])", "all => all.map(one => one.dataset.query)"))

    assert len(shown()) == 304
    assert page.inner_text("#count") == "304 shown"
    page.keyboard.press("/")
    page.keyboard.type("Q0005 r0")
    assert shown() == ["Q0005"]
    assert page.inner_text("#count") == "1 of 304 shown"
    page.keyboard.press("Escape")
    page.select_option("#verdict", "copy")
    assert shown() == [EVIL, EVIL]
    page.select_option("#verdict", "")
    page.select_option("#order", "length")
    assert shown()[:2] == ["Q0006", "Q0013"]
    page.select_option("#order", "query")
    assert shown()[-1] == "Q0299"
    page.select_option("#order", "score")
    assert shown()[0] == "gone\\u202e\\xff"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("j")
    page.keyboard.press("j")
    focused = "document.activeElement.parentElement"
    assert page.evaluate(f"{focused}.dataset.score") == "2.5"
    assert page.evaluate(f"{focused}.open") is True
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focused}.open") is False
    assert all(page.eval_on_selector_all("img", "all => all.map(one => one.naturalWidth > 0 || !one.complete)"))
    assert said == []
    assert [url for url in asked_for if not url.startswith("data:")] == [(tmp_path / "report.html").as_uri()]
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_colors_of_the_system(tmp_path: Path, footage: Path, browser: Any, scheme: str) -> None:
    written(tmp_path, footage, MATCHES)
    page = browser.new_page(color_scheme=scheme)
    page.goto((tmp_path / "report.html").as_uri())
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [int(level) for level in re.findall(r"\d+", color)]
    assert (sum(levels) < 3 * 64) == (scheme == "dark")
    page.close()
