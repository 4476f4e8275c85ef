"""What a model has to beat, each with its source: methods that learn from a stage and score every item at a moment.

They see the same events as the model, up to the very moment; settings are chosen on a validation stage.
"""

from training.baselines.baseline import Baseline, Setting
from training.baselines.methods import BASELINES
from training.baselines.tuning import fit_tuned, measure_baselines, tune

__all__ = ["BASELINES", "Baseline", "Setting", "fit_tuned", "measure_baselines", "tune"]
