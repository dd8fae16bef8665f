"""The engine beside llama.cpp and transformers: ``python -m bench.kernels``, see docs/benchmarks.md."""
