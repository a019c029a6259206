"""Files by which systemd, Slurm, SkyPilot and cloud-init start a node: one module a format."""
