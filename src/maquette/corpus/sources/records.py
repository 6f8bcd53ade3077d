"""An archive cut into its records, so that a broken one costs itself and nothing beside it.

Each record is found on its own: a gzip member, a Zstandard frame, or in plain archives a stretch that begins with
`WARC/1.x` and is as long as it says. Where one of these does not hold, the next record is looked for by its first
bytes. Memory is bounded: a record that inflates beyond `LARGEST` is given up and counted.
"""

import dataclasses
import mmap
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import StageError
from maquette.corpus.sources import needed

LARGEST = 64 << 20  # bytes a compressed record may inflate to
_LONGEST_HEADER = 1 << 16
_CHUNK = 1 << 16
_ZSTANDARD_CHUNK = 1 << 11  # a frame may hold ten thousand times its size
_LARGEST_SPILL = 8 << 30

_START = re.compile(rb"WARC/1\.[01]\r?\n[A-Za-z-]+:")  # wherever it stands: a damaged record may lack its end
_LENGTH = re.compile(rb"\nContent-Length:[ \t]*(\d{1,15})[ \t]*\r?\n", re.IGNORECASE)
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_GZIP = re.compile(rb"\x1f\x8b\x08")
_ZSTANDARD = re.compile(rb"\x28\xb5\x2f\xfd")
_DICTIONARY = b"\x5d\x2a\x4d\x18"
_BLANK = b" \t\r\n"

Buffer = Any  # bytes or mmap


@dataclasses.dataclass(frozen=True, slots=True)
class ArchivePart:
    """A record's bytes and where it (or the compressed member with it) begins in the file; `fault` says why it can't
    be read: `broken`, `truncated`, `too large`."""

    offset: int
    data: bytes
    fault: str = ""


def archive_parts(path: Path, start: int = 0, stop: int | None = None) -> Iterator[ArchivePart]:
    """The records of an archive that begin in bytes `start` ... `stop` - 1 of the file, in order.

    Raises `StageError` where the file can't be opened or is no archive at all.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                stop = len(view) if stop is None else min(stop, len(view))
                yield from _of_view(view, start, stop, path)
    except OSError as error:
        raise StageError(f"{path} can't be read: {error.strerror or error}.", "Check the file.") from None


def compression(path: Path) -> str:
    """`gzip`, `zstandard`, or empty: by the file's first bytes, not by its name."""
    with path.open("rb") as file:
        head = file.read(4)
    if head[:3] == b"\x1f\x8b\x08":
        return "gzip"
    return "zstandard" if _ZSTANDARD.match(head) or head == _DICTIONARY else ""


def _of_view(view: mmap.mmap, start: int, stop: int, path: Path) -> Iterator[ArchivePart]:
    kind = compression(path)
    if not kind and view[:5] != b"WARC/":  # the first record is damaged: what are the others?
        kind = "gzip" if _next_member(view, 0, len(view), _GZIP, _inflate_gzip) < len(view) else ""
    if not kind:
        yield from (ArchivePart(start + part.offset, part.data, part.fault) for part in records(view))
        return
    magic, inflate = (_GZIP, _inflate_gzip) if kind == "gzip" else (_ZSTANDARD, _zstandard_inflater(view, path))
    place = _next_member(view, start, stop, magic, inflate)
    if start == 0 and place > 0 and not (kind == "zstandard" and view[:4] == _DICTIONARY):
        yield ArchivePart(0, b"", "broken")
    while place < stop:
        member = _joined(inflate(view, place, LARGEST), view, view[place : place + 4], inflate)
        yield from _of_member(member, view, place, inflate)
        end = member.end
        if member.fault or view[end : end + 4] != view[place : place + 4]:
            next_start = _next_member(view, end if not member.fault else place + 1, len(view), magic, inflate)
            if not member.fault and view[end:next_start].strip(b"\0"):
                yield ArchivePart(end, b"", "broken")
            end = next_start
        place = end


@dataclasses.dataclass(frozen=True, slots=True)
class _CompressedMember:
    """What a compressed member holds, where it ends, and what was wrong with it."""

    data: bytes
    end: int
    fault: str = ""


Inflate = Callable[[mmap.mmap, int, int], _CompressedMember]


def _joined(member: _CompressedMember, view: mmap.mmap, magic: bytes, inflate: Inflate) -> _CompressedMember:
    """Together with the members behind it, where some writer has spread a record over several."""
    while (
        not member.fault
        and len(member.data) < LARGEST
        and view[member.end : member.end + 4] == magic
        and not _is_whole(member.data)
        and not inflate(view, member.end, 256).data.lstrip(_BLANK).startswith(b"WARC/")
    ):
        more = inflate(view, member.end, LARGEST)
        member = _CompressedMember(member.data + more.data, more.end, more.fault)
    return member


def _is_whole(data: bytes) -> bool:
    """Whether a member's first record ends where the member does, or before."""
    header_end = _HEADER_END.search(data, 0, _LONGEST_HEADER)
    length = _LENGTH.search(data, 0, header_end.end()) if header_end else None
    return header_end is None or length is None or header_end.end() + int(length[1]) <= len(data)


def _of_member(member: _CompressedMember, view: mmap.mmap, place: int, inflate: Inflate) -> Iterator[ArchivePart]:
    """The records of one member: as a rule one. The last of a damaged one is not to be trusted."""
    if member.fault == "too large":
        first = next(records(member.data), None)
        if first is None or first.fault:  # one record that inflates without end
            yield ArchivePart(place, member.data[:_LONGEST_HEADER], "too large")
            return
        with tempfile.TemporaryFile() as file:  # a whole archive in one member
            whole = inflate(view, place, _LARGEST_SPILL) if len(member.data) < _LARGEST_SPILL else member
            file.write(whole.data)
            file.flush()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as spilled:
                yield from (ArchivePart(place + part.offset, part.data, part.fault) for part in records(spilled))
        return
    members = list(records(member.data))
    if member.fault and members and not members[-1].fault:
        members[-1] = dataclasses.replace(members[-1], fault=member.fault)
    if not members and member.fault:
        members = [ArchivePart(0, member.data, member.fault)]
    for number, part in enumerate(members):
        # Several records of one member are told apart by their place in it.
        yield ArchivePart(place + (part.offset if number else 0), part.data, part.fault)


def records(buffer: Buffer) -> Iterator[ArchivePart]:
    """The records of plain bytes. Where a record is not as long as it says, the next one is looked for behind its
    header, so a wrong length swallows nothing."""
    place, size = 0, len(buffer)
    while place < size:
        while place < size and buffer[place : place + 1] in (b"\r", b"\n", b" ", b"\t"):
            place += 1
        if place >= size:
            return
        most, fault = _LONGEST_HEADER, "broken"
        header_end = _HEADER_END.search(buffer, place, min(size, place + _LONGEST_HEADER))
        length = _LENGTH.search(buffer, place, header_end.end()) if header_end else None
        if buffer[place : place + 5] != b"WARC/":
            next_place = _next_start(buffer, place)
        elif header_end is None or length is None or _START.search(buffer, place + 5, header_end.end()):
            next_place = _next_start(buffer, place + 5)
            fault = "truncated" if next_place == size and header_end is None else "broken"
        else:
            most, end = LARGEST, header_end.end() + int(length[1])
            if end <= size and _ends_well(buffer, end):
                next_place, fault = end, "too large" if end - place > LARGEST else ""
            else:
                next_place = _next_start(buffer, header_end.end())
                fault = "truncated" if end > size and next_place == size else "broken"
        yield ArchivePart(place, bytes(buffer[place : min(next_place, place + most)]), fault)
        place = next_place


def _ends_well(buffer: Buffer, end: int) -> bool:
    """Whether a record's end stands where its length says, whatever has become of the next one."""
    behind = bytes(buffer[end : end + 64])
    return behind.startswith(b"\r\n\r\n") or not behind.strip(_BLANK) or behind.lstrip(_BLANK).startswith(b"WARC/1.")


def _next_start(buffer: Buffer, place: int) -> int:
    match = _START.search(buffer, place)
    return match.start() if match else len(buffer)


def _next_member(view: mmap.mmap, place: int, stop: int, magic: re.Pattern[bytes], inflate: Inflate) -> int:
    """Where the next member begins that holds a record: its magic bytes alone may stand anywhere by chance."""
    for match in magic.finditer(view, place, min(stop + 3, len(view))):
        if match.start() < stop and inflate(view, match.start(), 256).data.lstrip(_BLANK).startswith(b"WARC/"):
            return match.start()
    return len(view)


def _inflate_gzip(view: mmap.mmap, place: int, limit: int) -> _CompressedMember:
    inflater, data, at = zlib.decompressobj(31), bytearray(), place
    try:
        while not inflater.eof:
            chunk = inflater.unconsumed_tail or view[at : at + _CHUNK]
            if not chunk:
                return _CompressedMember(bytes(data), len(view), "truncated")
            at += 0 if inflater.unconsumed_tail else len(chunk)
            data += inflater.decompress(chunk, limit + 1 - len(data))
            if len(data) > limit:
                return _CompressedMember(bytes(data), at, "too large")
    except zlib.error:
        return _CompressedMember(bytes(data), at, "broken")
    return _CompressedMember(bytes(data), at - len(inflater.unused_data))


def _zstandard_inflater(view: mmap.mmap, path: Path) -> Inflate:
    """Inflates frames, with the dictionary that the archive carries in its first (skippable) frame, if it does."""
    zstandard: Any = needed("zstandard", f"{path} is Zstandard-compressed, which")
    dictionary = None
    if view[:4] == _DICTIONARY:
        (size,) = struct.unpack("<I", view[4:8])
        raw = view[8 : 8 + size]
        if raw[:4] == b"\x28\xb5\x2f\xfd":
            raw = zstandard.ZstdDecompressor().decompressobj().decompress(raw)
        dictionary = zstandard.ZstdCompressionDict(raw)

    def inflate(view: mmap.mmap, place: int, limit: int) -> _CompressedMember:
        inflater, data, at = zstandard.ZstdDecompressor(dict_data=dictionary).decompressobj(), bytearray(), place
        try:
            while not inflater.eof:
                chunk = view[at : at + _ZSTANDARD_CHUNK]
                if not chunk:
                    return _CompressedMember(bytes(data), len(view), "truncated")
                at += len(chunk)
                data += inflater.decompress(chunk)
                if len(data) > limit:
                    return _CompressedMember(bytes(data), at, "too large")
        except zstandard.ZstdError:
            return _CompressedMember(bytes(data), at, "broken")
        return _CompressedMember(bytes(data), at - len(inflater.unused_data))

    return inflate
