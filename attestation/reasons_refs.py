"""Reason codes of making and moving reference values. Rows as in :mod:`attestation.reasons`."""

_OPERATOR = "operator"

REFS = {
    "ref.document": (
        "A document of the operator's cannot be read.",
        "Correct the name shown; docs/references.md has the form, interlock-verifier refs boot show an example.",
        False,
        _OPERATOR,
    ),
    "ref.source": (
        "A file or directory that reference values are to be made from cannot be read.",
        "Name a boot log, a measurement list, a root file system or Debian packages, as the command says.",
        False,
        _OPERATOR,
    ),
    "ref.nothing": (
        "There is nothing that reference values could be made of.",
        "See whether the sources are the right ones; --all takes files that are not executable as well.",
        False,
        _OPERATOR,
    ),
    "ref.weak": (
        "Files are listed by a digest that is weak.",
        "Boot with ima_hash=sha256 and make the list again, or allow it in the rules: unsafe_algorithms.",
        False,
        _OPERATOR,
    ),
    "ref.unproven": (
        "The node has proven no such log or list.",
        "Require the check in settings.toml, so that hosts are asked for it, and submit a job; a denied one is enough.",
        True,
        _OPERATOR,
    ),
    "ref.in-use": (
        "A reference value is in use: a pool has one IMA reference, and none is replaced by one that does not count.",
        "--replace retires the pool's other IMA reference in the same change; --activate puts a new one in its place.",
        False,
        _OPERATOR,
    ),
    "ref.taken": (
        "The name is that of a reference value of another kind.",
        "Choose another name; interlock-verifier refs list shows those that are taken.",
        False,
        _OPERATOR,
    ),
    "ref.time": (
        "That is no time, or not one to come.",
        "Write --at 2027-01-31T12:00:00Z, --in 90d (or 12h, 30m), or --never.",
        False,
        _OPERATOR,
    ),
    "ref.changed": (
        "The reference value was changed while it was being edited.",
        "Look at it again, and repeat the change.",
        True,
        _OPERATOR,
    ),
    "ref.spool": (
        "The policy that the command left for the service is not there, or not as it was left.",
        "Run the command again, on the verifier's machine, as the service's user or root.",
        True,
        _OPERATOR,
    ),
}
