"""Is YOURS right?  Other people's samplers, losses, schedules, likelihoods and layers against exact laws.  Ch. 17."""

from refscore.clinic.diagnosis import Cause, Diagnosis
from refscore.clinic.sampler import sampler

__all__ = ["Cause", "Diagnosis", "sampler"]
