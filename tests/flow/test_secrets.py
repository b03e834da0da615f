"""A secret in the hands of a job: from the operator's command, through a real TPM, to the end of the lease and back."""

import pytest

from tests.flow.scenes import SECRET, Secret

pytestmark = pytest.mark.root


def test_a_job_holds_a_secret_only_while_its_lease_does(secret: Secret) -> None:
    """The agent hung as the lease ended: the deadman took the secret away; the TPM opened it again for the thaw."""
    assert secret.held == [SECRET, b"", SECRET, b""]
    assert secret.leases >= 1
    assert (secret.ending["code"], secret.ending["event"]) == (0, "finished")
