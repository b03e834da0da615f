"""Answering one connection of the agent's socket: who asks, what for, and the answer.

The kernel says who asks. Root may ask about every job, others about their own; nobody runs jobs as root.
"""

import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import Final

from agent import codes, ending, screen
from agent.client import Denied
from agent.clock import SECOND, now_ns
from agent.devices import DeviceError
from agent.environment import find, measure_environment
from agent.host import Host
from agent.job import Job, check_peer
from agent.messages import Answer, Channel, Ended, Measure, Measured, Peer, Question, Refused, Start, close_all
from agent.run import run
from agent.workspace import remove
from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.wire import Wire

FIRST_MESSAGE_SECONDS: Final = 10.0
FETCH_SECONDS: Final = 600.0

log = logging.getLogger("interlock.agent")


def serve(host: Host, channel: Channel, peer: Peer) -> None:
    """Serve one connection to its end, and close it."""
    keep = False
    try:
        keep = _dispatch(host, channel, peer)
    except InterlockError as error:
        host.counters.add("requests_refused")
        log.info("refused uid %d: %s", peer.uid, error.reason)
        with contextlib.suppress(OSError):
            channel.send(Refused(reason=error.reason, detail=error.detail[:2048]))
    except OSError as error:  # the other side is gone, or said nothing
        log.info("lost uid %d: %s", peer.uid, error)
    finally:
        if not keep:
            channel.close()


def turn_away(channel: Channel, error: Untrusted | OSError) -> None:
    """Close a connection that is not served, with the reason where there is one to tell."""
    with contextlib.suppress(OSError):
        if isinstance(error, Untrusted):
            channel.send(Refused(reason=error.reason, detail=error.detail), patience=0.0)
    channel.close()


def _dispatch(host: Host, channel: Channel, peer: Peer) -> bool:
    """Serve the first message; whether the connection now belongs to somebody else."""
    channel.deadline(FIRST_MESSAGE_SECONDS)
    received = channel.receive()
    if received is None:
        return False
    channel.deadline(None)
    message, descriptors = received
    if isinstance(message, Start):
        _start(host, channel, peer, message, descriptors)
        return False
    close_all(descriptors)
    if isinstance(message, Question) and message.topic == "watch":
        _find(host, peer, message.name).listen(channel)
        return True
    answer, files = _answer(host, peer, message)
    try:
        channel.send(answer, files)
    finally:
        close_all(files)
    return False


def _answer(host: Host, peer: Peer, message: Wire) -> tuple[Wire, tuple[int, ...]]:
    if isinstance(message, Measure):
        check_peer(peer, host.settings)
        tree = measure_environment(find(message.environment), host.cache)
        return Measured(digest=tree.digest, entries=len(tree.entries)), ()
    if not isinstance(message, Question):
        raise Malformed("agent.message.kind", f"{type(message).__name__} does not begin a conversation")
    if message.topic == "status":
        return Answer(text=screen.dumps(status(host, peer))), ()
    ended = _ended(host, peer, message.name)
    if message.topic == "explain":
        return Answer(text=screen.dumps(screen.to_json(ended))), ()
    return _bundle(host, ended)


# --- a run ---------------------------------------------------------------------------------------------------------


def _start(host: Host, channel: Channel, peer: Peer, start: Start, descriptors: list[int]) -> None:
    try:
        check_peer(peer, host.settings)
        job = Job.of(peer, start, descriptors, channel)
        host.jobs.add(job)
    except InterlockError:
        close_all(descriptors)
        raise
    threading.Thread(target=job.attend, name="attend", daemon=True).start()
    try:
        host.counters.add("jobs")
        try:
            ended = _come_out(host, job)
            _tell(host, job, ended)
        finally:
            host.jobs.remove(job)  # an agent that stops waits for this
        _wait_fetched(host, job, ended)
    finally:
        job.close()


def _come_out(host: Host, job: Job) -> Ended:
    """Run the job; what the submitter is told, whatever happens."""
    name, node = job.intent.job, host.enrolment.node
    try:
        ended = run(host, job)
    except Denied as denied:
        ended = ending.of_denial(denied.denial, name, node, host.log_key)
    except InterlockError as error:
        ended = screen.refused(error, job=name, exit_code=codes.FAILED)
    except DeviceError as error:
        ended = screen.refused(Untrusted(error.reason, error.detail), job=name, exit_code=codes.FAILED)
    except OSError as error:
        ended = screen.refused(Untrusted("agent.failed", str(error)), job=name, exit_code=codes.FAILED)
    host.counters.add(f"jobs_{codes.TITLES.get(ended.exit_code, ended.event).replace(' ', '_')}")
    log.info("job %r of uid %d: %s, exit %d, %s", name, job.peer.uid, ended.event, ended.exit_code, ended.reason)
    try:
        host.journal.ended(ended.grant, name, job.peer.uid, int(time.time()), ended.to_bytes())
    except OSError as error:  # the submitter is told all the same
        log.warning("job %r will not be explained later: %s", name, error)
    return ended


def _outputs(host: Host, job: Job) -> Path | None:
    """The directory of the job's outputs, if there is one."""
    path = None if job.grant is None else host.state.jobs / job.grant.id.hex() / "out"
    return path if path is not None and path.is_dir() else None


def _tell(host: Host, job: Job, ended: Ended) -> None:
    """Tell how it came out, with the outputs."""
    path = _outputs(host, job)
    out = None if path is None else os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        job.end(ended, out)
    finally:
        if out is not None:
            os.close(out)


def _wait_fetched(host: Host, job: Job, ended: Ended) -> None:
    """Keep outputs until they are fetched, quarantined ones longer."""
    job.gone.wait(FETCH_SECONDS)
    path = _outputs(host, job)
    if path is not None and job.fetched and not any(ended.outputs.values()):
        remove(path.parent)


# --- questions -----------------------------------------------------------------------------------------------------


def _find(host: Host, peer: Peer, name: str) -> Job:
    """A running job by its name or grant id, if ``peer`` may see it."""
    for job in host.jobs.all():
        names = {job.intent.job} | ({job.grant.id.hex()} if job.grant is not None else set())
        if name in names and peer.uid in {0, job.peer.uid}:
            return job
    raise Untrusted("agent.unknown-job", f"no job {name!r} is running")


def _ended(host: Host, peer: Peer, name: str) -> Ended:
    data = host.journal.explain(name, peer.uid)
    if data is None:
        raise Untrusted("agent.unknown-job", f"no job {name!r} has ended here")
    return Ended.from_bytes(data)


def _bundle(host: Host, ended: Ended) -> tuple[Wire, tuple[int, ...]]:
    """The bundle of an ended job in a memory file."""
    if ended.grant is None:
        raise Untrusted("agent.unknown-job", "that request never reached the log")
    data = host.verifier.bundle(ended.grant)
    memory = os.memfd_create("bundle", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(memory), "wb") as file:
        file.write(data)
    return Answer(text=ended.grant.hex(), size=len(data)), (memory,)


def status(host: Host, peer: Peer) -> dict[str, object]:
    """What ``interlock-agent status`` shows: the node, the counters, and the jobs that ``peer`` may see."""
    jobs = [
        {
            "job": job.intent.job,
            "grant": None if job.grant is None else job.grant.id.hex(),
            "uid": job.peer.uid,
            "phase": job.phase,
            "lease": job.sequence,
        }
        for job in host.jobs.all()
        if peer.uid in {0, job.peer.uid}
    ]
    return {
        "node": host.enrolment.node,
        "pool": host.enrolment.pool,
        "verifier": host.enrolment.url,
        "up_seconds": (now_ns() - host.started_ns) // SECOND,
        **host.described.read(),
        "jobs": jobs,
        "undelivered_reports": len(host.journal.unsigned()) + len(host.journal.undelivered()),
        "counters": host.counters.as_dict(),
    }
