"""The layer and the transformer give the codes of the solver; their dictionaries can learn."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import sparse_encode
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.lca.conftest import draw
from torch.nn import functional

from sixfold.core.errors import UserError
from sixfold.lca import LCA, LCATransformer


def test_the_layer_reconstructs_and_its_dictionary_learns_by_gradient() -> None:
    layer = LCA(channels=2, atoms=12, kernel=5, stride=2, padding="half", lambda_=0.2)
    images = draw(4, 2, 11, 14).float()
    codes = layer(images)
    assert codes.shape == (4, 12, 6, 7)
    made = layer.reconstruct(codes, images.shape[2:])
    solution = layer.solve(images)
    squares = (images - made).flatten(1).double().square().sum(1)
    torch.testing.assert_close(squares.detach(), solution.squares, rtol=1e-4, atol=1e-4)
    functional.mse_loss(made, images).backward()  # type: ignore[no-untyped-call]
    gradient = layer.dictionary.grad
    assert gradient is not None
    with torch.no_grad():
        layer.dictionary.sub_(0.5 * gradient / gradient.norm())
    layer.normalise_()
    better = layer.reconstruct(codes, images.shape[2:])
    assert functional.mse_loss(better, images) < functional.mse_loss(made, images)


def test_the_layer_takes_signals_and_begins_with_given_codes() -> None:
    layer = LCA(channels=1, atoms=6, kernel=8, stride=2, signal_dims=1, lambda_=0.3)
    signals = draw(3, 1, 40).float()
    codes = layer(signals)
    assert codes.shape == (3, 6, 17)
    again = layer.solve(signals, start=codes.view(3, 6, 1, 17))
    assert again.done.all()
    assert (again.steps <= layer.solve(signals).steps).all()


def test_the_transformer_agrees_with_scikit_learn_and_fits_in_a_pipeline() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 10))
    pipeline = make_pipeline(
        StandardScaler(), LCATransformer(n_components=14, lambda_=0.2, max_iter=5, batch_size=30)
    )
    codes = pipeline.fit_transform(rows)
    assert codes.shape == (60, 14)
    fitted = pipeline[-1]
    scaled = pipeline[0].transform(rows)
    expected = sparse_encode(scaled, fitted.components_, algorithm="lasso_cd", alpha=0.2)

    def objective(found: NDArray[np.float64]) -> NDArray[np.float64]:
        errors = scaled - fitted.inverse_transform(found)
        total: NDArray[np.float64] = (errors**2).sum(1) / 2 + 0.2 * np.abs(found).sum(1)
        return total

    assert (objective(codes) <= objective(expected) * (1 + 1e-3)).all()
    assert list(pipeline.get_feature_names_out())[:2] == ["lcatransformer0", "lcatransformer1"]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused(odd: float) -> None:
    layer = LCA(channels=1, atoms=4, kernel=(3, 3))
    images = torch.zeros(3, 1, 5, 5)
    images[1, 0, 2, 2] = odd
    with pytest.raises(UserError, match="1 of 3 images have pixels that are NaN or infinite"):
        layer(images)
    with torch.no_grad():
        layer.dictionary[0, 0, 0, 0] = odd
    with pytest.raises(UserError, match="1 of 36 numbers of the dictionary are NaN or infinite"):
        layer(torch.zeros(3, 1, 5, 5))
