"""Samplers: one update rule a file, one loop for all, on NumPy, PyTorch or Jittor arrays.

from diptych.solvers import DpmSolverPP, solve
x = solve(DpmSolverPP(2), denoise, x_T, levels)        # denoise(x, level) -> eps
"""

from __future__ import annotations

from diptych.solvers.ddim import Ddim
from diptych.solvers.ddpm import Ddpm
from diptych.solvers.dpmpp import DpmSolverPP, DpmSolverPPSde
from diptych.solvers.euler import Euler
from diptych.solvers.heun import Heun
from diptych.solvers.inversion import invert
from diptych.solvers.plms import Plms
from diptych.solvers.pndm import Pndm
from diptych.solvers.solver import Memory, Solver, solve
from diptych.solvers.unipc import UniPC
from diptych.solvers.wrappers import Denoiser, dynamic_threshold, from_v, from_x0, limited

__all__ = [
    "Ddim",
    "Ddpm",
    "Denoiser",
    "DpmSolverPP",
    "DpmSolverPPSde",
    "Euler",
    "Heun",
    "Memory",
    "Plms",
    "Pndm",
    "Solver",
    "UniPC",
    "dynamic_threshold",
    "from_v",
    "from_x0",
    "invert",
    "limited",
    "solve",
]
