"""Convolution as k² matrix products of shifted images: the plain form. Chapter 14.

    y[h, w] = Σ_ij x[s h + r i - p, s w + r j - p] W[i, j]                                                  Eq. (14.15)

with stride s, dilation r, k odd, p = r (k - 1)/2 and zeros beyond the edge; images are (..., H, W, B, C), a shifted
image a view of the padded one. The transposes, Eq. (14.16):

    dW[i, j] = Σ_hw x[s h + r i - p, s w + r j - p]ᵀ dy[h, w]
    dx = the convolution of dy, put back on every s-th pixel, with the kernel turned by 180° and transposed, stride 1
"""

from collections.abc import Iterator

from refscore.arrays import put
from refscore.library import array_namespace, device
from refscore.nn.layer import rows
from refscore.protocols import Array

FEW = 8  # channels, below which products are thin: one product for all shifts side by side is better


def convolve(x: Array, W: Array, stride: int = 1, dilation: int = 1) -> Array:
    """Convolve images with a k x k kernel.

    Parameters
    ----------
    x : Array, shape (..., H, W, B, C)
        The images.
    W : Array, shape (k, k, C, O)
        The kernel, k odd.
    stride, dilation : int, default 1
        s and r.

    Returns
    -------
    Array, shape (..., ⌈H/s⌉, ⌈W/s⌉, B, O)
        The answer.
    """
    xp = array_namespace(x)
    k, _, C, O = W.shape
    height, width = (-(-n // stride) for n in x.shape[-4:-2])
    views = shifted(x, k, stride, dilation)
    if side_by_side(x, C):
        y = xp.concat(list(views), axis=-1) @ xp.reshape(W, (k * k * C, O))
    elif O < FEW:
        z = merged(x) @ xp.reshape(xp.permute_dims(W, (2, 0, 1, 3)), (C, k * k * O))
        z = xp.reshape(z, (*x.shape[:-1], k * k * O))
        y = sum(v[..., n * O : (n + 1) * O] for n, v in enumerate(shifted(z, k, stride, dilation)))
    else:
        kernels = [W[i, j, ...] for i in range(k) for j in range(k)]
        y = next(views) @ kernels[0]
        for v, kernel in zip(views, kernels[1:], strict=True):
            y += v @ kernel
    return xp.reshape(y, (*x.shape[:-4], height, width, x.shape[-2], O))


def kernel_gradient(x: Array, dy: Array, k: int, stride: int = 1, dilation: int = 1) -> Array:
    """The transpose of `convolve` in W.

    Parameters
    ----------
    x : Array, shape (..., H, W, B, C)
        The images.
    dy : Array, shape (..., ⌈H/s⌉, ⌈W/s⌉, B, O)
        Adjoint of the answer.
    k : int
        Size of the kernel.
    stride, dilation : int, default 1
        s and r.

    Returns
    -------
    Array, shape (k, k, C, O)
        Adjoint of the kernel, summed over all leading axes.
    """
    xp, C, O = array_namespace(x), x.shape[-1], dy.shape[-1]
    views, dy = list(shifted(x, k, stride, dilation)), merged(dy)
    if side_by_side(x, C):
        views, dy = [rows(xp.concat(views, axis=-1))], rows(dy)
    dW = [xp.matrix_transpose(v) @ dy for v in views]
    dW = [xp.sum(p, axis=tuple(range(p.ndim - 2))) if p.ndim > 2 else p for p in dW]
    return xp.reshape(xp.stack(dW), (k, k, C, O))


def image_gradient(dy: Array, W: Array, height: int, width: int, stride: int = 1, dilation: int = 1) -> Array:
    """The transpose of `convolve` in x.

    Parameters
    ----------
    dy : Array, shape (..., ⌈H/s⌉, ⌈W/s⌉, B, O)
        Adjoint of the answer.
    W : Array, shape (k, k, C, O)
        The kernel.
    height, width : int
        H and W.
    stride, dilation : int, default 1
        s and r.

    Returns
    -------
    Array, shape (..., H, W, B, C)
        Adjoint of the images.
    """
    xp = array_namespace(dy)
    if stride > 1:
        zero = xp.zeros((*dy.shape[:-4], height, width, *dy.shape[-2:]), dtype=dy.dtype, device=device(dy))
        dy = put(zero, (..., slice(None, None, stride), slice(None, None, stride), slice(None), slice(None)), dy)
    return convolve(dy, turned(W), 1, dilation)


def turned(W: Array) -> Array:
    """The kernel of the transpose.

    Parameters
    ----------
    W : Array, shape (k, k, C, O)
        A kernel.

    Returns
    -------
    Array, shape (k, k, O, C)
        The kernel turned by 180° and transposed.
    """
    xp = array_namespace(W)
    return xp.matrix_transpose(xp.flip(W, axis=(0, 1)))


def side_by_side(x: Array, channels: int) -> bool:
    """Whether one product for all shifts side by side is better than many: it has k² times as many numbers in memory.

    Parameters
    ----------
    x : Array
        The images.
    channels : int
        How many are multiplied.

    Returns
    -------
    bool
        True for few channels, and off NumPy's host, where each operation costs a launch, or a line to compile.
    """
    return channels < FEW or device(x) != "cpu"


def shifted(x: Array, k: int, stride: int, dilation: int) -> Iterator[Array]:
    """What each of the k² matrices of a kernel meets; views of the padded images where the stride is 1.

    Parameters
    ----------
    x : Array, shape (..., H, W, B, C)
        The images.
    k, stride, dilation : int
        Size of the kernel, s and r.

    Yields
    ------
    Array, shape (..., ⌈H/s⌉, ⌈W/s⌉ B, C)
        Shifted images, pixels of a row and samples in one axis.
    """
    height, width = x.shape[-4:-2]
    p = dilation * (k // 2)
    x = padded(x, (p, p), (p, p))
    for i in range(0, k * dilation, dilation):
        for j in range(0, k * dilation, dilation):
            yield merged(x[..., i : i + height : stride, j : j + width : stride, :, :])


def merged(x: Array) -> Array:
    """Pixels of a row and samples in one axis.

    Parameters
    ----------
    x : Array, shape (..., H, W, B, C)
        Images.

    Returns
    -------
    Array, shape (..., H, W B, C)
        The same numbers.
    """
    *lead, height, width, B, C = x.shape
    return array_namespace(x).reshape(x, (*lead, height, width * B, C))


def padded(x: Array, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
    """A frame of zeros.

    Parameters
    ----------
    x : Array, shape (..., H, W, B, C)
        The images.
    rows, columns : tuple of two int
        How many before the first and after the last.

    Returns
    -------
    Array, shape (..., H + sum(rows), W + sum(columns), B, C)
        The images in their frame.
    """
    if not any(rows + columns):
        return x
    xp, (above, below), (left, right) = array_namespace(x), rows, columns
    *lead, height, width, B, C = x.shape
    y = xp.zeros((*lead, above + height + below, left + width + right, B, C), dtype=x.dtype, device=device(x))
    return put(y, (..., slice(above, above + height), slice(left, left + width), slice(None), slice(None)), x)
