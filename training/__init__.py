"""Everything that learns: dataset, fusion model, baselines, evaluation, export, publishing."""

import os

# Threads that wait must not spin: beside any other process, spinning makes two threads ten times slower than one.
# Read when torch is loaded, which happens behind this line.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
