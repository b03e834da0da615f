"""What the product finds in one device's evidence, check by check, each by itself.

An appraisal stops at the first check that fails. Here every check is made, so that a case can state them all: what was
sent but is not believed (a chain that is refused) is read as well, and says so by being read from ``Seen.sent``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from attestation.errors import InterlockError, Malformed
from attestation.gpu.device import Device, read_chain, verify_device, verify_fwid, verify_signature
from attestation.gpu.dice import COMPOSITE, TCB_INFO, read_dice, read_name
from attestation.gpu.opaque import NVDEC0, PPCIE
from attestation.gpu.path import PARSING, read_certificate
from attestation.gpu.report import GPU, SWITCH, Report
from attestation.gpu.rim import driver_rim_id, vbios_rim_id
from attestation.keys import PublicKey
from tools.evidence.case import Roots, Subject

T = TypeVar("T")
FIXED = 175
"""Bytes of a report beside the record and the opaque data."""


@dataclass(frozen=True)
class Seen:
    """One device's evidence before our functions: everything is made when it is asked for, once."""

    subject: Subject
    roots: Roots
    at: datetime

    @cached_property
    def report(self) -> Report | InterlockError:
        """The parsed report, or why it is none."""
        if self.subject.report is None:
            return Malformed("gpu.record", "the case has no report")
        return _caught(lambda: Report.from_bytes(self.subject.report or b"", kind=self.subject.kind))

    @cached_property
    def device(self) -> Device | InterlockError:
        """The verified device, or why it is none."""
        return _caught(lambda: verify_device(self.subject.chain or b"", self.roots.device, at=self.at))

    @cached_property
    def sent(self) -> tuple[x509.Certificate, ...]:
        """The certificates as sent, believed or not; of every kind of key, so not as the product reads them."""
        try:
            return tuple(x509.load_der_x509_certificate(der) for der in read_chain(self.subject.chain or b""))
        except PARSING as error:
            raise Malformed("gpu.chain.certificate", str(error)) from error

    @property
    def read(self) -> Report:
        """The report; raises why it is none."""
        return _raised(self.report)

    @property
    def known(self) -> Device:
        """The device; raises why it is none."""
        return _raised(self.device)


def _caught(make: Callable[[], T]) -> T | InterlockError:
    try:
        return make()
    except InterlockError as error:
        return error


def _raised(found: T | InterlockError) -> T:
    if isinstance(found, InterlockError):
        raise found
    return found


# --- the fields of a case --------------------------------------------------------------------------------------------


def signature_valid(seen: Seen) -> bool:
    """Whether the key of the first certificate, believed or not, has signed the report."""
    try:
        if isinstance(seen.device, Device):
            verify_signature(seen.read, seen.device)
        else:
            leaf = read_certificate(read_chain(seen.subject.chain or b"")[0])
            PublicKey.from_spki(leaf.spki).verify(seen.read.signed, seen.read.signature)
    except InterlockError:
        return False
    return True


def links_valid(seen: Seen) -> list[bool]:
    """Whether each certificate, as sent, is issued by the next one."""
    return [_issued(below, above) for below, above in zip(seen.sent, seen.sent[1:], strict=False)]


def _issued(below: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def root_is_pinned(seen: Seen) -> bool:
    """Whether the last certificate sent is one of the anchors."""
    return read_chain(seen.subject.chain or b"")[-1] in {anchor.der for anchor in seen.roots.device}


def fwid(seen: Seen) -> str:
    """``match``, ``mismatch`` or ``absent_in_report``."""
    if isinstance(seen.device, Device):
        try:
            return "match" if verify_fwid(seen.read, seen.device, required=False) else "absent_in_report"
        except InterlockError as error:
            return error.reason.removeprefix("gpu.fwid.")
    stated = seen.read.opaque.fwid
    if stated is None:
        return "absent_in_report"
    try:
        known = read_dice(read_certificate(read_chain(seen.subject.chain or b"")[0])).fwid
    except InterlockError:
        return "mismatch"
    return "match" if stated == known else "mismatch"


def fwid_extension(seen: Seen) -> str | None:
    """The OID of the leaf's DICE extension."""
    found = [e.oid for e in seen.sent[0].extensions if e.oid in {COMPOSITE, TCB_INFO}]
    return found[0].dotted_string if found else None


def device_san(seen: Seen) -> str | None:
    """The device's name; from the leaf as sent where the chain is refused."""
    if isinstance(seen.device, Device):
        return seen.device.san
    found = _caught(lambda: read_name(read_certificate(read_chain(seen.subject.chain or b"")[0]))[0])
    return None if isinstance(found, InterlockError) else found


def brom_serial(seen: Seen) -> str | None:
    """The serial number in the subject of the BROM certificate, as sent."""
    for certificate in seen.sent:
        names = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        if names and names[0].endswith("BROM"):
            return str(certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value)
    return None


def _opaque_hex(number: int) -> Callable[[Seen], str | None]:
    def read(seen: Seen) -> str | None:
        value = seen.read.opaque.fields.get(number)
        return None if value is None else value.hex()

    return read


def _upper(text: str | None) -> str | None:
    return None if text is None else text.upper()


def architecture(seen: Seen) -> str:
    """HOPPER, BLACKWELL or LS10: from the verified device, else from the chip named in the certificates sent."""
    if isinstance(seen.device, Device):
        return seen.device.architecture
    names = " ".join(certificate.subject.rfc4514_string() for certificate in seen.sent)
    known = {"GH100": "HOPPER", "GB100": "BLACKWELL", "LS_10": "LS10"}
    return next((arch for chip, arch in known.items() if f"{chip} " in names), _by_report(seen))


def _by_report(seen: Seen) -> str:
    """Where only a root was sent: protected PCIe is Hopper's, system enable status Blackwell's."""
    if seen.subject.kind == SWITCH:
        return "LS10"
    return "HOPPER" if PPCIE in seen.read.opaque.fields else "BLACKWELL"


@dataclass(frozen=True)
class _Named:
    """As much of a device as the names of its RIMs need."""

    kind: str
    architecture: str


def _rim_id(make: Callable[[Report, Any], str]) -> Callable[[Seen], str | None]:
    def read(seen: Seen) -> str | None:
        device = seen.device
        return make(seen.read, device if isinstance(device, Device) else _Named(seen.subject.kind, architecture(seen)))

    return read


FIELDS: Mapping[str, Callable[[Seen], Any]] = {
    "arch": architecture,
    "device_type": lambda seen: {GPU: "gpu", SWITCH: "nvswitch"}[seen.subject.kind],
    "report_len": lambda seen: len(seen.read.signed) + len(seen.read.signature),
    "nonce": lambda seen: seen.read.nonce.hex(),
    "blocks": lambda seen: len(seen.read.blocks),
    "L1": lambda seen: 55 * len(seen.read.blocks),
    "L2": lambda seen: len(seen.subject.report or b"") - FIXED - 55 * len(seen.read.blocks),
    "driver_version": lambda seen: seen.read.opaque.driver,
    "vbios_version": lambda seen: seen.read.opaque.vbios,
    "project": lambda seen: seen.read.opaque.project,
    "project_sku": lambda seen: seen.read.opaque.project_sku,
    "chip_sku": lambda seen: seen.read.opaque.chip_sku,
    "nvdec0": _opaque_hex(NVDEC0),
    "ppcie_status": _opaque_hex(PPCIE),
    "opaque_data_version": lambda seen: seen.read.opaque.data_version,
    "chip_info": lambda seen: seen.read.opaque.chip,
    "feature_flag": lambda seen: _upper(seen.read.opaque.feature),
    "opaque_types": lambda seen: list(seen.read.opaque.fields),
    "unknown_opaque_types": lambda seen: list(seen.read.opaque.unknown),
    "report_signature_valid": signature_valid,
    "chain_subjects": lambda seen: [certificate.subject.rfc4514_string() for certificate in seen.sent],
    "leaf_serial": lambda seen: str(seen.sent[0].serial_number),
    "device_san": device_san,
    "brom_subject_serial": brom_serial,
    "chain_links_valid": links_valid,
    "chain_root_is_nvidia": root_is_pinned,
    "fwid_extension_oid": fwid_extension,
    "fwid": fwid,
    "driver_rim_id": _rim_id(driver_rim_id),
    "vbios_rim_id": _rim_id(vbios_rim_id),
}
"""Every field of a ``case.json`` that is about one device, and what is found for it."""


def observed(seen: Seen, field: str) -> Any:
    """The field as found; a refusal is what is found where it is refused."""
    try:
        return FIELDS[field](seen)
    except InterlockError as error:
        return f"refused: {error.reason}"
    except PARSING as error:
        return f"unreadable: {error}"
    except IndexError:
        return "no certificate"
