"""The evidence of a machine that booted under Secure Boot (``./dev test vm``): all of it holds, none of it changed."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from attestation.errors import InterlockError
from attestation.tpm.boot.state import boot_state
from attestation.tpm.eventlog import prove, read_event_log
from attestation.tpm.ima.appraise import ImaResult, ImaSubject, appraise_ima
from attestation.tpm.ima.measurements import read_binary
from attestation.tpm.ima.paths import GLOB
from attestation.tpm.ima.policy import BOOT_AGGREGATE, PLAIN, VIOLATION, ImaFiles, ImaPolicy, ImaRule, compile_policy
from attestation.tpm.ima.progress import ImaProgress
from attestation.tpm.ima.replay import ZEROES, boot_aggregates
from attestation.tpm.structures import ALG_SHA256
from fixtures.ca import TestCa
from tests.captured import BANKS, Captured

CAPTURED = Captured.read("qemu-debian12-secureboot.json")
LIST = CAPTURED.list("sha256")
FIRST, LAST = 0, 956
JOURNAL = ImaRule(kind=GLOB, path=b"/var/log/journal/*/system.journal", unchecked=(VIOLATION,))
each_bank = pytest.mark.parametrize("bank", ["sha256", "sha384"])
"""The second is one that this kernel extends with SHA-1: it has no SHA-384 yet when IMA starts."""


def listed(data: bytes = LIST) -> set[tuple[bytes, bytes]]:
    found = read_binary(data).entries()
    return {(e.name, e.digest) for e in found if e.name != BOOT_AGGREGATE and e.template_digest != ZEROES}


def policy(**changes: object) -> ImaPolicy:
    accepted = replace(PLAIN, files=(ImaFiles.of("sha256", listed()),), rules=(JOURNAL,), unsafe_padded=True)
    return replace(accepted, **changes)  # type: ignore[arg-type]


def appraise(data: bytes = LIST, bank: str = "sha256", chosen: ImaPolicy | None = None) -> ImaResult:
    compiled = compile_policy(chosen or policy())
    aggregates = boot_aggregates({ALG_SHA256: CAPTURED.pcrs("sha256")})
    subject = ImaSubject(b"boot", BANKS[bank], CAPTURED.pcrs(bank)[10], 0, aggregates)
    begun = ImaProgress.begin(boot=b"boot", bank=BANKS[bank], policy=compiled.digest)
    return appraise_ima(data, subject, begun, compiled)


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(InterlockError) as refusal:
        work()
    return refusal.value.reason


# --- quotes and keys ----------------------------------------------------------------------------------------------


@each_bank
def test_its_quotes_are_believed(bank: str) -> None:
    quote = CAPTURED.quote(bank)
    assert sorted(quote.pcrs) == list(range(15))
    assert quote.clock.safe
    assert quote.clock.reset_count == 2  # one at its maker's, one boot


def test_its_ek_rests_on_its_maker_only() -> None:
    assert CAPTURED.ek().anchor.name == "the lab"
    assert CAPTURED.ek().description.model == "swtpm"
    assert refused(lambda: CAPTURED.ek(TestCa("another lab").root.der)) == "chain.unknown-root"


@each_bank
def test_a_quote_answers_one_nonce(bank: str) -> None:
    assert refused(lambda: CAPTURED.quote(bank, nonce=bytes(32))) == "tpm.quote.nonce"


@pytest.mark.parametrize("pcr", range(15))
def test_no_quoted_value_can_be_another(pcr: int) -> None:
    part = CAPTURED.shown["sha256"]
    changed = Captured({**CAPTURED.shown, "sha256": {**part, "pcrs": {**part["pcrs"], str(pcr): "00" * 31 + "01"}}})
    assert refused(lambda: changed.quote("sha256")).startswith("tpm.pcr.")


# --- the boot -----------------------------------------------------------------------------------------------------


@each_bank
def test_its_log_explains_every_pcr_but_that_of_the_running_system(bank: str) -> None:
    assert CAPTURED.proof(bank).pcrs == frozenset(range(15)) - {10}


@each_bank
def test_it_says_how_the_machine_booted(bank: str) -> None:
    state = CAPTURED.boot(bank)
    values = {fact.name: fact.value for fact in state.facts}
    assert (values["secure-boot"], values["setup-mode"], values["exit-boot-services"]) == ("on", "off", "success")
    assert values["command-line"].endswith("ima_policy=tcb ima_hash=sha256")
    assert [fact.hint for fact in state.all("file")] == ["(hd0)/EFI/debian/grub.cfg", "/vmlinuz", "/initrd.img"]
    assert len(state.all("application")) == 4  # shim, GRUB, and the kernel twice, with and without its stub
    assert len(state.all("authority")) == 2  # Microsoft's for shim, Debian's for GRUB and kernel
    assert not state.findings


def test_no_event_can_be_left_out() -> None:
    log = read_event_log(CAPTURED.log)
    quoted = CAPTURED.pcrs("sha256")
    offsets = [event.offset for event in log.events] + [len(CAPTURED.log)]
    extending = [n for n, event in enumerate(log.events) if event.extends]
    assert len(extending) > 40
    for number in extending:
        start, end = list(pairwise(offsets))[number]
        shorter = read_event_log(CAPTURED.log[:start] + CAPTURED.log[end:])
        assert refused(lambda log=shorter: prove(log, ALG_SHA256, quoted)) == "tpm.log.mismatch"  # type: ignore[misc]


def test_what_no_register_proves_is_no_fact() -> None:
    log = read_event_log(CAPTURED.log)
    assert not any(boot_state(log, ALG_SHA256, frozenset({0, 1})).one(name) for name in ("secure-boot", "command-line"))


# --- what ran -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bank", "extension"), [("sha256", "hashed"), ("sha384", "padded-ones")])
def test_its_list_is_proven_to_the_last_entry(bank: str, extension: str) -> None:
    result = appraise(CAPTURED.list(bank), bank)
    assert (result.proven, result.unproven, result.tail, result.refused) == (LAST + 1, 0, 0, 0)
    assert result.extension == extension
    assert result.accepted == {"boot-aggregate": 1, "listed": 936, "violation": 20}
    assert result.progress is not None


@pytest.mark.parametrize("number", [FIRST, 1, 477, LAST - 1, LAST])
def test_no_entry_can_be_left_out(number: int) -> None:
    offsets = read_binary(LIST).offsets
    shorter = LIST[: offsets[number]] + LIST[offsets[number + 1] :]
    assert refused(lambda: appraise(shorter)) == "tpm.ima.mismatch"


def renamed(number: int) -> bytes:
    offsets = read_binary(LIST).offsets
    name = list(read_binary(LIST).entries())[number].name
    entry = LIST[offsets[number] : offsets[number + 1]]
    return LIST[: offsets[number]] + entry.replace(name, b"x" * len(name)) + LIST[offsets[number + 1] :]


@pytest.mark.parametrize("number", [FIRST, 1, 477])
def test_no_entry_can_name_another_file(number: int) -> None:
    assert refused(lambda: appraise(renamed(number))) == "tpm.ima.template-digest"


def test_nothing_proves_what_a_violation_is_about_so_a_rule_has_to_name_it() -> None:
    result = appraise(renamed(LAST))
    assert (result.proven, result.refused, result.refusals[0].reason) == (LAST + 1, 1, "tpm.ima.violation")


@pytest.mark.parametrize(
    ("changes", "reason"),
    {
        "a file that is not listed": (
            {"files": (ImaFiles.of("sha256", set(sorted(listed())[1:])),)},
            "tpm.ima.unlisted",
        ),
        "the journal that is read while it is written": ({"rules": ()}, "tpm.ima.violation"),
    }.values(),
    ids=str,
)
def test_what_the_policy_does_not_know_is_refused(changes: dict[str, object], reason: str) -> None:
    result = appraise(chosen=policy(**changes))
    assert result.progress is None
    assert result.refusals[0].reason == reason


def test_a_bank_extended_with_sha1_is_accepted_only_where_the_policy_says_so() -> None:
    strict = policy(unsafe_padded=False)
    assert refused(lambda: appraise(CAPTURED.list("sha384"), "sha384", strict)) == "tpm.ima.padded"
