"""Appraisal: honest hosts, in all their variety, and everything that a host may try."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from attestation.errors import InterlockError
from attestation.reasons import REASONS
from attestation.tpm.ima import appraise
from attestation.tpm.ima.appraise import ImaResult, appraise_ima, verify_ima
from attestation.tpm.ima.policy import CompiledPolicy, ImaBuffer, ImaFiles, ImaKey, ImaRule
from attestation.tpm.ima.progress import ImaProgress
from attestation.tpm.ima.replay import EXTENSIONS, Extender
from tests.attestation.tpm.ima.keys import certificate, ec_key, header, key_id, public, rsa_key, sign
from tests.attestation.tpm.ima.lists import (
    AGGREGATED,
    BANKS,
    BOOT,
    FILES,
    INIT,
    LISTED,
    SHA1,
    SHA256,
    SHELL,
    Host,
    Item,
    buffer,
    compiled,
    item,
    sha256,
    violation,
)

POLICY = compiled()
NEW = b"/opt/new"
VENDOR = certificate(ec_key())
LOADED = ImaKey(name="vendor", keyring=b".ima", key=VENDOR, built_in=False)
BUILT_IN = ImaKey(name="distribution", keyring=b".builtin_trusted_keys", key=public(rsa_key()), built_in=True)
SIGNED = item(NEW, template=b"ima-sig", extra=sign(rsa_key(), sha256(NEW)))
BY_VENDOR = item(NEW, template=b"ima-sig", extra=sign(ec_key(), sha256(NEW)))
LOADING = buffer(b".ima", VENDOR)


def rule(path: bytes, *unchecked: str, kind: str = "literal") -> ImaRule:
    return ImaRule(kind=kind, path=path, unchecked=unchecked)


def after_boot(*items: Item) -> Host:
    return Host([AGGREGATED, *FILES, *items])


def look(
    host: Host, policy: CompiledPolicy = POLICY, progress: ImaProgress | None = None, **subject: object
) -> ImaResult:
    known = progress or host.begin(policy)
    return appraise_ima(host.ascii(known.next), host.subject(start=known.next, **subject), known, policy)


# --- honest hosts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ascii", "binary"])
@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("bank", BANKS)
def test_an_honest_host(bank: int, extension: str, form: str) -> None:
    policy = compiled(unsafe_padded=True, rules=(rule(b"/v", "violation"),))
    host = Host([AGGREGATED, *FILES, violation(b"/v")], bank=bank, extension=extension)
    data = host.ascii() if form == "ascii" else host.binary()
    result = appraise_ima(data, host.subject(), host.begin(policy), policy)
    kind = "hashed" if bank == SHA1 else extension
    assert (result.start, result.proven, result.unproven, result.tail, result.extension) == (0, 5, 0, 0, kind)
    assert result.accepted == {"boot-aggregate": 1, "listed": 3, "violation": 1}
    assert (result.refused, result.refusals) == (0, ())
    assert result.progress == ImaProgress(
        boot=BOOT,
        bank=bank,
        policy=policy.digest,
        next=5,
        digest=host.pcr(),
        seen=5,
        extension=kind,
        violations=1,
        kexecs=0,
        keys=(),
    )


ACCEPTED: dict[str, tuple[Item, dict[str, object], str]] = {
    "a listed file": (FILES[1], {}, "listed"),
    "a listed file of ima-sig": (replace(FILES[1], template=b"ima-sig"), {}, "listed"),
    "a listed file with a bad signature": (replace(FILES[1], template=b"ima-sig", extra=b"\3\2bad"), {}, "listed"),
    "a listed file of ima-ngv2": (replace(FILES[1], template=b"ima-ngv2", algorithm=b"ima:sha256"), {}, "listed"),
    "a listed file of ima-modsig": (replace(FILES[1], template=b"ima-modsig"), {}, "listed"),
    "a file by SHA-512": (
        Item(NEW, bytes(64), algorithm=b"sha512"),
        {"files": (ImaFiles.of("sha512", {(NEW, bytes(64))}),)},
        "listed",
    ),
    "a file by fs-verity": (
        Item(NEW, bytes(32), template=b"ima-ngv2", algorithm=b"verity:sha256"),
        {"files": (ImaFiles.of("verity:sha256", {(NEW, bytes(32))}),)},
        "listed",
    ),
    "a file by SHA-1, where that is said to count": (
        Item(NEW, bytes(20), algorithm=b"sha1"),
        {"files": (ImaFiles.of("sha1", {(NEW, bytes(20))}),), "unsafe_algorithms": ("sha1",)},
        "listed",
    ),
    "a file that a rule excuses": (item(NEW), {"rules": (rule(b"/opt/", "content", kind="prefix"),)}, "rule"),
    "a weak digest that a rule excuses": (
        Item(NEW, bytes(16), algorithm=b"md5"),
        {"rules": (rule(b"/op*", "content", kind="literal"), rule(b"/opt/*", "content", kind="glob"))},
        "rule",
    ),
    "a file signed by a key that is built in": (SIGNED, {"keys": (BUILT_IN,)}, "signed"),
    "a buffer that is listed": (
        buffer(b"kexec-cmdline", b"root=/dev/sda"),
        {"buffers": (ImaBuffer(name=b"kexec-cmdline", digests=(sha256(b"root=/dev/sda"),)),)},
        "buffer",
    ),
    "a buffer that nobody looks at": (
        buffer(b"dm_table_load", b"of this host"),
        {"buffers": (ImaBuffer(name=b"dm_table_load", digests=(), unchecked=True),)},
        "buffer",
    ),
    "a key that is known": (LOADING, {"keys": (LOADED,)}, "key"),
    "a key that is listed by digest, and does not count": (
        buffer(b".platform", b"certificate"),
        {"buffers": (ImaBuffer(name=b".platform", digests=(sha256(b"certificate"),)),)},
        "buffer",
    ),
    "a violation that a rule excuses": (violation(NEW), {"rules": (rule(NEW, "violation"),)}, "violation"),
    "the same boot again, by kexec": (AGGREGATED, {"most_kexecs": 1}, "kexec"),
}


@pytest.mark.parametrize("form", ["ascii", "binary"])
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_accepted(name: str, form: str) -> None:
    made, changes, kind = ACCEPTED[name]
    files: tuple[ImaFiles, ...] = changes.get("files", ())  # type: ignore[assignment]
    policy = compiled(**{**changes, "files": (*LISTED.files, *files)})
    host = after_boot(made, FILES[0])
    data = host.ascii() if form == "ascii" else host.binary()
    result = appraise_ima(data, host.subject(), host.begin(policy), policy)
    assert result.refusals == ()
    expected = {"boot-aggregate": 1, "listed": 4}
    expected[kind] = expected.get(kind, 0) + 1
    assert result.accepted == expected
    assert verify_ima(data, host.subject(), host.begin(policy), policy) == result.progress


# --- entries that are refused ----------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Item, dict[str, object], str]] = {
    "a file that is not listed": (item(NEW), {}, "tpm.ima.unlisted"),
    "a listed digest under another name": (item(NEW, SHELL), {}, "tpm.ima.unlisted"),
    "a listed file, changed": (item(SHELL, b"changed"), {}, "tpm.ima.digest"),
    "a listed name in upper case": (item(SHELL.upper(), SHELL), {}, "tpm.ima.unlisted"),
    "a listed name with a space": (item(SHELL + b" ", SHELL), {}, "tpm.ima.unlisted"),
    "a listed name with a way around": (item(b"/usr/../usr/bin/sh", SHELL), {}, "tpm.ima.unlisted"),
    "a listed name, relative": (item(SHELL[1:], SHELL), {}, "tpm.ima.unlisted"),
    "a listed digest by another algorithm": (
        Item(SHELL, sha256(SHELL), algorithm=b"sha3-256"),
        {},
        "tpm.ima.algorithm",
    ),
    "a file's digest as that of fs-verity": (
        Item(SHELL, sha256(SHELL), template=b"ima-ngv2", algorithm=b"verity:sha256"),
        {},
        "tpm.ima.digest",
    ),
    "a buffer with a file's name and digest": (buffer(SHELL, SHELL), {}, "tpm.ima.buffer"),
    "a digest that is denied": (item(SHELL), {"denied": (sha256(SHELL),)}, "tpm.ima.denied"),
    "a denied digest that a rule excuses": (
        item(NEW),
        {"denied": (sha256(NEW),), "rules": (rule(NEW, "content"),)},
        "tpm.ima.denied",
    ),
    "a denied digest that is signed": (SIGNED, {"denied": (sha256(NEW),), "keys": (BUILT_IN,)}, "tpm.ima.denied"),
    "a denied buffer": (
        buffer(b"kexec-cmdline", b"x"),
        {"denied": (sha256(b"x"),), "buffers": (ImaBuffer(name=b"kexec-cmdline", digests=(), unchecked=True),)},
        "tpm.ima.denied",
    ),
    "a digest of MD5": (Item(NEW, bytes(16), algorithm=b"md5"), {}, "tpm.ima.algorithm"),
    "a digest of SHA-1": (Item(NEW, bytes(20), algorithm=b"sha1"), {}, "tpm.ima.algorithm"),
    "a digest of the template ima": (
        Item(NEW, bytes(20), template=b"ima", algorithm=b"sha1"),
        {},
        "tpm.ima.algorithm",
    ),
    "a signature by a key that is not known": (BY_VENDOR, {"keys": (BUILT_IN,)}, "tpm.ima.signature.key"),
    "a signature by a key that was not loaded": (BY_VENDOR, {"keys": (LOADED,)}, "tpm.ima.signature.key"),
    "a signature, and nobody's key counts": (SIGNED, {}, "tpm.ima.unlisted"),
    "no signature": (item(NEW, template=b"ima-sig"), {"keys": (BUILT_IN,)}, "tpm.ima.unlisted"),
    "a signature of metadata": (
        item(NEW, template=b"ima-sig", extra=header(key_id(rsa_key()), 1, kind=5) + b"x"),
        {"keys": (BUILT_IN,)},
        "tpm.ima.unlisted",
    ),
    "a signature of another file": (
        item(NEW, template=b"ima-sig", extra=sign(rsa_key(), sha256(SHELL))),
        {"keys": (BUILT_IN,)},
        "tpm.ima.signature",
    ),
    "a signature in no form": (
        item(NEW, template=b"ima-sig", extra=b"\3\1"),
        {"keys": (BUILT_IN,)},
        "tpm.ima.signature.form",
    ),
    "a signature of another algorithm": (
        item(NEW, template=b"ima-sig", extra=header(key_id(rsa_key()), 1, number=5) + b"x"),
        {"keys": (BUILT_IN,)},
        "tpm.ima.signature.algorithm",
    ),
    "a violation": (violation(NEW), {}, "tpm.ima.violation"),
    "a violation of a listed file": (violation(SHELL), {}, "tpm.ima.violation"),
    "a violation where the content is excused": (
        violation(NEW),
        {"rules": (rule(NEW, "content"),)},
        "tpm.ima.violation",
    ),
    "content where a violation is excused": (item(NEW), {"rules": (rule(NEW, "violation"),)}, "tpm.ima.unlisted"),
    "a violation of boot_aggregate": (violation(b"boot_aggregate"), {}, "tpm.ima.violation"),
    "a file called boot_aggregate": (item(b"boot_aggregate"), {"most_kexecs": 9}, "tpm.ima.boot-aggregate"),
    "a boot by kexec": (AGGREGATED, {}, "tpm.ima.kexec"),
    "a buffer called boot_aggregate": (buffer(b"boot_aggregate", b"x"), {"most_kexecs": 9}, "tpm.ima.buffer"),
    "a buffer that is not listed": (buffer(b"dm_table_load", b"x"), {}, "tpm.ima.buffer"),
    "a buffer listed under another name": (
        buffer(b"dm_table_load", b"x"),
        {"buffers": (ImaBuffer(name=b"kexec-cmdline", digests=(sha256(b"x"),)),)},
        "tpm.ima.buffer",
    ),
    "a buffer that is not its digest": (
        replace(buffer(b"dm_table_load", b"x"), extra=b"y"),
        {"buffers": (ImaBuffer(name=b"dm_table_load", digests=(sha256(b"x"),)),)},
        "tpm.ima.buffer-digest",
    ),
    "a buffer by MD5": (
        replace(buffer(b"dm_table_load", b"x"), algorithm=b"md5", digest=bytes(16)),
        {"buffers": (ImaBuffer(name=b"dm_table_load", digests=(), unchecked=True),)},
        "tpm.ima.algorithm",
    ),
    "a key that is not known": (buffer(b".ima", public(ec_key(7))), {"keys": (LOADED,)}, "tpm.ima.keyring"),
    "a key in a keyring without a policy": (buffer(b".ima", VENDOR), {}, "tpm.ima.keyring"),
    "a known key in another keyring": (
        buffer(b".evm", VENDOR),
        {"keys": (LOADED, replace(BUILT_IN, keyring=b"_evm"))},
        "tpm.ima.keyring",
    ),
    "a key in a keyring that somebody made": (
        buffer(b"mine", VENDOR),
        {"keys": (replace(LOADED, keyring=b"mine", key=certificate(ec_key(7))),)},
        "tpm.ima.keyring",
    ),
    "a key that is built in, loaded": (
        buffer(b".builtin_trusted_keys", BUILT_IN.key),
        {"keys": (BUILT_IN,)},
        "tpm.ima.keyring",
    ),
}


@pytest.mark.parametrize("form", ["ascii", "binary"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, form: str) -> None:
    made, changes, reason = REFUSED[name]
    policy = compiled(**changes)
    host = Host([AGGREGATED, FILES[0], made, FILES[2]])
    data = host.ascii() if form == "ascii" else host.binary()
    result = appraise_ima(data, host.subject(), host.begin(policy), policy)
    (refusal,) = result.refusals
    assert (refusal.entry, refusal.reason, result.refused, result.progress) == (2, reason, 1, None)
    assert reason in REASONS
    with pytest.raises(InterlockError) as caught:
        verify_ima(data, host.subject(), host.begin(policy), policy)
    assert caught.value.reason == reason
    assert caught.value.detail.startswith("entry 2, ")


FIRST: dict[str, tuple[Item, dict[str, object]]] = {
    "a file": (FILES[0], {}),
    "a file that a rule excuses": (FILES[0], {"rules": (rule(INIT, "content"),)}),
    "another digest": (Item(b"boot_aggregate", sha256(b"another boot")), {}),
    "zeroes": (Item(b"boot_aggregate", bytes(32)), {}),
    "another algorithm": (Item(b"boot_aggregate", AGGREGATED.digest, algorithm=b"sm3"), {}),
    "a buffer": (buffer(b"boot_aggregate", b"x"), {"boot_aggregate": "unchecked"}),
    "a key": (LOADING, {"keys": (LOADED,)}),
    "another name, unchecked": (FILES[0], {"boot_aggregate": "unchecked"}),
}


@pytest.mark.parametrize("name", FIRST)
def test_the_first_entry_is_this_boots(name: str) -> None:
    made, changes = FIRST[name]
    policy = compiled(**changes)
    result = look(Host([made, *FILES]), policy)
    assert [refusal.reason for refusal in result.refusals] == ["tpm.ima.boot-aggregate"]


def test_the_first_entry_is_no_violation() -> None:
    policy = compiled(rules=(rule(NEW, "violation"),))
    result = look(Host([violation(NEW), *FILES]), policy)
    assert [refusal.reason for refusal in result.refusals] == ["tpm.ima.violation"]


def test_a_listed_file_that_is_remembered_is_no_first_entry() -> None:
    host = after_boot()
    assert look(host).progress is not None
    assert look(Host([*FILES])).refusals[0].reason == "tpm.ima.boot-aggregate"


def test_the_boot_aggregate_unchecked() -> None:
    policy = compiled(boot_aggregate="unchecked")
    assert look(Host([Item(b"boot_aggregate", bytes(32)), *FILES]), policy).progress is not None


# --- the list as a whole ---------------------------------------------------------------------------------------------

Spoil = Callable[[Host], tuple[bytes, dict[str, object]]]


def _without(number: int) -> Spoil:
    return lambda h: (h.ascii(0, number) + h.ascii(number + 1), {})


WHOLE: dict[str, tuple[Spoil, str]] = {
    "cut short": (lambda h: (h.ascii(0, 4), {}), "tpm.ima.mismatch"),
    "nothing at all": (lambda h: (b"", {}), "tpm.ima.mismatch"),
    "the first left out": (_without(0), "tpm.ima.mismatch"),
    "one left out": (_without(2), "tpm.ima.mismatch"),
    "one twice": (lambda h: (h.ascii(0, 3) + h.ascii(2), {}), "tpm.ima.mismatch"),
    "two in another order": (
        lambda h: (h.ascii(0, 2) + h.ascii(3, 4) + h.ascii(2, 3) + h.ascii(4), {}),
        "tpm.ima.mismatch",
    ),
    "one added": (lambda h: (h.ascii(0, 2) + item(NEW).line() + h.ascii(2), {}), "tpm.ima.mismatch"),
    "one exchanged": (lambda h: (h.ascii(0, 2) + item(SHELL, b"good").line() + h.ascii(3), {}), "tpm.ima.mismatch"),
    "one made a violation": (
        lambda h: (h.ascii(0, 2) + violation(SHELL).line() + h.ascii(3), {}),
        "tpm.ima.mismatch",
    ),
    "a violation made a file": (
        lambda h: (h.ascii(0, 4) + item(b"/v").line() + h.ascii(5), {}),
        "tpm.ima.mismatch",
    ),
    "of another host": (lambda h: (Host([AGGREGATED, FILES[0]]).ascii(), {}), "tpm.ima.mismatch"),
    "the PCR of another moment": (lambda h: (h.ascii(), {"quoted": sha256(b"")}), "tpm.ima.mismatch"),
    "the PCR of another bank": (lambda h: (h.ascii(), {"quoted": Host(h.items, SHA1).pcr()}), "tpm.ima.mismatch"),
    "a line end inside a name": (
        lambda h: (h.ascii(0, 5).replace(b"/v", b"/v\n/v", 1) + h.ascii(5), {}),
        "tpm.ima.entry",
    ),
    "an empty line": (lambda h: (h.ascii(0, 2) + b"\n" + h.ascii(2), {}), "tpm.ima.entry"),
    "carriage returns": (lambda h: (h.ascii().replace(b"\n", b"\r\n"), {}), "tpm.ima.template-digest"),
    "a name changed": (lambda h: (h.ascii().replace(SHELL, b"/usr/bin/ls"), {}), "tpm.ima.template-digest"),
    "a digest changed": (
        lambda h: (h.ascii().replace(sha256(SHELL).hex().encode(), bytes(32).hex().encode()), {}),
        "tpm.ima.template-digest",
    ),
    "ones for a template digest": (
        lambda h: (h.ascii(0, 2) + replace(FILES[1], template_digest=b"\xff" * 20).line() + h.ascii(3), {}),
        "tpm.ima.template-digest",
    ),
    "another PCR": (lambda h: (h.ascii(0, 2) + item(SHELL, pcr=13).line() + h.ascii(3), {}), "tpm.ima.pcr"),
    "PCR 8": (lambda h: (h.ascii(0, 2) + item(SHELL, pcr=8).line() + h.ascii(3), {}), "tpm.ima.pcr"),
    "an unknown template": (
        lambda h: (h.ascii(0, 2) + replace(FILES[1], template=b"ima-new").line() + h.ascii(3), {}),
        "tpm.ima.template",
    ),
    "a start that was not asked for": (lambda h: (h.ascii(2), {"start": 2}), "tpm.ima.start"),
    "the start of a part, and all of it": (lambda h: (h.ascii(2), {}), "tpm.ima.mismatch"),
    "another boot": (lambda h: (h.ascii(), {"boot": b"boot-2"}), "tpm.ima.boot"),
    "binary, cut inside an entry": (lambda h: (h.binary()[:-1], {}), "tpm.ima.truncated"),
    "binary, the last cut off": (lambda h: (h.binary(0, 4), {}), "tpm.ima.mismatch"),
    "the other bank": (lambda h: (h.ascii(), {"bank": SHA1}), "tpm.ima.progress"),
}


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("name", WHOLE)
def test_a_list_that_is_not_the_hosts(name: str, remembered: bool) -> None:
    spoil, reason = WHOLE[name]
    policy = compiled(rules=(rule(b"/v", "violation"),))
    host = after_boot(violation(b"/v"), FILES[0])
    policy.forget()
    if remembered:
        assert look(host, policy).progress is not None
    data, subject = spoil(host)
    with pytest.raises(InterlockError) as caught:
        appraise_ima(data, host.subject(**subject), host.begin(policy), policy)
    assert caught.value.reason == reason
    assert reason in REASONS


def test_a_mismatch_says_how_far_it_got() -> None:
    host = after_boot()
    progress = look(Host(host.items[:2])).progress
    assert progress is not None
    with pytest.raises(InterlockError) as caught:
        look(host, progress=progress, quoted=sha256(b"x"))
    for told in ("entries 2 to 4", sha256(b"x").hex(), "the first 2 are proven"):
        assert told in caught.value.detail


def test_the_policy_of_the_progress_is_this_one() -> None:
    host, other = after_boot(), compiled(most_kexecs=5)
    with pytest.raises(InterlockError, match=r"^tpm\.ima\.progress"):
        look(host, other, host.begin(POLICY))


def test_a_kernel_that_measures_nothing() -> None:
    with pytest.raises(InterlockError, match=r"^tpm\.ima\.inactive"):
        look(Host([]))


def test_a_kernel_that_was_started_otherwise() -> None:
    policy = compiled(cmdline_required=("ima_policy=tcb",))
    assert look(after_boot(), policy, cmdline=b"quiet ima_policy=tcb").progress is not None
    for cmdline in (None, b"", b"ima_policy=critical_data"):
        with pytest.raises(InterlockError, match=r"^tpm\.ima\.cmdline"):
            look(after_boot(), policy, cmdline=cmdline)


@pytest.mark.parametrize("extension", ["padded", "padded-ones"])
def test_padded_sha1_is_told_and_refused_by_default(extension: str) -> None:
    policy = compiled(rules=(rule(b"/v", "violation"),))
    host = Host([AGGREGATED, *FILES, violation(b"/v")], extension=extension)
    with pytest.raises(InterlockError, match=r"^tpm\.ima\.padded"):
        look(host, policy)


# --- in parts ---------------------------------------------------------------------------------------------------------


def parts(host: Host, policy: CompiledPolicy, *stops: int) -> ImaResult:
    """The host attests after each of these many entries."""
    progress: ImaProgress | None = host.begin(policy)
    result = None
    for stop in stops:
        assert progress is not None
        until = Host(host.items[:stop], host.bank, host.extension)
        sent = ImaProgress.from_bytes(progress.to_bytes())
        result = appraise_ima(until.ascii(sent.next), until.subject(start=sent.next), sent, policy)
        progress = result.progress
    assert result is not None
    return result


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("stops", [(6,), (1, 2, 3, 4, 5, 6), (3, 3, 6), (1, 6, 6), (2, 4, 6)])
def test_parts_prove_what_the_whole_does(stops: tuple[int, ...], extension: str) -> None:
    policy = compiled(unsafe_padded=True, rules=(rule(b"/v", "violation"),))
    host = after_boot(violation(b"/v"), FILES[0])
    host.extension = extension
    found, whole = parts(host, policy, *stops), parts(host, policy, 6)
    assert found.progress is not None
    assert found.progress == whole.progress
    assert found.proven == (0 if stops[-2:] == (6, 6) else 6 - ([0, *stops][-2]))


def test_entries_after_the_quote_are_unproven_and_not_looked_at() -> None:
    host = after_boot(item(NEW))
    quoted = host.pcr(4)
    result = look(host, quoted=quoted)
    assert (result.proven, result.unproven, result.refused) == (4, 1, 0)
    assert result.progress is not None
    assert (result.progress.next, result.progress.seen) == (4, 5)
    broken = appraise_ima(host.ascii(0, 4) + b"garbage", host.subject(quoted=quoted), host.begin(POLICY), POLICY)
    assert (broken.proven, broken.unproven) == (4, 1)


def test_a_quote_that_lags_behind() -> None:
    host = after_boot(FILES[0], FILES[1])
    progress = look(host, quoted=host.pcr(4)).progress
    assert progress is not None
    with pytest.raises(InterlockError, match=r"^tpm\.ima\.no-progress"):
        look(host, progress=progress, quoted=host.pcr(4))
    with pytest.raises(InterlockError, match=r"^tpm\.ima\.no-progress"):
        look(host, progress=progress, quoted=host.pcr(5))
    assert look(host, progress=progress).progress is not None


def test_what_was_shown_is_shown_again() -> None:
    host = after_boot(FILES[0], FILES[1])
    progress = look(host, quoted=host.pcr(4)).progress
    assert progress is not None
    with pytest.raises(InterlockError, match=r"^tpm\.ima\.rollback"):
        appraise_ima(b"", host.subject(quoted=host.pcr(4), start=4), progress, POLICY)


def test_a_list_that_begins_again_without_a_reset() -> None:
    host = after_boot()
    progress = look(host).progress
    assert progress is not None
    with pytest.raises(InterlockError, match=r"^tpm\.ima\.start"):
        appraise_ima(host.ascii(), host.subject(), progress, POLICY)
    with pytest.raises(InterlockError, match=r"^tpm\.ima\.mismatch"):
        appraise_ima(host.ascii(), host.subject(start=4, quoted=host.pcr(2)), progress, POLICY)


def test_a_refused_entry_stays_one() -> None:
    host = after_boot(item(NEW))
    progress = look(Host(host.items[:4])).progress
    assert progress is not None
    for _ in range(2):
        result = look(host, progress=progress)
        assert (result.refused, result.progress) == (1, None)


def test_a_key_counts_once_it_was_loaded_and_still_does_later() -> None:
    policy = compiled(keys=(LOADED,))
    before, after = after_boot(BY_VENDOR, LOADING), after_boot(LOADING, LOADING, BY_VENDOR)
    assert look(before, policy).refusals[0].reason == "tpm.ima.signature.key"
    whole = look(after, policy)
    assert whole.accepted == {"boot-aggregate": 1, "listed": 3, "key": 2, "signed": 1}
    assert whole.progress is not None
    assert whole.progress.keys == (LOADED.digest,)
    assert parts(after, policy, 6, 7).progress == whole.progress


def test_kexecs_are_counted_over_all_parts() -> None:
    host, policy = after_boot(AGGREGATED, FILES[0], AGGREGATED), compiled(most_kexecs=2)
    found = parts(host, policy, 5, 6, 7).progress
    assert found is not None
    assert found.kexecs == 2
    progress = parts(host, compiled(most_kexecs=1), 6).progress
    assert progress is not None
    result = look(host, compiled(most_kexecs=1), progress)
    assert [refusal.reason for refusal in result.refusals] == ["tpm.ima.kexec"]


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_the_first_refusals_are_named_and_all_are_counted() -> None:
    host = after_boot(*[item(b"/hostile\n\x1b[2J\xff" + b"n" * 1000 + b"%d" % number) for number in range(100)])
    result = appraise_ima(host.binary(), host.subject(), host.begin(POLICY), POLICY)
    assert result.refused == 100
    assert len(result.refusals) == appraise.MOST_REFUSALS
    assert all(r.name.isprintable() and len(r.name) <= appraise.MOST_NAME for r in result.refusals)
    assert result.refusals[0].name.startswith(r"/hostile\n\x1b[2J\xff")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [item(b"/usr/bin/%d" % number) for number in range(3000)]
    long = item(b"/usr/" + b"n" * 600)
    policy = compiled(files=(ImaFiles.of("sha256", {(made.name, made.digest) for made in (*many, long)}),))
    monkeypatch.setattr(appraise, "MOST_REMEMBERED", 1000)
    signed = [replace(made, template=b"ima-sig", extra=b"x") for made in (*many, long)]
    by_vendor = Host([AGGREGATED, *signed, replace(long, template=b"ima-sig", extra=bytes(4096))])
    plain = Host([AGGREGATED, *many, long, item(many[0].name)])
    for host, data in ((by_vendor, by_vendor.ascii()), (by_vendor, by_vendor.binary()), (plain, plain.ascii())):
        policy.forget()
        result = appraise_ima(data, host.subject(), host.begin(policy), policy)
        assert result.accepted == {"boot-aggregate": 1, "listed": 3002}
        remembered = policy.remembered(Extender(SHA256))
        assert 0 < len(remembered) < 2000
        assert max(map(len, remembered)) <= appraise.MOST_REMEMBERED_ENTRY


@pytest.mark.parametrize(("padded", "kinds"), [(False, ["hashed"]), (True, ["hashed", "padded"])])
def test_of_a_list_that_leads_nowhere_nothing_is_remembered_twice(padded: bool, kinds: list[str]) -> None:
    """Who signs a listed file with any bytes has a kibibyte remembered for each, which was never measured."""
    policy = compiled(unsafe_padded=padded)
    policy.forget()
    host = Host([AGGREGATED, *[replace(FILES[0], template=b"ima-sig", extra=bytes([n]) * 700) for n in range(9)]])
    with pytest.raises(InterlockError, match=r"^tpm\.ima\.mismatch"):
        appraise_ima(host.binary(), host.subject(quoted=bytes(32)[:-1] + b"x"), host.begin(policy), policy)
    kept = {name: len(policy._remembered[SHA256, name]) for _, name in policy._remembered}
    assert kept == dict.fromkeys(kinds, 9)


@pytest.mark.parametrize("form", ["ascii", "binary"])
def test_what_is_remembered_changes_nothing(form: str) -> None:
    policy = compiled(keys=(LOADED, BUILT_IN), rules=(rule(b"/v", "violation"),))
    host = after_boot(LOADING, BY_VENDOR, SIGNED, violation(b"/v"), item(NEW), replace(FILES[1], template=b"ima-sig"))
    data = host.ascii() if form == "ascii" else host.binary()
    policy.forget()
    first = appraise_ima(data, host.subject(), host.begin(policy), policy)
    assert appraise_ima(data, host.subject(), host.begin(policy), policy) == first
    assert (first.refused, len(policy.remembered(Extender(SHA256)))) == (1, 4)


def test_memory_does_not_grow_with_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [item(b"/usr/bin/%d" % number) for number in range(20_000)]
    policy = compiled(files=(ImaFiles.of("sha256", {(made.name, made.digest) for made in many}),))
    monkeypatch.setattr(appraise, "MOST_REMEMBERED", 1000)
    host = Host([AGGREGATED, *many])
    data, subject, begun = host.ascii(), host.subject(), host.begin(policy)
    tracemalloc.start()
    try:
        assert appraise_ima(data, subject, begun, policy).proven == 20_001
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
