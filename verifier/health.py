"""Is this verifier alive, ready, and to be trusted with issuing? Three questions, three answers.

========= ==================================================================================================
live      the process answers
ready     it may be asked: everything below is well, and a policy, reference values and anchors are loaded
trust     log:    the sequencer accepts records, and the newest checkpoint is there
          signer: the keys that sign do sign a test statement that their public keys verify (for the policy key it is
                  no approval of anything: those have 64 bytes)
          clock:  the wall clock has not been stepped, and the log has no record from the future
          store:  a write reaches the disk
========= ==================================================================================================

Beside these, ``collateral`` is stale where something that was used in the last hour to believe a device has run out
and no new one was had. That stops nobody by itself: what may still be believed, and for how long, is for the policy.

While a part of trust is not well, nothing is issued: :meth:`Health.require` raises, and requests get a 503 problem. The
answer is looked at again after :data:`FRESH_SECONDS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from attestation.errors import InterlockError
from attestation.keys import Signer
from attestation.log import Record
from verifier.clock import TOLERANCE, boot_seconds
from verifier.gather import IN_USE_SECONDS
from verifier.sequencer import Sequencer
from verifier.state import Unwell, Verifier

FRESH_SECONDS = 1.0
FUTURE_SECONDS = 60
_MOST_NAMED = 4
_STATEMENT = b"interlock/health/1: this is a test of a key and permits nothing"


@dataclass(eq=False)
class Health:
    """The health of one verifier. ``boot`` returns seconds that only rise."""

    verifier: Verifier
    sequencer: Sequencer
    boot: Callable[[], float] = boot_seconds
    _found: dict[str, str] = field(default_factory=dict)
    _looked: float | None = None

    def trust(self) -> dict[str, str]:
        """Each part and what is wrong with it; empty text where it is well."""
        now = self.boot()
        if self._looked is None or now - self._looked >= FRESH_SECONDS:
            self._found = {name: _outcome(check) for name, check in self._checks().items()}
            self._looked = now
            for name, wrong in self._found.items():
                self.verifier.metrics.trusted.labels(name).set(not wrong)
        return self._found

    def require(self) -> None:
        """Raise ``Unwell("verifier.untrusted")`` while any part is not well."""
        wrong = [f"{name}: {what}" for name, what in self.trust().items() if what]
        if wrong:
            raise Unwell("verifier.untrusted", "; ".join(wrong))

    def collateral(self) -> str:
        """What has run out of the collateral that is in use; empty text where nothing has."""
        expired = self.verifier.shelf.expired(self.verifier.clock.now(), within=IN_USE_SECONDS)
        named = ", ".join(f"{kept.kind} {kept.id}" for kept in expired[:_MOST_NAMED])
        return str(Unwell("collateral.expired", f"{len(expired)}: {named}")) if expired else ""

    def loaded(self) -> str:
        """What is missing before anything can be decided; empty text where nothing is."""
        return _outcome(lambda: (self.verifier.in_force(), self.verifier.active("anchors")))

    def is_ready(self) -> bool:
        """Whether the verifier may be asked."""
        return not any(self.trust().values()) and not self.loaded()

    def _checks(self) -> dict[str, Callable[[], object]]:
        keys = self.verifier.keys
        return {
            "log": self._log,
            "signer": lambda: _sign(keys.grant, keys.log, keys.policy),
            "clock": self._clock,
            "store": self.verifier.store.probe,
        }

    def _log(self) -> None:
        if self.sequencer.trouble is not None:
            raise self.sequencer.trouble
        if not self.verifier.store.head().note:
            raise Unwell("log.unavailable", "there is no checkpoint")

    def _clock(self) -> None:
        clock, store = self.verifier.clock, self.verifier.store
        drift = clock.drift()
        if abs(drift) > TOLERANCE:
            raise Unwell("clock.step", f"the wall clock was stepped by {drift:.0f} s; restart when it is right")
        last = store.record(store.head().size - 1)
        ahead = 0 if last is None else Record.from_bytes(last).time - clock.now()
        if ahead > FUTURE_SECONDS:
            raise Unwell("clock.step", f"the newest record is from {ahead} s in the future; the clock was set back")


def _sign(*signers: Signer) -> None:
    for signer in signers:
        signer.public.verify(_STATEMENT, signer.sign(_STATEMENT))


def _outcome(check: Callable[[], object]) -> str:
    try:
        check()
    except InterlockError as error:
        return str(error)
    return ""
