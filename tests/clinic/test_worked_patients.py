"""Other people's code in the clinic: two libraries, and PyTorch as tutorials write it; skipped where they are not."""

import numpy as np
import pytest

from refscore.clinic.derivatives import derivatives
from refscore.clinic.loss import loss
from refscore.clinic.sampler import sampler
from refscore.noise.chains import from_betas

BETAS = np.linspace(1e-3, 0.3, 40).tolist()


def test_a_scheduler_of_diffusers():
    pytest.importorskip("torch", exc_type=ImportError)
    diffusers = pytest.importorskip("diffusers", exc_type=ImportError)
    scheduler = diffusers.DDIMScheduler(clip_sample=False)

    def run(model, x, rng):
        scheduler.set_timesteps(10)
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t), t, x, eta=0.0).prev_sample
        return x

    found = sampler(run, alphas_bar=scheduler.alphas_cumprod.tolist(), library="torch")
    found.assert_is("ddim")
    assert "leading" in found.findings[1]
    assert "single precision" in str(found)


def test_what_diffusers_does_to_data_by_default():
    """`clip_sample` is on unless one says otherwise: right for images in [-1, 1]."""
    pytest.importorskip("torch", exc_type=ImportError)
    diffusers = pytest.importorskip("diffusers", exc_type=ImportError)
    scheduler = diffusers.DDIMScheduler()

    def run(model, x, rng):
        scheduler.set_timesteps(10)
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t), t, x, eta=0.0).prev_sample
        return x

    way = {"alphas_bar": scheduler.alphas_cumprod.tolist(), "library": "torch"}
    assert sampler(run, **way).causes[0].name == "clips-the-data"
    sampler(run, bounded=True, **way).assert_is("ddim")


def test_a_sampler_of_k_diffusion():
    sampling = pytest.importorskip("k_diffusion.sampling", exc_type=ImportError)

    def run(model, x, rng):
        sigmas = sampling.get_sigmas_karras(12, 0.002, 80.0)
        return sampling.sample_dpmpp_2m(lambda x, sigma: model(x, sigma), x * sigmas[0], sigmas, disable=True)

    found = sampler(run, predicts="denoiser", told="sigma", library="torch")
    found.assert_is("dpmpp_2m")
    assert "Karras" in found.findings[1]


def ddpm(torch, root):
    """Ten lines, as tutorials write them; `root` is the power of β before the noise."""
    beta = torch.tensor(BETAS, dtype=torch.float64)
    alpha = 1 - beta
    alpha_bar = torch.cumprod(alpha, dim=0)

    @torch.no_grad()
    def sample(model, x, rng):
        for t in reversed(range(len(beta))):
            z = torch.randn_like(x) if t > 0 else torch.zeros_like(x)
            eps = model(x, torch.full((x.shape[0],), t))
            x = (x - beta[t] / torch.sqrt(1 - alpha_bar[t]) * eps) / torch.sqrt(alpha[t]) + beta[t] ** root * z
        return x

    return sample


def test_ddpm_in_ten_lines_of_torch():
    torch = pytest.importorskip("torch", exc_type=ImportError)
    sampler(ddpm(torch, 0.5), betas=BETAS, library="torch").assert_is("ddpm-large")
    found = sampler(ddpm(torch, 1.0), betas=BETAS, library="torch")
    assert (found.verdict, found.causes[0].name) == ("wrong", "root-forgotten")


@pytest.mark.parametrize(
    ("reduction", "factor"), [("mean", "the mean over dimensions, the mean"), ("sum", "the sum over dim")]
)
def test_a_loss_of_torch(reduction, factor):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    alpha_bar = torch.cumprod(1 - torch.tensor(BETAS, dtype=torch.float64), dim=0)

    def p_losses(model, x0):
        t = torch.randint(0, len(alpha_bar), (x0.shape[0],))
        noise = torch.randn_like(x0)
        a = alpha_bar[t][:, None]
        x_t = a.sqrt() * x0 + (1 - a).sqrt() * noise
        return torch.nn.functional.mse_loss(model(x_t, t), noise, reduction=reduction)

    like = torch.zeros(1, dtype=torch.float64)
    found = loss(p_losses, from_betas(BETAS), predicts="noise", told="index", like=like)
    found.assert_is("noise, λ = σ²")
    assert factor in found.findings[1]


def conv(torch, flipped):
    """A convolution of one dimension with its backward pass, as two functions; `flipped` as it should be."""

    def forward(x, w):
        return torch.nn.functional.conv1d(x, w, padding=1)

    def backward(dy, x, w):
        turned = w.flip(-1) if flipped else w
        dx = torch.nn.functional.conv1d(dy, turned.transpose(0, 1), padding=1)
        dw = torch.nn.functional.conv1d(x.transpose(0, 1), dy.transpose(0, 1), padding=1).transpose(0, 1)
        return dx, dw

    return forward, backward


def test_a_convolution_of_torch_with_a_backward_by_hand():
    torch = pytest.importorskip("torch", exc_type=ImportError)
    rng, like = np.random.default_rng(0), torch.zeros(1, dtype=torch.float64)
    x, w = rng.standard_normal((2, 3, 5)), rng.standard_normal((2, 3, 3))
    derivatives(conv(torch, True), x, w, like=like).assert_is("derivatives")
    found = derivatives(conv(torch, False), x, w, like=like)
    assert (found.verdict, found.causes[0].name) == ("wrong", "kernel-not-flipped")


def test_an_autograd_function_of_torch():
    """Its `backward` is asked through autograd: so saved tensors and the order of gradients are those of torch."""
    torch = pytest.importorskip("torch", exc_type=ImportError)

    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * torch.sigmoid(x)

        @staticmethod
        def backward(ctx, dy):
            (x,) = ctx.saved_tensors
            s = torch.sigmoid(x)
            return dy * (s + x * s * (1 - s)) if ctx.needs_input_grad[0] else None

    class Wrong(Swish):
        @staticmethod
        def backward(ctx, dy):
            return -Swish.backward(ctx, dy)

    def passes(function):
        def backward(dy, x):
            x = x.detach().requires_grad_()
            return torch.autograd.grad(function.apply(x), x, dy)

        return function.apply, backward

    x, like = np.random.default_rng(0).standard_normal((3, 4)), torch.zeros(1, dtype=torch.float64)
    derivatives(passes(Swish), x, like=like).assert_is("derivatives")
    assert derivatives(passes(Wrong), x, like=like).causes[0].name == "sign-flipped"
