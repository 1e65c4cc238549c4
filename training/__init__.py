"""Models: from training examples to a ranker, its metrics, and its scores. Torch lives here, and nowhere else."""

import os

# Threads that wait sleep instead of spinning: on a machine that does other work too, spinning made training 5 to 20 times
# slower. OpenMP reads this once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
