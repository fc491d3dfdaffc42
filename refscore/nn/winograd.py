"""The 3 x 3 convolution with 16 products where 36 are plain: Winograd's F(2 x 2, 3 x 3). Chapter 14. Eq. (14.17).

Two neighbours y₀, y₁ of an answer read four x₀ ... x₃ of the image. With the three numbers g of a kernel, in one
dimension,

    y₀ = x₀ g₀ + x₁ g₁ + x₂ g₂ = m₀ + m₁ + m₂,     m₀ = (x₀ - x₂) g₀,   m₁ = (x₁ + x₂) ½ (g₀ + g₁ + g₂),
    y₁ = x₁ g₀ + x₂ g₁ + x₃ g₂ = m₁ - m₂ - m₃,     m₃ = (x₁ - x₃) g₂,   m₂ = (x₂ - x₁) ½ (g₀ - g₁ + g₂)

four products for six (Winograd 1980). For images the same is done along H and, in each of its four sums, along W: 16
products of matrices, (pixels and samples, C) by (C, O), for 2 x 2 pixels of the answer (Lavin and Gray 2016). Some
rows at a time, so that the sums stay near the processor. An odd row or column more is filled up with zeros.

The gradient of g is the transpose of these lines: dm = (dy₀, dy₀ + dy₁, dy₀ - dy₁, -dy₁), times what m was made of,
then dg₀ = du₀ + ½ (du₁ + du₂), dg₁ = ½ (du₁ - du₂), dg₂ = du₃ + ½ (du₁ + du₂). The numbers are those of
`refscore.nn.shifts` but for rounding; both are held against each other in the tests.
"""

import math
from collections.abc import Iterator
from typing import Any

from refscore.arrays import put
from refscore.library import array_namespace, device
from refscore.nn.shifts import padded
from refscore.protocols import Array

Four = tuple[Array, Array, Array, Array]

BLOCK = 1 << 14  # numbers in one of the 16 sums of a block: 16 of them are 1 MiB in float32


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
    kernels = [_kernels(k[0, ...], k[1, ...], k[2, ...]) for k in _kernels(W[0, ...], W[1, ...], W[2, ...])]
    full = (*lead, height + height % 2, width + width % 2, B, W.shape[-1])
    y = xp.empty(full, dtype=x.dtype, device=device(x))
    for at, block in _blocks(x, W.shape[-1]):
        sides = [
            _answers(*(xp.reshape(v, (-1, v.shape[-1])) @ g for v, g in zip(_sums(sums, -3), row, strict=True)))
            for sums, row in zip(_sums(block, -4), kernels, strict=True)
        ]
        for j in range(2):
            for i, part in enumerate(_answers(*(side[j] for side in sides))):
                place = (..., slice(at.start + i, at.stop, 2), slice(j, None, 2), slice(None), slice(None))
                y = put(y, place, xp.reshape(part, y[place].shape))
    return y[..., :height, :width, :, :]


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
    xp, C, O = array_namespace(x), x.shape[-1], dy.shape[-1]
    height, width = x.shape[-4:-2]
    dy, totals = padded(dy, (0, height % 2), (0, width % 2)), None
    for at, block in _blocks(x, O):
        pairs = zip(_sums(block, -4), _spread(dy[..., at, :, :, :], -4), strict=True)
        more = [
            xp.matrix_transpose(xp.reshape(v, (-1, C))) @ xp.reshape(dm, (-1, O))
            for sums, side in pairs
            for v, dm in zip(_sums(sums, -3), _spread(side, -3), strict=True)
        ]
        totals = more if totals is None else [a + b for a, b in zip(totals, more, strict=True)]
    dus = [_kernel_adjoint(*(totals or [])[4 * i : 4 * i + 4]) for i in range(4)]
    return xp.stack(_kernel_adjoint(*(xp.stack(du) for du in dus)))


def _blocks(x: Array, O: int) -> Iterator[tuple[slice, Array]]:
    """Some rows of the answer, an even number, and the rows of the padded images that they read."""
    *lead, height, width, B, C = x.shape
    p, size = padded(x, (1, 1 + height % 2), (1, 1 + width % 2)), math.prod(lead) * ((width + 1) // 2) * B * max(C, O)
    step, end = 2 * max(1, BLOCK // max(1, size)), height + height % 2
    for start in range(0, end, step):
        stop = min(start + step, end)
        yield slice(start, stop), p[..., start : stop + 2, :, :, :]


def _kernels(g0: Any, g1: Any, g2: Any) -> Four:
    """What is multiplied in m₀ ... m₃."""
    s, d = 0.5 * (g0 + g2), 0.5 * g1
    return g0, s + d, s - d, g2


def _kernel_adjoint(du0: Any, du1: Any, du2: Any, du3: Any) -> tuple[Array, Array, Array]:
    """The transpose of `_kernels`; du3 comes with the other sign, see `_spread`."""
    s, d = 0.5 * (du1 + du2), 0.5 * (du1 - du2)
    return du0 + s, d, s - du3


def _sums(x: Array, axis: int) -> Four:
    """x₀ - x₂, x₁ + x₂, x₂ - x₁, x₁ - x₃ for each pair of answers along an axis, which is two longer than they."""
    n = x.shape[axis] - 2
    x0, x1, x2, x3 = (_along(x, axis, i, i + n - 1) for i in range(4))
    return x0 - x2, x1 + x2, x2 - x1, x1 - x3


def _answers(m0: Array, m1: Array, m2: Array, m3: Array) -> tuple[Array, Array]:
    """y₀ and y₁, in the memory of m₀ and m₁."""
    m0 += m1
    m0 += m2
    m1 -= m2
    m1 -= m3
    return m0, m1


def _spread(dy: Array, axis: int) -> Four:
    """The transpose of `_answers` along an axis; the last is -dm₃."""
    even, odd = _along(dy, axis, 0, dy.shape[axis]), _along(dy, axis, 1, dy.shape[axis])
    return even, even + odd, even - odd, odd


def _along(x: Array, axis: int, start: int, stop: int) -> Array:
    """Every second from start to stop, of an axis counted from the end."""
    return x[(..., slice(start, stop, 2), *(slice(None),) * (-axis - 1))]
