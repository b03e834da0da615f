"""Quotes of others: what the manifest states of each, beside what the product's own checks say.

A recorded quote is checked by the parts of `attestation.tpm` that know no enrolment: form, magic and type, signature by
the key that came with it, selection, PCR digest. What a verifier would say, who has enrolled nothing of it, is asked of
`verify_quote` itself, where the words are about that: a nonce that was demanded, a key that nothing binds to a TPM, a
certification in the place of a quote.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hmac import compare_digest

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1

from agent.tpm_templates import AK
from attestation.chain import verify_chain
from attestation.errors import InterlockError, Untrusted
from attestation.tpm.attest import Attest, CertifyInfo, QuoteInfo
from attestation.tpm.eventlog import read_event_log, replay
from attestation.tpm.identity import CERTIFY_CODES, RSASSA_SHA256, Ak, verify_ak
from attestation.tpm.issuers import issuers
from attestation.tpm.quote import CODES, verify_quote
from attestation.tpm.structures import (
    ALG_RSA,
    ALG_SHA256,
    ALG_SHA384,
    HASHES,
    RESTRICTED,
    Public,
    RsaParameters,
    Scheme,
    Signature,
    Symmetric,
    check_key,
    digest,
    verify_signature,
)
from tools.evidence import chains, quotes, show
from tools.evidence.manifest import REJECT, Entry, Evidence
from tools.evidence.quotes import Found, Part, Unknown
from tools.evidence.show import Row

TYPES = {0x8017: "CERTIFY", 0x8018: "QUOTE", 0x801A: "CREATION", 0x8014: "NV", 0x8019: "TIME"}
ALL = tuple(range(24))
DEMANDED = bytes(range(32))
SELECT = 3
"""Octets of a selection of 24 PCRs."""


def rows(entry: Entry, evidence: Evidence) -> list[Row]:
    """Every row of one file with a quote, or with a part of one."""
    try:
        held = quotes.read(entry.data)
        if isinstance(held, Part):
            return _part(entry, held, evidence)
        return [row for found in with_keys(entry, held, evidence) for row in _found(entry, found, len(held), evidence)]
    except Unknown as error:
        return [show.judged(entry.file, "verdict", entry.verdict, str(error), agree=entry.verdict == REJECT)]


def verify_recorded(found: Found) -> Attest[QuoteInfo]:
    """A quote by the key that came with it, whoever that is. Raises as `attestation.tpm.quote.verify_quote`."""
    parsed = Attest.from_bytes(found.attest, QuoteInfo, CODES)
    selections = parsed.info.selections
    if not any(any(selection.bitmap) for selection in selections):
        raise Untrusted("tpm.pcr.empty", "no PCR is covered")
    if len({s.bank for s in selections}) < len(selections) or any(len(s.bitmap) != SELECT for s in selections):
        raise Untrusted("tpm.pcr.selection", f"{len(selections)} selections, of odd sizes or of one bank")
    signature = Signature.from_bytes(found.signature, CODES)
    key, scheme = _key(found), Scheme(signature.scheme, signature.hash)
    if found.public:
        scheme = Public.from_bytes(found.public).parameters.scheme
    if scheme.hash not in (ALG_SHA256, ALG_SHA384):
        raise Untrusted(CODES.scheme, f"signed with hash 0x{scheme.hash:04x}")
    verify_signature(check_key(key), scheme, signature, found.attest, CODES)
    if found.values:
        covered = [(s.bank, pcr) for s in selections for pcr in s.pcrs]
        if any(bank != found.bank or pcr not in found.values for bank, pcr in covered):
            raise Untrusted("tpm.pcr.uncovered", f"quoted are {covered}")
        values = b"".join(found.values[pcr] for _, pcr in covered)
        if not compare_digest(digest(scheme.hash, values), parsed.info.pcr_digest):
            raise Untrusted("tpm.pcr.digest", "the values do not hash to the signed digest")
    return parsed


def _key(found: Found) -> object:
    return found.key if found.key is not None else Public.from_bytes(found.public).crypto_key()


def with_keys(entry: Entry, held: Sequence[Found], evidence: Evidence) -> list[Found]:
    """The quotes of a container, each with its key, or the first one in a file beside it under which it verifies."""
    keys = [quotes.key_of(part) for part in _parts(entry, evidence) if part.role == "key"]
    return [found if found.key or found.public else _keyed(found, keys) for found in held]


def _keyed(found: Found, keys: Sequence[object]) -> Found:
    tried = [replace(found, key=key) for key in keys]
    return next((each for each in tried if outcome(each) == "verifies"), found)


def _parts(entry: Entry, evidence: Evidence) -> Iterator[Part]:
    for other in evidence.beside(entry):
        try:
            held = quotes.read(other.data)
        except Unknown:
            continue
        if isinstance(held, Part):
            yield held


def outcome(found: Found) -> str:
    """ "verifies", or why a recorded quote does not by the key that came with it."""
    if found.key is None and not found.public:
        return "no key beside it"
    try:
        verify_recorded(found)
    except InterlockError as error:
        return error.reason
    return "verifies"


# --- a part in a file of its own --------------------------------------------------------------------------------------


def _part(entry: Entry, part: Part, evidence: Evidence) -> list[Row]:
    """The quote that the parts in this directory make, if this is one of them."""
    gathered: dict[str, list[bytes]] = {}
    for other in _parts(entry, evidence):
        gathered.setdefault(other.role, []).append(other.data)
    if part.role == "key":
        return [_used(entry, quotes.key_of(part), evidence)]
    whole = [found for found in quotes.together(gathered) if outcome(found) == "verifies"]
    observed = f"{part.role}: {'a quote that verifies' if whole else 'no quote verifies'}"
    agree = bool(whole) == (entry.verdict != REJECT)
    if part.role == "name":
        names = [Public.from_bytes(public).name for public in gathered.get("public", [])]
        agree = agree and part.data in names
    if part.role == "public":
        agree = agree and Public.from_bytes(part.data).to_bytes() == part.data
    found = [show.judged(entry.file, "verdict", entry.verdict or entry.expect, observed, agree=agree)]
    return [*found, *(row for each in whole for row in _stated(entry, each))]


def _used(entry: Entry, key: object, evidence: Evidence) -> Row:
    """A key alone is right where a quote beside it verifies with it."""
    count = 0
    for other in evidence.beside(entry):
        try:
            held = quotes.read(other.data)
        except Unknown:
            continue
        if isinstance(held, list):
            count += sum(outcome(replace(found, key=key)) == "verifies" for found in held if not found.key)
    return show.judged(entry.file, "key", entry.expect, f"{count} quotes verify with it", agree=count > 0)


# --- a container ------------------------------------------------------------------------------------------------------


def _found(entry: Entry, found: Found, number: int, evidence: Evidence) -> Iterator[Row]:
    kind = TYPES.get(int.from_bytes(found.attest[4:6], "big"), "unknown")
    prefix = f"{found.name}." if number > 1 else ""
    if stated := entry.says(rf"'{found.name}' is (?:a )?TPM_ST_ATTEST_(\w+)") or (
        entry.says(r"TPM_ST_ATTEST_(\w+)") if number == 1 else None
    ):
        yield show.row(entry.file, f"{prefix}type", stated[1], kind)
    if kind != "QUOTE":
        if entry.verdict:
            reason = _not_a_quote(found)
            yield show.judged(entry.file, f"{prefix}verdict", entry.verdict, reason, agree=entry.verdict == REJECT)
        yield from _no_quote(entry, found, prefix)
        return
    observed = outcome(found)
    if entry.verdict == REJECT:
        observed = observed if observed != "verifies" else _why(entry, found)
        yield show.judged(entry.file, f"{prefix}verdict", REJECT, observed, agree=observed != "verifies")
        return
    if entry.verdict or entry.says(r"check out"):
        wanted = entry.verdict or "checks out"
        yield show.judged(entry.file, f"{prefix}verdict", wanted, observed, agree=observed == "verifies")
    else:
        yield show.not_compared(entry.file, f"{prefix}verdict", entry.expect, observed)
    yield from _stated(entry, found, prefix)
    yield from _refused(entry, found, prefix)
    yield from _around(entry, found, prefix, evidence)


def _why(entry: Entry, found: Found) -> str:
    """Why a quote that verifies by itself is refused as the answer to the nonce that is stated; "verifies" if it is
    not."""
    stated = entry.says(r"nonce '([^']*)'")
    hexadecimal = entry.says(r"extraData=([0-9a-fA-F]+)")
    nonce = Attest.from_bytes(found.attest, QuoteInfo, CODES).extra_data
    if stated or hexadecimal:
        nonce = stated[1].encode() if stated else bytes.fromhex(hexadecimal[1]) if hexadecimal else nonce
    reason = _asked(found, _borrowed(found), nonce)
    return "verifies" if reason in ("nothing", "tpm.pcr.resettable") else reason


def _stated(entry: Entry, found: Found, prefix: str = "") -> Iterator[Row]:
    """What the words say of nonce, selection and banks."""
    parsed = Attest.from_bytes(found.attest, QuoteInfo, CODES)
    extra, covered = parsed.extra_data, [(HASHES.get(s.bank, ""), s.pcrs) for s in parsed.info.selections]
    if stated := entry.says(r"nonce '([^']*)'"):
        yield show.row(entry.file, f"{prefix}nonce", stated[1], extra.decode("latin-1"))
    if stated := entry.says(r"extraData=([0-9a-fA-F]+)"):
        yield show.row(entry.file, f"{prefix}nonce", stated[1].lower(), extra.hex())
    if entry.says(r"[Ee]mpty nonce"):
        yield show.row(entry.file, f"{prefix}nonce", "", extra.hex())
    if stated := entry.says(r"(\d+)\+ byte \S+ nonce"):
        text = f"{len(extra)} bytes"
        yield show.judged(entry.file, f"{prefix}nonce", stated[0], text, agree=len(extra) >= int(stated[1]))
    if stated := entry.says(r"\b(sha\d+) PCR (\d+(?:,\d+)*)"):
        wanted = (stated[1], tuple(int(pcr) for pcr in stated[2].split(",")))
        yield show.judged(entry.file, f"{prefix}selection", stated[0], covered, agree=covered == [wanted])
    if stated := entry.says(r"(\d+) (sha\d+) PCRs"):
        agree = len(covered) == 1 and covered[0][0] == stated[2] and len(covered[0][1]) == int(stated[1])
        yield show.judged(entry.file, f"{prefix}selection", stated[0], covered, agree=agree)
    if stated := entry.says(r"(\d+) quotes \(((?:sha\d+(?:, )?)+) banks, all 24 PCRs"):
        agree = len(covered) == 1 and covered[0][0] in stated[2].split(", ") and covered[0][1] == ALL
        yield show.judged(entry.file, f"{prefix}selection", stated[0], covered, agree=agree)


def _refused(entry: Entry, found: Found, prefix: str) -> Iterator[Row]:
    """What the words want refused although the quote is genuine."""
    if entry.says(r"REJECT if a nonce was demanded"):
        reason = _asked(found, _borrowed(found), DEMANDED)
        agree = reason == "tpm.quote.nonce"
        yield show.judged(entry.file, f"{prefix}with a nonce", "reject", f"refused: {reason}", agree=agree)
    if entry.says(r"REJECTED as unbound AK"):
        reason = _asked(found, _claimed(found), Attest.from_bytes(found.attest, QuoteInfo, CODES).extra_data)
        agree = reason == "tpm.quote.signer"
        yield show.judged(entry.file, f"{prefix}as evidence", "reject", f"refused: {reason}", agree=agree)


def _asked(found: Found, ak: Ak, nonce: bytes) -> str:
    """What `verify_quote` says of a quote as an answer to this nonce."""
    try:
        parsed = Attest.from_bytes(found.attest, QuoteInfo, CODES)
        pcrs = parsed.info.selections[0].pcrs
        values = {pcr: found.values[pcr] for pcr in pcrs if pcr in found.values}
        verify_quote(found.attest, found.signature, ak=ak, qualifying=nonce, bank=found.bank, pcrs=pcrs, values=values)
    except InterlockError as error:
        return error.reason
    return "nothing"


def _borrowed(found: Found) -> Ak:
    """The key as if it had been enrolled: it is called what the quote calls it."""
    key = check_key(_key(found))
    signer = Attest.from_bytes(found.attest, QuoteInfo, CODES).qualified_signer
    return Ak(AK, AK.name, signer, key, RSASSA_SHA256)


def _claimed(found: Found) -> Ak:
    """The key as an attestation key of the shape that enrolment wants: all that can be made of a bare public key."""
    key = check_key(_key(found))
    if not isinstance(key, rsa.RSAPublicKey):
        return _borrowed(found)
    n = key.public_numbers().n.to_bytes(key.key_size // 8, "big")
    shape = RsaParameters(Symmetric(), RSASSA_SHA256, key.key_size, 0, n)
    return verify_ak(replace(AK, type=ALG_RSA, parameters=shape).to_bytes())


def _no_quote(entry: Entry, found: Found, prefix: str) -> Iterator[Row]:
    """A certification, which is right in itself and no quote."""
    if entry.says(r"(?i)presented as a quote"):
        reason = _not_a_quote(found)
        agree = reason == "tpm.quote.type"
        yield show.judged(entry.file, f"{prefix}as a quote", "reject", f"refused: {reason}", agree=agree)
    if entry.says(r"signed by a genuine AIK"):
        yield show.row(entry.file, f"{prefix}signature", "genuine", _by_sha1(found))
        named = Attest.from_bytes(found.attest, CertifyInfo, CERTIFY_CODES).info.name
        yield show.row(entry.file, f"{prefix}certified", Public.from_bytes(found.public).name.hex(), named.hex())


def _not_a_quote(found: Found) -> str:
    try:
        Attest.from_bytes(found.attest, QuoteInfo, CODES)
    except InterlockError as error:
        return error.reason
    return "nothing"


def _by_sha1(found: Found) -> str:
    """RSASSA with SHA-1, as Windows Hello signs; the product accepts it nowhere."""
    if not isinstance(found.key, rsa.RSAPublicKey):
        return "by another kind of key"
    try:
        found.key.verify(found.signature, found.attest, padding.PKCS1v15(), SHA1())  # noqa: S303 - what is recorded
    except InvalidSignature:
        return "forged"
    return "genuine"


def _around(entry: Entry, found: Found, prefix: str, evidence: Evidence) -> Iterator[Row]:
    """What lies beside a quote: its key's attributes and certificate, its log, the report that covers its key."""
    if entry.says(r"AK RSA restricted"):
        attributes = Public.from_bytes(found.public).attributes
        yield show.row(entry.file, f"{prefix}restricted", expected=True, observed=bool(attributes & RESTRICTED))
    if stated := entry.says(r"AK cert chains to \w+ '([^']+)'"):
        observed = _chain(found, evidence)
        yield show.judged(entry.file, f"{prefix}certificate", stated[1], observed, agree=stated[1] in observed)
    if entry.says(r"event log replays every logged PCR"):
        values = replay(read_event_log(found.event_log), found.bank)
        wrong = sorted(pcr for pcr, value in values.items() if found.values.get(pcr) != value)
        text = f"{len(values)} replayed, other: {wrong}"
        yield show.judged(entry.file, f"{prefix}event log", "every logged PCR", text, agree=bool(values) and not wrong)
    if entry.says(r"report_data = SHA256\(HCL runtime claims\)|signs the HCL claims hash"):
        covered = hashlib.sha256(found.claims).digest() in found.report
        yield show.row(entry.file, f"{prefix}claims", expected=True, observed=covered)
    for stated in re.findall(r"(VCEK signs [^;]+|td_quote signs [^;]+)", entry.expect):
        yield show.not_applicable(entry.file, f"{prefix}CPU", stated)


def _chain(found: Found, evidence: Evidence) -> str:
    """The names above the first certificate that came along."""
    if not found.certificates:
        return "no certificate"
    leaf, *others = found.certificates
    above = issuers(leaf, (*others, *evidence.authorities))
    try:
        anchor = verify_chain(leaf, above, evidence.anchors, at=chains.moment(leaf))
    except InterlockError as error:
        return error.reason
    return " -> ".join(chains.name_of(der) for der in (*above, anchor.der))
