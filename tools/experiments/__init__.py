"""Three puzzles that others met with Jittor beside PyTorch, tried as experiments.

    python -m tools.experiments --out docs      measures what is missing, writes puzzles.json, .md

Each has a hypothesis, a prediction that could fail, a measurement and a verdict that is computed
from it. What was measured on a CPU is said of the CPU.
"""
