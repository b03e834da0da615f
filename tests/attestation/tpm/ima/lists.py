"""A kernel that measures: makes lists in both forms and the PCR 10 that they lead to, honest or not.

Written from the kernel's sources, apart from the product's own reader.
"""

import hashlib
import struct
from dataclasses import dataclass, field, replace

from attestation.tpm.ima.appraise import ImaSubject
from attestation.tpm.ima.policy import PLAIN, CompiledPolicy, ImaFiles, compile_policy
from attestation.tpm.ima.progress import ImaProgress

SHA1, SHA256, SHA384, SHA512 = 0x0004, 0x000B, 0x000C, 0x000D
BANKS = {SHA1: "sha1", SHA256: "sha256", SHA384: "sha384", SHA512: "sha512"}
BOOT = b"boot-1"
BOOT_PCRS = {index: hashlib.sha256(b"boot pcr %d" % index).digest() for index in range(10)}
AGGREGATE = hashlib.sha256(b"".join(BOOT_PCRS.values())).digest()
INIT, SHELL, LIBRARY = b"/init", b"/usr/bin/sh", b"/usr/lib/x86_64-linux-gnu/libc.so.6"


def sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def sized(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


@dataclass(frozen=True)
class Item:
    """What is measured. ``template_digest`` is what the list says, when that is not what it should."""

    name: bytes
    digest: bytes
    template: bytes = b"ima-ng"
    algorithm: bytes = b"sha256"
    extra: bytes = b""
    more: tuple[bytes, ...] = ()
    pcr: int = 10
    violation: bool = False
    template_digest: bytes | None = None

    @property
    def data(self) -> bytes:
        """The template data: what is hashed."""
        if self.template == b"ima":
            return self.digest + self.name.ljust(256, b"\0")
        head = sized(self.algorithm + b":\0" + self.digest) + sized(self.name + b"\0")
        return head + b"".join(map(sized, self.fields))

    @property
    def fields(self) -> tuple[bytes, ...]:
        """The fields after the name."""
        if self.template in (b"ima-sig", b"ima-sigv2", b"ima-buf"):
            return (self.extra,)
        if self.template == b"ima-modsig":
            return (self.extra, *(self.more or (b"", b"")))
        return ()

    @property
    def listed(self) -> bytes:
        """The template digest as the list has it."""
        if self.template_digest is not None:
            return self.template_digest
        return bytes(20) if self.violation else sha1(self.data)

    def line(self) -> bytes:
        """One line of the ascii list, with its end."""
        first = self.digest.hex() if self.template == b"ima" else f"{self.algorithm.decode()}:{self.digest.hex()}"
        words = [b"%2d" % self.pcr, self.listed.hex().encode(), self.template, first.encode(), self.name]
        for number, data in enumerate(self.fields):
            named, _, digest = data.partition(b":\0")
            is_digest = number == 1 and data
            words.append(named + b":" + digest.hex().encode() if is_digest else data.hex().encode())
        return b" ".join(words) + b"\n"

    def raw(self) -> bytes:
        """One entry of the binary list."""
        head = struct.pack("<I20s", self.pcr, self.listed) + sized(self.template)
        if self.template == b"ima":
            return head + self.digest + sized(self.name)
        return head + sized(self.data)

    def extends(self, bank: int, extension: str) -> bytes:
        """What the kernel extends into PCR 10."""
        size = hashlib.new(BANKS[bank]).digest_size
        if self.violation:
            return (b"\xff" * 20).ljust(size, b"\0") if extension == "padded" else b"\xff" * size
        if extension == "hashed" or bank == SHA1:
            return hashlib.new(BANKS[bank], self.data).digest()
        return sha1(self.data).ljust(size, b"\0")


def item(name: bytes, content: bytes | None = None, **more: object) -> Item:
    """A file whose content is ``content``, or its name."""
    return replace(Item(name, sha256(name if content is None else content)), **more)  # type: ignore[arg-type]


def violation(name: bytes, **more: object) -> Item:
    """The kernel lost sight of a file."""
    return replace(Item(name, bytes(32), violation=True), **more)  # type: ignore[arg-type]


def buffer(name: bytes, data: bytes, **more: object) -> Item:
    """A buffer, as it is measured with the template ima-buf."""
    made = Item(name, sha256(data), template=b"ima-buf", extra=data)
    return replace(made, **more)  # type: ignore[arg-type]


AGGREGATED = Item(b"boot_aggregate", AGGREGATE)
FILES = (item(INIT), item(SHELL), item(LIBRARY))


@dataclass
class Host:
    """A host: what it has measured, and what its TPM says of it."""

    items: list[Item] = field(default_factory=lambda: [AGGREGATED, *FILES])
    bank: int = SHA256
    extension: str = "hashed"
    boot: bytes = BOOT

    def pcr(self, count: int | None = None) -> bytes:
        """PCR 10 after ``count`` entries, or all of them."""
        hashed = BANKS[self.bank]
        value = bytes(hashlib.new(hashed).digest_size)
        for measured in self.items[:count]:
            value = hashlib.new(hashed, value + measured.extends(self.bank, self.extension)).digest()
        return value

    def ascii(self, start: int = 0, stop: int | None = None) -> bytes:
        return b"".join(measured.line() for measured in self.items[start:stop])

    def binary(self, start: int = 0, stop: int | None = None) -> bytes:
        return b"".join(measured.raw() for measured in self.items[start:stop])

    def subject(self, **more: object) -> ImaSubject:
        """What a verifier knows: an honest quote after all entries."""
        made = ImaSubject(
            boot=self.boot, bank=self.bank, quoted=self.pcr(), start=0, aggregates={(b"sha256", AGGREGATE)}
        )
        return replace(made, **more)  # type: ignore[arg-type]

    def begin(self, policy: CompiledPolicy) -> ImaProgress:
        return ImaProgress.begin(boot=self.boot, bank=self.bank, policy=policy.digest)


LISTED = replace(PLAIN, files=(ImaFiles.of("sha256", {(made.name, made.digest) for made in FILES}),))


def compiled(**changes: object) -> CompiledPolicy:
    """The policy that lists :data:`FILES`, changed."""
    return compile_policy(replace(LISTED, **changes))  # type: ignore[arg-type]
