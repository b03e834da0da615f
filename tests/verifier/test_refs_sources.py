"""What files there may be: from measurement lists, images and packages, put together, and left for the service."""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import random
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.tpm.ima.policy import PLAIN, ImaBuffer, ImaPolicy
from fixtures.measured import captured, entry, listing
from tests import vectors
from tests.attestation.tpm.ima.lists import Item, sha256
from verifier.refs import diff, imadoc, sources, spool
from verifier.refs.listing import Listing, listed


def names(found: Listing) -> dict[str, bytes]:
    """Digests of the SHA-256 files by path; each path has one."""
    files = sorted(found.files.get("sha256", ()))
    assert len({path for path, _ in files}) == len(files)
    return {path.decode(): digest for path, digest in files}


# --- measurement lists ------------------------------------------------------------------------------------------------

GENUINE = {
    "ima-evm-utils-test.ascii": (2, 0),
    "rust-keylime.ascii": (825, 0),
    "keylime-tests-ima-sig.ascii": (3, 0),
    "keylime-tests-ima-buf-keyrings.ascii": (0, 6),
    "sml-ima-ng-sha1.binary": (5, 0),
    "sml-ima-sha1.binary": (11, 0),
}


@pytest.mark.parametrize("name", GENUINE)
def test_genuine_lists(name: str) -> None:
    found = sources.from_list(vectors.path("evidence/tpm/ima") / name)
    assert (found.count, len(found.buffers)) == GENUINE[name]
    weak = imadoc.read('unsafe_algorithms = ["sha1"]')
    policy = found.under(weak if "sha1" in found.files else PLAIN)
    assert sum(len(list(files.pairs())) for files in policy.files) == found.count


def test_the_list_of_a_genuine_machine() -> None:
    _, entries = captured()
    found = listed(b"".join(entries))
    assert found.skipped == {"boot_aggregate": 1}
    assert found.files == {"sha256": {*listing(entries)}}


def test_a_list_in_both_forms_is_the_same(tmp_path: Path) -> None:
    items = [
        Item(b"boot_aggregate", sha256(b"b")),
        Item(b"/usr/bin/a_b", sha256(b"a")),
        Item(b"/v", bytes(32), violation=True),
    ]
    items.append(Item(b"kexec-cmdline", sha256(b"line"), template=b"ima-buf", extra=b"line"))
    lists = {"ascii": b"".join(each.line() for each in items), "binary": b"".join(each.raw() for each in items)}
    for form, data in lists.items():
        (tmp_path / form).write_bytes(data)
        found = sources.from_list(tmp_path / form)
        assert names(found) == {"/usr/bin/a_b": sha256(b"a")}
        assert found.buffers == {b"kexec-cmdline": {sha256(b"line")}}
        assert (found.skipped["violations"], found.violations) == (1, {"/v"})


BAD_LISTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "not there": (lambda path: None, "ref.source"),
    "a directory": (lambda path: path.mkdir(), "ref.source"),
    "too large": (lambda path: path.write_bytes(bytes((64 << 20) + 1)), "ref.source"),
    "no list": (lambda path: path.write_bytes(b"hello, world, this is no list\n"), "tpm.ima.entry"),
    "cut": (lambda path: path.write_bytes(entry(b"/a", b"a") + entry(b"/b", b"b")[:-3]), "tpm.ima.truncated"),
    "an unknown template": (
        lambda path: path.write_bytes(entry(b"/a", b"a").replace(b"ima-ng", b"ima-xx")),
        "tpm.ima.template",
    ),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_lists_that_are_refused(tmp_path: Path, name: str) -> None:
    make, reason = BAD_LISTS[name]
    make(tmp_path / "list")
    with pytest.raises(InterlockError) as refused:
        sources.from_list(tmp_path / "list")
    assert refused.value.reason == reason


# --- images -----------------------------------------------------------------------------------------------------------

FILES: dict[str, tuple[int, bytes]] = {
    "usr/bin/tool": (0o755, b"tool"),
    "usr/bin/with space": (0o700, b"space"),
    "usr/lib/x86_64-linux-gnu/libc.so.6": (0o644, b"libc"),
    "usr/lib/modules/6.1/kernel/fs/fat.ko": (0o644, b"fat"),
    "usr/lib/modules/6.1/kernel/fs/ext4.ko.xz": (0o644, b"ext4"),
    "usr/lib/firmware/card.bin": (0o644, b"firmware"),
    "usr/share/doc/readme": (0o644, b"readme"),
    "etc/libc.so.conf": (0o644, b"conf"),
}
MEASURED = {name for name in FILES if name not in ("usr/share/doc/readme", "etc/libc.so.conf")}


def made(root: Path) -> Path:
    for name, (mode, content) in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    (root / "lib").symlink_to("usr/lib")
    (root / "usr/bin/link").symlink_to("tool")
    os.mkfifo(root / "usr/bin/pipe", 0o755)
    return root


def shown(name: str, content: bytes) -> tuple[str, bytes]:
    return "/" + name.replace(" ", "_"), hashlib.sha256(content).digest()


def test_an_image_gives_what_is_executed_mapped_and_loaded(tmp_path: Path) -> None:
    found = sources.from_image(made(tmp_path))
    assert names(found) == dict(shown(name, FILES[name][1]) for name in MEASURED)
    assert found.skipped == {"not executable": 2}
    assert names(sources.from_image(tmp_path, everything=True)) == dict(shown(n, c) for n, (_, c) in FILES.items())


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o755))
    found = sources.from_image(tmp_path)
    assert found.files == {"sha256": {(b"/\xff\xfe", hashlib.sha256().digest())}}
    assert imadoc.shown(b"/\xff\xfe") == "/\\xff\\xfe"


def test_images_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(Malformed, match=r"ref\.source"):
            sources.from_image(path)
    made(tmp_path / "image")

    def broken(*_: object, **__: object) -> object:
        raise OSError("a disk error")

    monkeypatch.setattr(os, "lstat", broken)
    with pytest.raises(Malformed, match="a disk error"):
        sources.from_image(tmp_path / "image")


# --- packages ---------------------------------------------------------------------------------------------------------


def data_tar(files: Mapping[str, tuple[int, bytes]], *, links: Mapping[str, str] | None = None) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, (mode, content) in files.items():
            member = tarfile.TarInfo("./" + name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
        for name, to in (links or {}).items():
            member = tarfile.TarInfo("./" + name)
            member.type, member.linkname, member.mode = tarfile.LNKTYPE, "./" + to, 0o755
            archive.addfile(member)
        folder = tarfile.TarInfo("./usr")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
    return target.getvalue()


def ar(members: Mapping[str, bytes], magic: bytes = b"!<arch>\n") -> bytes:
    packed = magic
    for name, data in members.items():
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}".encode() + b"`\n" + data
        packed += b"\n" * (len(data) % 2)
    return packed


def package(data: bytes, name: str = "data.tar.xz") -> bytes:
    control = gzip.compress(b"control")
    return ar({"debian-binary": b"2.0\n", "control.tar.gz": control, name: data})


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "data.tar.xz": lzma.compress,
    "data.tar.gz": gzip.compress,
    "data.tar.bz2": bz2.compress,
    "data.tar.lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "data.tar": bytes,
}


@pytest.mark.parametrize("name", PACKERS)
def test_a_package_gives_what_is_executed_mapped_and_loaded(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.deb").write_bytes(package(PACKERS[name](data_tar(FILES)), name))
    found = sources.from_package(tmp_path / "p.deb")
    assert names(found) == dict(shown(name, FILES[name][1]) for name in MEASURED)
    assert found.skipped == {"not executable": 2}
    assert sources.from_package(tmp_path / "p.deb", everything=True).count == len(FILES)


@pytest.mark.skipif(shutil.which("zstd") is None or shutil.which("dpkg-deb") is None, reason="needs zstd and dpkg-deb")
def test_a_package_that_python_cannot_unpack(tmp_path: Path) -> None:
    packed = subprocess.run(["zstd", "-c"], input=data_tar(FILES), capture_output=True, check=True).stdout
    (tmp_path / "p.deb").write_bytes(package(packed, "data.tar.zst"))
    assert sources.from_package(tmp_path / "p.deb").count == len(MEASURED)
    (tmp_path / "p.deb").write_bytes(package(packed[: len(packed) // 2], "data.tar.zst"))
    with pytest.raises(Malformed, match=r"ref\.source"):
        sources.from_package(tmp_path / "p.deb")


def test_what_follows_the_data_is_not_looked_at(tmp_path: Path) -> None:
    data = gzip.compress(data_tar(FILES))
    (tmp_path / "p.deb").write_bytes(package(data, "data.tar.gz") + ar({"_gpgorigin": b"signature" * 9999})[8:])
    assert sources.from_package(tmp_path / "p.deb").count == len(MEASURED)


def test_packages_with_errors_are_refused_or_read(tmp_path: Path) -> None:
    """Nothing but ``ref.source`` comes out, whatever is broken."""
    chance = random.Random(7)
    for name, pack in PACKERS.items():
        whole = package(pack(data_tar(FILES, links={"usr/bin/l": "usr/bin/tool"})), name)
        for _ in range(60):
            broken = bytearray(whole)
            for _ in range(chance.choice((1, 2, 20))):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            (tmp_path / "p.deb").write_bytes(broken)
            with contextlib.suppress(Malformed):
                sources.from_package(tmp_path / "p.deb")


def test_both_places_of_merged_directories(tmp_path: Path) -> None:
    files = {
        "lib/x86_64-linux-gnu/libc.so.6": (0o644, b"libc"),
        "bin/sh": (0o755, b"sh"),
        "opt/lib/a.so": (0o644, b"a"),
    }
    (tmp_path / "p.deb").write_bytes(package(lzma.compress(data_tar(files))))
    assert sorted(names(sources.from_package(tmp_path / "p.deb"))) == [
        "/bin/sh",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/opt/lib/a.so",
        "/usr/bin/sh",
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
    ]


def test_a_link_is_the_file_that_it_is_of(tmp_path: Path) -> None:
    data = data_tar({"usr/bin/perl": (0o755, b"perl")}, links={"usr/bin/perl5": "usr/bin/perl"})
    (tmp_path / "p.deb").write_bytes(package(lzma.compress(data)))
    assert {*names(sources.from_package(tmp_path / "p.deb")).values()} == {hashlib.sha256(b"perl").digest()}


BAD_PACKAGES = {
    "not there": None,
    "no archive": b"hello",
    "another magic": ar({"data.tar": b""}, magic=b"!<thin>\n"),
    "no data": ar({"debian-binary": b"2.0\n"}),
    "a size that is none": ar({"debian-binary": b"2.0\n"}).replace(b"4         `", b"x         `"),
    "a header that is none": ar({"debian-binary": b"2.0\n"}).replace(b"`\n", b"''"),
    "data that is no archive": package(b"hello" * 300),
    "data that is cut": package(lzma.compress(data_tar({"usr/bin/a": (0o755, os.urandom(200_000))}))[:100_000]),
    "a link to nothing": package(lzma.compress(data_tar({}, links={"usr/bin/a": "usr/bin/b"}))),
}


@pytest.mark.parametrize("name", BAD_PACKAGES)
def test_packages_that_are_refused(tmp_path: Path, name: str) -> None:
    data = BAD_PACKAGES[name]
    if data is not None:
        (tmp_path / "p.deb").write_bytes(data)
    with pytest.raises(Malformed, match=r"ref\.source"):
        sources.from_package(tmp_path / "p.deb")


def test_a_package_whose_tool_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.deb").write_bytes(package(b"", "data.tar.zst"))
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(Malformed, match="dpkg-deb"):
        sources.from_package(tmp_path / "p.deb")


# --- put together -----------------------------------------------------------------------------------------------------


def test_sources_are_put_together() -> None:
    first, second = Listing(), Listing()
    first.file("sha256", b"/a", sha256(b"1"))
    second.file("sha256", b"/a", sha256(b"2"))
    second.file("sha512", b"/b", hashlib.sha512().digest())
    second.buffers[b"x"] = {sha256(b"x")}
    second.skipped["violations"] += 1
    second.violations.add("/v")
    first.add(second)
    policy = first.under(PLAIN)
    assert [(files.algorithm, len(list(files.pairs()))) for files in policy.files] == [("sha256", 2), ("sha512", 1)]
    assert (first.count, first.skipped["violations"], first.violations) == (3, 1, {"/v"})
    again = Listing()
    again.policy(first.carrier())
    assert again.under(PLAIN) == policy


def test_a_buffer_that_is_unchecked_stays_so() -> None:
    found = Listing(buffers={b"x": {sha256(b"x")}})
    found.policy(imadoc.read('[[buffer]]\nname = "x"\nunchecked = true'))
    assert found.under(PLAIN).buffers == (ImaBuffer(name=b"x", digests=(), unchecked=True),)


NO_POLICIES = {
    "nothing at all": (Listing(), "ref.nothing"),
    "a weak digest": (Listing(files={"sha1": {(b"/a", bytes(20))}}), "ref.weak"),
    "another weak digest": (Listing(files={"md5": {(b"/a", bytes(16))}}), "ref.weak"),
    "an algorithm that lists no files": (Listing(files={"sm3": {(b"/a", bytes(32))}}), "tpm.ima.policy.files"),
    "an empty name": (Listing(files={"sha256": {(b"", bytes(32))}}), "tpm.ima.policy.files"),
    "a name that is too long": (Listing(files={"sha256": {(b"/" * 5000, bytes(32))}}), "tpm.ima.policy.files"),
}


@pytest.mark.parametrize("name", NO_POLICIES)
def test_listings_that_make_no_policy(name: str) -> None:
    found, reason = NO_POLICIES[name]
    with pytest.raises(Malformed) as refused:
        found.under(PLAIN)
    assert refused.value.reason == reason


def test_the_difference_of_lists_is_by_path() -> None:
    old, new = Listing(), Listing()
    for path, digest in {b"/same": b"s", b"/gone": b"g", b"/changed": b"1"}.items():
        old.file("sha256", path, sha256(digest))
    for path, digest in {b"/same": b"s", b"/new": b"n", b"/changed": b"2"}.items():
        new.file("sha256", path, sha256(digest))
    rules = imadoc.read('most_kexecs = 2\n[[rule]]\nkind = "literal"\npath = "/v"\nunchecked = ["violation"]')
    found = diff.ima_diff(old.under(PLAIN), new.under(rules))
    assert found["added"] == [{"path": "/new", "digests": [f"sha256:{sha256(b'n').hex()}"]}]
    assert found["removed"] == [{"path": "/gone", "digests": [f"sha256:{sha256(b'g').hex()}"]}]
    assert [(row["path"], row["before"] != row["after"]) for row in found["changed"]] == [("/changed", True)]
    assert [row["demand"] for row in found["demands"]] == ["most_kexecs", "rule"]
    lines = list(diff.lines(found, 1))
    assert lines[:2] == ["1 files added", f"+ /new  sha256:{sha256(b'n').hex()}"]
    assert "+ kind=literal path=/v unchecked=violation" in lines
    assert list(diff.lines(found, 0))[1] == "  ... and 1 more (--all)"
    same = diff.ima_diff(new.under(rules), new.under(rules))
    assert (any(same.values()), list(diff.lines(same, 9))) == (False, [])


# --- left for the service ---------------------------------------------------------------------------------------------


def test_what_is_left_is_taken_once(tmp_path: Path) -> None:
    name = spool.leave(tmp_path, b"policy")
    path = tmp_path / spool.DIRECTORY / name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert spool.take(tmp_path, bytes.fromhex(name)) == b"policy"
    with pytest.raises(Untrusted, match=r"ref\.spool"):
        spool.take(tmp_path, bytes.fromhex(name))


def test_other_bytes_than_the_name_says_are_refused_and_removed(tmp_path: Path) -> None:
    name = spool.leave(tmp_path, b"policy")
    path = tmp_path / spool.DIRECTORY / name
    path.write_bytes(b"another")
    with pytest.raises(Untrusted, match=r"ref\.spool"):
        spool.take(tmp_path, bytes.fromhex(name))
    assert not path.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    name = spool.leave(tmp_path, b"policy")
    path = tmp_path / spool.DIRECTORY / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Untrusted, match=r"ref\.spool"):
        spool.take(tmp_path, bytes.fromhex(name))
    path.symlink_to(tmp_path / "elsewhere")
    spool.leave(tmp_path, b"policy")
    assert not path.is_symlink()


def test_a_directory_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """The command may run as root, and the directory is the service's: nothing of others is written or given away."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / spool.DIRECTORY).symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        spool.leave(tmp_path, b"policy")
    assert not list((tmp_path / "theirs").iterdir())


@pytest.mark.root
def test_what_root_leaves_is_the_service_s(tmp_path: Path) -> None:
    os.chown(tmp_path, 4321, 4321)
    path = tmp_path / spool.DIRECTORY / spool.leave(tmp_path, b"policy")
    assert (path.stat().st_uid, path.parent.stat().st_uid) == (4321, 4321)


def test_a_policy_of_a_distribution_goes_through(tmp_path: Path) -> None:
    """200,000 files: as bytes, on the way to the service, and as a policy again."""
    found = Listing()
    found.files["sha256"] = {
        (b"/usr/share/package/%06d" % n, hashlib.sha256(b"%d" % n).digest()) for n in range(200_000)
    }
    data = found.carrier().to_bytes()
    assert ImaPolicy.from_bytes(spool.take(tmp_path, bytes.fromhex(spool.leave(tmp_path, data)))).to_bytes() == data
