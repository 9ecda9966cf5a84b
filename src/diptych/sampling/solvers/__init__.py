"""Solvers: one update rule per file, one loop for all, on NumPy, PyTorch or Jittor arrays.

from diptych.solvers import DpmSolverPP, solve
x = solve(DpmSolverPP(2), denoise, x_T, levels)        # denoise(x, level) -> eps
"""

from __future__ import annotations

from diptych.sampling.solvers.checks import Needs
from diptych.sampling.solvers.ddim import Ddim
from diptych.sampling.solvers.ddim_inverse import invert
from diptych.sampling.solvers.ddpm import Ddpm
from diptych.sampling.solvers.deis import Deis
from diptych.sampling.solvers.dpmpp import DpmSolverPP, DpmSolverPPSde
from diptych.sampling.solvers.euler import Euler
from diptych.sampling.solvers.heun import Heun
from diptych.sampling.solvers.ipndm import Ipndm
from diptych.sampling.solvers.kinds import KINDS, Kind
from diptych.sampling.solvers.plms import Plms
from diptych.sampling.solvers.pndm import Pndm
from diptych.sampling.solvers.solver import Memory, Solver, Step, solve
from diptych.sampling.solvers.unipc import UniPC
from diptych.sampling.solvers.wrappers import Denoiser, dynamic_threshold, from_v, from_x0, limited

__all__ = [
    "KINDS",
    "Ddim",
    "Ddpm",
    "Deis",
    "Denoiser",
    "DpmSolverPP",
    "DpmSolverPPSde",
    "Euler",
    "Heun",
    "Ipndm",
    "Kind",
    "Memory",
    "Needs",
    "Plms",
    "Pndm",
    "Solver",
    "Step",
    "UniPC",
    "dynamic_threshold",
    "from_v",
    "from_x0",
    "invert",
    "limited",
    "solve",
]
