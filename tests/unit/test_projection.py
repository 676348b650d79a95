from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from engine.errors import ConfigError
from engine.projection import Pca, fit_pca, l2_normalize, load_pca, save_pca
from engine.records import FloatArray


def embeddings(num_rows: int, num_dims: int, *, offset: float = 0.0, seed: int = 0) -> FloatArray:
    """Correlated rows with a falling spectrum, as embeddings have."""
    rng = np.random.default_rng(seed)
    spectrum = 1.15 ** -np.arange(num_dims)
    rotation, _ = np.linalg.qr(rng.standard_normal((num_dims, num_dims)))
    rows = (rng.standard_normal((num_rows, num_dims)) * spectrum) @ rotation + offset
    return rows.astype(np.float32)


def fitted() -> Pca:
    return fit_pca(embeddings(60, 12), num_components=5)


class TestL2Normalize:
    def test_rows_get_length_one_and_zeros_stay(self) -> None:
        rows = embeddings(40, 33)
        rows[7] = 0
        expected = rows.astype(np.float64)
        expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-300)
        normalized = l2_normalize(rows)
        assert normalized.dtype == np.float32
        np.testing.assert_allclose(normalized, expected, atol=2e-7)

    def test_a_row_does_not_depend_on_the_others(self) -> None:
        rows = embeddings(40, 513)
        together = l2_normalize(rows)
        for row in range(len(rows)):
            np.testing.assert_array_equal(l2_normalize(rows[row : row + 1])[0], together[row])


class TestFitPca:
    @pytest.mark.parametrize(
        ("num_rows", "num_dims", "num_components"), [(500, 48, 48), (500, 48, 7), (9000, 24, 24), (30, 80, 25)]
    )
    def test_equals_scikit_learn_with_its_signs(self, num_rows: int, num_dims: int, num_components: int) -> None:
        rows = embeddings(num_rows, num_dims, offset=3.0)
        expected = PCA(num_components, svd_solver="full").fit(rows.astype(np.float64))
        pca = fit_pca(rows, num_components=num_components)
        np.testing.assert_allclose(pca.mean, expected.mean_, rtol=1e-6)
        np.testing.assert_allclose(pca.components, expected.components_, atol=1e-6)
        np.testing.assert_allclose(pca.explained_variance, expected.explained_variance_, rtol=1e-6)
        np.testing.assert_allclose(pca.transform(rows), expected.transform(rows.astype(np.float64)), atol=2e-5)

    def test_no_digits_cancel_far_from_the_origin(self) -> None:
        rows = embeddings(3000, 16, offset=4096.0)
        exact = rows.astype(np.float64)
        variances = np.linalg.eigvalsh(np.cov(exact, rowvar=False))[::-1]
        np.testing.assert_allclose(fit_pca(rows, num_components=16).explained_variance, variances, rtol=1e-6)

    def test_rows_of_low_rank_have_no_negative_variance(self) -> None:
        rows = np.repeat(embeddings(3, 10), 5, axis=0)
        assert (fit_pca(rows, num_components=10).explained_variance >= 0).all()

    @pytest.mark.parametrize(
        ("shape", "num_components"), [((1, 8), 1), ((0, 8), 1), ((20, 8), 9), ((5, 8), 6), ((20, 8), 0), ((20, 8), -1)]
    )
    def test_impossible_sizes_fail(self, shape: tuple[int, int], num_components: int) -> None:
        with pytest.raises(ConfigError, match=rf"PCA to {num_components} dimensions needs .* shape \({shape[0]}, 8\)"):
            fit_pca(np.ones(shape, dtype=np.float32), num_components=num_components)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_fail(self, bad: float) -> None:
        rows = embeddings(20, 8)
        rows[13, 2] = bad
        with pytest.raises(ConfigError, match="NaN or infinity"):
            fit_pca(rows, num_components=2)

    def test_equals_the_reference(self, golden: Path) -> None:
        recorded = golden / "postprocess" / "pca.npz"
        if not recorded.exists():
            pytest.skip("the recorded PCA and its inputs are only in the full golden set")
        inputs = np.load(golden / "postprocess" / "ref_inputs.npz")
        rows = np.concatenate([l2_normalize(inputs[f"train_model{i}"].astype(np.float32)) for i in range(1, 5)], axis=1)
        expected, pca = load_pca(recorded), fit_pca(rows, num_components=512)
        np.testing.assert_allclose(pca.mean, expected.mean, atol=1e-7)
        np.testing.assert_allclose(pca.explained_variance, expected.explained_variance, rtol=3e-5, atol=3e-7)
        # Recorded in float32: scikit-learn's own components differ by 1.9e-4 between float32 and float64.
        np.testing.assert_allclose(pca.components, expected.components, atol=3e-4)


class TestPca:
    def test_weight_and_bias_are_the_whole_projection(self) -> None:
        pca, rows = fitted(), embeddings(9, 12, seed=1)
        exact = (rows.astype(np.float64) - pca.mean) @ pca.components.T.astype(np.float64)
        assert pca.weight.shape == (12, 5)
        assert pca.bias.shape == (5,)
        assert pca.weight.dtype == pca.bias.dtype == np.float32
        np.testing.assert_allclose(rows @ pca.weight + pca.bias, exact, atol=1e-6)
        np.testing.assert_allclose(pca.transform(rows), exact, atol=1e-6)

    def test_shapes_and_values_are_checked(self) -> None:
        pca = fitted()
        with pytest.raises(ValueError, match=r"expected mean \(E,\).*got \(11,\), \(5, 12\) and \(5,\)"):
            Pca(pca.mean[:11], pca.components, pca.explained_variance)
        with pytest.raises(ValueError, match="expected mean"):
            Pca(pca.mean, pca.components[0], pca.explained_variance)
        with pytest.raises(ValueError, match=r"expected components as finite float32 values, got dtype float64"):
            Pca(pca.mean, pca.components.astype(np.float64), pca.explained_variance)
        with pytest.raises(ValueError, match="expected mean as finite float32"):
            Pca(np.full_like(pca.mean, np.nan), pca.components, pca.explained_variance)

    def test_embeddings_of_other_dimensions_fail(self) -> None:
        with pytest.raises(ConfigError, match=r"takes embeddings of 12 dimensions, got an array of shape \(4, 13\)"):
            fitted().transform(np.zeros((4, 13), dtype=np.float32))


class TestFiles:
    def test_round_trip_is_exact(self, tmp_path: Path) -> None:
        pca = fitted()
        save_pca(pca, tmp_path / "pca.npz")
        loaded = load_pca(tmp_path / "pca.npz")
        for name in ("mean", "components", "explained_variance"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(pca, name))

    def test_other_files_fail(self, tmp_path: Path) -> None:
        path = tmp_path / "pca.npz"
        with pytest.raises(ConfigError, match=r"cannot read the PCA: .*does not exist"):
            load_pca(path)
        np.savez(path, mean=np.zeros(3))
        with pytest.raises(ConfigError, match=r"is not a PCA: expected the arrays .* got \['mean'\]"):
            load_pca(path)
        pca = fitted()
        np.savez(path, mean=pca.mean, components=pca.components.T, explained_variance=pca.explained_variance)
        with pytest.raises(ConfigError, match=r"pca\.npz is not a PCA: expected mean \(E,\)"):
            load_pca(path)
