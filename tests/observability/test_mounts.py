"""Mounts and volumes of a host, seen through Prometheus by the dashboard of volumes."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

from prometheus_client import CollectorRegistry

from metrics import start_http_server
from stowstore.named import NamedVolumes
from stowstore.named.metrics import NamedVolumesCollector
from tests.mounting.conftest import needs_fuse, place
from tests.mounting.places import Place
from tests.observability.scraping import Scraper, questions

__all__ = ["needs_fuse", "place"]

#: More than one request to the store brings.
_LARGE = 6 << 20


def url_of(place: Place, path: Path) -> str:
    return f"http://127.0.0.1:{place.record(path).metrics_port}/metrics"


def test_a_mount_fills_its_panels(place: Place, scraper: Scraper) -> None:
    """A volume that is mounted, written and committed, and a version that is read back, fill every panel of mounts."""
    name = f"mounted-{uuid.uuid4().hex[:8]}"
    volume = place.volume(name)
    path = place.mount(volume)
    writing = scraper.watch(url_of(place, path))
    content = random.Random(1).randbytes(_LARGE)
    for number in (1, 2):
        (path / f"large-{number}").write_bytes(content[number:])
        assert not (path / "missing").exists()
        version = volume.blocking.commit(f"version {number}", mount_path=path)
        written = sum(_LARGE - one for one in range(1, number + 1))
        scraper.wait_for(f'stow_mount_written_bytes_total{{instance="{writing}"}} == {written}')

    # Another cache, so that what is read has to be fetched.
    at = version.blocking.mount(place.directory / "version", cache_dir=place.directory / "other-cache", timeout=30.0)
    reading = scraper.watch(url_of(place, at))
    for number in (1, 2):
        assert content[number:] == (at / f"large-{number}").read_bytes()
        read = sum(_LARGE - one for one in range(1, number + 1))
        scraper.wait_for(f'stow_mount_read_bytes_total{{instance="{reading}"}} >= {read}')

    own = {"instance": f"{writing}|{reading}", "volume": name}
    asked = [found for found in questions("stow_volumes.json", own) if "stow_mount_" in found.expr]
    for question in asked:
        scraper.wait_for(question.expr)
    assert len(asked) >= 10
    where = f'instance="{writing}"'
    (info,) = scraper.wait_for(f"stow_mount_info{{{where}}}")
    assert (name, "rw") == (info["metric"]["volume"], info["metric"]["access"])
    assert "ro" == scraper.wait_for(f'stow_mount_info{{instance="{reading}"}}')[0]["metric"]["access"]
    scraper.expect(f'stow_mount_requests_total{{{where}, operation="create"}}', "== 2")
    # Two files and the top directory; the second holds what the first does but for a byte.
    scraper.expect(f"stow_mount_inodes{{{where}}}", "== 3")
    scraper.expect(f"stow_mount_used_bytes{{{where}}}", f"== {2 * _LARGE - 3}")
    scraper.expect(f'stow_mount_fetched_bytes_total{{instance="{reading}"}}', f">= {_LARGE}")
    # The daemon's store counts where the dashboard of stores looks.
    scraper.expect(f'sum (stow_operations_total{{{where}, operation="write", outcome="ok"}})', ">= 2")
    scraper.expect(f'sum (stow_transferred_bytes_total{{instance="{reading}", direction="in"}})', f">= {_LARGE}")


def test_volumes_of_a_host_fill_their_panels(tmp_path: Path, scraper: Scraper) -> None:
    """What a host's volumes hold and may hold is on the dashboard, by volume."""
    volumes = NamedVolumes(tmp_path / "volumes")
    name = f"host-{uuid.uuid4().hex[:8]}"
    volumes.create(name, size="64MB", inodes=1000, backing="directory")
    collected = CollectorRegistry()
    collected.register(NamedVolumesCollector(volumes))
    with start_http_server(registry=collected) as exposed:
        instance = scraper.watch(exposed.url)
        asked = [
            found
            for found in questions("stow_volumes.json", {"instance": instance, "volume": name})
            if "stow_volume_" in found.expr
        ]
        for question in asked:
            scraper.wait_for(question.expr)
        assert len(asked) >= 7
        scraper.expect(f'stow_volume_size_bytes{{volume="{name}"}}', f"== {64 << 20}")
        scraper.expect(f'stow_volume_inodes_limit{{volume="{name}"}}', "== 1000")
