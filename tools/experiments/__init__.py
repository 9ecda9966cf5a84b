"""Three puzzles reported about Jittor beside PyTorch, tested as experiments.

    python -m tools.experiments --out docs      takes missing measurements, writes puzzles.json, .md

Each has a hypothesis, a prediction that could fail, a measurement, and a verdict computed from it.
Measurements on a CPU only support statements about the CPU.
"""
