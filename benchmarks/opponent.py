"""The opponent: diffusers' `UNet2DModel` of the same size, used as in its documentation.

Training follows its unconditional example: `add_noise`, MSE on the noise, `backward`, clip, Adam,
`EMAModel`, the loss logged each step. Sampling is its loop over `DDIMScheduler.timesteps` under
`no_grad`. Defaults are those of the documentation (PyTorch's Adam, `EMAModel`).

The network is the same function: its norms, one attention head, the order of the time embedding
and the padding of the strided convolutions are those of the official DDIM network, as in the
config of diffusers' own conversion of it. So parameters map one to one, and outputs must agree.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks import sizes
from benchmarks.job import COMPILED, SEED, Contender, Job, Memory, check_finite, process_memory
from diptych.config.load import Config
from diptych.errors import UserError
from diptych.network.plan import Plan, make_plan
from diptych.training.batches import to_float
from diptych.types import Float32, Weights

try:
    import diffusers
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel
except ImportError as error:
    raise UserError(
        f"diffusers cannot be imported ({error}); install it: pip install -c constraints.txt "
        f"diffusers, or leave it out: --contenders torch,jittor"
    ) from error

# Ours -> diffusers', applied in this order. Upward levels are counted in reverse: see `rename`.
_NAMES = (
    (r"^temb\.dense\.0\.", "time_embedding.linear_1."),
    (r"^temb\.dense\.1\.", "time_embedding.linear_2."),
    (r"^norm_out\.", "conv_norm_out."),
    (r"^mid\.block_1\.", "mid_block.resnets.0."),
    (r"^mid\.block_2\.", "mid_block.resnets.1."),
    (r"^mid\.attn_1\.", "mid_block.attentions.0."),
    (r"^(down|up)\.(\d+)\.block\.", r"\1_blocks.\2.resnets."),
    (r"^(down|up)\.(\d+)\.attn\.", r"\1_blocks.\2.attentions."),
    (r"^(down|up)\.(\d+)\.(down|up)sample\.", r"\1_blocks.\2.\3samplers.0."),
    (r"\.temb_proj\.", ".time_emb_proj."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
)


def rename(name: str, levels: int) -> str:
    """diffusers' name of a weight in a network with `levels` levels."""
    name = re.sub(r"^up\.(\d+)\.", lambda m: f"up.{levels - 1 - int(m[1])}.", name)
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def network(config: Config, weights: Weights, device: str) -> UNet2DModel:
    """diffusers' network of the config's size with these weights, all of which are used."""
    plan = make_plan(config)
    down = [_kind("Down", plan, stage.blocks[0].attention) for stage in plan.down]
    model = UNet2DModel(
        sample_size=plan.shape[1:],
        in_channels=plan.channels,
        out_channels=plan.channels,
        block_out_channels=tuple(stage.out_ch for stage in plan.down),
        layers_per_block=config.model.num_res_blocks,
        down_block_types=tuple(down),
        up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(down)),
        dropout=plan.dropout,
        attention_head_dim=None,
        norm_eps=plan.norm_eps,
        norm_num_groups=plan.norm_groups,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    renamed = {rename(name, len(plan.down)): array for name, array in weights.items()}
    shapes = {name: array.shape for name, array in model.state_dict().items()}
    # Its attention has dense layers where the official one has 1x1 convolutions.
    state = {name: torch.from_numpy(a).reshape(shapes[name]) for name, a in renamed.items()}
    model.load_state_dict(state, strict=True)
    return model.to(device)


def _kind(way: str, plan: Plan, attention: str) -> str:
    if not plan.resamp_with_conv:
        raise UserError("the benchmark's network has strided convolutions: resamp_with_conv=true")
    return f"{'Attn' if attention else ''}{way}Block2D"


class _Common:
    """The common part of training and sampling."""

    def __init__(self, job: Job) -> None:
        self.job = job
        if job.device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"device '{job.device}': PyTorch finds no CUDA GPU; use --device cpu")
        torch.set_float32_matmul_precision("highest")  # as Diptych's float32; cuDNN's default
        torch.backends.cudnn.allow_tf32 = False  # is TF32
        torch.manual_seed(SEED)
        self.model = network(job.config, job.weights(make_plan(job.config)), job.device)
        self.parameters = sum(each.numel() for each in self.model.parameters())
        # In place: weights, their names and `eval` stay those of the module.
        if job.contender == COMPILED:
            self.model.compile()
        self.on_gpu = job.device.startswith("cuda")

    def schedule(self) -> dict[str, Any]:
        diffusion = self.job.config.diffusion
        if diffusion.schedule != "linear":
            raise UserError("the benchmark's noise schedule is linear")
        return {
            "num_train_timesteps": diffusion.timesteps,
            "beta_start": diffusion.beta_start,
            "beta_end": diffusion.beta_end,
            "clip_sample": False,
        }

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def memory(self) -> Memory:
        if not self.on_gpu:
            return process_memory()
        peak = torch.cuda.max_memory_allocated()
        return Memory(torch.cuda.memory_allocated() / 2**20, peak / 2**20)

    def facts(self) -> dict[str, Any]:
        return {
            "backend": self.job.contender,
            "device": self.job.device,
            "device_name": torch.cuda.get_device_name() if self.on_gpu else "cpu",
            "framework_version": diffusers.__version__,
            "torch_version": torch.__version__,
            "threads": torch.get_num_threads(),
        }


class Training(_Common):
    """Steps of a plain training loop."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        settings = job.config.train
        self.scheduler = DDPMScheduler(**self.schedule())
        self.optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
        )
        self.ema = EMAModel(self.model.parameters(), decay=settings.ema_rate)
        self.images = sizes.images(job.config)
        self.order = np.random.Generator(np.random.Philox(key=SEED)).permutation(len(self.images))

    def turn(self, k: int) -> None:
        self.model.train()
        steps = range(k * self.job.steps, (k + 1) * self.job.steps)
        check_finite([self.step(step) for step in steps])
        self.wait()

    def step(self, step: int) -> float:
        at = np.arange(step * self.job.batch, (step + 1) * self.job.batch) % len(self.order)
        clean = torch.from_numpy(to_float(self.images[self.order[at]])).to(self.job.device)
        noise = torch.randn_like(clean)
        count = self.scheduler.config.num_train_timesteps
        t = torch.randint(0, count, (len(clean),), device=clean.device)
        noisy = self.scheduler.add_noise(clean, noise, t)
        loss = F.mse_loss(self.model(noisy, t).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), self.job.config.train.grad_clip or float("inf")
        )
        self.optimizer.step()
        self.ema.step(self.model.parameters())
        self.optimizer.zero_grad()
        return loss.item()

    def answer(self) -> Float32:
        x, t = self.job.question()
        weights = self.job.weights(make_plan(self.job.config))
        model = network(self.job.config, weights, self.job.device).eval()
        device = self.job.device
        with torch.no_grad():
            out = model(torch.from_numpy(x).to(device), torch.from_numpy(t).to(device)).sample
        return np.asarray(out.cpu().numpy())


class Sampling(_Common):
    """Sampling chains of the documented loop."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.model.eval()
        self.scheduler = DDIMScheduler(**self.schedule())
        self.scheduler.set_timesteps(job.steps)
        self.start = job.noise()
        self.images = self.start

    def turn(self, k: int) -> None:
        x = torch.from_numpy(self.start).to(self.job.device)
        for t in self.scheduler.timesteps:
            with torch.no_grad():
                eps = self.model(x, t).sample
            x = self.scheduler.step(eps, t, x, eta=0.0).prev_sample
        self.images = x.cpu().numpy()

    def answer(self) -> Float32:
        return self.images


def make(job: Job) -> Contender:
    """Make the contender of the job's task."""
    return Training(job) if job.task == "training" else Sampling(job)
