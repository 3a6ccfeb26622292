"""Transferability scores agree with slow, independent computations, and refuse what cannot be scored."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from mrtransfer.common.errors import UserError
from mrtransfer.shift.score import Evidence, Score, parse_score
from mrtransfer.shift.scores import SCORES
from mrtransfer.shift.scores.gbc import gaussian_bhattacharyya
from mrtransfer.shift.scores.h_score import h_score
from mrtransfer.shift.scores.imagenet_accuracy import TOP1
from mrtransfer.shift.scores.knn import knn_accuracy
from mrtransfer.shift.scores.leep import leep
from mrtransfer.shift.scores.logme import log_me
from mrtransfer.shift.scores.nleep import n_leep
from mrtransfer.shift.scores.transrate import trans_rate

OF_FEATURES = {
    "h_score": h_score,
    "logme": log_me,
    "nleep": n_leep,
    "gbc": gaussian_bhattacharyya,
    "transrate": trans_rate,
    "knn": lambda features, labels: knn_accuracy(features, labels, np.arange(len(features)) // 2),
}
"""Scores of features and labels alone; two samples a subject where it matters."""


def samples(count=90, width=12, classes=3, apart=1.0, seed=0):
    """Gaussian classes whose means are ``apart``, as single-precision features."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    means = apart * random.normal(size=(classes, width))
    mixing = random.normal(size=(width, width)) / np.sqrt(width)
    return ((random.normal(size=(count, width)) + means[labels]) @ mixing).astype(np.float32), labels


def evidence(**fields):
    features, labels = samples()
    theta = np.random.default_rng(1).dirichlet(np.ones(5), len(labels))
    known = {
        "features": features, "labels": labels, "subjects": np.arange(len(labels)) // 2, "source_probabilities": theta,
        "parameters": 11_000_000, "imagenet": "resnet18.a1_in1k",
    }  # fmt: skip
    return Evidence(**{**known, **fields})


# The registry


@pytest.mark.parametrize("name", SCORES.names())
def test_every_score_has_a_name_words_a_summary_and_settings_that_survive_json(name):
    score = parse_score(name)
    assert isinstance(score, Score)
    assert score.name == name
    assert score.words
    assert SCORES.summaries()[name]
    assert set(score.needs) <= set(Evidence.__dataclass_fields__)
    assert parse_score(json.loads(json.dumps(score.model_dump()))) == score


@pytest.mark.parametrize("name", [name for name in SCORES.names() if name != "cc_fv"])
def test_every_score_is_one_finite_number_and_the_same_every_time(name):
    score = parse_score(name)
    assert np.isfinite(score(evidence()))
    assert score(evidence()) == score(evidence())


@pytest.mark.parametrize("name", SCORES.names())
def test_a_score_says_what_it_lacks(name):
    score = parse_score(name)
    if score.needs:
        assert score.lacks(Evidence())
        with pytest.raises(UserError, match=f"score {name}: needs "):
            score(Evidence())


def test_a_misspelt_score_or_setting_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match="did you mean 'logme'"):
        parse_score("logmee")
    with pytest.raises(UserError, match="scores knn: unknown key 'neighbors': did you mean 'neighbours'"):
        parse_score({"name": "knn", "neighbors": 3})
    with pytest.raises(UserError, match="give a name"):
        parse_score(3)


# Against independent computations


@pytest.mark.parametrize(("count", "width"), [(60, 7), (25, 40), (40, 40)])
def test_logme_is_the_maximum_of_the_marginal_likelihood_of_the_labels(count, width):
    features, labels = samples(count, width, apart=0.7, seed=count)
    wide = features.astype(np.float64)

    def negative(log_precisions, target):  # y ~ N(0, I/β + F Fᵀ/α), written out
        alpha, beta = np.exp(np.clip(log_precisions, -30, 30))
        covariance = np.eye(count) / beta + wide @ wide.T / alpha
        return 0.5 * (np.linalg.slogdet(2 * np.pi * covariance)[1] + target @ np.linalg.solve(covariance, target))

    best = []
    for number in range(3):
        target = (labels == number).astype(float)
        options = {"xatol": 1e-6, "fatol": 1e-10}
        starts = [(1.0, 1.0), (5.0, 3.0)]
        found = [minimize(negative, start, (target,), method="Nelder-Mead", options=options).fun for start in starts]
        best.append(-min(found) / count)
    assert log_me(features, labels) == pytest.approx(np.mean(best), abs=1e-6)


def test_logme_is_where_the_published_iteration_ends():
    features, labels = samples(80, 10, classes=2, apart=0.6)
    wide = features.astype(np.float64)
    gram = wide.T @ wide
    evidences = []
    for number in (0, 1):
        target = (labels == number).astype(float)
        alpha = beta = 1.0
        for _ in range(500):
            mean = beta * np.linalg.solve(alpha * np.eye(10) + beta * gram, wide.T @ target)
            gamma = (beta * np.linalg.eigvalsh(gram) / (alpha + beta * np.linalg.eigvalsh(gram))).sum()
            alpha, beta = gamma / (mean @ mean), (80 - gamma) / ((target - wide @ mean) ** 2).sum()
        evidences.append(
            5 * np.log(alpha) + 40 * np.log(beta) - 0.5 * np.linalg.slogdet(alpha * np.eye(10) + beta * gram)[1]
            - beta / 2 * ((target - wide @ mean) ** 2).sum() - alpha / 2 * mean @ mean - 40 * np.log(2 * np.pi)
        )  # fmt: skip
    assert log_me(features, labels) == pytest.approx(np.mean(evidences) / 80, abs=1e-9)


def test_leep_is_the_mean_log_likelihood_of_the_expected_empirical_predictor():
    random = np.random.default_rng(3)
    theta, labels = random.dirichlet(np.full(6, 0.4), 50), random.integers(0, 4, 50)
    total = 0.0
    for i in range(50):
        predicted = 0.0
        for z in range(6):
            joint = sum(theta[j, z] for j in range(50) if labels[j] == labels[i]) / 50
            predicted += joint / (sum(theta[j, z] for j in range(50)) / 50) * theta[i, z]
        total += np.log(predicted)
    assert leep(theta, labels) == pytest.approx(total / 50, abs=1e-12)


def test_leep_is_zero_for_a_source_that_names_the_target_s_classes_and_the_entropy_for_one_that_knows_nothing():
    labels = np.arange(12) % 3
    assert leep(np.eye(3)[labels], labels) == pytest.approx(0, abs=1e-12)
    assert leep(np.full((12, 4), 0.25), labels) == pytest.approx(-np.log(3))
    assert leep(np.eye(5)[labels], labels) == pytest.approx(0, abs=1e-12)  # source classes that never occur


def test_nleep_is_leep_of_a_gaussian_mixture_on_principal_components():
    features, labels = samples(120, 15, seed=4)
    projected = PCA(0.8, svd_solver="full").fit_transform(features.astype(np.float64))
    projected /= projected.std()
    mixture = GaussianMixture(15, covariance_type="diag", random_state=0, max_iter=200).fit(projected)
    density = np.stack(
        [
            weight * stats.multivariate_normal(mean, np.diag(variance)).pdf(projected)
            for weight, mean, variance in zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True)
        ],
        axis=1,
    )
    posterior = density / density.sum(1, keepdims=True)
    conditional = np.stack([posterior[labels == number].sum(0) for number in range(3)]) / posterior.sum(0)
    expected = np.mean([np.log((conditional[labels[i]] * posterior[i]).sum()) for i in range(120)])
    assert n_leep(features, labels) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("count", "width"), [(200, 8), (30, 60)])
def test_h_score_is_the_closed_form_with_the_ledoit_wolf_covariance(count, width):
    features, labels = samples(count, width)
    wide = features.astype(np.float64)
    fitted = LedoitWolf().fit(wide)
    explained = np.stack([wide[labels == label].mean(0) for label in labels])
    covariance = np.cov(explained.T, bias=True)
    expected = (1 - fitted.shrinkage_) * np.trace(np.linalg.inv(fitted.covariance_) @ covariance)
    assert h_score(features, labels) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("gaussian", ["diagonal", "spherical"])
def test_gbc_is_the_sum_of_closed_form_bhattacharyya_coefficients(gaussian):
    features, labels = samples(90, 20, apart=0.4)
    projected = PCA(6, svd_solver="full").fit_transform(features.astype(np.float64))
    total = 0.0
    for i in range(3):
        for j in range(3):
            if i == j:
                continue
            a, b = projected[labels == i], projected[labels == j]
            first, second = (np.diag(group.var(0)) for group in (a, b))
            if gaussian == "spherical":
                first, second = (np.eye(6) * np.trace(matrix) / 6 for matrix in (first, second))
            middle, delta = (first + second) / 2, a.mean(0) - b.mean(0)
            distance = delta @ np.linalg.inv(middle) @ delta / 8 + 0.5 * np.log(
                np.linalg.det(middle) / np.sqrt(np.linalg.det(first) * np.linalg.det(second))
            )
            total += np.exp(-distance)
    found = gaussian_bhattacharyya(features, labels, components=6, gaussian=gaussian)
    assert found == pytest.approx(-total, abs=1e-9)


@pytest.mark.parametrize("width", [5, 80])
def test_transrate_is_the_difference_of_coding_rates(width):
    features, labels = samples(45, width)
    centred = features.astype(np.float64) - features.astype(np.float64).mean(0)

    def rate(rows):
        return 0.5 * np.log(np.linalg.eigvalsh(np.eye(width) + rows.T @ rows / (len(rows) * 0.01))).sum()

    expected = rate(centred) - sum(15 / 45 * rate(centred[labels == number]) for number in range(3))
    assert trans_rate(features, labels, epsilon=0.01) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("neighbours", [1, 4, 5])
def test_knn_is_scikit_learn_s_with_whole_subjects_left_out(neighbours):
    features, labels = samples(100, 6, apart=0.5)
    subjects = np.random.default_rng(2).integers(0, 17, 100)
    classifier = KNeighborsClassifier(neighbours, algorithm="brute")
    predicted = cross_val_predict(classifier, features.astype(float), labels, groups=subjects, cv=LeaveOneGroupOut())
    assert knn_accuracy(features, labels, subjects, neighbours) == pytest.approx((predicted == labels).mean())


def test_knn_is_not_fooled_by_slices_of_the_same_subject():
    random = np.random.default_rng(0)
    subjects = np.repeat(np.arange(30), 6)
    labels = random.integers(0, 2, 30)[subjects]  # nothing but the subject tells the class
    features = random.normal(size=(30, 8))[subjects] + 0.01 * random.normal(size=(180, 8))
    assert knn_accuracy(features, labels, np.arange(180), 5) == 1.0
    assert knn_accuracy(features, labels, subjects, 5) < 0.8


def test_baselines_look_at_no_sample():
    nothing = Evidence(parameters=10_000, imagenet="resnet50.tv_in1k")
    assert parse_score("network_size")(nothing) == pytest.approx(4)
    assert parse_score("imagenet_accuracy")(nothing) == TOP1["resnet50.tv_in1k"]
    assert parse_score("constant")(Evidence()) == 0
    assert {name for name in SCORES.names() if parse_score(name).baseline} == {
        "network_size", "imagenet_accuracy", "constant",
    }  # fmt: skip


def test_an_accuracy_that_is_not_known_is_not_guessed():
    score = parse_score("imagenet_accuracy")
    assert "none is known of my_net.in1k" in score.lacks(Evidence(imagenet="my_net.in1k"))
    with pytest.raises(UserError, match="none is known of resnet50"):
        score(Evidence(imagenet="resnet50"))  # weights of 76 to 81 % go by that name


# What must be true of any such score


@pytest.mark.parametrize("name", OF_FEATURES)
def test_classes_that_are_further_apart_score_higher(name):
    near, far = (OF_FEATURES[name](*samples(120, 8, apart=apart, seed=7)) for apart in (0.2, 1.5))
    assert far > near


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(set(OF_FEATURES) - {"knn"})))
def test_neither_the_order_of_samples_nor_the_names_of_classes_nor_a_rotation_matter(seed, name):
    features, labels = samples(48, 5, seed=seed)
    random = np.random.default_rng(seed)
    wide = features.astype(np.float64)
    rotation = np.linalg.qr(random.normal(size=(5, 5)))[0]
    order = random.permutation(48)
    score = OF_FEATURES[name]
    expected = score(wide, labels)
    assert score(wide, np.array([7, 2, 4])[labels]) == pytest.approx(expected, rel=1e-9)
    assert score(wide @ rotation, labels) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    if name != "nleep":  # the mixture's start depends on the order
        assert score(wide[order], labels[order]) == pytest.approx(expected, rel=1e-9)


# What cannot be scored


@pytest.mark.parametrize("name", OF_FEATURES)
def test_unusable_samples_are_refused_in_words(name):
    score, (features, labels) = OF_FEATURES[name], samples()
    with pytest.raises(UserError, match="only one class"):
        score(features, np.zeros_like(labels))
    with pytest.raises(UserError, match="NaN or infinite"):
        score(np.where(np.arange(12) == 3, np.nan, features), labels)
    with pytest.raises(UserError, match="constant, the same for all 90 samples"):
        score(np.ones_like(features), labels)
    with pytest.raises(UserError, match="89 for 90 samples"):
        score(features, labels[:-1])
    with pytest.raises(UserError, match="samples without a label must be left out"):
        score(features, np.where(labels == 0, -1, labels))
    with pytest.raises(UserError, match="right is a table of two samples or more"):
        score(features[:, 0], labels)


def test_fewer_than_two_subjects_have_no_neighbours():
    features, labels = samples()
    with pytest.raises(UserError, match="fewer than two"):
        knn_accuracy(features, labels, np.zeros(90))
    with pytest.raises(UserError, match="only 2 samples are left"):
        knn_accuracy(features, labels, np.r_[np.zeros(88), 1, 2])
    with pytest.raises(UserError, match="3 for 90 samples"):
        knn_accuracy(features, labels, np.arange(3))


def test_what_are_no_probabilities_is_refused():
    labels = np.arange(6) % 2
    for wrong in (np.full((6, 3), 0.5), np.full((6, 2), np.nan), np.tile([1.5, -0.5], (6, 1))):
        with pytest.raises(UserError, match="are no probabilities"):
            leep(wrong, labels)
    with pytest.raises(UserError, match="labels: 6 for 5 samples"):
        leep(np.full((5, 2), 0.5), labels)
    with pytest.raises(UserError, match="only one class"):
        leep(np.full((6, 2), 0.5), np.zeros(6, int))


def test_a_class_of_a_single_sample_has_no_gaussian():
    features, labels = samples()
    with pytest.raises(UserError, match="a class has only one sample"):
        gaussian_bhattacharyya(features, np.r_[3, labels[1:]])


# Real images


@pytest.mark.slow
@pytest.mark.real_data
def test_imagenet_s_features_score_higher_than_random_ones_on_real_tumours(real_data, weights_folder):
    """The scores that need no more than features and labels; GBC is left out, which prefers some random features."""
    import torch
    from PIL import Image

    from mrtransfer.models.network import build_network
    from mrtransfer.models.weights import apply_weights

    files = sorted((real_data / "brain_tumour_4class" / "Training").glob("*/*.jpg"))[::12]
    names = [file.parent.name for file in files]
    labels = np.unique(names, return_inverse=True)[1]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB").resize((64, 64))) for file in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    tables = []
    for weights in (str(weights_folder / "mobilenetv2_100.imagenet.safetensors"), "random"):
        network = build_network("mobilenetv2_100", seed=0)
        apply_weights(network, weights)
        with torch.inference_mode():
            tables.append(network.eval()(images).numpy())
    for name in sorted(set(OF_FEATURES) - {"gbc"}):
        published, random = (OF_FEATURES[name](table, labels) for table in tables)
        assert published > random, name
