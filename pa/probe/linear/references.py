"""Closed-form and convex references for a linear head: the accuracy reachable without SGD.

Ridge regression on one-hot targets: one eigendecomposition gives the solutions of every strength.
Multinomial logistic regression: the same loss as the head's, with a penalty, at its optimum. The
strengths are chosen on validation rows, never on the test rows; the model is then fitted to all
training rows.

Shapes: N training rows, n test rows, D width, C classes, K strengths.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.probe.selection import LabelledRows

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Largest N·D·C for which references are fitted by default: CUB's training parts with a ViT-B have
# 48 million, which takes seconds; ImageNet has 10¹².
AUTO_SIZE = 2 * 10**8

RIDGE_STRENGTHS = tuple(10.0**power for power in range(-6, 4))  # of the mean eigenvalue
LOGISTIC_STRENGTHS = tuple(10.0**power for power in range(-5, 1))  # of λ/2·‖weight‖² + mean loss
MAX_ITERATIONS = 500  # scikit-learn's default of 100 does not converge for weak penalties


@dataclass(frozen=True, eq=False)
class LinearModel:
    """`weight` (C, D) and `bias` (C,), float64, fitted with one strength of the penalty."""

    weight: Floats
    bias: Floats
    strength: float
    converged: bool = True

    def predict(self, features: npt.NDArray[Any]) -> Ints:
        """Return class indices (n,) of features (n, D)."""
        scores = features @ self.weight.T + self.bias  # (n, C)
        predicted: Ints = scores.argmax(axis=1)
        return predicted


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference fitted to all training rows.

    `predicted` (n,) are class indices of the test rows, `validation` the accuracy of each strength
    on the validation rows.
    """

    name: str
    model: LinearModel
    predicted: Ints
    validation: dict[float, float]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "strength": self.model.strength,
            "converged": self.model.converged,
            "chosen_from": [
                {"strength": strength, "accuracy": value}
                for strength, value in self.validation.items()
            ],
            "seconds": round(self.seconds, 3),
        }


Fit = Callable[[npt.NDArray[Any], Ints, int, Sequence[float]], list[LinearModel]]


def ridge(
    features: npt.NDArray[Any], targets: Ints, n_classes: int, strengths: Sequence[float]
) -> list[LinearModel]:
    """Fit least squares on one-hot targets with a free bias and λ‖weight‖², for every strength.

    λ is the strength times N times the mean eigenvalue of the covariance, so that a strength means
    the same for every encoder. One eigendecomposition, of the smaller of the D×D and the N×N
    product of the centred features, in float64, serves all strengths.
    """
    x = features.astype(np.float64)  # (N, D)
    centre, y = x.mean(axis=0), np.eye(n_classes)[targets]  # (D,), (N, C)
    shares = y.mean(axis=0)  # (C,)
    x -= centre
    y -= shares
    N, D = x.shape
    # The smaller of the two products has the same non-zero eigenvalues and is cheaper.
    tall = N >= D
    values, vectors = np.linalg.eigh(x.T @ x if tall else x @ x.T)
    scale = values.sum() / D or 1.0  # constant features: all weights are zero at any strength
    # Tall: weight = V (Λ + λ)⁻¹ Vᵀ Xᵀ Y. Wide: weight = Xᵀ U (Λ + λ)⁻¹ Uᵀ Y.
    left = vectors if tall else x.T @ vectors  # (D, min(N, D))
    right = vectors.T @ (x.T @ y if tall else y)  # (min(N, D), C)
    models = []
    for strength in strengths:
        weight = (left @ (right / (np.maximum(values, 0) + strength * scale)[:, None])).T
        models.append(LinearModel(weight, shares - weight @ centre, strength))
    return models


def logistic(
    features: npt.NDArray[Any], targets: Ints, n_classes: int, strengths: Sequence[float]
) -> list[LinearModel]:
    """Minimise the mean cross-entropy plus λ/2·‖weight‖² with a free bias, for every strength.

    scikit-learn's L-BFGS in float64; each strength starts from the previous solution, the strongest
    first. The features are centred, which changes no solution and speeds up the descent. With two
    classes scikit-learn penalises the difference of the weights, ‖w₁ − w₀‖². At the minimum
    w₁ = −w₀, where ‖weight‖² is half of that: hence twice the C.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x = features.astype(np.float64)
    centre = x.mean(axis=0)
    x -= centre
    model = LogisticRegression(max_iter=MAX_ITERATIONS, tol=1e-5, warm_start=True)
    models = {}
    for strength in sorted(strengths, reverse=True):
        model.set_params(C=(2 if n_classes == 2 else 1) / (strength * len(x)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, targets)
        weight, bias = model.coef_, model.intercept_
        if n_classes == 2:  # scikit-learn keeps the difference of the two classes
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        converged = bool(max(model.n_iter_) < MAX_ITERATIONS)
        models[strength] = LinearModel(weight.copy(), bias - weight @ centre, strength, converged)
    return [models[strength] for strength in strengths]


METHODS: dict[str, tuple[Fit, tuple[float, ...]]] = {
    "ridge": (ridge, RIDGE_STRENGTHS),
    "logistic": (logistic, LOGISTIC_STRENGTHS),
}


def fit_reference(
    name: str, train: LabelledRows, test: LabelledRows, sides: tuple[LabelledRows, LabelledRows]
) -> Reference:
    """Choose the strength of the method `name` and fit it to all training rows.

    `sides` are the rows that fit and the rows that score the strengths; of equal accuracies the
    stronger penalty wins.
    """
    began = time.perf_counter()
    fit, strengths = METHODS[name]
    n_classes, (fitted, scored) = int(train.targets.max()) + 1, sides
    validation = {
        model.strength: float((model.predict(scored.features) == scored.targets).mean())
        for model in fit(fitted.features, fitted.targets, n_classes, strengths)
    }
    best = max(validation, key=lambda strength: (validation[strength], strength))
    model = fit(train.features, train.targets, n_classes, [best])[0]
    predicted = model.predict(test.features)
    return Reference(name, model, predicted, validation, time.perf_counter() - began)
