"""Devices: what CuPy does otherwise than NumPy, shown without one; training that moves between them; memory."""

import re
import sys
import types

import array_api_compat.numpy as xp
import numpy as np
import pytest
from array_api_compat.common import _aliases
from hypothesis import given
from hypothesis import strategies as st

from refscore import EMA, MLP, VP, Adam, Denoising, GaussianMixture, ScoreModel, fit, last, load, save
from refscore.laws.posterior import linear_posterior
from refscore_backends import HostRng
from refscore_backends.errors import in_words
from refscore_backends.numpy import NumpyBackend
from tests.oracles.backends import LAW_BACKENDS
from tests.oracles.close import assert_close
from tests.oracles.everything import Place
from tests.oracles.marks import on_every_other
from tests.oracles.memory import peak
from tests.oracles.names import trees, uses
from tests.oracles.strategies import seeds

# ------------------------------------------------------------------ where arrays are made


@pytest.mark.parametrize(("name", "args"), [
    ("full", ((2,), 1.0)), ("zeros", ((2,),)), ("ones", ((2,),)), ("empty", ((2,),)), ("arange", (3,)), ("eye", (2,)),
    ("linspace", (0.0, 1.0, 3)), ("full_like", (np.ones(2), 1.0)),
])  # fmt: skip
def test_the_compat_layer_drops_the_device_of_a_cupy_array(name, args):
    """So CuPy makes arrays on its current device: one process works on one GPU, and `backends/README.md` says so.

    Should this fail, the layer has learned to pass the device on, and that sentence can go.
    """
    passed = {}

    def make(*args, **kwargs):
        passed.update(kwargs)

    cupy = types.SimpleNamespace(**{name: make})
    getattr(_aliases, name)(*args, xp=cupy, dtype="float32", device="the second GPU")
    assert "device" not in passed
    assert passed["dtype"] == "float32"


# ------------------------------------------------------------------ eigenvalues by Jacobi's method


def jacobi(C, u):
    """Eigenvalues and axes as cuSOLVER's batched solver finds them: by rotations, until the rest is u |C|."""
    lam, axes = [], []
    for A in np.array(C):
        V, D = np.eye(len(A), dtype=A.dtype), len(A)
        for _ in range(100):
            if np.linalg.norm(A - np.diag(np.diag(A))) <= u * np.linalg.norm(A):
                break
            for p in range(D):
                for q in range(p + 1, D):
                    turn = 0.5 * np.arctan2(2 * A[p, q], A[q, q] - A[p, p])
                    c, s = np.cos(turn), np.sin(turn)
                    J = np.eye(D, dtype=A.dtype)
                    J[p, p], J[q, q], J[p, q], J[q, p] = c, c, s, -s
                    A, V = J.T @ A @ J, V @ J
        order = np.argsort(np.diag(A))
        lam.append(np.diag(A)[order])
        axes.append(V[:, order])
    return np.stack(lam), np.stack(axes)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(seed=seeds, D=st.integers(2, 6), rank=st.integers(1, 5))
def test_singular_covariances_are_taken_with_the_rounding_of_jacobis_method(dtype, seed, D, rank):
    """The slack for eigenvalues below zero is wide enough for it, and the law is the same."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((2, D, min(rank, D))) * np.exp(rng.uniform(-3, 3, (2, 1, 1)))
    C = (A @ np.swapaxes(A, 1, 2)).astype(dtype)
    C = 0.5 * (C + np.swapaxes(C, 1, 2))
    given_ = np.full(2, 0.5, dtype), rng.standard_normal((2, D)).astype(dtype), C
    x = rng.standard_normal((3, D)).astype(dtype)
    usual = GaussianMixture(*given_).score(x, 1.0, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xp.linalg, "eigh", lambda C: jacobi(C, np.finfo(dtype).eps))
        p = GaussianMixture(*given_)
        found = p.score(x, 1.0, 1.0)
    low, high = np.min(jacobi(C, np.finfo(dtype).eps)[0]), np.max(np.abs(C))
    assert low >= -8 * D * np.finfo(dtype).eps * high
    # C is off by u |C|, and (C + I)⁻¹ as much; its eigenvalues are at most 1
    assert_close(found, usual, 300 * np.finfo(dtype).eps * (1 + high) * np.max(np.abs(usual)) + 1e-30)


# ------------------------------------------------------------------ singular systems


def silent(A, b):
    """As CuPy solves a singular system: with infinities, and no error."""
    try:
        return np.linalg.solve(A, b)
    except np.linalg.LinAlgError:
        return np.full_like(b, np.inf)


def test_systems_are_solved_where_a_posterior_is_meant():
    places = {use.where.split(":")[0] for where, tree in trees() for use in uses(where, tree) if "solve" in use.name}
    assert places == {"refscore/laws/posterior.py", "refscore/sampling/inverse.py"}  # there R + a covariance, R > 0


@pytest.mark.parametrize("solve", [np.linalg.solve, silent], ids=["raises", "is silent"])
@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_observations_without_an_answer_are_refused_before_they_are_solved(solve, scale, monkeypatch):
    """It stands behind a look at the eigenvalues, on every back end."""
    monkeypatch.setattr(xp.linalg, "solve", solve)
    one = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.array([[[1.0, 0.0], [0.0, 0.0]]]) * scale**2)
    H, R = np.array([[1.0, 0.0], [2.0, 0.0]]), np.zeros((2, 2))
    with pytest.raises(ValueError, match=r"H C Hᵀ \+ R is singular .*: give a larger R"):
        linear_posterior(one, H, np.array([1.0, 2.0]) * scale, R)
    post = linear_posterior(one, H, np.array([1.0, 2.0]) * scale, 1e-6 * scale**2 * np.eye(2))
    assert np.isfinite(post.means).all()


# ------------------------------------------------------------------ training moves from one to another

NUMPY = NumpyBackend()
BATCH, WIDTH = 2048, 128


def steps(host, dtype, n, path=None, saved_by=None):
    """Train so many steps on a back end, from the start or from what another one saved; save where asked."""
    at, model = Place(host, dtype), ScoreModel(MLP((2, 8, 2), embed=4), VP())
    start, rng = at.theta(model), np.random.default_rng(1)
    if saved_by is not None:
        saved = load(saved_by, asarray=host.asarray)
        model, start, rng = saved.model, saved.state, saved.rng
    moved = HostRng(rng, host.asarray)
    states = fit(model, Denoising(), at.normal(99, 2), Adam(), moved, steps=n, batch=16, ema=EMA(0.9), start=start)
    state = last(states)
    if path is not None:
        save(
            path, model, state, optimizer=Adam(), ema=EMA(0.9), objective=Denoising(), rng=moved, to_numpy=host.to_numpy
        )
    return [host.to_numpy(a) for a in (state.theta, EMA().mean(state.average), state.optimizer_state.v, state.loss)]


@on_every_other
@pytest.mark.parametrize(("dtype", "rounding"), [("float64", 1e-11), ("float32", 1e-4)])
def test_training_goes_on_on_another_device(host, dtype, rounding, tmp_path):
    """Ten steps here and ten there, either way, are twenty: with the generator and all of the state."""
    whole = steps(NUMPY, dtype, 20)
    for first, second in ((NUMPY, host), (host, NUMPY)):
        steps(first, dtype, 10, path=tmp_path / "run.npz")
        for found, wanted in zip(steps(second, dtype, 10, saved_by=tmp_path / "run.npz"), whole, strict=True):
            assert found.dtype == dtype
            assert_close(found, wanted, rounding * np.max(np.abs(wanted)))
    assert np.max(np.abs(steps(NUMPY, dtype, 10)[0] - whole[0])) > 1e-3  # the second half matters


# ------------------------------------------------------------------ memory


MEASURED = [b for b in LAW_BACKENDS if b.name in ("numpy", "strict-device1", "cupy")]


@pytest.mark.parametrize("host", MEASURED, ids=lambda b: b.name)
def test_a_step_of_training_takes_five_times_the_memory_of_its_hidden_layers(host):
    """Each keeps what it was given and its slope; what is made on the way is less than one layer of the net."""
    at, model = Place(host, "float32"), ScoreModel(MLP((2, WIDTH, WIDTH, WIDTH, 2), embed=16), VP())
    start, data = at.theta(model), at.normal(4 * BATCH, 2)
    states = fit(model, Denoising(), data, Adam(), at.rng(), steps=5, batch=BATCH, ema=EMA(0.9), start=start)
    next(states)
    taken = peak(host, lambda: next(states))
    layers = 3 * BATCH * WIDTH * 4
    assert layers < taken < 5 * layers


def test_the_memory_of_cupy_is_what_its_pool_grew_by(monkeypatch):
    held = [100]
    pool = types.SimpleNamespace(free_all_blocks=lambda: held.__setitem__(0, 60), total_bytes=lambda: held[0])
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(get_default_memory_pool=lambda: pool))
    host = types.SimpleNamespace(name="cupy", synchronize=lambda: None)
    assert peak(host, lambda: held.__setitem__(0, 95)) == 35


@pytest.mark.parametrize("host", [host for host in LAW_BACKENDS if host.name == "cupy"], ids=lambda b: b.name)
def test_a_gpu_without_memory_says_what_was_asked_for(host):
    with pytest.raises(MemoryError) as caught:
        host.xp.zeros((2**44,), dtype=host.xp.float32)  # 64 TiB
    assert re.match(
        r"not enough memory: 64 TiB were asked for, [\d.]+ GiB of [\d.]+ GiB are free$", in_words(caught.value)
    )
