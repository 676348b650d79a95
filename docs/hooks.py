"""What the site takes from outside of docs/: README.md as its home, and the pages of figures that others link to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).parent.parent
HOME = "index.md"
OUTSIDE = ("benchmarks/results/*.md", "engine/weights/*.md")


def on_config(config: Any) -> Any:
    """Add pages that the navigation does not name to its second part, how the program is used."""
    named = str(config.nav)
    (pages,) = config.nav[1].values()
    pages += [path.name for path in sorted((REPOSITORY / "docs").glob("*.md")) if f"'{path.name}'" not in named]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages; what links to them is in `on_page_markdown`."""
    files.append(File.generated(config, HOME, abs_src_path=str(REPOSITORY / "README.md")))
    for pattern in OUTSIDE:
        for path in sorted(REPOSITORY.glob(pattern)):
            page = File.generated(config, path.relative_to(REPOSITORY).as_posix(), abs_src_path=str(path))
            page.inclusion = page.inclusion.NOT_IN_NAV
            files.append(page)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the repository into links between pages, where docs/ is the root."""
    if page.file.src_uri == HOME:
        return markdown.replace("](docs/", "](")
    if "/" not in page.file.src_uri:
        return markdown.replace("](../README.md", f"]({HOME}").replace("](../", "](")
    return markdown.replace("](../../docs/", "](../../")
