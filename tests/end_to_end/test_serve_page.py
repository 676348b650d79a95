"""The page of a service in a real browser: state, a file by mouse and by keyboard, the report, and a key."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.catalog.catalog import Catalog
from tests.end_to_end.conftest import Catalogue
from tests.services import Server, serving

KEY = "0123456789abcdef0123456789abcdef"
EVIL = "<img src=x onerror=alert(1)> '&amp;.mp4"
EVIL_ID = "<script>alert(2)</script>"


@pytest.fixture(scope="module")
def served(catalogue: Catalogue, tiny_engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("page")
    with Catalog.create(root / "catalogue", engines=tiny_engines) as made:
        made.add([catalogue.norm_set])
        made.add_file(catalogue.norm_set / "N3.mp4", video_id=EVIL_ID)
    (root / "keys").write_text(KEY)
    with serving(root / "catalogue", "--api-key-file", root / "keys", "--workers", "1") as server:
        yield server


class Tab:
    """A page of the service, and everything that it said or asked for."""

    def __init__(self, browser: Any, server: Server, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.said: list[str] = []
        self.asked_for: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked_for.append(request.url))
        self.page.goto(server.url)


def unlock(tab: Tab) -> None:
    tab.page.wait_for_selector("#keys:not([hidden])")
    tab.page.fill("#key", KEY)
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("#keys", state="hidden")
    tab.said.clear()  # the browser tells of the answer 401


def test_a_person_drops_a_file_and_sees_the_report(
    served: Server, catalogue: Catalogue, browser: Any, tmp_path: Path
) -> None:
    shutil.copy(catalogue.norm_set / "N3.mp4", tmp_path / EVIL)
    tab = Tab(browser, served)
    page = tab.page
    assert "API key" in page.inner_text("#keys")
    unlock(tab)
    page.get_by_text("7 videos in the catalogue, idle").wait_for()
    facts = page.inner_text("#facts")
    assert re.search(r"Videos\s+7", facts)
    assert re.search(r"A copy begins at score\s+0\.\d{3}", facts)
    assert re.search(r"Waiting\s+0 of 32", facts)

    page.set_input_files("#file", tmp_path / EVIL)
    page.wait_for_selector("#answer:not([hidden])")
    assert page.inner_text("#verdict") == "copy"
    assert page.inner_text("#name") == EVIL
    assert page.evaluate("document.activeElement.id") == "answer"
    assert any(EVIL_ID in row for row in page.locator("#matches tbody tr").all_inner_texts())
    assert EVIL_ID in page.inner_text("#notes")
    report = page.frame_locator("#frame")
    report.locator(".pictures img").first.wait_for()
    assert report.locator(".pictures img").count() >= 8
    assert all(report.locator("img").evaluate_all("all => all.map(one => one.alt.length > 0)"))
    report.locator("#count").wait_for()
    assert "shown" in report.locator("#count").inner_text(), "its own script runs"
    assert page.locator("main img, main script").count() == 0
    assert all(url.startswith((served.url, "data:")) for url in tab.asked_for)
    assert tab.said == []
    page.close()


def test_a_bad_file_gives_a_line_and_the_next_one_works(
    served: Server, catalogue: Catalogue, browser: Any, tmp_path: Path
) -> None:
    (tmp_path / EVIL).write_bytes(b"no video " * 99)
    tab = Tab(browser, served)
    unlock(tab)
    tab.page.set_input_files("#file", tmp_path / EVIL)
    tab.page.wait_for_selector("#error:not([hidden])")
    assert EVIL in tab.page.inner_text("#error")
    assert tab.page.locator("#answer").is_hidden()
    tab.page.set_input_files("#file", catalogue.norm_set / "N1.mp4")
    tab.page.wait_for_selector("#answer:not([hidden])")
    assert tab.page.locator("#error").is_hidden()
    assert all("422" in text for text in tab.said)
    tab.page.close()


def test_the_keyboard_reaches_all_there_is_to_do(served: Server, browser: Any) -> None:
    tab = Tab(browser, served)
    unlock(tab)
    reached = []
    for _ in range(2):
        tab.page.keyboard.press("Tab")
        reached.append(tab.page.evaluate("document.activeElement.id"))
    assert reached == ["file", "all"]
    named = tab.page.eval_on_selector_all("input", "all => all.map(one => one.labels.length)")
    assert all(named)
    tab.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_colors_of_the_system(served: Server, browser: Any, scheme: str) -> None:
    tab = Tab(browser, served, color_scheme=scheme)
    color = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [int(level) for level in re.findall(r"\d+", color)]
    assert (sum(levels) < 3 * 64) == (scheme == "dark")
    tab.page.close()
