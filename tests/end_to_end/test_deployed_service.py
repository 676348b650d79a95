"""What watches a service under ``deploy/service``: queries that Prometheus reads, of names that a service tells."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from engine.catalog.catalog import Catalog
from tests.catalogs import npz, video
from tests.conftest import REPOSITORY
from tests.end_to_end.test_deploy import load, options
from tests.services import serving

SERVICE = REPOSITORY / "deploy" / "service"
DASHBOARD = json.loads((SERVICE / "grafana" / "vsc-engine.json").read_text(encoding="utf-8"))
NOT_OF_THE_SERVICE = {"up"}


def queries() -> list[str]:
    """All queries of the dashboard and the alerts, an interval in place of Grafana's variable."""
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    rules = [rule["expr"] for group in load(SERVICE / "alerts.yml")["groups"] for rule in group["rules"]]
    return sorted({query.replace("$__rate_interval", "5m") for query in (*shown, *rules)})


def names_in(query: str) -> set[str]:
    """The series that a query asks for."""
    found = set()

    def look(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)

    promql_parser.walk(promql_parser.parse(query), look, lambda _: None)
    return found


@pytest.fixture(scope="module")
def told(tiny_engines: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names that a service tells Prometheus."""
    folder = tmp_path_factory.mktemp("watched")
    with Catalog.create(folder / "catalogue", engines=tiny_engines) as made:
        made.add([npz(folder / "a.npz", video("a"))])
    (folder / "text.mp4").write_bytes(b"this is no video\n" * 500)
    with serving(folder / "catalogue", "--workers", "1") as server:
        assert server.post_file("/v1/match", folder / "text.mp4").status == 422
        page = server.ask("GET", "/metrics").body.decode()
    types = re.findall(r"^# TYPE (\w+) (\w+)$", page, flags=re.MULTILINE)
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + suffix for name, kind in types for suffix in suffixes.get(kind, ("",))}


def test_there_is_something_to_look_at() -> None:
    assert len(queries()) >= 20


@pytest.mark.parametrize("query", queries())
def test_queries_ask_for_what_a_service_tells(query: str, told: set[str]) -> None:
    names = names_in(query)
    assert names
    assert names - NOT_OF_THE_SERVICE <= told


def test_panels_have_ids_and_places_of_their_own_and_the_data_source_that_is_provided() -> None:
    source = load(SERVICE / "grafana" / "provisioning" / "datasources" / "prometheus.yml")["datasources"][0]
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": source["type"], "uid": source["uid"]}


def test_the_command_of_the_service_is_one() -> None:
    services = load(SERVICE / "compose.yaml")["services"]
    logs, form, *command = services["serve"]["command"]  # the format of the log is asked for before the verb
    assert (logs, form) == ("--log-format", "json")
    read = options(command)
    port = services["serve"]["ports"][0].rpartition(":")[2]
    (target,) = load(SERVICE / "prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == f"serve:{read['port']}" == f"serve:{port}"
    mounted = {re.sub(r"\$\{[^}]*\}", "", volume).split(":")[1] for volume in services["serve"]["volumes"]}
    assert str(Path(read["folder"]).parent) in mounted  # what is sent is kept beside the catalogue
    assert {str(root) for root in read["roots"]} <= mounted


def test_files_that_are_mounted_are_there() -> None:
    for name, service in load(SERVICE / "compose.yaml")["services"].items():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith("./") or (SERVICE / source).exists(), (name, source)


def test_all_yaml_is_read() -> None:
    paths = [*SERVICE.rglob("*.yml"), *SERVICE.rglob("*.yaml")]
    assert len(paths) == 5
    for path in paths:
        assert yaml.safe_load(path.read_text(encoding="utf-8"))
