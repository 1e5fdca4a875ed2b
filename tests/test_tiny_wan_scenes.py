"""The world of the tiny model: clips, captions, the held-out split and the tokenizer that reads the captions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scripts.tiny_wan import captions, evaluation, scenes, tokenizer
from wanc.report.detectors.drawn_shapes import SHAPES, Attributes, coverage, pixel_centres
from wanc.report.detectors.shape_words import WORDS


def test_every_value_is_trained_and_held_out_in_some_combination() -> None:
    assert len(scenes.HELD_OUT) + len(scenes.TRAINING) == len(scenes.ALL_COMBINATIONS) == 96
    assert 0.12 < len(scenes.HELD_OUT) / 96 < 0.18
    for position in range(3):
        values = {combination[position] for combination in scenes.ALL_COMBINATIONS}
        assert {combination[position] for combination in scenes.HELD_OUT} == values
        trained = Counter(combination[position] for combination in scenes.TRAINING)
        assert set(trained) == values
        assert min(trained.values()) > 0.7 * 96 / len(values)


def test_every_pair_of_values_is_trained() -> None:
    for first, second in ((0, 1), (0, 2), (1, 2)):
        trained = {(combination[first], combination[second]) for combination in scenes.TRAINING}
        everything = {(combination[first], combination[second]) for combination in scenes.ALL_COMBINATIONS}
        assert trained == everything


def test_a_clip_is_a_pure_function_of_its_seed() -> None:
    clips = [scenes.render(scenes.random_scene(np.random.default_rng(3), scenes.HELD_OUT[0])) for _ in range(2)]
    assert clips[0].shape == (17, 64, 64, 3)
    assert clips[0].dtype == np.uint8
    np.testing.assert_array_equal(clips[0], clips[1])


@pytest.mark.parametrize("attributes", scenes.ALL_COMBINATIONS[::5], ids="-".join)
def test_the_shape_stays_inside(attributes: Attributes) -> None:
    random = np.random.default_rng(4)
    for _ in range(10):
        clip = scenes.render(scenes.random_scene(random, attributes)).astype(int)
        border = np.concatenate([clip[:, 0], clip[:, -1], clip[:, :, 0], clip[:, :, -1]])
        assert np.ptp(border, axis=-1).max() == 0, "a border pixel is coloured"


def test_a_window_is_a_part_of_the_whole_clip() -> None:
    scene = scenes.random_scene(np.random.default_rng(5), scenes.TRAINING[7])
    window = scenes.render(scene, first_frame=4, frames=5, left=10, top=20, size=32)
    np.testing.assert_array_equal(window, scenes.render(scene)[4:9, 20:52, 10:42])


@pytest.mark.parametrize("shape", SHAPES)
def test_all_shapes_of_a_radius_have_the_same_area(shape: str) -> None:
    centre = np.asarray([32.0], dtype=np.float32)
    grid = pixel_centres(scenes.SIZE)
    area = coverage(shape, centre, centre, 9.0, grid, grid).sum()
    assert area == pytest.approx(np.pi * 81, rel=0.03)


@pytest.mark.parametrize("language", captions.LANGUAGES)
def test_captions_name_every_attribute_and_differ(language: str) -> None:
    words = WORDS[language]
    templates = range(len(captions.TEMPLATES[language]))
    for attributes in scenes.ALL_COMBINATIONS:
        sentences = [captions.caption(attributes, language, template) for template in templates]
        assert len(set(sentences)) == len(sentences)
        for sentence in sentences:
            assert all(words[value] in sentence for value in attributes)


def test_held_out_cases_are_balanced_and_distinct() -> None:
    cases = evaluation.cases(200)
    assert Counter(case.language for case in cases) == {"en": 100, "zh": 100}
    assert {case.attributes for case in cases} == set(scenes.HELD_OUT)
    assert len({case.seed for case in cases}) == 200
    assert len({case.prompt for case in cases}) == 200


def test_the_tokenizer_spells_all_captions_without_unknown_pieces() -> None:
    built = tokenizer.build()
    assert [built.id_to_token(identifier) for identifier in range(3)] == ["<pad>", "</s>", "<unk>"]
    for attributes in scenes.ALL_COMBINATIONS:
        for language in captions.LANGUAGES:
            for template in range(len(captions.TEMPLATES[language])):
                for sentence in captions.spellings(captions.caption(attributes, language, template)):
                    identifiers = built.encode(sentence).ids
                    assert 2 not in identifiers
                    assert identifiers[-1] == 1
                    assert len(identifiers) <= 64


def test_the_tokenizer_survives_any_text() -> None:
    built = tokenizer.build()
    assert built.encode("").ids == [1]
    assert 2 in built.encode("ein grüner Kreis").ids
    assert 2 not in built.encode("A zebra walks").ids
