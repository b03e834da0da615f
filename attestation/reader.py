"""The one cursor that slices untrusted bytes.

Binary structures (TPM, SPDM, TCG event logs) are read front to back through a `Reader`. Three rules hold everywhere:

1. A read beyond the end is `Malformed(<reason>.truncated)`; nothing is ever padded or shortened.
2. A declared length is used: `sized16` and `take` return exactly that many bytes or refuse.
3. A parser ends with `done()`: bytes left over are `Malformed(<reason>.trailing)`.

`reason` is the family of the structure being read (for example ``tpm.attest``), so a refusal names the format.
"""

from attestation.errors import Malformed


class Reader:
    """A bounds-checked cursor over `data`; `reason` is the code family used in refusals."""

    __slots__ = ("_data", "_position", "_reason")

    def __init__(self, data: bytes, reason: str) -> None:
        self._data = data
        self._position = 0
        self._reason = reason

    @property
    def remaining(self) -> int:
        """The number of bytes not read yet."""
        return len(self._data) - self._position

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes. Raises `Malformed(<reason>.truncated)` when there are fewer."""
        start, end = self._position, self._position + count
        if not start <= end <= len(self._data):
            raise Malformed(
                f"{self._reason}.truncated",
                f"{count} bytes wanted at offset {start}, {self.remaining} left",
            )
        self._position = end
        return self._data[start:end]

    def u8(self) -> int:
        """Read one byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Read a big-endian 16-bit number (TPM 2.0 Part 1, section 4: most significant octet first)."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Read a big-endian 32-bit number."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """Read a big-endian 64-bit number."""
        return int.from_bytes(self.take(8), "big")

    def u16le(self) -> int:
        """Read a little-endian 16-bit number (TCG event logs, SPDM)."""
        return int.from_bytes(self.take(2), "little")

    def u32le(self) -> int:
        """Read a little-endian 32-bit number."""
        return int.from_bytes(self.take(4), "little")

    def sized16(self) -> bytes:
        """Read a big-endian 16-bit length and that many bytes (a TPM2B structure)."""
        return self.take(self.u16())

    def rest(self) -> bytes:
        """Return everything that is left; afterwards `done()` succeeds."""
        return self.take(self.remaining)

    def done(self) -> None:
        """Refuse what is left over. Raises `Malformed(<reason>.trailing)`."""
        if self.remaining:
            raise Malformed(f"{self._reason}.trailing", f"{self.remaining} bytes after offset {self._position}")
