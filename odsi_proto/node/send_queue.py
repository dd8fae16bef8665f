"""One order for everything that a node sends, over all its connections: the most urgent bytes first.

Theory of operation. A step waits here as a message, not in a QUIC stream: the stream is opened when its
first packet can leave (late binding), so that whatever becomes urgent meanwhile goes before it, on this
connection or another. A connection is a *lane*: a heap of its waiting messages. :meth:`SendQueue.transmit`
puts the lanes that something happened on in the order of their most urgent message and lets the first one
send as much as is more urgent than what the next lane has, again and again. A lane whose window or pacing
is used up drops out until an acknowledgement or a timer brings it back. A packet costs O(log n) in lanes
and messages.

Order. Signalling first: control streams, acknowledgements. Then steps by deadline; then steps whose
deadline is past, because sending them first would make the rest late, too; then records (commitments);
then bulk, whatever no deadline waits for. Equal deadlines go by arrival. Work that a deadline waits for
inherits it: it is pushed as a step, or :meth:`SendQueue.hasten` makes it one. Nobody starves: a class
that waits gets at least its floor of the bytes. An :class:`~odsi_proto.node.uplink.Uplink` bounds what
leaves all lanes together.

Sans-IO: time is an argument, in seconds on the loop's clock as aioquic wants it; datagrams are returned.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import chain, count, islice
from math import inf

from aioquic.quic.connection import NetworkAddress

from odsi_proto.node.congestion import TARGET_S
from odsi_proto.node.connection import OrderedConnection
from odsi_proto.node.uplink import STEPS_GO_ON_S, Uplink
from odsi_proto.node.urgency import FIRST, Rank, Urgency
from odsi_proto.units import ConnectionId

FLOORS: dict[Rank, float] = {Rank.LATE: 1 / 4, Rank.RECORD: 1 / 16, Rank.BULK: 1 / 16}
"""The part of the bytes that a class gets while it waits, whatever is more urgent. A late step is still
what somebody waits for; one packet in sixteen makes a step of six packets no later than one packet does."""

_LAST: Urgency = (Rank.BULK + 1, 0.0, 0)
"""After everything."""

_CLASS_END: Urgency = (Rank.BULK, -inf, 0)
_CLASS_ENDS: dict[int, Urgency] = {FIRST[0]: (Rank.STEP, -inf, 0), Rank.BULK: _LAST}
"""Where a turn ends at the latest: what the uplink limits does not leave in the turn of what it does not."""

_TURN_BYTES_MAX = 32 << 10
"""Given to streams at once: more than a burst of the pacer, so that no turn ends for want of data."""

STEPS_TARGET_S = 0.012
"""The queue at which the delay controller of a connection without bulk gives way: three times that of one
with bulk. Where they meet at one bottleneck bulk gives way first, on however many connections it is;
each for itself, steps on one of five connections would get a fifth."""

_PAYEES_MAX = 4
"""Lanes tried for a floor: if so many can not send, the next packet tries others."""

_BEGUN_MAX = 64
"""Messages of a connection that have begun, each overtaken by the next: far more than occur."""

DATAGRAM_BYTES = 1232
"""UDP payload that fits the IPv6 minimum MTU of 1,280: a decode step of a 576-wide model in f16 fits."""

_OWED_BYTES_MAX = 8 * DATAGRAM_BYTES
"""A class whose lanes could not send does not save up for a burst."""

_OVERHEAD_BYTES = 45
"""Of a full datagram what is not payload: short header, frame header, authentication tag."""


@dataclass(slots=True, eq=False)
class Message:
    """Bytes that leave on a stream of their own."""

    connection: ConnectionId
    parts: list[memoryview]
    """What was not given to a stream yet."""
    unsent_bytes: int
    rank: Rank
    deadline_s: float
    """On the loop's clock; infinite where there is none."""
    number: int
    """Order of arrival."""
    stream: int | None = None
    """Known once the first packet could leave."""

    @property
    def urgency(self) -> Urgency:
        """What it is ordered by."""
        return self.rank, self.deadline_s, self.number


@dataclass(slots=True, eq=False)
class Lane:
    """One connection and what waits for it."""

    connection: ConnectionId
    quic: OrderedConnection
    waiting: list[tuple[Urgency, Message]] = field(default_factory=list)
    """A heap; an entry whose urgency is no longer its message's is passed over."""
    waiting_bytes: int = 0
    begun: dict[int, Message] = field(default_factory=dict)
    """Those of which a part was given to a stream, by number."""
    step_s: float = -inf
    """When a step was sent on it last."""
    bulk_s: float = -inf
    """When bulk was."""
    rtt_s: float = 0.0
    """The latest sample that was looked at."""
    sent_packets: int = 0
    sent_bytes: int = 0

    @property
    def has_more(self) -> bool:
        """Whether there is something left that the window has room for.

        The pacer is not asked: it is the attempt to send that sets its timer.
        """
        quic = self.quic
        return quic.window_left_bytes >= quic.datagram_bytes and (
            self.head() is not None or quic.urgency is not None
        )

    @property
    def may_begin(self) -> bool:
        """Whether a message more can have a stream."""
        return len(self.begun) < _BEGUN_MAX and self.quic.can_open

    def may_go_on(self, message: Message) -> bool:
        """Whether one that has begun has credit, or is over."""
        stream = message.stream
        return stream is not None and (self.quic.stream_credit_bytes(stream) > 0 or self.quic.is_over(stream))

    def head(self) -> Message | None:
        """The most urgent message."""
        while self.waiting:
            if _is_current(self.waiting[0]):
                return self.waiting[0][1]
            heappop(self.waiting)
        return None


def _is_current(entry: tuple[Urgency, Message]) -> bool:
    """Whether an entry of a heap still speaks of a message that waits."""
    urgency, message = entry
    return message.unsent_bytes > 0 and message.urgency == urgency


class SendQueue:
    """What waits to be sent, and in which order it goes."""

    def __init__(self, uplink: Uplink | None = None) -> None:
        self.uplink = uplink or Uplink()
        self._lanes: dict[ConnectionId, Lane] = {}
        self.turn = ConnectionId(0)
        """Whose turn it is while :meth:`transmit` runs."""
        self.served: set[ConnectionId] = set()
        """Who had a turn: their timers have changed. For the driver to read, and to clear."""
        self._ready: dict[ConnectionId, Lane] = {}
        self._held: dict[ConnectionId, Lane] = {}
        """Lanes that only the uplink keeps from sending."""
        self._numbers = count()
        self._waiting: dict[Rank, dict[ConnectionId, dict[int, Message]]] = {rank: {} for rank in FLOORS}
        """By class with a floor and by lane, in order of arrival; the lane tried last comes last."""
        self._owed_bytes: dict[Rank, float] = dict.fromkeys(FLOORS, 0.0)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Every connection."""
        return tuple(self._lanes.values())

    def messages(self) -> list[Message]:
        """Everything that waits, each message once, in no order."""
        waiting = chain.from_iterable(lane.waiting for lane in self._lanes.values())
        return [entry[1] for entry in waiting if _is_current(entry)]

    def add(self, connection: ConnectionId, quic: OrderedConnection) -> None:
        """A connection exists from now on."""
        self._lanes[connection] = self._ready[connection] = Lane(connection, quic)

    def remove(self, connection: ConnectionId) -> None:
        """A connection is gone, and what waited for it."""
        lane = self._lanes.pop(connection, None)
        if lane is not None:
            for _, message in lane.waiting:
                self._forget(message)
        self._ready.pop(connection, None)
        self._held.pop(connection, None)

    def push(
        self,
        connection: ConnectionId,
        *parts: bytes | memoryview,
        rank: Rank,
        deadline_s: float = inf,
    ) -> Message:
        """Put bytes in the queue that are to leave on a new stream, finished after them."""
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        unsent_bytes = sum(view.nbytes for view in views)
        message = Message(connection, views, unsent_bytes, rank, deadline_s, next(self._numbers))
        lane = self._lanes[connection]
        lane.waiting_bytes += unsent_bytes
        self._wait(lane, message)
        return message

    def hasten(self, message: Message, deadline_s: float) -> None:
        """A deadline waits for a message from now on: it inherits it."""
        lane = self._lanes.get(message.connection)
        if lane is None or not message.unsent_bytes or (message.rank, message.deadline_s) <= (0, deadline_s):
            return
        self._forget(message)
        message.rank, message.deadline_s = Rank.STEP, deadline_s
        self._wait(lane, message)
        if message.stream is not None:
            lane.quic.rank(message.stream, message.urgency)

    def touch(self, connection: ConnectionId, now: float) -> None:
        """Something happened on a connection that may let it send."""
        lane = self._lanes.get(connection)
        if lane is None:
            return
        self._ready[connection] = lane
        rtt_s = lane.quic.rtt_s
        if rtt_s != lane.rtt_s:
            lane.rtt_s = rtt_s
            if now - lane.step_s < STEPS_GO_ON_S:
                self.uplink.queue_seen(lane.quic.queue_delay_s, rtt_s, now)

    def waiting_bytes(self, connection: ConnectionId) -> int:
        """Of messages that are not with a stream yet."""
        lane = self._lanes.get(connection)
        return 0 if lane is None else lane.waiting_bytes

    def next_time(self, now: float) -> float | None:
        """When the uplink lets a held lane send again; None if it holds nothing."""
        return self.uplink.next_time(now) if self._held else None

    def transmit(self, now: float) -> Iterator[tuple[bytes, NetworkAddress]]:
        """Everything that may leave now, in order.

        An exception is a bug in one lane, whose connection :attr:`turn` names; the others stay ready.
        """
        if self._held and self.uplink.allowance(Rank.BULK, now) > 0:
            self._ready.update(self._held)
            self._held.clear()
        order = [(self._urgency(lane, now), connection) for connection, lane in self._ready.items()]
        heapify(order)
        while order:
            yield from self._pay(now)
            urgency, connection = heappop(order)
            lane = self._ready.get(connection)
            if lane is None:
                continue  # removed meanwhile
            self.turn = connection
            self.served.add(connection)
            limit_bytes = self.uplink.allowance(urgency[0], now)
            if limit_bytes <= 0:
                self._held[connection] = lane
                yield from lane.quic.signals(now)  # tiny, and what the peer waits for
                sent = []
            else:
                rival = min(order[0][0] if order else _LAST, _CLASS_ENDS.get(urgency[0], _CLASS_END))
                sent = self._send(lane, rival, max(limit_bytes, DATAGRAM_BYTES), now)
            if sent:
                yield from sent
                self._account(lane, urgency[0], sent, now)
            if sent and connection in self._ready and lane.has_more:
                heappush(order, (self._urgency(lane, now), connection))
            else:
                self._ready.pop(connection, None)

    def _urgency(self, lane: Lane, now: float) -> Urgency:
        """Of the most urgent thing on a lane; an acknowledgement may be due on one that has nothing else."""
        message = self._next(lane, now)
        inside = lane.quic.urgency
        if message is None:
            return inside or FIRST
        return min(inside, message.urgency) if inside else message.urgency

    def _next(self, lane: Lane, now: float) -> Message | None:
        """The most urgent message that may go on.

        While no further stream may be opened, that is one that has begun: streams only end if it goes on.
        """
        head = self._head(lane, now)
        if head is None or head.stream is not None or lane.may_begin:
            return head
        able = (message for message in lane.begun.values() if lane.may_go_on(message))
        return min(able, key=lambda message: message.urgency, default=None)

    def _head(self, lane: Lane, now: float) -> Message | None:
        """The most urgent message that waits, after those that have become late gave way."""
        head = lane.head()
        while head is not None and head.rank is Rank.STEP and head.deadline_s < now:
            head.rank = Rank.LATE
            self._wait(lane, head)
            head = lane.head()
        return head

    def _send(
        self, lane: Lane, rival: Urgency, limit_bytes: float, now: float
    ) -> list[tuple[bytes, NetworkAddress]]:
        """Let a lane send what is more urgent than its rival."""
        packets = self._feed(lane, rival, limit_bytes, now)
        return lane.quic.datagrams_within(now, packets * lane.quic.datagram_bytes)

    def _feed(self, lane: Lane, rival: Urgency, limit_bytes: float, now: float) -> int:
        """Give streams what can leave now of the messages that are more urgent than the rival.

        Returns for how many packets that is enough, with what streams had, at least one. Only whole packets
        are filled: one that the window has half a place for waits for the other half. What is sent again is
        in streams, however much it is: it takes the place of nothing more urgent, here or at a rival.
        """
        quic = lane.quic
        payload_bytes = quic.datagram_bytes - _OVERHEAD_BYTES
        places = int(min(quic.room_bytes(now), limit_bytes, _TURN_BYTES_MAX)) // quic.datagram_bytes
        room_bytes = min(places * payload_bytes, quic.credit_bytes)
        stuck: list[tuple[Urgency, Message]] = []
        while (message := self._next(lane, now)) is not None and message.urgency <= rival:
            left_bytes = room_bytes - quic.inside_bytes(message.urgency)
            if left_bytes <= 0:
                break
            if not self._give(lane, message, left_bytes) and lane.waiting[0][1] is message:
                stuck.append(heappop(lane.waiting))  # no credit: the next one's stream may have
        for entry in stuck:
            heappush(lane.waiting, entry)
        return max(1, min(places, -(-quic.inside_bytes(rival) // payload_bytes)))

    def _give(self, lane: Lane, message: Message, room_bytes: int) -> int:
        """Write up to ``room_bytes`` of a message to its stream, which may be opened for it."""
        quic = lane.quic
        if message.stream is None:
            message.stream = quic.get_next_available_stream_id(is_unidirectional=True)
            quic.rank(message.stream, message.urgency)
        elif quic.is_over(message.stream):
            self._drop(lane, message)  # the peer refused it while the rest waited here
            return 0
        room_bytes = min(room_bytes, quic.stream_credit_bytes(message.stream))
        given_bytes = 0
        while message.parts and given_bytes < room_bytes:
            part = message.parts[0]
            piece = part[: room_bytes - given_bytes]
            if piece.nbytes == part.nbytes:
                del message.parts[0]
            else:
                message.parts[0] = part[piece.nbytes :]
            quic.send_stream_data(message.stream, piece, end_stream=not message.parts)  # type: ignore[arg-type]  # only appended
            given_bytes += piece.nbytes
        message.unsent_bytes -= given_bytes
        lane.waiting_bytes -= given_bytes
        if message.unsent_bytes:
            lane.begun[message.number] = message
        else:
            lane.begun.pop(message.number, None)
            self._forget(message)
        return given_bytes

    def _account(self, lane: Lane, rank: int, sent: list[tuple[bytes, NetworkAddress]], now: float) -> None:
        sent_bytes = sum(len(datagram) for datagram, _ in sent)
        lane.sent_packets += len(sent)
        lane.sent_bytes += sent_bytes
        if rank in {Rank.STEP, Rank.LATE}:
            lane.step_s = now
        elif rank >= Rank.BULK:
            lane.bulk_s = now
        has_bulk = now - lane.bulk_s < STEPS_GO_ON_S
        lane.quic.give_way_at(TARGET_S if has_bulk else STEPS_TARGET_S)
        self.uplink.spent(rank, sent_bytes, len(sent), now)
        for floored, part in FLOORS.items():
            if floored > rank and self._waiting[floored]:
                owed_bytes = self._owed_bytes[floored] + part * sent_bytes
                self._owed_bytes[floored] = min(owed_bytes, _OWED_BYTES_MAX)
            elif floored == rank:
                self._owed_bytes[floored] = max(0.0, self._owed_bytes[floored] - sent_bytes)

    def _pay(self, now: float) -> Iterator[tuple[bytes, NetworkAddress]]:
        """What each class that has waited for its floor is owed, if its lanes can send."""
        for rank in FLOORS:
            while self._owed_bytes[rank] >= DATAGRAM_BYTES:
                sent = self._pay_one(rank, now)
                if not sent:
                    break
                yield from sent

    def _pay_one(self, rank: Rank, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """One packet of a class: lanes take turns, so that none that can not send keeps it from others."""
        lanes = self._waiting[rank]
        for connection in tuple(islice(lanes, _PAYEES_MAX)):
            lanes[connection] = lanes.pop(connection)
            sent = self._send_one(next(iter(lanes[connection].values())), now)
            if sent:
                return sent
        return []

    def _send_one(self, message: Message, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """One packet of a message, whatever else its lane has."""
        lane = self._lanes[message.connection]
        quic = lane.quic
        self.turn = message.connection
        self.served.add(message.connection)
        if min(quic.room_bytes(now), quic.credit_bytes) < quic.datagram_bytes:
            return []
        if message.stream is None and not lane.may_begin:
            return []
        if not self._give(lane, message, quic.datagram_bytes - _OVERHEAD_BYTES):
            return []
        assert message.stream is not None
        quic.rank(message.stream, FIRST)
        sent = quic.datagrams_within(now, quic.datagram_bytes)
        quic.rank(message.stream, message.urgency)
        self._account(lane, message.rank, sent, now)
        return sent

    def _wait(self, lane: Lane, message: Message) -> None:
        heappush(lane.waiting, (message.urgency, message))
        if message.rank in FLOORS:
            self._waiting[message.rank].setdefault(lane.connection, {})[message.number] = message
        self._ready[lane.connection] = lane

    def _drop(self, lane: Lane, message: Message) -> None:
        """Nobody wants the rest of a message."""
        lane.begun.pop(message.number, None)
        self._forget(message)
        lane.waiting_bytes -= message.unsent_bytes
        message.unsent_bytes = 0
        message.parts.clear()

    def _forget(self, message: Message) -> None:
        lanes = self._waiting.get(message.rank, {})
        waiting = lanes.get(message.connection, {})
        if waiting.pop(message.number, None) is not None and not waiting:
            del lanes[message.connection]
