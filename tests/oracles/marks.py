"""What many tests are repeated over: every SDE of the table, every process, every sampler, every back end."""

from typing import Any

import pytest

from refscore.noise.chains import ddpm, smld
from refscore.noise.sde import SDES
from refscore.sampling.transitions import SAMPLERS
from tests.oracles.backends import LAW_BACKENDS, NARROW_BACKENDS

PROCESSES: dict[str, Any] = {**SDES, "ddpm chain": ddpm(30), "smld chain": smld(30)}
each_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
each_process = pytest.mark.parametrize("sde", PROCESSES.values(), ids=PROCESSES)
each_sampler = pytest.mark.parametrize("name", SAMPLERS)
on_every_backend = pytest.mark.parametrize("host", LAW_BACKENDS, ids=lambda b: b.name)
on_every_other = pytest.mark.parametrize("host", [b for b in LAW_BACKENDS if b.name != "numpy"], ids=lambda b: b.name)
on_every_device = pytest.mark.parametrize("host", LAW_BACKENDS + NARROW_BACKENDS, ids=lambda b: b.name)
