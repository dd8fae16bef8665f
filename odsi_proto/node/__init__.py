"""Everything with a file descriptor: QUIC, driver loops, execution, clients. No protocol rules."""
