"""spec/vectors/session.json: one connection from the first byte to the last, with fixed keys.

The script says what each side does; two sessions carry it out, and every byte, frame and event
between them is written down.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from alpyne_grid.tools.vectors.access import DEVICE, certificate, seeded
from alpyne_grid.tools.vectors.frames import as_json

from alpyne_proto import codec, frame
from alpyne_proto.compression import Compression
from alpyne_proto.errors import AlpyneError, ErrorCode
from alpyne_proto.events import Event
from alpyne_proto.handshake import SessionConfig
from alpyne_proto.keys import DeviceIdentity, SigningKey
from alpyne_proto.messages import access, compute, control
from alpyne_proto.messages.hello import AcceptorHello, DiallerHello, NodeKind
from alpyne_proto.noise import CipherState, HandshakeState
from alpyne_proto.noise_suites import parse_protocol_name
from alpyne_proto.preface import NOISE_NAME, Preface
from alpyne_proto.record import RecordReader, RecordType
from alpyne_proto.registry import Message, State
from alpyne_proto.session import Session

COMMENT = (
    "One connection. Each step: `by` does `action` (a method of the reference session, for "
    "information), sends `bytes`, and what the other side then learns are `events`. A record's "
    "frames stand beside it in the clear. Private keys are X25519; values are hexadecimal. The "
    "windows of the acceptor's hello are small, so that the dialler has to wait for credit."
)

NODE = DeviceIdentity(seeded("node"), SigningKey(seeded("node signing")))
EPHEMERAL = {"dialler": seeded("dialler ephemeral"), "acceptor": seeded("acceptor ephemeral")}
SIDES = ("dialler", "acceptor")
JOB = seeded("job", 16)
BLOB = b"".join(f"line {number}\n".encode() for number in range(700))
SHA256 = hashlib.sha256(BLOB).digest()
WINDOW, CONNECTION_WINDOW, STREAMS = 4096, 8192, 4

HELLOS: dict[str, AcceptorHello | DiallerHello] = {
    "dialler": DiallerHello(
        roles=1,
        run_id=seeded("run", 16),
        certificate=certificate().encode(),
        software="vectors 1",
    ),
    "acceptor": AcceptorHello(
        kind=NodeKind.COMPUTE,
        boot_id=seeded("boot", 16),
        store_id=seeded("store", 16),
        generation=3,
        last_commit=41,
        signing_key=NODE.signing.public,
        max_streams=STREAMS,
        max_data=CONNECTION_WINDOW,
        max_stream_data=WINDOW,
        host_label="attic",
    ),
}


def config_of(side: str) -> SessionConfig:
    """Return what one side of the vectors' connections is made from."""
    is_dialler = side == "dialler"
    return SessionConfig(
        hello=HELLOS[side],
        static_private=(DEVICE if is_dialler else NODE).noise_private,
        random=lambda size: EPHEMERAL[side][:size],
        remote_static=NODE.noise_public if is_dialler else None,
        compression=Compression.OFF,
    )


_SPEC_ROW = codec.encode_row(
    compute.JobSpec(job_id=JOB, allocation=1, form=compute.JobForm.CALL, payload_sha256=SHA256)
)
_ANSWER_ROW = codec.encode_row(compute.JobAnswer(job_id=JOB, verdict=compute.Verdict.ACCEPTED))
_EVENT_ROW = codec.encode_row(
    compute.JobEvent(
        sequence=1, job_id=JOB, allocation=1, attempt=1, state=compute.JobState.RUNNING
    )
)

Step = tuple[str, str, tuple[Any, ...], dict[str, Any]]


def _does(by: str, action: str, *arguments: Any, **options: Any) -> Step:
    return by, action, arguments, options


SCRIPT: list[Step] = [
    _does("acceptor", "promote", State.UNKNOWN),
    _does("dialler", "open_stream", access.Register(name="vectors")),
    _does("acceptor", "promote", State.OPEN, role=control.AccountRole.USER),
    _does("acceptor", "respond", 1, access.Registered(role=control.AccountRole.USER)),
    _does("acceptor", "release", 1),
    # A body that is larger than the stream's credit, acknowledged on dispatch, with a trailer.
    _does("dialler", "open_stream", compute.PutBlob(sha256=SHA256, size=len(BLOB)), BLOB[:16],
          end=False, want_ack=True),
    _does("dialler", "send_data", 3, BLOB[16:], end=True,
          trailer=control.BodyDigest(sha256=SHA256)),
    _does("acceptor", "consume", 3, WINDOW),
    _does("acceptor", "consume", 3, len(BLOB) - WINDOW),
    _does("acceptor", "respond", 3, control.Done()),
    _does("acceptor", "release", 3),
    # Rows both ways.
    _does("dialler", "open_stream", compute.SubmitJobs(count=1), _SPEC_ROW),
    _does("acceptor", "consume", 5, len(_SPEC_ROW)),
    _does("acceptor", "respond", 5, control.RowsFollow(count=1), _ANSWER_ROW),
    _does("acceptor", "release", 5),
    _does("dialler", "consume", 5, len(_ANSWER_ROW)),
    # A stream that the node opens, and an interrupt.
    _does("dialler", "open_stream", compute.Subscribe(kinds=compute.SUBSCRIBE_JOBS)),
    _does("acceptor", "respond", 7, compute.Subscribed(subscription=1)),
    _does("acceptor", "release", 7),
    _does("acceptor", "open_stream", compute.PushEvents(subscription=1), end=False),
    _does("acceptor", "send_data", 2, _EVENT_ROW),
    _does("dialler", "consume", 2, len(_EVENT_ROW)),
    _does("dialler", "interrupt", compute.CancelJobs(job_ids=(JOB,))),
    # A refusal; a stream that its receiver stops; the end.
    _does("dialler", "open_stream", compute.GetResult(job_id=bytes(16))),
    _does("acceptor", "respond", 9, control.Error(code=ErrorCode.NOT_FOUND, text="no such job")),
    _does("acceptor", "release", 9),
    _does("dialler", "stop", 2, ErrorCode.CANCELLED, "enough"),
    _does("dialler", "tick", 6.0),
    _does("acceptor", "go_away"),
    _does("dialler", "close"),
]  # fmt: skip


def session_vectors() -> dict[str, Any]:
    """Return the content of session.json."""
    sessions = {side: Session(config_of(side), 0.0) for side in SIDES}
    steps = _Transcript(sessions)
    steps.perform(_does("dialler", "connect"))
    for step in SCRIPT:
        steps.perform(step)
    keys, handshake_hash = transport_keys()
    return {
        "comment": COMMENT,
        "prologue": Preface().prologue.hex(),
        "handshake_hash": handshake_hash.hex(),
        "keys": {f"{side}_sends_with": keys[side].hex() for side in SIDES},
        **{side: _party(side) for side in SIDES},
        "steps": steps.done,
    }


def _party(side: str) -> dict[str, Any]:
    identity = DEVICE if side == "dialler" else NODE
    hello = HELLOS[side]
    return {
        "static_private": identity.noise_private.hex(),
        "static_public": identity.noise_public.hex(),
        "ephemeral_private": EPHEMERAL[side].hex(),
        "hello": message_json(hello),
        "hello_meta": codec.encode(hello).hex(),
    }


class _Transcript:
    """Performs steps and writes down what each side sends and learns."""

    def __init__(self, sessions: dict[str, Session]) -> None:
        self._sessions = sessions
        self._now = 0.0
        self.done: list[dict[str, Any]] = []
        suite = parse_protocol_name(NOISE_NAME)
        keys, _ = transport_keys()
        self._readers = {side: RecordReader(CipherState(suite, keys[side])) for side in SIDES}

    def perform(self, step: Step) -> None:
        """Let a side act, and carry bytes back and forth until both are silent."""
        by, action, arguments, options = step
        session = self._sessions[by]
        if action == "tick":
            (self._now,) = arguments
        if action not in ("connect", "tick"):
            getattr(session, action)(*arguments, **options)
        events = session.tick(self._now) if action == "tick" else session.events()
        entry: dict[str, Any] = {"by": by, "action": action}
        if described := _describe(arguments, options):
            entry["arguments"] = described
        if events:
            entry["own_events"] = [event_json(event) for event in events]
        self.done.append(entry)
        side = by
        silent = 0
        while silent < 2:
            silent = 0 if self._carry(side) else silent + 1
            side = _other(side)

    def _carry(self, side: str) -> bool:
        """Give what one side has to send to the other; return whether it had something."""
        sender, receiver = self._sessions[side], self._sessions[_other(side)]
        sent = False
        while (data := sender.next_record(self._now)) is not None:
            sent = True
            entry: dict[str, Any] = {"by": side, "sends": bytes(data).hex()}
            if data[0] == RecordType.SEALED:
                entry["frames"] = [_frame_json(part) for part in self._open(side, bytes(data))]
            self.done.append(entry)
            events = receiver.receive_data(data, self._now)
            entry["events"] = [event_json(event) for event in events]
        return sent

    def _open(self, side: str, record: bytes) -> list[frame.Frame]:
        (plain,) = self._readers[side].feed(record)
        return list(frame.split(plain))


def transport_keys() -> tuple[dict[str, bytes], bytes]:
    """Return the key that each side sends with, and the handshake's hash, by Noise alone."""
    prologue = Preface().prologue
    initiator, responder = (
        HandshakeState(
            NOISE_NAME,
            side == "dialler",
            prologue,
            config_of(side).static_private,
            EPHEMERAL[side],
            config_of(side).remote_static,
        )
        for side in SIDES
    )
    responder.read_message(initiator.write_message())
    initiator.read_message(responder.write_message(codec.encode(HELLOS["acceptor"])))
    responder.read_message(initiator.write_message(codec.encode(HELLOS["dialler"])))
    keys = [cipher.key or b"" for cipher in initiator.split()]
    return dict(zip(SIDES, keys, strict=True)), initiator.handshake_hash


def _other(side: str) -> str:
    return "acceptor" if side == "dialler" else "dialler"


# ---- as JSON ----


def message_json(message: Message) -> dict[str, Any]:
    """Return a message by name with the fields that differ from their defaults."""
    values = {
        field.name: as_json(field.kind, getattr(message, field.name))
        for field in message.SPEC.fields
        if field.required or getattr(message, field.name) != field.default
    }
    return {"message": message.SPEC.name, "fields": values}


def event_json(event: Event) -> dict[str, Any]:
    """Return an event by name with its fields."""
    value: Any = event  # each of its subclasses is a dataclass
    described = {item.name: _value_json(getattr(value, item.name)) for item in fields(value)}
    return {"event": type(event).__name__, **described}


def _value_json(value: Any) -> Any:
    if isinstance(value, Message):
        return message_json(value)
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).hex()
    if isinstance(value, AlpyneError):
        return value.code.name
    return value.name if hasattr(value, "name") else value


def _describe(arguments: Sequence[Any], options: dict[str, Any]) -> list[Any]:
    described = [_value_json(value) for value in arguments]
    return described + [{name: _value_json(value)} for name, value in options.items()]


def _frame_json(part: frame.Frame) -> dict[str, Any]:
    return {
        "type": frame.FrameType(part.type).name,
        "flags": part.flags,
        "stream_id": part.stream_id,
        "meta": part.meta.hex(),
        "payload": bytes(part.payload).hex(),
    }
