"""Reference values at the desk and on the command line: made of what nodes prove, moved, ended, one for each pool."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from attestation.challenge import Challenge
from attestation.errors import InterlockError, Untrusted
from attestation.evidence import TpmRecord, qualifying_data
from attestation.intent import Intent
from attestation.log import Record
from attestation.progress import boot_of
from attestation.reference import STATES
from attestation.tpm.ima.policy import ImaPolicy
from fixtures.attester import SoftTpm
from fixtures.gpu.records import Records
from fixtures.measured import Measured, captured, entry, listing
from tests.attestation.tpm.logs import honest
from tests.verifier.hall import CA, Hall, Host, allowed, denied, leased
from tests.verifier.test_cli import ask, refused, run, serving
from verifier.cli_refs import moment, span
from verifier.refs import bootdoc, imadoc, proven, spool
from verifier.refs.desk import CHUNK
from verifier.refs.listing import Listing
from verifier.terminal import call

PCRS = tuple(range(11))
ENTRIES = captured()[1]
SOLD = entry(b"/usr/bin/sold", b"sold")


class Logging(Host):
    """A host that measures what it boots and reads, and sends what a challenge asks for."""

    def measuring(self) -> Measured:
        self.measured = Measured(self.tpm)
        self.measured.boot()
        self.sent: list[tuple[int, int, int]] = []
        return self.measured

    @override
    def record(
        self, challenge: Challenge, intent: Intent, gpus: Records | None = None, grant: bytes | None = None
    ) -> TpmRecord:
        made = super().record(challenge, intent, gpus, grant)
        log = self.measured.log if "event-log" in challenge.wants and challenge.known_log is None else None
        here = boot_of(self.tpm.reset_count, self.tpm.restart_count)
        start = challenge.ima_next or 0 if challenge.ima_boot == here else 0
        ima = self.measured.list(start) if "ima" in challenge.wants else None
        self.sent.append((len(log or b""), start, len(ima or b"")))
        qualifying = qualifying_data(
            nonce=challenge.nonce,
            intent=intent.digest,
            holder=self.holder.public.thumbprint,
            gpus=tuple(sorted(gpus or [])),
            logs=(log, ima),
        )
        quote = self.tpm.quote(qualifying, challenge.bank, challenge.pcrs)
        return replace(
            made,
            quote=quote.attest,
            signature=quote.signature,
            event_log=log,
            ima=ima,
            ima_start=None if ima is None else start,
            workload=self.jobs.record(qualifying),
        )


def require(hall: Hall, *names: str) -> None:
    """The policies ask for PCRs 0 to 10, and require these checks."""
    settings = hall.policies / "settings.toml"
    lines = []
    for line in settings.read_text().splitlines():
        name = line.split(" = ")[0]
        lines.append(f'{name} = "required"' if name in names else f"pcrs = {list(PCRS)}" if name == "pcrs" else line)
    settings.write_text("\n".join(lines) + "\n")


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    made = Hall(tmp_path)
    require(made, "event-log", "ima")
    return made


async def furnish(hall: Hall, name: str = "host") -> Logging:
    """An active host that measures, without any reference of how it boots."""
    await hall.load()
    await hall.add_person(hall.person)
    token = await hall.command("token.create", node=name, pool="lab", activate=True)
    host = Logging(hall, name, SoftTpm(CA))
    host.measuring()
    await host.enrol(token["token"])
    for kind in ("code", "environment"):
        digest = getattr(hall.intent(), kind).hex()
        await hall.command("refs.approve", kind=kind, digest=digest, name=kind)
    return host


BOOT = {"node": "host", "name": "boot", "without": ["commands"], "accepted": []}


async def referred(hall: Hall, host: Logging) -> None:
    """References from what the host proved: denied once, then known."""
    denied(await host.ask(hall.intent()))
    await hall.command("refs.boot.from-node", **BOOT, activate=True)
    await hall.command("refs.ima.put", node="host", name="files", activate=True)


# --- from a node ------------------------------------------------------------------------------------------------------


def test_a_node_becomes_its_own_reference(hall: Hall) -> None:
    """Denied for want of reference values, they are made of what the denied request proved, and it is granted."""

    async def story() -> None:
        host = await furnish(hall)
        first = denied(await host.ask(hall.intent()))
        assert {"policy.required.event-log", "policy.required.ima"} <= {r.code for r in first.reasons}
        boot = await hall.command("refs.boot.from-node", **BOOT, activate=True)
        made = await hall.command("refs.ima.put", node="host", name="files", activate=True)
        assert (boot["kind"], boot["state"], boot["pools"]) == ("boot", "active", ["lab"])
        assert "evidence recorded at index" in boot["provenance"]
        assert (made["files"], made["left_out"], made["violations"]) == (len(ENTRIES) - 1, {"boot_aggregate": 1}, [])
        assert made["provenance"].startswith("host, 222 entries, evidence recorded at index")
        grant, _ = allowed(await host.ask(hall.intent()))
        assert hall.verifier.granted(grant.id).grant == grant

    with hall:
        hall.run(story())


def test_a_renewal_sends_no_log_and_no_old_entry_and_a_new_file_is_named(hall: Hall) -> None:
    async def story() -> None:
        host = await furnish(hall)
        await referred(hall, host)
        intent = hall.intent()
        grant, _ = allowed(await host.ask(intent))
        host.sent.clear()
        leased(await host.renew(grant, intent))
        assert host.sent == [(0, 222, 0)]
        host.measured.measure(SOLD)
        denial = denied(await host.renew(grant, intent))
        assert [r.code for r in denial.reasons] == ["tpm.ima.unlisted", "policy.required.ima"], "what was seen is first"
        assert "/usr/bin/sold" in (denial.reasons[0].detail or "")
        assert host.sent[1:] == [(0, 222, len(SOLD))]

    with hall:
        hall.run(story())


def test_a_list_that_came_in_parts_is_put_together(hall: Hall) -> None:
    async def story() -> None:
        host = await furnish(hall)
        await referred(hall, host)
        intent = hall.intent()
        grant, _ = allowed(await host.ask(intent))
        host.measured.measure(ENTRIES[7])
        leased(await host.renew(grant, intent))
        host.measured.measure(SOLD)
        denied(await host.renew(grant, intent))
        made = await hall.command("refs.ima.put", node="host", name="more", pools=["lab", "other"])
        assert made["provenance"].startswith("host, 224 entries")
        assert (made["files"], made["state"], made["pools"]) == (len(ENTRIES), "pending", ["lab", "other"])
        assert [start for start, _ in proven.shown(hall.verifier, "host")[0]] == [223, 222, 0]

    with hall:
        hall.run(story())


def test_only_what_a_quote_proves_counts(hall: Hall) -> None:
    async def story() -> None:
        host = await furnish(hall)
        host.measured.entries.append(SOLD)  # in the list, and never extended
        denied(await host.ask(hall.intent()))
        made = await hall.command("refs.ima.put", node="host", name="files")
        assert made["provenance"].startswith("host, 222 entries")

    with hall:
        hall.run(story())


def test_after_a_reboot_the_present_boot_counts(hall: Hall) -> None:
    async def story() -> None:
        host = await furnish(hall)
        denied(await host.ask(hall.intent()))
        host.tpm.reboot()
        host.measured.boot(ENTRIES[:50])
        denied(await host.ask(hall.intent()))
        made = await hall.command("refs.ima.put", node="host", name="files")
        assert made["provenance"].startswith("host, 50 entries")

    with hall:
        hall.run(story())


NOT_PROVEN = ("a list whose quote proves none of it", "a log that does not explain the quote", "a list that is none")


@pytest.mark.parametrize("name", NOT_PROVEN)
def test_what_is_not_proven_makes_no_reference(hall: Hall, name: str) -> None:
    async def story() -> str:
        host = await furnish(hall)
        if name == "a list whose quote proves none of it":
            host.measured.entries[0] = SOLD
        elif name == "a list that is none":
            host.measured.entries = [b"\0" * 40]
        else:
            host.measured.log = honest().to_bytes()
        denied(await host.ask(hall.intent()))
        command: dict[str, dict[str, Any]] = {
            "refs.boot.from-node": BOOT,
            "refs.ima.put": {"node": "host", "name": "files"},
        }
        which = "refs.boot.from-node" if "log" in name else "refs.ima.put"
        with pytest.raises(InterlockError) as caught:
            await hall.command(which, **command[which])
        return caught.value.reason

    reasons = dict(zip(NOT_PROVEN, ("ref.unproven", "tpm.log.mismatch", "tpm.ima.entry"), strict=True))
    with hall:
        assert hall.run(story()) == reasons[name]


def test_a_node_that_proved_nothing(hall: Hall) -> None:
    async def story() -> None:
        await furnish(hall)
        for command, arguments in (("refs.boot.from-node", BOOT), ("refs.ima.put", {"node": "host", "name": "files"})):
            with pytest.raises(Untrusted, match=r"ref\.unproven"):
                await hall.command(command, **arguments)
            with pytest.raises(Untrusted, match=r"node\.unknown"):
                await hall.command(command, **{**arguments, "node": "nobody"})

    with hall:
        hall.run(story())


def test_a_finding_of_the_node_has_to_be_accepted_by_name(hall: Hall) -> None:
    async def story() -> None:
        host = await furnish(hall)
        host.tpm.reboot()
        host.measured.log = honest().remove(-1).to_bytes()
        host.measured.boot()
        denied(await host.ask(hall.intent()))
        with pytest.raises(Untrusted, match=r"tpm\.boot\.exit-missing"):
            await hall.command("refs.boot.from-node", node="host", name="boot")
        made = await hall.command("refs.boot.from-node", node="host", name="boot", accepted=["tpm.boot.exit-missing"])
        assert made["state"] == "pending"

    with hall:
        hall.run(story())


# --- names, states, ends ----------------------------------------------------------------------------------------------


async def lists(hall: Hall, *names: str, pools: tuple[str, ...] = ("lab",), **more: Any) -> Any:
    """IMA references of one file each; what is answered about the last one."""
    made = None
    for name in names:
        found = Listing()
        found.file("sha256", f"/{name}".encode(), bytes(32))
        left = spool.leave(hall.directory, found.carrier().to_bytes())
        given = {"policy": left, "provenance": "a test", "name": name, "pools": list(pools)}
        made = await hall.command("refs.ima.put", **given, **more)
    return made


def states(hall: Hall) -> dict[str, str]:
    return {each["name"]: each["state"] for each in hall.run(hall.command("refs.list"))["lists"]}


@pytest.fixture
def open_hall(hall: Hall) -> Any:
    with hall:
        hall.run(hall.load())
        yield hall


def test_a_pool_has_one_list_in_use(open_hall: Hall) -> None:
    act = open_hall.run
    act(lists(open_hall, "old", activate=True))
    with pytest.raises(Untrusted, match=r"ref\.in-use.*old is active"):
        act(lists(open_hall, "new", activate=True))
    act(lists(open_hall, "new"))
    with pytest.raises(Untrusted, match=r"ref\.in-use.*pool lab: old is active"):
        act(open_hall.command("refs.set-state", name="new", state="obsolete"))
    assert states(open_hall) == {"old": "active", "new": "pending"}
    moved = act(open_hall.command("refs.set-state", name="new", state="active", replace=True))
    assert moved == {"name": "new", "state": "active", "retired": ["old"], "warnings": []}
    assert states(open_hall) == {"old": "retired", "new": "active"}
    act(lists(open_hall, "newer", activate=True, replace=True))
    assert states(open_hall) == {"old": "retired", "new": "retired", "newer": "active"}


def test_a_list_that_no_quote_could_prove_is_warned_of(tmp_path: Path) -> None:
    made = Hall(tmp_path)
    with made:
        made.run(made.load())
        made.run(lists(made, "files"))
        moved = made.run(made.command("refs.set-state", name="files", state="active"))
        (warning,) = moved["warnings"]
        assert warning.startswith("pool lab: PCR 10 is not among the pcrs")


@pytest.mark.parametrize("state", STATES)
def test_an_edit_leaves_state_pools_and_end_as_they_are(open_hall: Hall, state: str) -> None:
    act = open_hall.run
    act(open_hall.command("refs.boot.put", name="b", policy=_encoded(), provenance="1", pools=["x"], seconds=60))
    before = act(open_hall.command("refs.list"))["boots"][0]
    if state != "pending":
        act(open_hall.command("refs.set-state", name="b", state=state))
    act(open_hall.command("refs.boot.put", name="b", policy=_encoded(), provenance="2", keep=True))
    after = act(open_hall.command("refs.list"))["boots"][0]
    assert after == before | {"state": state, "provenance": "2"}


def test_lists_of_other_pools_do_not_disturb_each_other(open_hall: Hall) -> None:
    act = open_hall.run
    act(lists(open_hall, "both", pools=("lab", "other"), activate=True))
    act(lists(open_hall, "third", pools=("third",), activate=True))
    with pytest.raises(Untrusted, match="left without any"):
        act(lists(open_hall, "lab-only", activate=True, replace=True))
    assert states(open_hall) == {"both": "active", "third": "active"}


def test_what_is_in_use_is_not_replaced_by_what_is_not(open_hall: Hall) -> None:
    act = open_hall.run
    act(lists(open_hall, "files", activate=True))
    with pytest.raises(Untrusted, match=r"ref\.in-use.*--activate"):
        act(lists(open_hall, "files"))
    act(lists(open_hall, "files", pools=(), activate=True))  # its pools, and its place, are the same
    assert states(open_hall) == {"files": "active"}


def test_a_baseline_in_use_is_not_replaced_by_a_pending_one(open_hall: Hall) -> None:
    act = open_hall.run
    act(open_hall.add_host("n1"))
    act(open_hall.command("refs.from-node", node="n1", name="baseline", activate=True))
    with pytest.raises(Untrusted, match=r"ref\.in-use.*baseline is active.*--activate"):
        act(open_hall.command("refs.from-node", node="n1", name="baseline"))
    made = act(open_hall.command("refs.from-node", node="n1", name="baseline", activate=True))
    assert (made["state"], made["warnings"]) == ("active", [])


def test_a_pool_without_nodes_is_warned_of(open_hall: Hall) -> None:
    act = open_hall.run
    policy = {"policy": _encoded(), "provenance": "a test"}
    assert act(open_hall.command("refs.boot.put", name="b", **policy, pools=["labb"]))["warnings"] == [
        "no node is in pool labb"
    ]
    assert act(lists(open_hall, "files", pools=("labb",)))["warnings"] == ["no node is in pool labb"]
    act(open_hall.add_host("n1"))
    assert act(open_hall.command("refs.from-node", node="n1", name="v", pools=["labb"]))["warnings"] == [
        "no node is in pool labb"
    ]
    assert act(open_hall.command("refs.boot.put", name="c", **policy, pools=["lab"]))["warnings"] == []


def test_a_name_belongs_to_one_kind(open_hall: Hall) -> None:
    act = open_hall.run
    act(lists(open_hall, "taken"))
    policy = {"policy": _encoded(), "provenance": "a test", "pools": ["lab"]}
    with pytest.raises(Untrusted, match=r"ref\.taken"):
        act(open_hall.command("refs.boot.put", name="taken", **policy))
    act(open_hall.command("refs.boot.put", name="boot", **policy))
    with pytest.raises(Untrusted, match=r"ref\.taken"):
        act(lists(open_hall, "boot"))


def _encoded() -> str:
    import base64

    text = "secure_boot = true\ndeployed_mode = false\ndma_protection = false\nno_debug = true"
    return base64.b64encode(bootdoc.read(text).to_bytes()).decode()


BAD_PUTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no pool": ("refs.boot.put", {"pools": [], "name": "new"}, "admin.argument"),
    "no name": ("refs.boot.put", {"name": 1}, "admin.argument"),
    "a policy in no base64": ("refs.boot.put", {"policy": "?"}, "admin.argument"),
    "a policy that is none": ("refs.boot.put", {"policy": "AAAA"}, "cbor.not-deterministic"),
    "a policy that was changed meanwhile": ("refs.boot.put", {"expected": "00" * 32}, "ref.changed"),
    "a name that is too long": ("refs.boot.put", {"name": "x" * 200}, "wire.size"),
    "a moment that has passed": ("refs.boot.put", {"expires": 1}, "ref.time"),
    "two ends": ("refs.boot.put", {"expires": 1 << 40, "seconds": 5}, "ref.time"),
    "a negative end": ("refs.boot.put", {"seconds": -5}, "admin.argument"),
    "a list that nobody left": ("refs.ima.put", {"policy": "00" * 32}, "ref.spool"),
    "a list of nothing": ("refs.ima.put", {"policy": ""}, "ref.nothing"),
    "with a list that is not there": ("refs.ima.put", {"policy": "", "with": ["none"]}, "ref.unknown"),
    "with a boot reference": ("refs.ima.put", {"policy": "", "with": ["boot"]}, "ref.unknown"),
    "with names that are numbers": ("refs.ima.put", {"policy": "", "with": [1]}, "admin.argument"),
    "rules that are none": ("refs.ima.put", {"policy": "", "rules": "AAAA"}, "cbor.not-deterministic"),
}


@pytest.mark.parametrize("name", BAD_PUTS)
def test_references_that_are_refused(open_hall: Hall, name: str) -> None:
    command, changes, reason = BAD_PUTS[name]
    arguments: dict[str, Any] = {"name": "boot", "policy": _encoded(), "provenance": "a test", "pools": ["lab"]}
    open_hall.run(open_hall.command("refs.boot.put", **arguments))
    arguments["name"] = "boot" if command == "refs.boot.put" else "files"
    before = open_hall.run(open_hall.command("refs.list"))
    with pytest.raises(InterlockError) as caught:
        open_hall.run(open_hall.command(command, **arguments | changes))
    assert caught.value.reason == reason
    assert open_hall.run(open_hall.command("refs.list")) == before


def test_every_kind_ends_when_it_is_told(open_hall: Hall) -> None:
    act, now = open_hall.run, open_hall.verifier.clock.now()
    act(lists(open_hall, "files", seconds=60))
    act(open_hall.command("refs.approve", kind="code", digest="ab" * 32, name="code"))
    act(open_hall.command("refs.boot.put", name="boot", policy=_encoded(), provenance="a test", pools=["lab"]))
    assert act(open_hall.command("refs.expire", name="boot", expires=now + 5)) == {"name": "boot", "expires": now + 5}
    act(open_hall.command("refs.expire", name="code", seconds=7))
    listed = act(open_hall.command("refs.list"))
    ends = {row["name"]: row["expires"] for kind in ("boots", "lists", "approvals") for row in listed[kind]}
    assert ends == {"files": now + 60, "boot": now + 5, "code": now + 7}
    assert act(open_hall.command("refs.expire", name="files", never=True))["expires"] is None
    for arguments, reason in (
        ({"name": "none", "seconds": 5}, "ref.unknown"),
        ({"name": "files"}, "ref.time"),
        ({"name": "files", "expires": now}, "ref.time"),
        ({"name": "files", "never": True}, "ref.unknown"),
    ):
        with pytest.raises(InterlockError) as caught:
            act(open_hall.command("refs.expire", **arguments))
        assert caught.value.reason == reason


def test_every_change_has_its_record(open_hall: Hall) -> None:
    act, store = open_hall.run, open_hall.verifier.store
    before = store.head().size
    act(lists(open_hall, "files"))
    act(open_hall.command("refs.boot.put", name="boot", policy=_encoded(), provenance="a test", pools=["lab"]))
    act(open_hall.command("refs.set-state", name="files", state="active"))
    act(open_hall.command("refs.expire", name="boot", seconds=9))
    records = [Record.from_bytes(each.record) for each in store.records(before, 9)]
    assert [record.outcome for record in records] == ["references loaded"] * 4
    details = [record.detail or "" for record in records]
    assert details[0].startswith("IMA reference files pending, policy ")
    assert details[1:3] == ["boot reference boot pending", "files active"]
    policy = act(open_hall.command("refs.list"))["lists"][0]["policy"]
    assert bytes.fromhex(policy) in records[0].digests.values()
    assert ImaPolicy.from_bytes(open_hall.verifier.document(bytes.fromhex(policy))).files


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def home(hall: Hall) -> Path:
    """A verifier that nobody runs."""
    ask("policy", "load", str(hall.policies), dir_=hall.directory)
    return hall.directory


def write_log(tmp_path: Path) -> Path:
    (tmp_path / "boot.log").write_bytes(honest().to_bytes())
    return tmp_path / "boot.log"


def test_a_boot_log_becomes_a_reference_that_is_shown_edited_and_compared(home: Path, tmp_path: Path) -> None:
    made = ask("refs", "boot", "from-log", str(write_log(tmp_path)), "--name", "boot", "--pool", "lab", dir_=home)
    assert (made["state"], made["pools"], made["expires"]) == ("pending", ["lab"], None)
    assert "proven by no quote" in made["provenance"]
    text = run("refs", "boot", "show", "boot", dir_=home).stdout
    (tmp_path / "boot.toml").write_text(text)
    same = ask("refs", "boot", "edit", "boot", "--file", str(tmp_path / "boot.toml"), dir_=home)
    assert same["policy"] == made["policy"]
    weaker = text.replace("secure_boot = true", "secure_boot = false")
    (tmp_path / "boot.toml").write_text(weaker)
    ask(
        "refs",
        "boot",
        "load",
        str(tmp_path / "boot.toml"),
        "--name",
        "weaker",
        "--pool",
        "lab",
        "--in",
        "30d",
        dir_=home,
    )
    (row,) = ask("refs", "diff", "boot", "weaker", dir_=home)["demands"]
    assert row == {"demand": "secure_boot", "added": ["false"], "removed": ["true"]}
    assert run("refs", "diff", "boot", "weaker", dir_=home).stdout.splitlines() == ["secure_boot", "+ false", "- true"]
    assert run("refs", "diff", "boot", "boot", dir_=home).stdout == "no difference\n"
    edited = ask("refs", "boot", "edit", "weaker", "--file", str(write_toml(tmp_path, text)), dir_=home)
    assert (edited["policy"], edited["state"]) == (made["policy"], "pending")
    assert edited["provenance"] == "document boot.toml; edited"
    assert edited["expires"] is not None
    assert ask("refs", "boot", "show", "boot", dir_=home)["demands"]["sbat"] == 2024010900


def write_toml(tmp_path: Path, text: str) -> Path:
    (tmp_path / "again.toml").write_text(text)
    return tmp_path / "again.toml"


def test_an_editor_edits(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(
        "refs", "boot", "from-log", str(write_log(tmp_path)), "--name", "boot", "--pool", "lab", "--activate", dir_=home
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "sed -i s/no_debug.=.true/no_debug=false/")
    edited = ask("refs", "boot", "edit", "boot", dir_=home)
    assert edited["state"] == "active"
    assert ask("refs", "boot", "show", "boot", dir_=home)["demands"]["no_debug"] is False
    monkeypatch.setenv("VISUAL", "false")
    assert refused("refs", "boot", "edit", "boot", dir_=home) == "ref.document"
    monkeypatch.setenv("VISUAL", "sed -i s/sbat/colour/")
    assert refused("refs", "boot", "edit", "boot", dir_=home) == "ref.document"


def test_files_become_a_reference_in_every_way(home: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"".join(ENTRIES))
    (tmp_path / "image" / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "image" / "usr" / "bin" / "tool").write_bytes(b"tool")
    (tmp_path / "image" / "usr" / "bin" / "tool").chmod(0o755)
    (tmp_path / "rules.toml").write_text('cmdline_required = ["ima_policy=tcb"]')
    common = ("--pool", "lab", "--name")
    made = ask("refs", "ima", "from-list", str(tmp_path / "list"), *common, "list", dir_=home)
    assert (made["files"], made["left_out"]) == (len({*listing(ENTRIES)}), {"boot_aggregate": 1})
    image = ask("refs", "ima", "from-image", str(tmp_path / "image"), *common, "image", dir_=home)
    assert (image["files"], image["state"]) == (1, "pending")
    more = ("--with", "list", "--rules", str(tmp_path / "rules.toml"), "--activate", "--in", "90d")
    both = ask("refs", "ima", "from-image", str(tmp_path / "image"), *common, "both", *more, dir_=home)
    assert (both["files"], both["state"]) == (made["files"] + 1, "active")
    assert both["provenance"].endswith("; with list")
    assert both["expires"] is not None
    found = ask("refs", "diff", "list", "both", dir_=home)
    assert [row["path"] for row in found["added"]] == ["/usr/bin/tool"]
    assert [row["demand"] for row in found["demands"]] == ["cmdline_required"]
    shown = ask("refs", "ima", "show", "both", dir_=home)
    assert shown["files"] == both["files"]
    assert imadoc.read(shown["demands"]).cmdline_required == ("ima_policy=tcb",)
    assert "ima_policy=tcb" in run("refs", "ima", "show", "both", dir_=home).stdout
    assert "  /usr/bin/tool\n" in run("refs", "ima", "show", "both", "--files", dir_=home).stdout
    assert len(ask("refs", "ima", "show", "both", "--files", dir_=home)["files"]) == both["files"]
    assert "both" in run("refs", "list", dir_=home).stdout
    assert not list((home / spool.DIRECTORY).iterdir())


def test_packages_become_a_reference(home: Path, tmp_path: Path) -> None:
    import lzma

    from tests.verifier.test_refs_sources import data_tar, package

    files = []
    for number in range(6):
        data = package(lzma.compress(data_tar({f"usr/bin/{number}": (0o755, b"%d" % number)})))
        (tmp_path / f"{number}.deb").write_bytes(data)
        files.append(str(tmp_path / f"{number}.deb"))
    made = ask("refs", "ima", "from-debs", *files, "--name", "debs", "--pool", "lab", dir_=home)
    assert (made["files"], made["provenance"][:24]) == (6, "6 packages: 0.deb, 1.deb")


def test_a_large_list_reaches_the_running_service(hall: Hall, home: Path, tmp_path: Path) -> None:
    lines = [entry(b"/usr/lib/package/%06d.so" % number, b"%d" % number) for number in range(20_000)]
    (tmp_path / "list").write_bytes(b"".join(lines))
    with serving(hall):
        made = ask("refs", "ima", "from-list", str(tmp_path / "list"), "--name", "l", "--pool", "lab", dir_=home)
        assert made["files"] == 20_000
        assert len(ask("refs", "ima", "show", "l", "--files", dir_=home)["files"]) == 20_000
        assert refused("refs", "ima", "from-list", str(tmp_path / "list"), "--name", "m", dir_=home) == "admin.argument"
    assert not list((home / spool.DIRECTORY).iterdir())


COMMANDS = {
    "a log that is not there": (("boot", "from-log", "none", "--name", "x", "--pool", "p"), "ref.source"),
    "a log that is none": (("boot", "from-log", "rubbish", "--name", "x", "--pool", "p"), "tpm.log.size"),
    "a bank that does not exist": (("boot", "from-log", "log", "--name", "x", "--bank", "md5"), "admin.argument"),
    "a bank that the log lacks": (("boot", "from-log", "log", "--name", "x", "--bank", "sha384"), "tpm.log.bank"),
    "a document that is none": (("boot", "load", "rubbish", "--name", "x", "--pool", "p"), "ref.document"),
    "a document that is no text": (("boot", "load", "log", "--name", "x", "--pool", "p"), "ref.document"),
    "a time that is none": (("boot", "from-log", "log", "--name", "x", "--pool", "p", "--in", "soon"), "ref.time"),
    "no pool": (("boot", "from-log", "log", "--name", "x"), "admin.argument"),
    "a list that is none": (("ima", "from-list", "rubbish", "--name", "x", "--pool", "p"), "tpm.ima.entry"),
    "an image that is a file": (("ima", "from-image", "log", "--name", "x", "--pool", "p"), "ref.source"),
    "an empty image": (("ima", "from-image", ".", "--name", "x", "--pool", "p"), "ref.nothing"),
    "a package that is none": (("ima", "from-debs", "log", "--name", "x", "--pool", "p"), "ref.source"),
    "rules that are none": (("ima", "from-node", "n", "--name", "x", "--rules", "rubbish"), "ref.document"),
    "a node that is none": (("ima", "from-node", "n", "--name", "x"), "node.unknown"),
    "a node without a log": (("boot", "from-node", "n", "--name", "x"), "node.unknown"),
    "what is not there, shown": (("boot", "show", "x"), "ref.unknown"),
    "a list shown as a boot": (("boot", "show", "files"), "ref.taken"),
    "a boot shown as a list": (("ima", "show", "boot"), "ref.taken"),
    "a list compared with a boot": (("diff", "files", "boot"), "ref.taken"),
    "no end": (("expire", "boot"), "ref.time"),
    "two ends": (("expire", "boot", "--in", "5d", "--never"), "ref.time"),
    "an end that is none": (("expire", "boot", "--at", "tomorrow"), "ref.time"),
    "an end in the past": (("expire", "boot", "--at", "2020-01-01"), "ref.time"),
}


def test_commands_that_are_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").mkdir()
    Path("log").write_bytes(honest().to_bytes())
    Path("rubbish").write_bytes(b"\1rubbish " * 30)
    Path("list").write_bytes(SOLD)
    ask("refs", "boot", "from-log", "log", "--name", "boot", "--pool", "lab", dir_=home)
    ask("refs", "ima", "from-list", "list", "--name", "files", "--pool", "lab", dir_=home)
    for name, (arguments, reason) in COMMANDS.items():
        assert refused("refs", *arguments, dir_=home) == reason, name


def test_times() -> None:
    assert (span("90d"), span("12h"), span("30m"), span("")) == (90 * 86_400, 12 * 3600, 1800, 0)
    assert moment("2027-01-31T12:00:00Z") == moment("2027-01-31T13:00:00+01:00") == moment("2027-01-31") + 12 * 3600
    for text in ("0d", "5", "d", "5w", "-5d", "9999999d"):
        with pytest.raises(InterlockError, match=r"ref\.time"):
            span(text)


def test_a_list_that_is_replaced_while_it_is_fetched_is_none(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list").write_bytes(b"".join(ENTRIES))
    ask("refs", "ima", "from-list", str(tmp_path / "list"), "--name", "l", "--pool", "lab", dir_=home)
    (tmp_path / "list").write_bytes(SOLD)
    monkeypatch.setattr("verifier.refs.desk.CHUNK", 1000)

    def replacing(directory: Path, command: str, **arguments: Any) -> Any:
        answer = call(directory, command, **arguments)
        if "offset" not in arguments:
            ask("refs", "ima", "from-list", str(tmp_path / "list"), "--name", "l", "--pool", "lab", dir_=home)
        return answer

    monkeypatch.setattr("verifier.cli_refs.call", replacing)
    assert refused("refs", "ima", "show", "l", dir_=home) == "ref.changed"


def test_a_large_list_comes_back_in_parts(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifier.refs.desk.CHUNK", 1000)
    assert CHUNK == 8 << 20
    (tmp_path / "list").write_bytes(b"".join(ENTRIES))
    made = ask("refs", "ima", "from-list", str(tmp_path / "list"), "--name", "l", "--pool", "lab", dir_=home)
    assert len(ask("refs", "ima", "show", "l", "--files", dir_=home)["files"]) == made["files"]
