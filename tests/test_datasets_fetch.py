"""Every way a download can fail, made to happen by a server on this machine."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from scdiffaug.benchmark import environments
from scdiffaug.datasets import Entry, File, _resume, fetch, path
from scdiffaug.datasets._fetch import cache_folder

WHOLE = bytes(range(256)) * 40
SHA256 = hashlib.sha256(WHOLE).hexdigest()
HALF = len(WHOLE) // 2


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the next behaviour of the server's plan, the last one for ever."""

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers.get("Range"))
        behave = server.plan.pop(0) if len(server.plan) > 1 else server.plan[0]
        behave(self)

    def answer(self, code: int, **headers: str | int) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


Behaviour = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[Behaviour] = [serve]
        self.asked: list[str | None] = []
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/file"


def serve(request: Handler, content: bytes = WHOLE, tag: str = '"1"') -> None:
    wanted = request.headers.get("Range")
    if wanted and request.headers.get("If-Range") in {None, tag}:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        request.answer(206, ETag=tag, Content_Length=len(content) - start, Content_Range=span)
        request.wfile.write(content[start:])
    else:
        request.answer(200, ETag=tag, Content_Length=len(content))
        request.wfile.write(content)


def truncate(request: Handler) -> None:
    request.answer(200, ETag='"1"', Content_Length=len(WHOLE))
    request.wfile.write(WHOLE[:HALF])


def truncate_untagged(request: Handler) -> None:
    request.answer(200, Content_Length=len(WHOLE))
    request.wfile.write(WHOLE[:HALF])


def stall(request: Handler) -> None:
    truncate(request)
    request.server.released.wait(30)


def redirect(request: Handler) -> None:
    request.answer(302, Location="/elsewhere")


def change(request: Handler) -> None:
    serve(request, WHOLE[::-1], '"2"')


def answer_without_length(request: Handler) -> None:
    request.answer(200)
    request.wfile.write(WHOLE[:HALF])


def answer_another_range(request: Handler) -> None:
    span = f"bytes 0-{HALF - 1}/{len(WHOLE)}"
    request.answer(206, Content_Length=HALF, Content_Range=span)
    request.wfile.write(WHOLE[:HALF])


def show_page(request: Handler) -> None:
    request.answer(200, Content_Type="text/html; charset=utf-8", Content_Length=2)
    request.wfile.write(b"hi")


def refuse(code: int) -> Behaviour:
    return lambda request: request.answer(code, Content_Length=0)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.released.set()
        running.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own, in which afterwards is nothing but the whole file."""
    folder = tmp_path / "cache"
    monkeypatch.delenv("SCDIFFAUG_DATA_DIR", raising=False)
    monkeypatch.setenv("SCDIFFAUG_CACHE_DIR", str(folder))
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(_resume, "_TIMEOUT_S", 1.0)
    monkeypatch.setattr(_resume, "_CHUNK_BYTES", 512)
    yield folder
    files = folder / "files"
    assert all(file.read_bytes() == WHOLE for file in files.glob("*"))


def entry_of(**known: str | int | None) -> Entry:
    nothing = dict.fromkeys(("url", "size", "sha256", "md5"))
    file = File(**{"name": "file", "note": "from far away"} | nothing | known)
    return Entry(
        **{"name": "set", "title": "A set", "organism": None, "assay": None, "note": "of a test"},
        **dict.fromkeys(("n_cells", "n_features", "label_key", "batch_key", "feature_space")),
        **{"licence": None, "citation": None, "loader": "h5ad", "reads": ("file",)},
        files=(file,),
    )


def entry_at(server: Server, **known: str | int | None) -> Entry:
    return entry_of(url=server.url, **{"size": len(WHOLE), "sha256": SHA256} | known)


def fetch_quietly(entry: Entry) -> Path:
    return fetch(entry, progress=False)["file"]


def test_download_comes_into_the_cache_once(server: Server, cache: Path) -> None:
    found = fetch_quietly(entry_at(server))
    assert found == cache / "files" / "file"
    assert found.read_bytes() == WHOLE
    assert fetch_quietly(entry_at(server)) == path(entry_at(server))["file"] == found
    assert len(server.asked) == 1


@pytest.mark.parametrize("broken", [truncate, stall])
def test_broken_download_goes_on_where_it_stopped(server: Server, broken: Behaviour) -> None:
    server.plan = [broken, serve]
    assert fetch_quietly(entry_at(server)).read_bytes() == WHOLE
    assert server.asked == [None, f"bytes={HALF}-"]


def test_download_goes_on_in_a_later_call(server: Server, cache: Path) -> None:
    server.plan = [truncate, refuse(404)]
    with pytest.raises(FileNotFoundError, match="404"):
        fetch_quietly(entry_at(server))
    assert (cache / "partial" / "file.part").stat().st_size == HALF
    server.plan = [serve]
    assert fetch_quietly(entry_at(server)).read_bytes() == WHOLE
    assert server.asked[-1] == f"bytes={HALF}-"
    assert not (cache / "partial" / "file.part").exists()


def test_file_without_a_version_starts_over(server: Server) -> None:
    server.plan = [truncate_untagged, serve]
    assert fetch_quietly(entry_at(server)).read_bytes() == WHOLE
    assert server.asked == [None, None]


def test_file_that_changed_meanwhile_starts_over(server: Server) -> None:
    server.plan = [lambda request: serve_part(request, WHOLE[::-1], '"0"'), serve]
    assert fetch_quietly(entry_at(server, sha256=None)).read_bytes() == WHOLE
    assert server.asked[1] == f"bytes={HALF}-"


def serve_part(request: Handler, content: bytes, tag: str) -> None:
    request.answer(200, ETag=tag, Content_Length=len(content))
    request.wfile.write(content[:HALF])


@pytest.mark.parametrize("odd", [answer_another_range, refuse(416)])
def test_odd_answer_to_going_on_starts_over(server: Server, odd: Behaviour) -> None:
    server.plan = [truncate, odd, serve]
    assert fetch_quietly(entry_at(server, sha256=None)).read_bytes() == WHOLE
    assert server.asked == [None, f"bytes={HALF}-", None]


def test_redirect_is_followed(server: Server) -> None:
    server.plan = [redirect, serve]
    assert fetch_quietly(entry_at(server)).read_bytes() == WHOLE


def test_endless_redirect_is_an_error(server: Server) -> None:
    server.plan = [redirect]
    with pytest.raises(OSError, match=r"cannot download file .*30 redirects"):
        fetch_quietly(entry_at(server))


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (truncate_untagged, "cannot download file from http.*SCDIFFAUG_DATA_DIR"),
        (stall, "timed out"),
        (change, f"expected sha256:{SHA256}"),
        (refuse(503), "503"),
        (refuse(202), "202 Accepted, not the file"),
        (show_page, "not the file"),
    ],
)
def test_lasting_failure_leaves_nothing_in_the_cache(
    server: Server, cache: Path, behaviour: Behaviour, message: str
) -> None:
    server.plan = [behaviour]
    with pytest.raises(OSError, match=message):
        fetch_quietly(entry_at(server))
    assert len(server.asked) == 6
    assert list((cache / "files").iterdir()) == []


def test_wrong_md5_is_refused(server: Server) -> None:
    with pytest.raises(OSError, match=r"(?i)md5 hash .* does not match"):
        fetch_quietly(entry_at(server, sha256=None, md5="0" * 32))


def test_wrong_bytes_then_right_ones(server: Server) -> None:
    server.plan = [change, serve]
    assert fetch_quietly(entry_at(server)).read_bytes() == WHOLE


def test_wrong_size_is_refused_before_the_download(server: Server, cache: Path) -> None:
    with pytest.raises(OSError, match=f"the server has {len(WHOLE)} bytes, expected 5"):
        fetch_quietly(entry_at(server, size=5))
    assert not list((cache / "partial").glob("file.part*"))


def test_file_of_unknown_length_is_refused(server: Server) -> None:
    server.plan = [answer_without_length]
    with pytest.raises(OSError, match="how long the file is"):
        fetch_quietly(entry_at(server, size=None, sha256=None))
    with pytest.raises(OSError, match=f"{HALF} of {len(WHOLE)} bytes"):
        fetch_quietly(entry_at(server, sha256=None))


def test_server_that_goes_away(server: Server) -> None:
    def leave(request: Handler) -> None:
        truncate(request)
        server.socket.close()

    server.plan = [leave]
    with pytest.raises(OSError, match="cannot download file"):
        fetch_quietly(entry_at(server))
    assert len(server.asked) == 1


def test_nothing_is_in_the_cache_while_bytes_arrive(server: Server, cache: Path) -> None:
    seen = []

    def look(request: Handler) -> None:
        request.answer(200, ETag='"1"', Content_Length=len(WHOLE))
        request.wfile.write(WHOLE[:HALF])
        request.wfile.flush()
        while not list((cache / "partial").glob("file.part")):
            time.sleep(0.01)
        seen.append(list((cache / "files").iterdir()))
        request.wfile.write(WHOLE[HALF:])

    server.plan = [look]
    fetch_quietly(entry_at(server))
    assert seen == [[]]


def test_killed_download_leaves_nothing_in_the_cache(server: Server, cache: Path) -> None:
    server.plan = [stall]
    code = (
        "from scdiffaug.datasets import Entry, File, _resume, fetch; _resume._CHUNK_BYTES = 512;"
        f"fetch({entry_at(server)!r}, progress=False)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as run:
        part = cache / "partial" / "file.part"
        while run.poll() is None and not (part.exists() and part.stat().st_size >= HALF - 512):
            time.sleep(0.02)
        # As the system does when memory runs out: nothing of the process can tidy up.
        run.kill()
    assert list((cache / "files").iterdir()) == []
    server.plan = [serve]
    assert fetch_quietly(entry_at(server)).read_bytes() == WHOLE
    assert server.asked[-1] is not None


def test_damaged_file_in_the_cache_is_downloaded_again(server: Server) -> None:
    at = fetch_quietly(entry_at(server))
    at.write_bytes(WHOLE[:HALF])
    with pytest.raises(FileNotFoundError, match="scdiffaug data fetch set"):
        path(entry_at(server))
    assert fetch_quietly(entry_at(server)).read_bytes() == WHOLE


def test_two_at_once_download_once(server: Server) -> None:
    threads = [threading.Thread(target=fetch_quietly, args=(entry_at(server),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1


def test_mirror_is_looked_at_first(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(WHOLE)
    monkeypatch.setenv("SCDIFFAUG_DATA_DIR", str(tmp_path))
    assert fetch_quietly(entry_at(server)) == tmp_path / "file"
    assert server.asked == []


@pytest.mark.parametrize(
    ("known", "flaw"),
    [
        ({"size": 5}, f"has {len(WHOLE)} bytes, expected 5"),
        ({"sha256": "0" * 64}, f"has sha256 {SHA256}, expected 0+"),
        ({"md5": "0" * 32, "sha256": None}, "has md5 [0-9a-f]+, expected 0+"),
    ],
)
def test_wrong_file_in_the_mirror_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: dict[str, str | int], flaw: str
) -> None:
    (tmp_path / "file").write_bytes(WHOLE)
    monkeypatch.setenv("SCDIFFAUG_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=f"{flaw}: replace it"):
        fetch_quietly(entry_of(**{"sha256": SHA256} | known))


def test_mirror_that_is_no_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDIFFAUG_DATA_DIR", os.devnull)
    with pytest.raises(NotADirectoryError, match="SCDIFFAUG_DATA_DIR is '/dev/null'"):
        fetch_quietly(entry_of())


def test_file_without_a_download_says_where_it_comes_from() -> None:
    with pytest.raises(FileNotFoundError, match=r"\(from far away\).*SCDIFFAUG_DATA_DIR"):
        fetch_quietly(entry_of())


def test_unknown_names_are_refused(server: Server) -> None:
    with pytest.raises(ValueError, match="no dataset 'pbmc3': choose one of pbmc3k"):
        fetch("pbmc3")
    with pytest.raises(ValueError, match="set has no file 'other': choose one of file"):
        fetch(entry_at(server), files=["other"])


def test_progress_goes_to_stderr(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    fetch(entry_at(server))
    shown = capfd.readouterr()
    assert "100%" in shown.err or "10.2/10.2 kB" in shown.err
    assert shown.out == ""


def test_default_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCDIFFAUG_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "scdiffaug"


def test_benchmarks_are_remembered_in_the_same_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCDIFFAUG_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert environments.cache_folder() == tmp_path / "elsewhere" / "benchmark"
    assert environments.cache_folder(tmp_path / "named") == tmp_path / "named"
