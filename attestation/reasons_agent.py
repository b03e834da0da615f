"""Reason codes of the agent and the submitter's command: settings, messages, what was asked, what ends a run.

Rows as in :mod:`attestation.reasons`: ``"code": (what, fix, retry, ask)``.
"""

_DEV = "developer"
_ADMIN = "host admin"
_OPERATOR = "operator"
_SUBMITTER = "submitter"
_SAME_RELEASE = "Use the interlock command of the agent's release."

_SETTINGS = {
    "settings.file": ("The settings file cannot be read.", "Name an existing file with --settings.", False, _ADMIN),
    "settings.syntax": ("The settings file is not TOML.", "Correct the line shown.", False, _ADMIN),
    "settings.unknown": ("The settings file has a key that is not known.", "Correct its spelling.", False, _ADMIN),
    "settings.value": ("A setting has a value that is not allowed.", "Give a value as shown.", False, _ADMIN),
}

_MESSAGES = {
    "agent.message.kind": ("The agent and the command do not understand each other.", _SAME_RELEASE, False, _ADMIN),
    "agent.message.size": (
        "The request is longer than the agent accepts.",
        "Pass less by variables.",
        False,
        _SUBMITTER,
    ),
    "agent.message.topic": ("The agent was asked about something it does not know.", _SAME_RELEASE, False, _ADMIN),
    "agent.message.descriptors": (
        "The request did not bring its standard input, output, error and code directory.",
        _SAME_RELEASE,
        False,
        _DEV,
    ),
}

_AGENT = {
    "agent.unreachable": (
        "No agent answers on this host.",
        "Ask for it to be started: systemctl start interlock-agent; see interlock-agent doctor.",
        True,
        _ADMIN,
    ),
    "agent.state": (
        "The agent's directory is not private.",
        "Make it mode 0700, owned by the agent's user.",
        False,
        _ADMIN,
    ),
    "agent.running": (
        "Another agent uses the same state directory.",
        "Stop it first: systemctl stop interlock-agent.",
        False,
        _ADMIN,
    ),
    "agent.enrolment": (
        "This host is not enrolled with a verifier.",
        "Get a token from the operator and run: interlock-agent enroll --token-file FILE.",
        False,
        _ADMIN,
    ),
    "agent.ima.list": (
        "The kernel's measurement list cannot be read, or is none.",
        "Let ima_file name the binary list, binary_runtime_measurements, and the agent run as root.",
        True,
        _ADMIN,
    ),
    "agent.ima.size": (
        "More of the measurement list is unproven than can be sent at once.",
        "Restart the host, and ask for evidence soon after; or measure less (ima_policy=).",
        False,
        _ADMIN,
    ),
    "agent.busy": ("The host runs as many jobs as it may.", "Wait for one to end, or use another host.", True, _ADMIN),
    "agent.connections": (
        "Too many of your commands talk to the agent at the same time.",
        "Wait for some of them to end, or end them.",
        True,
        _SUBMITTER,
    ),
    "agent.stopped": ("The agent on the host was stopped.", "Start the run again when it is back.", True, _ADMIN),
    "agent.died": (
        "The agent died while the job ran, so the job was killed.",
        "Start the run again; the agent's own log says why it died.",
        True,
        _ADMIN,
    ),
    "agent.failed": (
        "The agent could not do its part, so nothing was started or left running.",
        "Look into the agent's log: journalctl -u interlock-agent.",
        True,
        _ADMIN,
    ),
    "agent.unknown-job": (
        "The agent knows no job of yours with that name.",
        "Give the job's name or its grant id, on the host where it ran.",
        False,
        _SUBMITTER,
    ),
    "verifier.unreachable": (
        "The verifier did not answer, and nothing runs without it.",
        "Try again; if it stays so, check the network and the verifier's /health.",
        True,
        _OPERATOR,
    ),
    "verifier.answer": (
        "The verifier's answer is not what the protocol allows.",
        "Bring agent and verifier to the same release.",
        False,
        _OPERATOR,
    ),
    "enrol.token-file": (
        "The file with the enrolment token cannot be used.",
        "Give the token in a file of mode 0600; whoever reads it can enrol a machine of theirs.",
        False,
        _ADMIN,
    ),
    "enrol.url": ("The verifier's address is not an https URL.", "Give it as https://HOST:PORT.", False, _ADMIN),
}

_SUBMIT = {
    "key.file": (
        "The signing key cannot be used.",
        "Make one with interlock keygen; it must be yours, mode 0600.",
        False,
        _SUBMITTER,
    ),
    "key.exists": (
        "There is a key already, and keys are never overwritten.",
        "Use it, or give another path with --key.",
        False,
        _SUBMITTER,
    ),
    "submitter.uid": (
        "This user may not submit jobs on this host.",
        "Use an account of its own, never root; the host admin lists it under uids or gids in agent.toml.",
        False,
        _ADMIN,
    ),
    "submitter.gone": (
        "The interlock command that started the job is gone.",
        "Keep it running as long as the job: under a scheduler, tmux or nohup.",
        True,
        _SUBMITTER,
    ),
    "submit.option": ("An option has a value that cannot be used.", "See interlock run --help.", False, _SUBMITTER),
    "submit.environment": (
        "There is no virtual environment to run in.",
        "Activate one, or name it with --environment.",
        False,
        _SUBMITTER,
    ),
    "code.changed": (
        "The code changed between the request and its staging.",
        "Do not edit the code while a run is being started; run again.",
        True,
        _SUBMITTER,
    ),
    "environment.changed": (
        "Interpreter or packages changed between the request and the start.",
        "Do not install packages while a run is being started; run again.",
        True,
        _SUBMITTER,
    ),
    "variables.changed": (
        "The environment variables are not those that were signed.",
        _SAME_RELEASE,
        False,
        _DEV,
    ),
}

_DRIFT = {
    "drift.pcr": (
        "The machine's measured state changed while the job ran: a PCR has another value.",
        "Find out what was measured into the TPM; the host must be booted into its baseline again.",
        False,
        _ADMIN,
    ),
    "drift.gpu.driver": (
        "The GPU driver was exchanged while the job ran.",
        "Drain the host before the driver is updated; start the run again.",
        True,
        _ADMIN,
    ),
    "drift.gpu.state": (
        "Confidential computing was set up otherwise while the job ran.",
        "Find out who changed the GPUs' mode, or what put them into their error state.",
        False,
        _ADMIN,
    ),
    "drift.gpu.devices": (
        "GPUs came or went while the job ran.",
        "Find out whether a GPU fell off the bus or was exchanged; start the run again.",
        True,
        _ADMIN,
    ),
    "drift.suspend": (
        "The host was suspended while the job ran.",
        "Do not suspend hosts that run jobs; start the run again.",
        True,
        _ADMIN,
    ),
}

_GPU = {
    "gpu.nvml.absent": (
        "There is no NVIDIA driver on the host.",
        "Load the driver where the host has GPUs: nvidia-smi must work.",
        False,
        _ADMIN,
    ),
    "gpu.nvml.open": (
        "The NVIDIA driver's library cannot be initialised.",
        "See whether nvidia-smi works. After an update of the driver, restart the agent.",
        False,
        _ADMIN,
    ),
    "gpu.nvml.refused": (
        "The NVIDIA driver refused a call; the number and the text shown are its own.",
        "Look into the kernel's log for NVRM; a GPU in its error state needs the driver loaded again, or a reboot.",
        True,
        _ADMIN,
    ),
    "gpu.nvml.timeout": (
        "The NVIDIA driver did not answer in time.",
        "It is asked again by itself; if it stays so, look into the kernel's log for NVRM, and reboot.",
        True,
        _ADMIN,
    ),
    "gpu.nvml.slow": (
        "The GPUs and NVSwitches of the host needed longer than a challenge lives.",
        "See how long nvidia-smi takes; run fewer jobs at once, or have the operator give longer leases.",
        True,
        _ADMIN,
    ),
    "gpu.nvml.unexpected": (
        "The NVIDIA driver, or its Python binding, answered otherwise than it should.",
        "Install a driver and an agent that know each other; the detail says what came.",
        True,
        _ADMIN,
    ),
    "gpu.nvml.size": (
        "The NVIDIA driver states a length that its own buffer does not have, or nothing at all.",
        "Update driver and agent; the length shown cannot be right.",
        False,
        _ADMIN,
    ),
    "gpu.nvml.count": (
        "The host has more GPUs or NVSwitches than evidence has room for.",
        "Give the virtual machine at most 16 of each.",
        False,
        _ADMIN,
    ),
    "gpu.nvml.closed": ("The agent is ending and asks no GPU any more.", "Start the run again.", True, _ADMIN),
    "gpu.nscq.absent": (
        "There is no library for NVSwitches on the host.",
        "Install libnvidia-nscq of the driver's version where the host has NVSwitches.",
        False,
        _ADMIN,
    ),
    "gpu.nscq.refused": (
        "The library for NVSwitches refused a call; the number shown is its own.",
        "Install libnvidia-nscq of the driver's own version; look into the kernel's log for nvidia-nvswitch.",
        True,
        _ADMIN,
    ),
}

AGENT = {**_SETTINGS, **_MESSAGES, **_AGENT, **_SUBMIT, **_DRIFT, **_GPU}
