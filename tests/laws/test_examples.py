"""Example data that stand in a table: their recorded parameters, and the curves they lie on."""

import math

import numpy as np

from refscore.laws.examples import mixture


def test_the_circle_has_eight_equal_modes_a_turn():
    p = mixture("circle")
    np.testing.assert_allclose(p.weights, np.full(8, 1 / 8), rtol=1e-15)
    np.testing.assert_allclose(p.covariances, np.full(8, 0.01), rtol=1e-15)
    turn = np.array([[0, -1], [1, 0]]) / math.sqrt(2) + np.eye(2) / math.sqrt(2)  # by 45°
    np.testing.assert_allclose(p.means @ turn.T, np.roll(p.means, -1, axis=0), atol=1e-15)
    np.testing.assert_allclose(p.means[0], [2.0, 0.0], atol=1e-15)


def test_the_spiral_is_archimedes_with_modes_of_equal_area():
    """r = θ/4 up to θ = 3π; r² in sixty equal steps from a twentieth of its end, so that modes lie evenly along it."""
    p = mixture("spiral")
    r2 = np.sum(p.means**2, axis=1)
    np.testing.assert_allclose(r2, (0.75 * math.pi) ** 2 * np.linspace(0.05, 1, 60), rtol=1e-14)
    angle = 4 * np.sqrt(r2)
    np.testing.assert_allclose(p.means, np.sqrt(r2)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), atol=1e-14)
    gaps = np.linalg.norm(np.diff(p.means, axis=0), axis=1)
    assert np.max(gaps) < 1.6 * np.min(gaps)
    np.testing.assert_allclose(p.weights, np.full(60, 1 / 60), rtol=1e-14)
    np.testing.assert_allclose(p.covariances, np.full(60, 0.01), rtol=1e-15)


def test_two_modes_and_the_tilted_mixture_have_their_recorded_parameters():
    p = mixture("two-modes")
    np.testing.assert_array_equal(p.weights, [0.8, 0.2])
    np.testing.assert_array_equal(p.means, [[5, 5], [-5, -5]])
    np.testing.assert_array_equal(p.covariances, [1, 1])
    q = mixture("tilted")
    np.testing.assert_allclose(q.weights, [0.5, 0.3, 0.2])
    np.testing.assert_array_equal(q.means, [[-2, 0.5], [1.5, 1.5], [0.5, -2]])
    for C, low, high, degrees in zip(q.covariances, (0.1, 0.05, 0.2), (0.5, 0.3, 0.2), (30, -50, 0), strict=True):
        axis = np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
        np.testing.assert_allclose(C @ axis, high * axis, atol=1e-15)  # the wide axis is turned so far
        np.testing.assert_allclose(np.linalg.eigvalsh(C), [low, high], rtol=1e-13)
