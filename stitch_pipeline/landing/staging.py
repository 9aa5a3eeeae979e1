"""Links and copies in a scratch directory, for files that DuckDB cannot read as they are.

Belongs here: what is decided from a file's name and bytes. DuckDB takes ``*``, ``?`` and ``[`` in a name as a pattern,
cannot be given a name that is not UTF-8, decodes no UTF-16 with characters beyond the first plane or with its high
bytes first, refuses a CSV file that mixes ends of lines, and does not notice a damaged gzip stream.
"""

from __future__ import annotations

import codecs
import errno
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from stitch_pipeline.landing.landed_file import LandedFile, UnreadableFile

_CHUNK_BYTES = 1 << 20
_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_NOT_UTF8 = b"\xff"


def stage(file: LandedFile, place: Path) -> LandedFile:
    """The file as the reader can open it, with a link or a copy at ``place`` if that is needed.

    Raises UnreadableFile if the file cannot be read.
    """
    if file.problem is not None:
        raise UnreadableFile(file.problem)
    with _unreadable():
        wide = None if file.file_type == ".parquet" else _utf16_of(file)
        if wide is None and not (file.is_delimited and _mixes_ends_of_lines(file)):
            if not _is_pattern(str(file.path)):
                return file
            link = place.with_suffix(".gz" if file.is_compressed else "")
            link.symlink_to(file.path)
            return replace(file, staged=link)
        with place.open("wb") as copy:
            for chunk in _as_utf8(file, wide):
                copy.write(chunk)
        return replace(file, staged=place, encoding="utf-8")


def verify(file: LandedFile) -> None:
    """Raise UnreadableFile if the file is compressed and its checksums are wrong."""
    if file.is_compressed:
        with _unreadable():
            for _ in _chunks(file):
                pass


@contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # there is no room for the copy: not the file's fault
        raise UnreadableFile(f"it cannot be read to its end ({_without_path(error)})") from error


def _without_path(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in "*?[") or (not path.isascii() and _is_not_utf8(path))


def _is_not_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return True
    return False


def _chunks(file: LandedFile) -> Iterator[bytes]:
    with file.open() as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _utf16_of(file: LandedFile) -> str | None:
    """The codec of a file in UTF-16; None if it is in another encoding."""
    with file.open() as stream:
        mark = stream.read(2)
    return _MARKS.get(mark) or ("utf-16-le" if file.encoding == "utf-16" else None)


def _mixes_ends_of_lines(file: LandedFile) -> bool:
    """Whether lines end in more than one way, or as on old Macs."""
    windows, unix, mac = 0, 0, 0
    ends_with_return = False
    for chunk in _chunks(file):
        both = chunk.count(b"\r\n") + (ends_with_return and chunk.startswith(b"\n"))
        ends_with_return = chunk.endswith(b"\r")
        windows += both
        unix += chunk.count(b"\n") - both
        mac += chunk.count(b"\r") - both
    # The count of `mac` is right at the end only: a chunk may end between the two characters.
    return mac > 0 or (windows > 0 and unix > 0)


def _as_utf8(file: LandedFile, wide: str | None) -> Iterator[bytes]:
    """The contents in UTF-8; of a delimited file with equal ends of lines.

    What is no text becomes bytes that are not UTF-8, so that the reader refuses the line.
    """
    decoder = codecs.getincrementaldecoder(wide)(errors="surrogatepass") if wide else None
    is_latin, is_first, held = file.encoding == "latin-1", True, b""
    for chunk in _chunks(file):
        if decoder is not None:
            text = decoder.decode(chunk)
            chunk = (text.removeprefix("\ufeff") if is_first else text).encode("utf-8", "surrogatepass")
        elif is_latin:
            chunk = chunk.decode("latin-1").encode()
        is_first = False
        if file.is_delimited:
            chunk = held + chunk
            held = b"\r" if chunk.endswith(b"\r") else b""
            chunk = chunk.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield chunk
    if held:
        yield b"\n"
    if decoder is not None and decoder.getstate()[0]:
        yield _NOT_UTF8
