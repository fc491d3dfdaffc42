"""The exact model of a mixture in a patient's own convention: what it predicts, what it is told, on which levels."""

import importlib
from functools import cache
from itertools import accumulate

import numpy as np

from refscore import GaussianMixture

TOLD = {
    "index from 0": "0, ..., N - 1; 0 has the least noise",
    "index from 1": "1, ..., N; N has the most noise, 0 is the data",
    "index over N": "1/N, ..., 1; 1 has the most noise",
    "index of sigmas": "0, ..., L - 1 in the list as it is given",
    "time": "the t of the SDE",
    "999 time": "999 times the t of the SDE",
    "1000 time": "1000 times the t",
    "time from noise": "1 - t: 0 is noise, 1 is data",
    "sigma": "the noise level σ/α",
    "log sigma over 4": "¼ log σ/α",
    "log snr": "log α²/σ²",
}
PREDICTS = {
    "noise": "E[z | x]",
    "data": "E[x₀ | x]",
    "v": "α E[z | x] - σ E[x₀ | x]",
    "score": "∇ log p",
    "velocity": "E[z - x₀ | x]",
    "velocity to data": "E[x₀ - z | x]",
    "denoiser": "E[x₀ | x], of x₀ + σ z",
    "F": "EDM's network (denoiser - c_skip x)/c_out of the input c_in x, data of deviation ½",
}


def levels(record):
    """The function label -> (α, σ) of a record, on float64 NumPy arrays."""
    told, schedule = record["told"], record["schedule"]()
    if not isinstance(schedule, tuple):
        of_time = schedule if callable(schedule) else lambda t: (schedule.alpha(t), schedule.sigma(t))
        if told == "sigma":
            return lambda sigma: (np.ones_like(sigma), sigma)
        if told == "log sigma over 4":
            return lambda c: (np.ones_like(c), np.exp(4 * c))
        if told == "log snr":
            return lambda lam: (1 / np.sqrt(1 + np.exp(-lam)), 1 / np.sqrt(1 + np.exp(lam)))
        scale = {"time": 1, "999 time": 999, "1000 time": 1000, "time from noise": -1}[told]
        return lambda t: of_time(1 - t if scale < 0 else t / scale)
    name, values = schedule
    if name == "betas":
        name, values = "alphas_bar", list(accumulate((1 - b for b in values), lambda a, b: a * b))
    values = np.asarray([float(v) for v in values])
    if name == "sigmas":
        if told == "sigma":
            return lambda sigma: (np.ones_like(sigma), sigma)
        if told == "log sigma over 4":
            return lambda c: (np.ones_like(c), np.exp(4 * c))
        assert told == "index of sigmas"
        return lambda i: (np.ones_like(i), values[i.astype(int)])
    if told == "log snr":
        return lambda lam: (1 / np.sqrt(1 + np.exp(-lam)), 1 / np.sqrt(1 + np.exp(lam)))
    ratios = np.log((1 - values) / np.maximum(values, 1e-300)) / 2
    first = {"index from 0": 0, "index from 1": 1, "index over N": 1}[told]
    unit = len(values) if told == "index over N" else 1
    places = np.arange(len(values)) + first

    def of_index(i):  # between the indices as diffusers has it: log σ/α on a line
        i = i * unit
        i = np.where(np.abs(i - np.rint(i)) < 1e-4, np.rint(i), i)  # times in single precision
        exact = np.clip(np.rint(i) - first, 0, len(values) - 1).astype(int)
        line = np.interp(i, places, ratios)
        alpha = np.where(i == np.rint(i), np.sqrt(values[exact]), 1 / np.sqrt(1 + np.exp(2 * line)))
        return alpha, np.sqrt(1 - alpha**2)

    return of_index


def exact(record, mean, cov):
    """The model of data N(mean, cov) that a patient is given: model(x, label) on the patient's own arrays."""
    law = cache(lambda dtype: GaussianMixture(*(as_library(record, v, dtype) for v in ([1.0], [mean], [cov]))))
    of_label = levels(record)
    if record["library"] == "jax":
        law(as_library(record, [0.0]).dtype)  # made before JAX traces anything

    def model(x, label, *args, **kwargs):
        if type(label).__name__.endswith("Tracer"):  # JAX is walking a loop of its own: look the levels up
            n = len(record["schedule"]()[1])
            place = (label * n).round().astype(int) - 1
            alpha, sigma = (as_library(record, c, x.dtype)[place] for c in of_label(np.arange(1, n + 1) / n))
        else:
            label = np.asarray(getattr(label, "detach", lambda: label)(), dtype=np.float64)
            alpha, sigma = np.broadcast_arrays(*of_label(label))
            if label.size == 1:
                alpha, sigma = float(alpha.reshape(-1)[0]), float(sigma.reshape(-1)[0])
            else:
                alpha, sigma = (as_library(record, c.reshape(-1), x.dtype) for c in (alpha, sigma))
        p = law(x.dtype)
        if record["predicts"] == "F":
            x = x * (sigma**2 + 0.25) ** 0.5
        score = p.score(x, alpha, sigma)
        a, s = (c if isinstance(c, float) else c[:, None] for c in (alpha, sigma))
        noise, data = -s * score, p.posterior_mean(x, alpha, sigma)
        return {
            "noise": noise,
            "data": data,
            "v": a * noise - s * data,
            "score": score,
            "velocity": noise - data,
            "velocity to data": data - noise,
            "denoiser": data,
            "F": (data - 0.25 / (s**2 + 0.25) * x) * (s**2 + 0.25) ** 0.5 / (0.5 * s + (s == 0)),
        }[record["predicts"]]

    return model


def as_library(record, values, dtype=None):
    """NumPy numbers as an array of the patient's library, of its own choice of dtype unless one is given."""
    xp = importlib.import_module({"jax": "jax.numpy"}.get(record["library"], record["library"]))
    return xp.asarray(np.asarray(values).tolist(), dtype=dtype or (None if xp.__name__ == "jax.numpy" else xp.float64))
