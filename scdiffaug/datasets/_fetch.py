"""Find the files of a dataset: local mirror, cache, download."""

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from scdiffaug._checks import check_name
from scdiffaug.datasets._registry import Entry, File, registry

_RETRIES = 5


def fetch(
    dataset: str | Entry, *, files: Sequence[str] | None = None, progress: bool = True
) -> dict[str, Path]:
    """Find the files of a dataset, and download those that are not here.

    A file is looked for in the folder ``SCDIFFAUG_DATA_DIR`` first, then in the cache
    (``SCDIFFAUG_CACHE_DIR``, by default the user's cache folder). Every file found is checked
    against its size and checksum in the registry, where these are known. A download that breaks
    off is retried and resumes where it stopped. It enters the cache only when it is complete and
    correct.

    Parameters
    ----------
    dataset
        Name of a dataset, or an entry of :func:`registry`.
    files
        Names of the files; by default those that its loader reads.
    progress
        Show a progress bar on stderr.

    Returns
    -------
    Mapping of file name to path.

    Raises
    ------
    ValueError
        If there is no such dataset or file, or the local mirror has another file of that name.
    FileNotFoundError
        If a file is not here and has no direct download, or the server does not have it.
    OSError
        If a download fails.

    Examples
    --------
    >>> import scdiffaug
    >>> scdiffaug.datasets.fetch("pbmc68k_reduced")
    {}
    """
    known = _wanted(resolve(dataset), files)
    return {file.name: _find(file) or _download(file, progress=progress) for file in known}


def path(dataset: str | Entry, *, files: Sequence[str] | None = None) -> dict[str, Path]:
    """Find the files of a dataset as :func:`fetch` does, and download nothing.

    Parameters
    ----------
    dataset
        Name of a dataset, or an entry of :func:`registry`.
    files
        Names of the files; by default those that its loader reads.

    Returns
    -------
    Mapping of file name to path.

    Raises
    ------
    ValueError
        If there is no such dataset or file, or the local mirror has another file of that name.
    FileNotFoundError
        If a file is not here.

    Examples
    --------
    >>> import scdiffaug
    >>> scdiffaug.datasets.path("pbmc68k_reduced")
    {}
    """
    entry = resolve(dataset)
    wanted = _wanted(entry, files)
    found = {file.name: _find(file) for file in wanted}
    for file in wanted:
        if found[file.name] is None:
            if file.url is None:
                raise _not_here(file)
            raise FileNotFoundError(
                f"{file.name} is not here: run `scdiffaug data fetch {entry.name}`"
            )
    return {name: at for name, at in found.items() if at is not None}


def whereabouts(entry: Entry) -> str:
    """Say what loading a dataset takes; unlike :func:`path`, no file is opened.

    Parameters
    ----------
    entry
        An entry of :func:`registry`.

    Returns
    -------
    ``"here"``, ``"download"`` or, if a file that is not here has no direct download,
    ``"by hand"``.

    Examples
    --------
    >>> import scdiffaug
    >>> entry = scdiffaug.datasets.registry()["pbmc68k_reduced"]
    >>> scdiffaug.datasets.whereabouts(entry)
    'here'
    """
    folders = [folder for folder in (_mirror(), cache_folder() / "files") if folder is not None]
    absent = [
        file
        for file in _wanted(entry, None)
        if not any((folder / file.name).is_file() for folder in folders)
    ]
    if not absent:
        return "here"
    return "by hand" if any(file.url is None for file in absent) else "download"


def cache_folder() -> Path:
    """``SCDIFFAUG_CACHE_DIR``, by default the user's cache folder; benchmarks use it too."""
    # Imported here, as it takes longer than all of `scdiffaug --help`.
    import pooch

    named = os.environ.get("SCDIFFAUG_CACHE_DIR")
    return Path(named).expanduser() if named else Path(pooch.os_cache("scdiffaug"))


def resolve(dataset: str | Entry) -> Entry:
    """The entry of a dataset."""
    if isinstance(dataset, Entry):
        return dataset
    check_name("dataset", dataset)
    entries = registry()
    if dataset not in entries:
        near = get_close_matches(dataset, entries) or list(entries)
        raise ValueError(f"there is no dataset {dataset!r}: choose one of {', '.join(near)}")
    return entries[dataset]


def _wanted(entry: Entry, names: Sequence[str] | None) -> list[File]:
    known = {file.name: file for file in entry.files}
    names = entry.reads if names is None else names
    for name in names:
        if name not in known:
            choice = ", ".join(known) or "none"
            raise ValueError(f"{entry.name} has no file {name!r}: choose one of {choice}")
    return [known[name] for name in names]


def _mirror() -> Path | None:
    named = os.environ.get("SCDIFFAUG_DATA_DIR")
    if not named:
        return None
    if not Path(named).is_dir():
        raise NotADirectoryError(f"SCDIFFAUG_DATA_DIR is {named!r}, which is no folder: change it")
    return Path(named)


def _find(file: File) -> Path | None:
    mirror = _mirror()
    if mirror is not None and (mirror / file.name).is_file():
        return _check(mirror / file.name, file)
    cached = cache_folder() / "files" / file.name
    return cached if cached.is_file() and _flaw(cached, file) is None else None


def _check(at: Path, file: File) -> Path:
    flaw = _flaw(at, file)
    if flaw is not None:
        raise ValueError(f"{at} {flaw}: replace it, or take it out of SCDIFFAUG_DATA_DIR")
    return at


def _flaw(at: Path, file: File) -> str | None:
    import pooch

    size = at.stat().st_size
    if file.size not in {None, size}:
        return f"has {size} bytes, expected {file.size}"
    algorithm, expected = _checksum(file)
    found = pooch.file_hash(str(at), alg=algorithm) if expected else None
    return None if found == expected else f"has {algorithm} {found}, expected {expected}"


def _checksum(file: File) -> tuple[str, str | None]:
    return ("sha256", file.sha256) if file.sha256 or not file.md5 else ("md5", file.md5)


def _not_here(file: File) -> FileNotFoundError:
    return FileNotFoundError(
        f"{file.name} is not here and has no direct download ({file.note}): put it into a folder "
        "and set SCDIFFAUG_DATA_DIR to that folder"
    )


def _download(file: File, *, progress: bool) -> Path:
    from filelock import FileLock

    if file.url is None:
        raise _not_here(file)
    # Whatever happens, only complete and checked files enter the folder of files.
    aside, place = cache_folder() / "partial", cache_folder() / "files" / file.name
    for folder in (aside, place.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(aside / f"{file.name}.lock"):
        # Another process may have been faster.
        if _find(file) is None:
            _download_to(aside, file, progress=progress).replace(place)
    return place


def _download_to(folder: Path, file: File, *, progress: bool) -> Path:
    import pooch
    from requests import RequestException

    from scdiffaug.datasets._resume import Resuming

    algorithm, digest = _checksum(file)
    fetcher = pooch.create(
        path=folder,
        base_url="",
        registry={file.name: f"{algorithm}:{digest}" if digest else None},
        urls={file.name: file.url},
        retry_if_failed=_RETRIES,
    )
    resuming = Resuming(folder / f"{file.name}.part", size=file.size, progress=progress)
    try:
        return Path(fetcher.fetch(file.name, downloader=resuming))
    except FileNotFoundError as error:
        raise FileNotFoundError(_failure(file, error)) from error
    except (RequestException, ValueError) as error:
        raise OSError(_failure(file, error)) from error


def _failure(file: File, error: Exception) -> str:
    why = str(error).rstrip(".")
    return (
        f"cannot download {file.name} from {file.url}: {why}; try again later, or put the file "
        "into a folder and set SCDIFFAUG_DATA_DIR to that folder"
    )
