"""Zip archives: the stated length of a member against what its bytes can unpack to."""

from __future__ import annotations

import zipfile

from withlogits.evaluation.files.errors import BadFile, one_line

# How many times longer the unpacked bytes can be, by the method's own format, with some bytes for very short members.
TIMES = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
OTHERS = 1 << 16  # bzip2 and LZMA
SHORT = 1 << 12


def check_member(name: str, info: zipfile.ZipInfo, archive: int) -> None:
    """Raise `BadFile` if an archive of that many bytes cannot hold a member of these sizes.

    A stream ends at its member's size, so a header that states less reads less, and one that states more is refused
    before any memory is allocated.
    """
    times = TIMES.get(info.compress_type, OTHERS)
    if info.compress_size > archive or info.file_size > times * info.compress_size + SHORT:
        raise BadFile(
            f"{name} is a damaged archive: {one_line(info.filename)} claims {info.file_size:,} bytes, packed into "
            f"{info.compress_size:,} of an archive of {archive:,}"
        )
