"""The transports in real time, by name."""

from bench.deadlines.realtime.rounds import Contender

UNSENT_BYTES = 16_384
"""What HTTP/2 servers are advised to leave in a TCP socket: above it, an order among streams is lost."""

BASE = "grpc-calls"
"""What ratios are to: gRPC as well as it does on one channel."""

CONTENDERS = {
    "odsi": Contender("the node's endpoint: queue in order of deadlines, delay controller", "odsi", "delay"),
    "odsi-reno": Contender("the same with reno in place of the controller", "odsi", "reno"),
    "stock-reno": Contender("aioquic, a stream per message, reno", "stock", "reno"),
    "grpc-stream": Contender("gRPC, one call for all activations, kernel TCP with reno", "grpc", "reno"),
    BASE: Contender(
        f"gRPC, a call for each activation, TCP with reno and at most {UNSENT_BYTES} bytes unsent",
        "grpc-calls",
        "reno",
        UNSENT_BYTES,
    ),
    "grpc-calls-bbr": Contender("the same with BBR", "grpc-calls", "bbr", UNSENT_BYTES),
}
