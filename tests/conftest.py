"""What every test may ask for: real servers, and hypothesis profiles.

The server fixtures give one server of each kind for the whole run, shared by all of pytest-xdist's workers: take a
fresh container a test, and never stop or pause them. A test of an outage starts its own: `with radosgw.start()`.

A server that cannot be provided skips its tests with the reason, and fails them where `CI` or
`STOWSTORE_REQUIRE_SERVERS` is set.
"""

import copyreg
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest

from tests import servers
from tests.servers.programs import PostgreSQL
from tests.servers.prometheus_server import Promtool
from tests.servers.requiring import are_required
from tests.servers.sharing import Run

hypothesis.settings.register_profile("dev", deadline=None)
# The same examples every time, so that a failure is the change's own; the blob makes it repeatable elsewhere.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True, database=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

_KINDS: Mapping[str, servers.Provided | Promtool] = {
    "radosgw": servers.radosgw,
    "azurite": servers.azurite,
    "swift": servers.swift,
    "redis_server": servers.redis,
    "gcs_emulator": servers.gcs,
    "prometheus_server": servers.prometheus,
    "promtool": servers.promtool,
    "bubblewrap": servers.bubblewrap,
    "chromium": servers.chromium,
    "postgresql": servers.postgresql,
    "tools": servers.tools,
}
_RUN = pytest.StashKey[Run]()


@pytest.fixture(autouse=True)
def usual_pickling() -> None:
    """Undoes what importing Dask does to a whole process: tblib has every exception pickled with its causes."""
    for kind in [kind for kind in copyreg.dispatch_table if issubclass(kind, BaseException)]:
        del copyreg.dispatch_table[kind]


@pytest.fixture(scope="session")
def radosgw(request: pytest.FixtureRequest) -> servers.Server:
    """Ceph's S3 gateway."""
    return _shared(request, servers.radosgw)


@pytest.fixture(scope="session")
def azurite(request: pytest.FixtureRequest) -> servers.Server:
    """Azure blobs."""
    return _shared(request, servers.azurite)


@pytest.fixture(scope="session")
def swift(request: pytest.FixtureRequest) -> servers.Server:
    """OpenStack Swift, with its S3 API."""
    return _shared(request, servers.swift)


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest) -> servers.Server:
    """Redis on a Unix socket."""
    return _shared(request, servers.redis)


@pytest.fixture(scope="session")
def gcs_emulator(request: pytest.FixtureRequest) -> servers.Server:
    """The JSON API of GCS; `tests.servers.google` says what it cannot check."""
    return _shared(request, servers.gcs)


@pytest.fixture(scope="session")
def prometheus_server(request: pytest.FixtureRequest) -> servers.Server:
    """Prometheus; `tests.servers.prometheus_server` has `add_target` and `query`."""
    return _shared(request, servers.prometheus)


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """The checker of rules and expositions."""
    try:
        servers.promtool.install()
    except servers.ServerUnavailable as error:
        _missing(error)
    return servers.promtool


@pytest.fixture(scope="session")
def tools() -> servers.Tools:
    """Programs that load file systems."""
    try:
        servers.tools.install()
    except servers.ServerUnavailable as error:
        _missing(error)
    return servers.tools


@pytest.fixture(scope="session")
def bubblewrap() -> None:
    """`bwrap` on the PATH."""
    try:
        servers.bubblewrap.put_on_path()
    except servers.ServerUnavailable as error:
        _missing(error)


@pytest.fixture(scope="session")
def postgresql() -> PostgreSQL:
    """PostgreSQL's programs, for jobs to run."""
    try:
        servers.postgresql.install()
    except servers.ServerUnavailable as error:
        _missing(error)
    return servers.postgresql


@pytest.fixture(scope="session")
def chromium() -> servers.Chromium:
    """A browser to look at pages with; `tests.servers.browser` says how."""
    try:
        servers.chromium.install()
    except servers.ServerUnavailable as error:
        _missing(error)
    return servers.chromium


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begins the run, or joins the one of the process that started this worker."""
    inherited = getattr(config, "workerinput", {}).get("servers")
    config.stash[_RUN] = Run(Path(inherited[0]), inherited[1]) if inherited else Run.begin()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Lets a worker of pytest-xdist join the run."""
    run = node.config.stash[_RUN]
    node.workerinput["servers"] = (str(run.directory), run.owner)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Installs what the chosen tests need beforehand, where no test's time limit runs."""
    if session.config.option.collectonly:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for name in sorted(wanted & _KINDS.keys()):
        try:
            _KINDS[name].install(reporter.write_line if reporter else servers.quiet)
        except servers.ServerUnavailable:
            continue  # the fixture says it where it counts


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the run in the process that began it."""
    run = config.stash.get(_RUN, None)
    if run is not None and run.owner == os.getpid():
        run.end()


def _shared(request: pytest.FixtureRequest, kind: servers.Kind) -> servers.Server:
    try:
        return request.config.stash[_RUN].server(kind)
    except servers.ServerUnavailable as error:
        _missing(error)


def _missing(error: servers.ServerUnavailable) -> NoReturn:
    if are_required():
        pytest.fail(f"{error} (required, because CI or STOWSTORE_REQUIRE_SERVERS is set)", pytrace=False)
    pytest.skip(str(error))
