"""Bundles as the verifier makes them, while a job runs and after it."""

from pathlib import Path

import pytest

from attestation.audit import verify_bundle
from attestation.bundle import Bundle, Root
from attestation.errors import Untrusted
from tests.verifier.hall import Hall, allowed, leased
from verifier.bundles import make_bundle


def test_a_bundle_grows_with_its_job(tmp_path: Path) -> None:
    with Hall(tmp_path) as hall:
        root = Root.from_pem(hall.verifier.keys.root)

        def audited(cti: bytes) -> Bundle:
            data = make_bundle(hall.verifier, cti)
            assert all(check.ok for check in verify_bundle(data, root))
            return Bundle.from_bytes(data)

        async def act() -> None:
            host = await hall.furnish()
            intent = hall.intent()
            grant, _ = allowed(await host.ask(intent))
            assert len(audited(grant.id).leaves) == 2
            hall.hands.time += 10
            leased(await host.renew(grant, intent))
            assert len(audited(grant.id).leases) == 2
            await host.report(grant)
            assert len(audited(grant.id).leaves) == 4

        hall.run(act())


def test_there_is_no_bundle_of_what_never_was(tmp_path: Path) -> None:
    with Hall(tmp_path) as hall:
        for cti in (bytes(16), b""):
            with pytest.raises(Untrusted, match=r"grant\.unknown"):
                make_bundle(hall.verifier, cti)
