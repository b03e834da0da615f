"""Write the CDDL in docs/formats.md from the wire classes, or check that it is up to date.

    python -m tools.formats [--check]

The objects' fields are declared once, in the packages; the document is made from them, so that it cannot disagree.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from attestation import (
    api,
    bundle,
    challenge,
    claims,
    enrol,
    evidence,
    grant,
    intent,
    lease,
    log,
    node,
    permit,
    problem,
    progress,
    reference,
    report,
    workload,
)
from attestation.gpu import collateral as gpu_collateral
from attestation.gpu import policy as gpu_policy
from attestation.gpu import record as gpu_record
from attestation.tpm import sealing
from attestation.tpm.boot import policy as boot_policy
from attestation.tpm.ima import policy as ima_policy
from attestation.tpm.ima import progress as ima_progress
from attestation.wire import Bounds, Wire

DOCUMENT = Path(__file__).parent.parent / "docs" / "formats.md"
BEGIN, END = "<!-- cddl: written by tools/formats.py -->\n", "<!-- end of cddl -->\n"
GPU_MODULES = (gpu_record, gpu_policy, gpu_collateral)
TPM_MODULES = (boot_policy, ima_policy, ima_progress, progress, workload, sealing)
MODULES = (
    *(
        intent,
        challenge,
        evidence,
        *GPU_MODULES,
        *TPM_MODULES,
        claims,
        reference,
        node,
        grant,
        lease,
        permit,
        report,
        log,
        bundle,
        enrol,
    ),
    *(api, problem),
)
_INT_MAX = 2**63 - 1


def classes() -> list[type[Wire]]:
    """Every wire class of the protocol, in the order of :data:`MODULES` and of their definition."""
    return [
        cls
        for module in MODULES
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, Wire) and cls.__module__ == module.__name__ and cls.layout()
    ]


def _name(cls: type) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in cls.__name__).lstrip("-")


def _integer(bounds: Bounds) -> str:
    if bounds.high == _INT_MAX:
        return "uint" if bounds.low == 0 else f"int .ge {bounds.low}"
    return f"{bounds.low}..{bounds.high}"


def _string(kind: str, bounds: Bounds) -> str:
    return f"{kind} .size {bounds.size if bounds.size is not None else f'(0..{bounds.most})'}"


def _type(tp: Any, bounds: Bounds) -> str:
    if tp is int:
        return _integer(bounds)
    if tp is bool:
        return "bool"
    if tp in (bytes, str):
        return _string("bstr" if tp is bytes else "tstr", bounds)
    if get_origin(tp) is tuple:
        return f"[* {_type(get_args(tp)[0], bounds)}]" + (" ; ascending, unique" if bounds.ordered else "")
    if get_origin(tp) is Mapping:
        key, value = get_args(tp)
        text, mark, comment = _type(value, bounds).partition(" ; ")
        return f"{{* {'tstr' if key is str else 'int'} => {text}}}{mark}{comment}"
    return _name(tp)


def cddl() -> str:
    """All objects as CDDL (RFC 8610)."""
    blocks = []
    for cls in classes():
        summary = (cls.__doc__ or "").split("\n\n")[0].replace("\n    ", " ").replace("``", "`")
        rows = []
        for number, name, tp, bounds, optional in cls.layout():
            text, _, comment = _type(tp, bounds).partition(" ; ")
            rows.append(f"  {'? ' if optional else ''}{number} => {text}, ; {name}{': ' + comment if comment else ''}")
        blocks.append("\n".join([f"; {summary}", f"{_name(cls)} = {{", *rows, "}"]))
    return "cmw-record = [type: tstr, value: bstr, ind: 4] ; RFC 9999, section 3.1\ncmw = cmw-record\n\n" + "\n\n".join(
        blocks
    )


def document(text: str) -> str:
    """``text`` with the part between the markers made anew."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n```cddl\n{cddl()}\n```\n\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Write the document, or with ``--check`` say whether it is up to date (exit 1 where it is not)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    old = DOCUMENT.read_text(encoding="utf-8")
    new = document(old)
    if check and new != old:
        print("docs/formats.md is out of date: run python -m tools.formats")
        return 1
    DOCUMENT.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
