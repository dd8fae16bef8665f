"""What is measured: each section makes groups of contenders out of one model and lets them take turns."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from bench.kernels import accuracy, nodes, workload
from bench.kernels.hugging_face import HuggingFaceRunner
from bench.kernels.llama_cpp import LlamaCpp, find_or_build
from bench.kernels.nodes import Breakdown, Run
from bench.kernels.own import Crowd, OwnRunner
from bench.kernels.rounds import Accuracy, Contender, Group, Series, Unavailable, say, take_turns
from bench.kernels.workload import Runner, Workload
from odsi_proto.cli.generation_options import PROFILES
from odsi_proto.errors import OdsiError
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.select import BackendKind, select
from odsi_proto.kernels.source import ModelSource
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile

LLAMA = "llama.cpp"
COMPUTES = {"exact": NumericProfile.FLOAT32, "fast": NumericProfile.FAST}
CODECS = {"f32": ActivationCodec.F32, "f16": ActivationCodec.F16}
BACKENDS = (BackendKind.NATIVE, BackendKind.TORCH)

Measured: TypeAlias = Group | Breakdown
Key: TypeAlias = tuple[str, ActivationCodec | None, int]
"""What decides an answer of the backend that a node would choose: profile, codec, stages."""


@dataclass(kw_only=True)
class Bench:
    """One model, what is done with it, and what several sections need."""

    source: ModelSource
    work: Workload
    rounds: int
    peers: bool
    """Whether other engines take part."""
    llama_bench: Path | None
    cpus: set[int]
    """Of the process before it was pinned, for the nodes; empty if it was not."""
    _own: dict[tuple[NumericProfile, BackendKind], OwnRunner] = field(default_factory=dict)
    _answers: list[Tensor] = field(default_factory=list)
    _accuracies: dict[Key, Accuracy] = field(default_factory=dict)
    _contenders: list[tuple[str, Runner, Accuracy] | Series] = field(default_factory=list)
    _llama: LlamaCpp | Series | None = None

    def __post_init__(self) -> None:
        self.config = read_config(self.source)
        self.vocabulary = self.config.vocabulary
        self.fed = accuracy.texts(self.source, self.work)

    def own(self, profile: NumericProfile, backend: BackendKind | None = None) -> OwnRunner:
        """Our engine, loaded once, so that all sections measure the same weights in the same pages."""
        kind = select(self.config, profile, backend).kind
        if (profile, kind) not in self._own:
            self._own[profile, kind] = OwnRunner.load(self.source, self.work, profile, kind)
        return self._own[profile, kind]

    def judge(self, name: str, runner: Runner) -> Accuracy:
        """How far the runner's answers are from float32."""
        if not self._answers:
            say("the answers in float32")
            exact = self.own(NumericProfile.FLOAT32, BackendKind.TORCH)
            self._answers = accuracy.answers(exact, self.fed)
        say(f"the answers of {name}")
        return accuracy.compare(self._answers, accuracy.answers(runner, self.fed))

    def judge_staged(self, computes: str, runner: OwnRunner) -> Accuracy:
        """The same for the backend that a node would choose, once for each way of cutting."""
        key = (computes, runner.codec, len(runner.engines))
        if key not in self._accuracies:
            codec = "no codec" if runner.codec is None else runner.codec.name.lower()
            name = f"{computes}, {codec}, {_many(len(runner.engines), 'stage')}"
            self._accuracies[key] = self.judge(name, runner)
        return self._accuracies[key]

    def in_process(self) -> list[tuple[str, Runner, Accuracy] | Series]:
        """Every engine that runs in this process, loaded once, with how good it is."""
        if not self._contenders:
            makers: dict[str, Callable[[], Runner]] = {
                f"{computes}, {backend.value}": partial(self.own, profile, backend)
                for computes, profile in COMPUTES.items()
                for backend in BACKENDS
            }
            if self.peers:
                makers["transformers, float32"] = partial(HuggingFaceRunner, self.source)
            for name, make in makers.items():
                try:
                    runner = make()
                    self._contenders.append((name, runner, self.judge(name, runner)))
                except OdsiError as error:
                    self._contenders.append(Series(name=name, why_not=str(error)))
        return self._contenders

    def llama(self) -> LlamaCpp | Series:
        """llama-bench, or why there is none."""
        if self._llama is None:
            try:
                if not self.peers:
                    raise Unavailable("left out")
                self._llama = LlamaCpp(self.llama_bench or find_or_build(), self.source.path)
            except Unavailable as error:
                self._llama = Series(name=LLAMA, why_not=str(error))
        return self._llama

    def race(
        self, key: str, title: str, own: Callable[[Runner], float], its: Callable[[LlamaCpp], float]
    ) -> Group:
        """All engines at the same work."""
        rows: list[Contender | Series] = [
            each
            if isinstance(each, Series)
            else Contender(name=each[0], sample=partial(own, each[1]), accuracy=each[2])
            for each in self.in_process()
        ]
        llama = self.llama()
        if isinstance(llama, Series):
            rows.append(llama)
        else:
            rows.append(Contender(name=LLAMA, sample=partial(its, llama), warms_itself=True))
        return take_turns(key, title, rows, baseline=LLAMA, rounds=self.rounds)


def decode(bench: Bench) -> Iterator[Measured]:
    """One request, token by token."""
    work = bench.work
    yield bench.race(
        "decode",
        f"decode, tokens/s: one request, positions {work.context} to {work.context + work.tokens}; "
        "embedding, layers and head for each token",
        partial(workload.decode, vocabulary=bench.vocabulary, workload=work),
        partial(LlamaCpp.decode, context=work.context, tokens=work.tokens),
    )


def prefill(bench: Bench) -> Iterator[Measured]:
    """One prompt as one step."""
    for count in bench.work.prefills:
        yield bench.race(
            f"prefill-{count}",
            f"prefill, tokens/s: {count} positions in one step; embedding and layers for each, the head once",
            partial(workload.prefill, vocabulary=bench.vocabulary, count=count),
            partial(LlamaCpp.prefill, count=count),
        )


def batch(bench: Bench) -> Iterator[Measured]:
    """Many requests at once, on the backend that a node would choose."""
    work = bench.work
    for computes, profile in COMPUTES.items():
        runner = bench.own(profile)
        good = bench.judge_staged(computes, runner)
        contenders = [
            Contender(name=_many(count, "request"), sample=Crowd(runner, count, work).sample, accuracy=good)
            for count in work.batches
        ]
        title = (
            f"batch, {computes} on {runner.backend}: tokens/s of all requests together, positions "
            f"{work.context} to {work.context + work.batch_tokens}; one run of the layers and one of the head"
        )
        yield take_turns(
            f"batch-{computes}", title, contenders, baseline=contenders[0].name, rounds=bench.rounds
        )


def stages(bench: Bench) -> Iterator[Measured]:
    """What cutting costs, without processes and network; rows cross the client's two cuts too."""
    work = bench.work
    counts = [count for count in work.stages if count <= bench.config.layers_count]
    for computes, profile in COMPUTES.items():
        whole = bench.own(profile)
        for name, codec in CODECS.items():
            contenders = []
            for count in counts:
                runner = whole.cut(count, codec)
                contenders.append(
                    Contender(
                        name=_many(count, "stage"),
                        sample=partial(workload.decode, runner, bench.vocabulary, work),
                        accuracy=bench.judge_staged(computes, runner),
                    )
                )
            yield take_turns(
                f"stages-{computes}-{name}",
                f"stages, {computes} on {whole.backend}, {name} at every cut, in one process: "
                "decode, tokens/s",
                contenders,
                baseline=contenders[0].name,
                rounds=bench.rounds,
            )


def processes(bench: Bench) -> Iterator[Measured]:
    """Nodes over QUIC, and the same engines and codec in one process."""
    over, single = f"{nodes.STAGES} nodes over QUIC", "one process, same cuts and codec"
    rows, runs = {}, {}
    for name, profile in PROFILES.items():
        whole = bench.own(COMPUTES[profile.computes])
        runner = whole.cut(min(nodes.STAGES, len(whole.engines[0].layers)), profile.codec)
        good = bench.judge_staged(profile.computes, runner)
        rows[name] = [Series(name=label, accuracy=good) for label in (over, single)]
        runs[name] = list[Run]()
    loads = []
    for number in range(1, bench.rounds + 1):
        say(f"nodes, round {number} of {bench.rounds}")
        loads.append(os.getloadavg()[0])
        for name, (over_nodes, in_one) in rows.items():
            if over_nodes.why_not:
                continue
            try:
                run = nodes.demonstrate(bench.source.path, name, bench.work.demo_tokens)
            except Unavailable as error:
                for row in rows[name]:
                    row.samples.clear()
                    row.why_not = str(error)
                continue
            runs[name].append(run)
            over_nodes.samples.append(run.over_nodes)
            in_one.samples.append(run.in_one_process)
    for name, series in rows.items():
        title = f"nodes, {name}: tokens/s of one request, from the first token to the last"
        yield Group(key=f"nodes-{name}", title=title, baseline=single, series=series, loads=loads)
        if not series[0].why_not:
            yield nodes.breakdown(name, runs[name])


def on_all_cpus(bench: Bench) -> Iterator[Measured]:
    """``processes`` without the pin: four processes on one core would measure the scheduler."""
    pinned = os.sched_getaffinity(0) if bench.cpus else set()
    if bench.cpus:
        os.sched_setaffinity(0, bench.cpus)
    try:
        yield from processes(bench)
    finally:
        if bench.cpus:
            os.sched_setaffinity(0, pinned)


SECTIONS: dict[str, Callable[[Bench], Iterator[Measured]]] = {
    "decode": decode,
    "prefill": prefill,
    "batch": batch,
    "stages": stages,
    "nodes": on_all_cpus,
}


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count > 1 else ''}"
