"""The daemon's end of the agent protocol without input or output: bytes in, happenings out.

Follows ``docs/agent-protocol.md``. A ``Connection`` is the state of one TCP connection: frames,
outstanding requests, credit of every stream. It never waits and never touches a socket, so any
split of the same bytes has the same effect. Every byte comes from a hostile guest: lengths are
checked before anything is kept, stream data is handed on at once and never collected here, and
whatever the contract does not allow raises ``ProtocolError``. Sockets and waiting are left to
``client``.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

from hyperstack.guest.codec import ProtocolError, decode, encode
from hyperstack.guest.messages import (
    EVENTS,
    HEADER,
    MAX_DATA,
    MAX_MESSAGE,
    OLDEST,
    OPS,
    VERSION,
    WINDOW,
    EventKind,
    Failure,
    Frame,
    Op,
)

MAX_EVENT = 128 << 10
"""Bytes of an event at most: a DNS message and a name fit; events come unasked."""
MAX_EARLY = 4096
"""Streams of which the agent may speak before the daemon has opened its end."""
MAX_DROPPED = 1 << 16
"""Streams that were left and are remembered as such."""

_HEAD = struct.Struct("<IBBHQ")
_OFFSET = struct.Struct("<Q")
_PAIR = struct.Struct("<QQ")
_DATA_HEAD = struct.Struct("<IBBHQQ")
_CREDIT = struct.Struct("<IBBHQQQ")
_MAX_OFFSET = 1 << 63

_FIXED = {Frame.DATA: 8, Frame.CREDIT: 16, Frame.EOF: 8}
"""Bytes at the start of a payload that belong together with the header."""
_LENGTHS = {
    Frame.HELLO: (0, 0),
    Frame.REPLY: (0, MAX_MESSAGE),
    Frame.EVENT: (0, MAX_EVENT),
    Frame.DATA: (9, 8 + MAX_DATA),
    Frame.CREDIT: (16, 16),
    Frame.EOF: (8, 8),
    Frame.RESET: (0, 0),
}
"""Smallest and largest payload of each frame that the agent may send."""


class Hello(NamedTuple):
    """The agent answers; *nonce* changes with every boot of the guest."""

    nonce: int


class Reply(NamedTuple):
    """The answer to a request; *message* is a Failure if *code* (an errno) is not 0."""

    request: int
    code: int
    message: Any


class Event(NamedTuple):
    """Something happened in the guest."""

    kind: EventKind
    message: Any


class Data(NamedTuple):
    """Bytes of an output stream: a view of what was received, gone after the call."""

    stream: int
    offset: int
    data: memoryview


class Credit(NamedTuple):
    """An input stream has room."""

    stream: int


class End(NamedTuple):
    """An output stream ends at *offset*."""

    stream: int
    offset: int


class Reset(NamedTuple):
    """The agent gave up a stream."""

    stream: int
    code: int


Happening = Hello | Reply | Event | Data | Credit | End | Reset


@dataclass(kw_only=True, slots=True)
class _Receiver:
    """An output stream: *next* byte expected, *taken* by us, *told* in the last CREDIT."""

    next: int
    taken: int
    told: int
    window: int
    end: int | None = None


@dataclass(kw_only=True, slots=True)
class _Sender:
    """An input stream: bytes *sent*, *taken* by the agent, *limit* of what may be sent."""

    sent: int
    taken: int = 0
    limit: int = 0
    begun: bool = False
    end: int | None = None


class Connection:
    """One connection to an agent."""

    def __init__(self) -> None:
        self.nonce: int | None = None
        self.version = 0
        """Of the protocol as the agent speaks it, known with its HELLO."""
        self._head = bytearray()
        self._frame: tuple[Frame, int, int] | None = None
        self._body = bytearray()
        self._missing = 0
        self._stream = 0
        self._offset = 0
        self._discard = False
        self._requests: dict[int, Op | None] = {}
        self._last_request = 0
        self._receivers: dict[int, _Receiver] = {}
        self._senders: dict[int, _Sender] = {}
        self._dropped: OrderedDict[int, None] = OrderedDict()
        self._early: OrderedDict[int, tuple[int, int] | int] = OrderedDict()

    # Receiving

    def receive(self, data: bytes | bytearray | memoryview) -> list[Happening]:
        """Take bytes from the agent and tell what they mean. Raises ProtocolError."""
        view = memoryview(data)
        happenings: list[Happening] = []
        position, end = 0, len(view)
        while position < end:
            if not self._missing:
                position = self._take_head(view, position, happenings)
                continue
            step = min(self._missing, end - position)
            piece = view[position : position + step]
            position += step
            self._missing -= step
            if self._frame is None:
                self._stream_piece(piece, happenings)
            else:
                self._body += piece
                if not self._missing:
                    self._message(happenings)
        return happenings

    def _take_head(self, view: memoryview, position: int, happenings: list[Happening]) -> int:
        # The head is the header and, for stream frames, the numbers that follow it.
        head = self._head
        if len(head) < HEADER:
            step = min(HEADER - len(head), len(view) - position)
            head += view[position : position + step]
            position += step
            if len(head) < HEADER:
                return position
        length, kind, zero, code, number = _HEAD.unpack_from(head)
        frame = self._check(length, kind, zero)
        need = HEADER + _FIXED.get(frame, 0)
        if len(head) < need:
            step = min(need - len(head), len(view) - position)
            head += view[position : position + step]
            position += step
            if len(head) < need:
                return position
        self._begin(frame, length, code, number, happenings)
        head.clear()
        return position

    def _check(self, length: int, kind: int, zero: int) -> Frame:
        try:
            frame = Frame(kind)
            low, high = _LENGTHS[frame]
        except (ValueError, KeyError):
            raise ProtocolError(f"the guest's agent sent a frame of type {kind}") from None
        if zero or not low <= length <= high:
            raise ProtocolError(f"the guest's agent sent a bad {frame.name} of {length} bytes")
        if (frame is Frame.HELLO) != (self.nonce is None):
            raise ProtocolError(f"the guest's agent sent {frame.name} out of turn")
        return frame

    def _begin(
        self, frame: Frame, length: int, code: int, number: int, happenings: list[Happening]
    ) -> None:
        head = self._head
        if frame is Frame.DATA:
            self._data(number, _OFFSET.unpack_from(head, HEADER)[0], length - 8)
        elif frame is Frame.CREDIT:
            taken, limit = _PAIR.unpack_from(head, HEADER)
            self._credit(number, taken, limit, happenings)
        elif frame is Frame.EOF:
            self._end(number, _OFFSET.unpack_from(head, HEADER)[0], happenings)
        elif frame is Frame.RESET:
            self._reset(number, code, happenings)
        elif frame is Frame.HELLO:
            if not OLDEST <= code <= VERSION:
                raise ProtocolError(f"the guest's agent speaks version {code}, not {VERSION}")
            self.version = code
            self.nonce = number
            happenings.append(Hello(number))
        else:
            if frame is Frame.REPLY and number not in self._requests:
                raise ProtocolError("the guest's agent answered what nobody asked")
            self._frame = (frame, code, number)
            self._missing = length
            if not length:
                self._message(happenings)

    def _message(self, happenings: list[Happening]) -> None:
        assert self._frame is not None
        frame, code, number = self._frame
        body, self._body, self._frame = self._body, bytearray(), None
        if frame is Frame.EVENT:
            try:
                kind = EventKind(code)
            except ValueError:
                raise ProtocolError(f"the guest's agent sent an event of kind {code}") from None
            happenings.append(Event(kind, decode(EVENTS[kind], body)))
            return
        op = self._requests.pop(number)
        if op is None:
            return
        happenings.append(Reply(number, code, decode(Failure if code else OPS[op][1], body)))

    # Requests

    def request(self, op: Op, message: Any) -> tuple[int, bytes]:
        """Return a new request's id and its bytes. Raises InvalidParameter if it can't travel."""
        if not isinstance(message, OPS[op][0]):
            raise TypeError(f"{op.name} takes {OPS[op][0].__name__}, not {type(message).__name__}")
        payload = encode(message)
        self._last_request += 1
        self._requests[self._last_request] = op
        head = _HEAD.pack(len(payload), Frame.REQUEST, 0, op, self._last_request)
        return self._last_request, head + payload

    def abandon(self, request: int) -> None:
        """Nobody waits for this answer any more."""
        if request in self._requests:
            self._requests[request] = None

    # Output streams (the agent sends)

    def open_receiver(self, stream: int, start: int = 0, window: int = WINDOW) -> bytes:
        """Ask for a stream's bytes from *start* on; return what to send."""
        if stream in self._receivers or stream in self._senders or not 0 < stream < 1 << 32:
            raise ValueError(f"stream {stream} can't be opened")
        self._receivers[stream] = _Receiver(next=start, taken=start, told=start, window=window)
        return _credit(stream, start, start + window)

    def _data(self, stream: int, offset: int, length: int) -> None:
        self._missing = length
        self._stream, self._offset = stream, offset
        receiver = self._receivers.get(stream)
        self._discard = receiver is None
        if receiver is None:
            if stream not in self._dropped:
                raise ProtocolError(f"the guest's agent sent data on stream {stream}, not open")
            return
        if offset != receiver.next or receiver.end is not None:
            raise ProtocolError(
                f"the guest's agent sent byte {offset} of stream {stream}, not {receiver.next}"
            )
        if offset + length > receiver.told + receiver.window:
            raise ProtocolError(f"the guest's agent sent more on stream {stream} than allowed")
        receiver.next += length

    def _stream_piece(self, piece: memoryview, happenings: list[Happening]) -> None:
        if self._discard:
            return
        happenings.append(Data(self._stream, self._offset, piece))
        self._offset += len(piece)

    def _end(self, stream: int, offset: int, happenings: list[Happening]) -> None:
        receiver = self._receivers.get(stream)
        if receiver is None:
            if stream not in self._dropped:
                raise ProtocolError(f"the guest's agent ended stream {stream}, not open")
            return
        if offset != receiver.next or receiver.end is not None:
            raise ProtocolError(f"the guest's agent ended stream {stream} at a wrong offset")
        receiver.end = offset
        happenings.append(End(stream, offset))

    def take(self, stream: int, offset: int) -> bytes:
        """Say that bytes before *offset* need not be kept; return what to send, maybe nothing.

        Credit is given when a quarter of the window has been taken, and at the end of the stream.
        """
        receiver = self._receivers.get(stream)
        if receiver is None:
            return b""
        receiver.taken = max(receiver.taken, min(offset, receiver.next))
        if receiver.taken == receiver.end:
            self._forget(stream)
            return _credit(stream, receiver.taken, receiver.taken)
        if receiver.taken - receiver.told < receiver.window // 4:
            return b""
        receiver.told = receiver.taken
        return _credit(stream, receiver.taken, receiver.taken + receiver.window)

    def drop(self, stream: int, code: int) -> bytes:
        """Give an output stream up: what still comes is discarded. Return what to send."""
        if stream not in self._receivers:
            return b""
        self._forget(stream)
        return _HEAD.pack(0, Frame.RESET, 0, code, stream)

    def _forget(self, stream: int) -> None:
        # Ids are never used again, and what is under way for a stream that we have left is no
        # offence, so the id is remembered, far longer than anything can be under way.
        del self._receivers[stream]
        self._dropped[stream] = None
        if len(self._dropped) > MAX_DROPPED:
            self._dropped.popitem(last=False)

    # Input streams (the daemon sends)

    def open_sender(self, stream: int, start: int = 0) -> bool:
        """Begin to send a stream; tell whether the agent has already given it up."""
        if stream in self._receivers or stream in self._senders or not 0 < stream < 1 << 32:
            raise ValueError(f"stream {stream} can't be opened")
        early = self._early.pop(stream, None)
        if isinstance(early, int):
            return True
        sender = self._senders[stream] = _Sender(sent=start)
        if early is not None:
            self._grant(stream, sender, *early)
        return False

    def room(self, stream: int) -> int:
        """Return how many bytes of an input stream may be sent now."""
        sender = self._senders.get(stream)
        if sender is None or not sender.begun or sender.end is not None:
            return 0
        return sender.limit - sender.sent

    def send(self, stream: int, data: bytes | memoryview) -> bytes:
        """Return the frame for *data*, which must fit ``room`` and MAX_DATA."""
        sender = self._senders[stream]
        if not 0 < len(data) <= min(MAX_DATA, self.room(stream)):
            raise ValueError(f"{len(data)} bytes don't fit stream {stream}")
        head = _DATA_HEAD.pack(8 + len(data), Frame.DATA, 0, 0, stream, sender.sent)
        sender.sent += len(data)
        return b"".join((head, data))

    def finish(self, stream: int) -> bytes:
        """End an input stream; return what to send (nothing if it has ended)."""
        sender = self._senders.get(stream)
        if sender is None or sender.end is not None:
            return b""
        sender.end = sender.sent
        return _DATA_HEAD.pack(8, Frame.EOF, 0, 0, stream, sender.sent)

    def begun(self, stream: int) -> bool:
        """Tell whether the agent has said from which offset it wants an input stream."""
        sender = self._senders.get(stream)
        return sender is not None and sender.begun

    def cancel(self, stream: int, code: int) -> bytes:
        """Give an input stream up; return what to send."""
        if self._senders.pop(stream, None) is None:
            return b""
        return _HEAD.pack(0, Frame.RESET, 0, code, stream)

    def _credit(self, stream: int, taken: int, limit: int, happenings: list[Happening]) -> None:
        if not taken <= limit < _MAX_OFFSET or stream in self._receivers:
            raise ProtocolError(f"the guest's agent gave a bad credit on stream {stream}")
        sender = self._senders.get(stream)
        if sender is None:
            self._note_early(stream, (taken, limit))
            return
        self._grant(stream, sender, taken, limit)
        happenings.append(Credit(stream))

    def _grant(self, stream: int, sender: _Sender, taken: int, limit: int) -> None:
        if not sender.begun:
            # A stream goes on where the agent says: what it has taken came over an earlier
            # connection. It can't go back before our start, those bytes are no longer here.
            if taken < sender.sent:
                raise ProtocolError(f"the guest's agent asks for old bytes of stream {stream}")
            sender.begun, sender.sent = True, taken
        elif not sender.taken <= taken <= sender.sent:
            raise ProtocolError(f"the guest's agent gave a bad credit on stream {stream}")
        sender.taken = taken
        sender.limit = max(sender.limit, limit)
        if sender.taken == sender.end:
            del self._senders[stream]

    def _reset(self, stream: int, code: int, happenings: list[Happening]) -> None:
        if stream in self._receivers:
            self._forget(stream)
        elif stream in self._senders:
            del self._senders[stream]
        elif stream in self._dropped:
            return
        else:
            self._note_early(stream, code)
            return
        happenings.append(Reset(stream, code))

    def _note_early(self, stream: int, what: tuple[int, int] | int) -> None:
        self._early[stream] = what
        self._early.move_to_end(stream)
        if len(self._early) > MAX_EARLY:
            self._early.popitem(last=False)


def _credit(stream: int, taken: int, limit: int) -> bytes:
    return _CREDIT.pack(16, Frame.CREDIT, 0, 0, stream, taken, limit)
