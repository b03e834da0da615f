"""Keylime 7.14.3 as a child that parses a boot event log, on request.

Runs in an environment of its own, never beside ours. Started as ``peer_keylime_boot.py FOLDER``; the folder holds
``log``. For each line on standard input it answers one of JSON: the CPU seconds of a run, and whether it passed.

What a run consists of, with its own functions: ``mba.elparsing.tpm2_tools_elparser.bootlog_parse`` of the log in
base64, as its verifier does for each quote: tpm2_eventlog of Debian's tpm2-tools in a process of its own (whose CPU
time is counted), and the YAML that it prints. The bank is SHA-256.

Left out, to its advantage: names of device paths, for which it needs libefivar, and the comparison with a policy.
``gpg`` is a module without content: nothing here is signed with it, and it comes as source only.
"""

import base64
import json
import logging
import os
import resource
import sys
import time
import types
from importlib import import_module
from pathlib import Path


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main(folder: str) -> None:
    """Answer one line for each line, until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)  # it complains of configuration files that are not there
    sys.modules["gpg"] = types.ModuleType("gpg")
    enrich = types.ModuleType("keylime.mba.elparsing.tpm_bootlog_enrich")
    enrich.enrich = lambda _log: None  # type: ignore[attr-defined]
    parser = import_module("keylime.mba.elparsing.tpm2_tools_elparser")
    sys.modules[enrich.__name__] = enrich
    sys.modules["keylime.mba.elparsing"].tpm_bootlog_enrich = enrich  # type: ignore[attr-defined]
    logging.disable(logging.CRITICAL)
    text = base64.b64encode((Path(folder) / "log").read_bytes()).decode()
    for _ in sys.stdin:
        began = _cpu()
        values, _, _, failure = parser.bootlog_parse(text, "sha256")
        print(json.dumps({"cpu": _cpu() - began, "passed": bool(values) and not failure}), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
