"""Bundles as the verifier makes them, while a job runs and after it."""

from pathlib import Path
from typing import Any

import pytest

from attestation import cbor
from attestation.audit import verify_bundle
from attestation.bundle import Bundle, Root
from attestation.cose import RECEIPTS
from attestation.errors import Untrusted
from attestation.grant import Authorization
from attestation.log import Record
from tests.verifier.hall import Hall, allowed, denied, leased
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


def test_receipts_are_those_that_were_handed_out(tmp_path: Path) -> None:
    with Hall(tmp_path) as hall:

        async def act() -> None:
            host, intent = await hall.furnish(), hall.intent()
            answer = await host.ask(intent)
            grant, _ = allowed(answer)
            denial = denied(await host.ask(hall.intent(code=bytes(32))))
            renewed = await host.renew(grant, intent)
            leased(renewed)
            reported = await host.report(grant)
            assert isinstance(answer, Authorization)
            assert isinstance(renewed, bytes)
            made = Bundle.from_bytes(make_bundle(hall.verifier, grant.id))
            assert receipt(made.grant) == receipt(answer.grant)
            assert [receipt(lease) for lease in made.leases] == [receipt(answer.lease), receipt(renewed)]
            assert [leaf.receipt for leaf in made.leaves] == [None, None, None, reported]
            first = made.leaves[0].index
            assert [proof.size for proof in made.consistency] == [first + 2, first + 4, first + 5]
            refused = Bundle.from_bytes(make_bundle(hall.verifier, Record.from_bytes(denial.record).job or b""))
            assert [leaf.receipt for leaf in refused.leaves] == [denial.receipt]
            assert [proof.size for proof in refused.consistency] == [first + 3]

        hall.run(act())


def receipt(token: bytes | None) -> Any:
    """The receipt in a grant or lease."""
    value: Any = cbor.decode(token or b"", max_size=1 << 20, tags=frozenset({18}))
    (found,) = value.value[1][RECEIPTS]
    return found


def test_there_is_no_bundle_of_what_never_was(tmp_path: Path) -> None:
    with Hall(tmp_path) as hall:
        for cti in (bytes(16), b""):
            with pytest.raises(Untrusted, match=r"grant\.unknown"):
                make_bundle(hall.verifier, cti)
