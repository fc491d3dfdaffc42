"""The 3 x 3 convolution with four products where six are plain: Winograd's F(2, 3) along H. Chapter 14. Eq. (14.17).

Two rows y₀, y₁ of an answer read four rows x₀ ... x₃ of the image. With the rows g₀, g₁, g₂ of the kernel

    y₀ = x₀ g₀ + x₁ g₁ + x₂ g₂ = m₀ + m₁ + m₂,     m₀ = (x₀ - x₂) g₀,   m₁ = (x₁ + x₂) ½ (g₀ + g₁ + g₂),
    y₁ = x₁ g₀ + x₂ g₁ + x₃ g₂ = m₁ - m₂ - m₃,     m₃ = (x₁ - x₃) g₂,   m₂ = (x₂ - x₁) ½ (g₀ - g₁ + g₂)

each m a product along W, of three shifts (Winograd 1980; Lavin and Gray 2016). What belongs to a pair of rows does not
depend on their number, so an odd row more is filled up with zeros. The gradient of g is the transpose of these lines.
The numbers are those of `refscore.nn.conv` but for rounding; both are held against each other in the tests.
"""

from array_api_compat import array_namespace

from refscore.nn.shifts import padded
from refscore.protocols import Array


def convolve(x: Array, W: Array) -> Array:
    """Convolve images with a 3 x 3 kernel, stride 1, zeros beyond the edge.

    Parameters
    ----------
    x : Array, shape (..., H, W, B, C)
        The images.
    W : Array, shape (3, 3, C, O)
        The kernel.

    Returns
    -------
    Array, shape (..., H, W, B, O)
        The answer.
    """
    xp = array_namespace(x)
    *lead, height, width, B, _ = x.shape
    O, n = W.shape[-1], width * B
    g0, g1, g2 = W[0, ...], W[1, ...], W[2, ...]
    s, d = 0.5 * (g0 + g2), 0.5 * g1
    m0, m1, m2, m3 = (_along(v, g, n, B) for v, g in zip(_fours(x), (g0, s + d, s - d, g2), strict=True))
    m0 += m1
    m0 += m2
    m1 -= m2
    m1 -= m3
    y = xp.reshape(xp.stack([m0, m1], axis=-3), (*lead, height + height % 2, width, B, O))
    return y[..., :height, :, :, :]


def kernel_gradient(x: Array, dy: Array) -> Array:
    """The transpose of `convolve` in W.

    Parameters
    ----------
    x : Array, shape (..., H, W, B, C)
        The images.
    dy : Array, shape (..., H, W, B, O)
        Adjoint of the answer.

    Returns
    -------
    Array, shape (3, 3, C, O)
        Adjoint of the kernel, summed over all leading axes.
    """
    xp = array_namespace(x)
    *lead, height, width, B, O = dy.shape
    dy = padded(dy, (0, height % 2), (0, 0))
    dy = xp.reshape(dy, (*lead, (height + 1) // 2, 2, width * B, O))
    even, odd = dy[..., 0, :, :], dy[..., 1, :, :]
    du0, du1, du2, du3 = (
        _across(v, dm, B) for v, dm in zip(_fours(x), (even, even + odd, even - odd, -odd), strict=True)
    )
    s, d = 0.5 * (du1 + du2), 0.5 * (du1 - du2)
    return xp.stack([du0 + s, d, s + du3])


def _fours(x: Array) -> tuple[Array, Array, Array, Array]:
    """x₀ - x₂, x₁ + x₂, x₂ - x₁, x₁ - x₃ for each pair of rows: (..., H/2, (W + 2) B, C)."""
    xp = array_namespace(x)
    *lead, height, width, B, C = x.shape
    p = padded(x, (1, 1 + height % 2), (1, 1))
    p = xp.reshape(p, (*lead, p.shape[-4], (width + 2) * B, C))
    x0, x1, x2, x3 = p[..., 0:-2:2, :, :], p[..., 1:-2:2, :, :], p[..., 2::2, :, :], p[..., 3::2, :, :]
    return x0 - x2, x1 + x2, x2 - x1, x1 - x3


def _along(v: Array, g: Array, n: int, B: int) -> Array:
    """Σ_j v[.. + j] g[j] along W: (..., (W + 2) B, C), (3, C, O) -> (..., W B, O)."""
    y = v[..., :n, :] @ g[0, ...]
    y += v[..., B : B + n, :] @ g[1, ...]
    y += v[..., 2 * B : 2 * B + n, :] @ g[2, ...]
    return y


def _across(v: Array, dm: Array, B: int) -> Array:
    """The transpose of `_along` in g: (3, C, O)."""
    xp = array_namespace(v)
    n, axes = dm.shape[-2], tuple(range(v.ndim - 2))
    vt = xp.matrix_transpose(v)
    return xp.stack([xp.sum(vt[..., j * B : j * B + n] @ dm, axis=axes) for j in range(3)])
