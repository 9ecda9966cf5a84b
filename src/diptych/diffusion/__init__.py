"""The mathematics of DDPM and DDIM on the host: schedules, timesteps, the forward process."""
