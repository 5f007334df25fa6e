"""Where trials run: processes of this machine, Ray, or SLURM."""
