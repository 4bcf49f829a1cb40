"""Zip archives: what a member claims to unpack to, held against what its bytes can give."""

from __future__ import annotations

import zipfile

from withlogits.evaluation.files.errors import BadFile, one_line

# How many times longer the unpacked bytes can be, by the method's own format, with some bytes for very short members.
TIMES = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
OTHERS = 1 << 16  # bzip2 and LZMA
SHORT = 1 << 12


def check_member(name: str, info: zipfile.ZipInfo, archive: int) -> None:
    """A member's sizes can be true in an archive of that many bytes.

    The sizes bound what is read: a stream ends at its member's size, so that a header that wants less reads less, and
    one that wants more is refused before a byte of memory is asked for.
    """
    times = TIMES.get(info.compress_type, OTHERS)
    if info.compress_size > archive or info.file_size > times * info.compress_size + SHORT:
        raise BadFile(
            f"{name} is a damaged archive: {one_line(info.filename)} claims {info.file_size:,} bytes, packed into "
            f"{info.compress_size:,} of an archive of {archive:,}"
        )
