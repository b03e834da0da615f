"""Files that reference values are made of: measurement lists, root file systems, Debian packages.

Of images and packages those files are taken that a kernel measures before it runs them: whatever is executable, shared
libraries, kernel modules and firmware; with ``everything`` all regular files, as ``ima_policy=tcb`` also measures what
root reads. Digests are SHA-256 of the content. A path is written as IMA writes it, with "_" for each space (Linux,
security/integrity/ima/ima_template_lib.c, ima_write_template_field_data).

A host with merged directories measures ``/usr/lib/...`` what an older package ships as ``/lib/...``: the kernel names
files by their real path. Both are listed, so that the reference holds on either.
"""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import re
import shutil
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from typing_extensions import override

from attestation.errors import InterlockError, Malformed
from attestation.tpm.ima.measurements import MAX_LIST
from verifier.refs.listing import Listing, listed

_CHUNK: Final = 1 << 20
_ALGORITHM: Final = "sha256"
_EXECUTABLE: Final = 0o111
_LIBRARY: Final = re.compile(rb"\.so(\.[0-9.]+)?$|\.ko(\.(xz|zst|gz))?$")
_FIRMWARE: Final = b"/lib/firmware/"
_MERGED: Final = re.compile(rb"^/(bin|sbin|lib|lib32|lib64|libx32|libo32)/")
_AR: Final = b"!<arch>\n"
_AR_HEADER: Final = 60
_PACKED: Final[Mapping[bytes, Callable[[Any], Any]]] = {
    b"data.tar": contextlib.nullcontext,
    b"data.tar.gz": lambda file: gzip.GzipFile(fileobj=file),
    b"data.tar.bz2": bz2.BZ2File,
    b"data.tar.xz": lzma.LZMAFile,
    b"data.tar.lzma": lzma.LZMAFile,
}
_BY_TOOL: Final = (b"data.tar.zst",)


def from_list(path: Path) -> Listing:
    """What a measurement list shows. Raises ``Malformed("ref.source")``, and what reading its entries raises."""
    try:
        if path.stat().st_size > MAX_LIST:
            raise Malformed("ref.source", f"{path} is larger than {MAX_LIST} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise Malformed("ref.source", str(error)) from error
    try:
        return listed(data)
    except InterlockError as error:
        raise type(error)(error.reason, f"{path}: {error.detail}") from error


def from_image(root: Path, *, everything: bool = False) -> Listing:
    """The files of a root file system below ``root``. Links are not followed: the kernel names what they lead to.

    Raises ``Malformed("ref.source")``.
    """
    found = Listing()
    top = os.fsencode(root.absolute())
    if not root.is_dir():
        raise Malformed("ref.source", f"{root} is no directory")
    try:
        for directory, folders, files in os.walk(top, onerror=_raise):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(directory, name)  # noqa: PTH118 - bytes: names need not be UTF-8
                status = os.lstat(path)
                if not stat.S_ISREG(status.st_mode):
                    continue
                shown = path[len(top.rstrip(b"/")) :]
                if everything or _is_measured(shown, status.st_mode):
                    with open(path, "rb") as file:  # noqa: PTH123 - bytes
                        found.file(_ALGORITHM, _named(shown), _digest(file))
                else:
                    found.skipped["not executable"] += 1
    except OSError as error:
        raise Malformed("ref.source", str(error)) from error
    return found


def from_package(path: Path, *, everything: bool = False) -> Listing:
    """The files of a Debian package. Raises ``Malformed("ref.source")``."""
    found = Listing()
    digests: dict[str, bytes] = {}
    try:
        with _data_of(path) as data, tarfile.open(fileobj=data, mode="r|") as archive:
            for member in archive:
                if not (member.isreg() or member.islnk()):
                    continue
                if member.islnk():
                    digest = digests.get(_plain(member.linkname))
                else:
                    file = archive.extractfile(member)
                    digest = digests[_plain(member.name)] = _digest(file) if file is not None else b""
                shown = b"/" + os.fsencode(_plain(member.name))
                if digest is None:
                    raise Malformed("ref.source", f"{path}: {member.name} is a link to what is not there")
                if everything or _is_measured(shown, member.mode):
                    for name in {shown, _MERGED.sub(rb"/usr/\1/", shown)}:
                        found.file(_ALGORITHM, _named(name), digest)
                else:
                    found.skipped["not executable"] += 1
    except (OSError, tarfile.TarError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise Malformed("ref.source", f"{path}: {error}") from error
    return found


def _raise(error: OSError) -> None:
    raise error


def _plain(name: str) -> str:
    """A name in an archive, as in a root file system but for the first slash."""
    return os.path.normpath("/" + name).lstrip("/")


def _named(path: bytes) -> bytes:
    return path.replace(b" ", b"_")


def _is_measured(path: bytes, mode: int) -> bool:
    return bool(mode & _EXECUTABLE) or _FIRMWARE in path or _LIBRARY.search(path) is not None


def _digest(file: IO[bytes]) -> bytes:
    hashed = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        hashed.update(chunk)
    return hashed.digest()


# --- Debian packages (deb(5)): an ar archive of debian-binary, control.tar and data.tar -------------------------------


class _Member(io.RawIOBase):
    """The next ``size`` bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


@contextlib.contextmanager
def _data_of(path: Path) -> Iterator[IO[bytes]]:
    """The file system archive of a package, unpacked; by dpkg-deb where Python cannot."""
    with path.open("rb") as file:
        name, size = _seek_data(file, path)
        unpack = _PACKED.get(name)
        if unpack is not None:
            with unpack(io.BufferedReader(_Member(file, size))) as unpacked:
                yield unpacked
            return
    tool = shutil.which("dpkg-deb")
    if tool is None:
        raise Malformed("ref.source", f"{path}: {name.decode()} needs dpkg-deb, which is not installed")
    with subprocess.Popen([tool, "--fsys-tarfile", str(path)], stdout=subprocess.PIPE) as process:
        if process.stdout is None:
            raise OSError("no output")
        yield process.stdout
        process.stdout.read()
    if process.returncode:
        raise Malformed("ref.source", f"{path}: dpkg-deb ended with {process.returncode}")


def _seek_data(file: IO[bytes], path: Path) -> tuple[bytes, int]:
    """Move to the member that holds the files; its name and size. (ar(5): 60 bytes of header, size at 48.)"""
    if file.read(len(_AR)) != _AR:
        raise Malformed("ref.source", f"{path} is no Debian package")
    while len(header := file.read(_AR_HEADER)) == _AR_HEADER:
        name, size = header[:16].strip().rstrip(b"/"), header[48:58].strip()
        if not size.isdigit() or header[58:] != b"`\n":
            break
        if name in _PACKED or name in _BY_TOOL:
            return name, int(size)
        file.seek(int(size) + int(size) % 2, os.SEEK_CUR)
    raise Malformed("ref.source", f"{path}: no data.tar in it, or packed in a way that is not known")
