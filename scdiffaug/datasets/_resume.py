"""A downloader for pooch that resumes where the last one stopped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from requests import Response

_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 18


class Resuming:
    """Download to a partial file, and hand it over to pooch only when it is complete.

    Parameters
    ----------
    part
        The partial file, kept when the download breaks off. The version of the whole file (the
        server's ``ETag`` or ``Last-Modified``) is kept beside it; without one, the download
        starts again from the beginning.
    size
        Bytes of the whole file, if known.
    progress
        Show a progress bar on stderr.
    """

    def __init__(self, part: Path, *, size: int | None, progress: bool) -> None:
        self._part = part
        self._version = part.with_name(f"{part.name}.version")
        self._size = size
        self._progress = progress

    # The signature is pooch's.
    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download ``url`` to ``output_file``."""
        import requests

        headers = self._request_headers()
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            start = self._check_answer(response)
            total = self._check_total(response, start)
            self._receive(response, start=start, total=total)
        self._check_received(total)
        self._part.replace(output_file)
        self._version.unlink(missing_ok=True)

    def _request_headers(self) -> dict[str, str]:
        # A compressed answer would have another length and other byte positions.
        headers = {"Accept-Encoding": "identity"}
        if self._part.is_file() and self._version.is_file():
            headers["Range"] = f"bytes={self._part.stat().st_size}-"
            headers["If-Range"] = self._version.read_text(encoding="utf-8")
        return headers

    def _check_answer(self, response: "Response") -> int:
        """Check the answer, and return the position of its first byte."""
        import requests

        code = response.status_code
        if code in {401, 403, 404, 410}:
            # Not one of the errors that pooch retries: asking again changes nothing.
            raise FileNotFoundError(f"the server answered {code} {response.reason}")
        if code == 206:
            return self._check_range(response)
        if code != 200 or "text/html" in response.headers.get("Content-Type", ""):
            self._forget()
            raise requests.HTTPError(f"the server answered {code} {response.reason}, not the file")
        return 0

    def _check_range(self, response: "Response") -> int:
        start = self._part.stat().st_size
        answered = response.headers.get("Content-Range", "")
        if not answered.startswith(f"bytes {start}-"):
            self._forget()
            raise ValueError(f"asked for the bytes from {start}, the server sent {answered!r}")
        return start

    def _check_total(self, response: "Response", start: int) -> int | None:
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        if self._size is not None and total not in {None, self._size}:
            self._forget()
            raise ValueError(f"the server has {total} bytes, expected {self._size}")
        # The last chunk of a chunked answer says that it is the last: no length is needed.
        if total is None and self._size is None and "Transfer-Encoding" not in response.headers:
            raise ValueError("neither server nor registry says how long the file is")
        return total or self._size

    def _receive(self, response: "Response", *, start: int, total: int | None) -> None:
        if start == 0:
            self._remember(response)
        with (
            self._part.open("ab" if start else "wb") as file,
            _bar(self._part.stem, start, total if self._progress else -1) as advance,
        ):
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                file.flush()
                advance(len(chunk))

    def _check_received(self, total: int | None) -> None:
        received = self._part.stat().st_size
        if total is not None and received != total:
            if received > total:
                self._forget()
            raise ValueError(f"{received} of {total} bytes arrived")

    def _remember(self, response: "Response") -> None:
        tag = response.headers.get("ETag", "")
        # A weak tag says that the meaning is the same, not the bytes.
        version = response.headers.get("Last-Modified") if tag.startswith("W/") else tag
        version = version or response.headers.get("Last-Modified")
        self._forget()
        if version:
            self._version.write_text(version, encoding="utf-8")

    def _forget(self) -> None:
        self._version.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)


@contextmanager
def _bar(name: str, start: int, total: int | None) -> Iterator[Callable[[int], Any]]:
    """Progress bar in bytes on stderr; none where ``total`` is negative."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    hidden = total is not None and total < 0
    with progress.Progress(*columns, console=Console(stderr=True), disable=hidden) as bar:
        task = bar.add_task(name, total=total, completed=start)
        yield lambda count: bar.advance(task, count)
