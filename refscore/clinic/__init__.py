"""Is YOURS right?  Other people's samplers, losses, schedules, likelihoods and layers against exact laws.  Ch. 17."""

from refscore.clinic.derivatives import derivatives
from refscore.clinic.diagnosis import Cause, Diagnosis
from refscore.clinic.likelihood import likelihood
from refscore.clinic.loss import loss
from refscore.clinic.sampler import sampler
from refscore.clinic.schedule import schedule
from refscore.clinic.score import score

__all__ = ["Cause", "Diagnosis", "derivatives", "likelihood", "loss", "sampler", "schedule", "score"]
