"""The commands of a script. Adding one is a function and a line in :data:`COMMANDS`."""

from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from typing import Any

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine import effects as fx
from odsi_proto.statemachine.budget import ExecutorLoad
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.script_frames import (
    forged_frame,
    forged_step,
    frame_change,
    request_named,
    request_of,
    step_change,
)
from odsi_proto.testing.script_words import (
    CommandError,
    Words,
    duration_us,
    durations_us,
    envelopes_us,
    layers,
    member_of,
    names,
    number,
    octets,
    plain,
    yes_or_no,
)
from odsi_proto.testing.script_world import (
    LAYERS_EACH,
    LAYOUT,
    MODEL_ROOT,
    WIDTH,
    Asked,
    Node,
    World,
)
from odsi_proto.units import LayerRange, Micros, Position
from odsi_proto.wire.codepoints import ErrorCode, LateAction
from odsi_proto.wire.messages import LAYERS_MAX, StagePlan
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile

_STAGES_MAX = LAYERS_MAX // LAYERS_EACH
_LIMITS = {
    field.name: duration_us if field.name.endswith(("_us", "_us_max")) else number for field in fields(Limits)
}


def perform(world: World, words: Words) -> None:
    """Carry out one command and let the world settle; raises :class:`CommandError`."""
    name = words.word("a command")
    if name == "quiet":
        world.log.is_quiet = True
        name = words.word("a command after 'quiet'")
    if name not in COMMANDS:
        raise CommandError(f"no command {name!r}; there are {', '.join(sorted(COMMANDS))}")
    COMMANDS[name](world, words)
    world.settle()
    world.log.is_quiet = False


def _path(world: World, words: Words) -> None:
    if world.nodes:
        raise CommandError("the path is there already")
    stages_count = words.option("stages", number) or 1
    clients_count = words.option("clients", number) or 1
    is_connected = words.option("connect", yes_or_no) is not False
    world.delay_us = words.option("delay", duration_us) or world.delay_us
    own = _own_limits(words)
    limits: dict[str, Any] = words.options(_LIMITS)
    words.end(", ".join(("stages", "clients", "connect", "delay", "stage-1:LIMIT:VALUE", *_LIMITS)))
    if not 0 < stages_count <= _STAGES_MAX or clients_count < 1:
        raise CommandError(f"a path has 1 to {_STAGES_MAX} stages and a client")
    clients = ["client", *(f"client-{index}" for index in range(1, clients_count))]
    stages = [f"stage-{index}" for index in range(stages_count)]
    for name in clients:
        world.add_client(name, Limits(**{**limits, **own.pop(name, {})}))
    for index, name in enumerate(stages):
        held = LayerRange(LAYERS_EACH * index, LAYERS_EACH * (index + 1))
        world.add_stage(name, held, Limits(**{**limits, **own.pop(name, {})}))
    if own:
        raise CommandError(f"limits of {next(iter(own))}, who is not there")
    if not is_connected:
        return
    pairs = [(client, stage) for client in clients for stage in dict.fromkeys((stages[0], stages[-1]))]
    was_quiet, world.log.is_quiet = world.log.is_quiet, True
    for dialler, acceptor in (*pairs, *pairwise(stages)):
        world.connect(dialler, acceptor)
    world.settle()
    world.log.is_quiet = was_quiet


def _own_limits(words: Words) -> dict[str, dict[str, Any]]:
    """``stage-1 LIMIT=...`` would be ambiguous: limits of one participant are ``stage-1:LIMIT:VALUE``."""
    own: dict[str, dict[str, Any]] = {}
    while (text := words.maybe(r"[a-z0-9-]+:[a-z_]+:[^:]+")) is not None:
        name, limit, value = text.split(":")
        if limit not in _LIMITS:
            raise CommandError(f"no limit {limit!r}; there are {', '.join(_LIMITS)}")
        own.setdefault(name, {})[limit] = _LIMITS[limit](value)
    return own


def _connect(world: World, words: Words) -> None:
    dialler, acceptor = words.word("who dials"), words.word("who is dialled")
    expected, key_of = words.option("expected", plain), words.option("key_of", plain)
    words.end("expected, key_of")
    world.connect(dialler, acceptor, expected=expected, key_of=key_of)


def _rtt(world: World, words: Words) -> None:
    ends = (words.word("a participant"), words.word("another"))
    rtt_us = duration_us(words.word("the round trip"))
    words.end()
    for sender, receiver in (ends, ends[::-1]):
        flow = world.flow(sender, receiver)
        world.node(sender).endpoint.rtt_measured(flow.sender_end, rtt_us)


def _open(world: World, words: Words) -> None:
    by = words.option("by", plain) or "client"
    client = world.client(by)
    path = words.option("stages", names) or tuple(
        name for name, node in world.nodes.items() if isinstance(node.endpoint, StageEndpoint)
    )
    first, last = words.option("first", plain) or path[0], words.option("last", plain) or path[-1]
    held = words.option("layers", layers) or tuple(
        LayerRange(LAYERS_EACH * index, LAYERS_EACH * (index + 1)) for index in range(len(path))
    )
    if len(held) != len(path):
        raise CommandError(f"{len(held)} layer ranges for {len(path)} stages")
    budgets = words.option("budgets", durations_us) or (Micros(0),) * len(path)
    envelopes = words.option("envelopes", envelopes_us) or ((Micros(0), Micros(0)),) * len(path)
    if {len(budgets), len(envelopes)} != {len(path)}:
        raise CommandError(f"expected as many budgets and envelopes as stages, {len(path)}")
    plans = [
        StagePlan(
            participant=world.node(name).signer.participant,
            standbys=(),
            layers=layer_range,
            budget_us=budget_us,
            remaining_min_us=Micros(envelope[0]),
            remaining_max_us=Micros(envelope[1]),
        )
        for name, layer_range, budget_us, envelope in zip(path, held, budgets, envelopes, strict=True)
    ]
    spec = _spec(words, tuple(plans))
    request = words.option("id", lambda text: request_named(world, text)) or client.new_request_id()
    words.end("by, stages, first, last, layers, budgets, envelopes, model, id and the fields of a request")
    world.names.add_request(request)
    world.latest = request
    ends = (world.flow(by, first).sender_end, world.flow(by, last).sender_end)
    node = world.node(by)
    _try(world, node, lambda: client.open(request, spec, first=ends[0], last=ends[1], now=world.now))


def _spec(words: Words, plans: tuple[StagePlan, ...]) -> RequestSpec:
    model = words.option("model", octets)
    given: dict[str, Any] = {
        "model_root": MODEL_ROOT if model is None else model,
        "width": WIDTH,
        "stages": plans,
        "codec": ActivationCodec.F32,
        "profile": NumericProfile.FLOAT32,
        "positions_max": 32,
        "rows_returned_max": 1,
        "first_token_us": Micros(1_000_000),
        "per_token_us": Micros(1_000_000),
        "valid_s": 600,
        **words.options(
            {
                "width": number,
                "positions_max": number,
                "rows_returned_max": number,
                "first_token_us": duration_us,
                "per_token_us": duration_us,
                "total_us": duration_us,
                "valid_s": number,
                "price_cap": number,
                "codec": member_of(ActivationCodec),
                "late_action": lambda text: LateAction(member_of(LateAction)(text)),
            }
        ),
    }
    return RequestSpec(**given)


def _send(world: World, words: Words) -> None:
    request, by = request_of(world, words), words.option("by", plain) or "client"
    fill = words.option("fill", number)
    tokens = [number(word) for word in words.rest()]
    words.end("request, by, fill")
    payload = memoryview(bytes([1 if fill is None else fill]) * LAYOUT.payload_bytes(len(tokens)))
    client = world.client(by)
    _try(world, world.node(by), lambda: client.send_step(request, tokens, payload, now=world.now))


def _cancel(world: World, words: Words) -> None:
    request, by = request_of(world, words), words.option("by", plain) or "client"
    code = ErrorCode(words.option("code", member_of(ErrorCode)) or ErrorCode.NO_ERROR)
    words.end("request, by, code")
    client = world.client(by)
    world.perform(world.node(by), client.cancel(request, code, now=world.now))


def _step(world: World, words: Words) -> None:
    flow = world.flow(*words.arrow())
    world.send(flow, flow.step_of(forged_step(world, words, flow)), "forged")


def _repeat(world: World, words: Words) -> None:
    flow, name = world.flow(*words.arrow()), words.word("a step's stream, as step-1")
    if name not in flow.steps:
        raise CommandError(f"no step {name!r} on {flow.who}; there are {', '.join(flow.steps) or 'none'}")
    request = flow.handles.get(flow.steps[name][0].handle)
    change = step_change(world, words, request)
    world.send(flow, flow.step_of(change(flow.steps[name])), f"{name} again")


def _frame(world: World, words: Words) -> None:
    sender, receiver = words.arrow()
    flow = world.flow(sender, receiver)
    world.send(flow, flow.frames((forged_frame(world, words, sender),)), "forged")


def _bytes(world: World, words: Words) -> None:
    flow = world.flow(*words.arrow())
    stream, data = words.word("a stream"), octets(words.word("bytes in hexadecimal"))
    fin = words.maybe("fin") is not None
    words.end("fin")
    world.send(flow, flow.raw(stream, data, fin=fin), "forged")


def _alter(world: World, words: Words) -> None:
    sender, receiver = words.arrow()
    world.node(sender), world.node(receiver)
    changes, kind = world.changes(sender, receiver), words.word("STEP or a frame type")
    if kind == "STEP":
        changes.step = step_change(world, words, world.latest)
    else:
        changes.frames[kind] = frame_change(world, words, kind, sender)


def _hold(world: World, words: Words) -> None:
    sender, receiver = words.arrow()
    words.end()
    world.node(sender), world.node(receiver)
    world.held.add((sender, receiver))


def _release(world: World, words: Words) -> None:
    sender, receiver = words.arrow()
    words.end()
    if (sender, receiver) not in world.held:
        raise CommandError(f"{sender} -> {receiver} is not held")
    world.held.discard((sender, receiver))
    flow = world.flow(sender, receiver)
    for stream in flow.kept():
        data, fin, _ = flow.take(stream)
        world.arrive(flow, stream, data, fin=fin)


def _deliver(world: World, words: Words) -> None:
    flow = world.flow(*words.arrow())
    stream, bytes_max = flow.stream(words.word("a stream")), words.option("bytes", number)
    words.end("bytes")
    data, fin, left = flow.take(stream, bytes_max)
    if left:
        what = f"{len(data)} of {len(data) + left} bytes of {flow.stream_name(stream)} arrive"
        world.log.line(world.now, flow.who, what)
    world.arrive(flow, stream, data, fin=fin)


def _drop(world: World, words: Words) -> None:
    flow = world.flow(*words.arrow())
    stream = flow.stream(words.word("a stream"))
    words.end()
    flow.forget(stream)


def _reset(world: World, words: Words) -> None:
    flow = world.flow(*words.arrow())
    stream = flow.stream(words.word("a stream"))
    words.end()
    world.reset(flow, stream)


def _compute(world: World, words: Words) -> None:
    world.stage(name := words.word("a stage"))
    how = words.word("'manual' or a duration")
    words.end()
    world.node(name).compute_us = None if how == "manual" else duration_us(how)


def _load(world: World, words: Words) -> None:
    stage = world.stage(words.word("a stage"))
    load = ExecutorLoad(
        queue_us=words.option("queue_us", duration_us) or Micros(0),
        decode_us=words.option("decode_us", duration_us),
        credit_steps=words.option("steps", number) or 0,
        credit_bytes=words.option("bytes", number) or 0,
    )
    words.end("queue_us, decode_us, steps, bytes")
    stage.executor_measured(load)


def _reserved(world: World, words: Words) -> None:
    node, asked = _asked(world, words, fx.Reserve)
    words.end("request")
    world.answer(node, asked, asked.at_us)


def _reserve_failed(world: World, words: Words) -> None:
    node, asked = _asked(world, words, fx.Reserve)
    reason = words.option("reason", plain) or "no room"
    words.end("request, reason")
    stage = world.stage(node.name)
    world.perform(node, stage.reserve_failed(asked.effect.request, reason, now=world.now))


def _output(world: World, words: Words) -> None:
    node, asked = _asked(world, words, fx.Run)
    words.end("request, position")
    world.answer(node, asked, asked.at_us)


def _failed(world: World, words: Words) -> None:
    node, asked = _asked(world, words, fx.Run)
    reason = words.option("reason", plain) or "out of memory"
    words.end("request, position, reason")
    assert isinstance(asked.effect, fx.Run)
    stage, run = world.stage(node.name), asked.effect
    world.perform(node, stage.failed(run.request, run.position, reason, now=world.now))


def _expired(world: World, words: Words) -> None:
    node, asked = _asked(world, words, fx.Run)
    words.end("request, position")
    assert isinstance(asked.effect, fx.Run)
    stage, run = world.stage(node.name), asked.effect
    world.perform(node, stage.expired(run.request, run.position, now=world.now))


def _asked(world: World, words: Words, kind: type[fx.Reserve | fx.Run]) -> tuple[Node, Asked]:
    """The oldest thing of a kind that an executor owes an answer to."""
    name = words.word("a stage")
    world.stage(name)
    node = world.node(name)
    request = words.option("request", lambda text: request_named(world, text))
    position = words.option("position", lambda text: Position(number(text)))
    for asked in node.asked:
        effect = asked.effect
        is_wanted = isinstance(effect, kind) and request in {None, effect.request}
        if is_wanted and (position is None or getattr(effect, "position", None) == position):
            node.asked.remove(asked)
            return node, asked
    raise CommandError(f"the executor of {name} owes no such answer: is it 'compute {name} manual'?")


def _advance(world: World, words: Words) -> None:
    us = duration_us(words.word("a duration"))
    words.end()
    if us < 0:
        raise CommandError("time does not go back")
    world.run_until(Micros(world.now + us))


def _lose(world: World, words: Words) -> None:
    ends = (words.word("a participant"), words.word("another"))
    reason, at = words.option("reason", plain) or "cut", words.option("at", plain)
    words.end("reason, at")
    if at not in {None, *ends}:
        raise CommandError(f"at={at}: expected {ends[0]} or {ends[1]}")
    flow = world.flow(*ends)
    for direction in (flow, flow.other):
        if at in {None, direction.receiver}:
            world.lose(direction, reason)


def _drain(world: World, words: Words) -> None:
    node, reason = world.node(words.word("a participant")), words.option("reason", plain) or "leaving"
    words.end("reason")
    world.perform(node, node.endpoint.drain(reason, now=world.now))


def _show(world: World, words: Words) -> None:
    node = world.node(words.word("a participant"))
    words.end()
    deadline = node.endpoint.next_deadline
    timer = "no timer" if deadline is None else f"next timer {deadline[1]} at {deadline[0] / 1_000:g} ms"
    held = ""
    if isinstance(node.endpoint, StageEndpoint):
        held = f"requests open: {node.endpoint.requests_open}, "
    world.log.line(world.now, node.name, held + timer)


def _try(world: World, node: Node, call: Callable[[], tuple[fx.Effect, ...]]) -> None:
    """A call of the application, which an endpoint may turn down."""
    try:
        effects = call()
    except LocalProtocolError as error:
        world.log.line(world.now, node.name, f"LocalProtocolError: {error}")
        return
    world.perform(node, effects)


COMMANDS: dict[str, Callable[[World, Words], None]] = {
    "path": _path,
    "connect": _connect,
    "rtt": _rtt,
    "open": _open,
    "send": _send,
    "cancel": _cancel,
    "step": _step,
    "repeat": _repeat,
    "frame": _frame,
    "bytes": _bytes,
    "alter": _alter,
    "hold": _hold,
    "release": _release,
    "deliver": _deliver,
    "drop": _drop,
    "reset": _reset,
    "compute": _compute,
    "load": _load,
    "reserved": _reserved,
    "reserve-failed": _reserve_failed,
    "output": _output,
    "failed": _failed,
    "expired": _expired,
    "advance": _advance,
    "lose": _lose,
    "drain": _drain,
    "show": _show,
}
"""From name to what it does; docs/golden-conversations.md describes each."""
