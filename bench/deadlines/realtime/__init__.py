"""The scenario between processes, in real time: see :mod:`bench.deadlines.realtime.main`."""
