"""Jobs that a host's TPM has measured, held against what was granted.

The appraisal proves which jobs were measured since the last time (:mod:`attestation.workload`); it cannot know whether
they were granted. The verifier does: each has to be of a grant that it gave to this node, with the code and the
environment that it was given for. So whoever takes over an agent cannot let a job of their own into the sequence.
"""

from attestation.errors import Untrusted
from attestation.workload import WorkloadEntry
from verifier.judge import Judgement
from verifier.state import Verifier


def only_granted(verifier: Verifier, judged: Judgement) -> Judgement:
    """The judgement, as a hard denial where a job was measured that this verifier did not grant to the node."""
    for entry in judged.jobs:
        try:
            _check(verifier, entry, judged.case.node.name)
        except Untrusted as error:
            return judged.refuse("tpm.workload.unknown", f"grant {entry.grant.hex()}: {error.detail}")
    return judged


def _check(verifier: Verifier, entry: WorkloadEntry, node: str) -> None:
    granted = verifier.granted(entry.grant)
    if granted.grant.node != node:
        raise Untrusted("grant.node", f"given to node {granted.grant.node}")
    if (entry.code, entry.environment) != (granted.intent.code, granted.intent.environment):
        raise Untrusted("code.changed", f"measured code {entry.code.hex()}, environment {entry.environment.hex()}")
