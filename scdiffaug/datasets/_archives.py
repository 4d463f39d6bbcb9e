"""Read the files inside of zip and tar archives without writing any of them to disk."""

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO


def members(archive: Path, ending: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Names, without folders, and contents of the files whose names end with ``ending``.

    Names are never used as paths, so none can lead anywhere. One that would lead out of the folder
    it is unpacked in is refused all the same, as it was crafted to do so.

    Raises
    ------
    ValueError
        If a name leads out of the folder, or no file has the ending.
    """
    read = _of_zip if zipfile.is_zipfile(archive) else _of_tar
    found = 0
    for name, stream in read(archive, ending):
        found += 1
        yield PurePosixPath(name).name, stream
    if not found:
        raise ValueError(f"{archive} has no file whose name ends with {ending!r}: fetch it again")


def _of_zip(archive: Path, ending: str) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            _check_name(archive, name)
            if name.endswith(ending):
                yield name, opened.open(name)


def _of_tar(archive: Path, ending: str) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as opened:
        for member in opened:
            _check_name(archive, member.name)
            # A link is left out: only a file has contents of its own.
            stream = opened.extractfile(member) if member.isfile() else None
            if stream is not None and member.name.endswith(ending):
                yield member.name, stream


def _check_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{archive} holds {name!r}, which leads out of its folder: do not use it")
