"""Is YOURS right?  Other people's samplers, losses, schedules, likelihoods and layers against exact laws. Chapter 17."""

from refscore.clinic.diagnosis import Cause, Diagnosis

__all__ = ["Cause", "Diagnosis"]
