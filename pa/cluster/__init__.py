"""Jobs on a Slurm cluster, and processes on this machine."""
