import pytest

from hydet.data.coco.mirror_pairs import find_mirror_pairs


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("Left Eye", "Right Eye"),
        ("EyeLeft", "EyeRight"),
        ("lefteye", "righteye"),
        ("eye_LEFT", "eye_RIGHT"),
        ("L_Eye", "R_Eye"),
        ("l_eye", "r_eye"),
        ("l-eye", "r-eye"),
        ("eyeL", "eyeR"),
        ("eye_l", "eye_r"),
        ("eye.L", "eye.R"),
        ("LEye", "REye"),
        ("lEye", "rEye"),
        ("leye", "reye"),
        ("eyel", "eyer"),
        ("eye(l)", "eye(r)"),
        ("NearEye", "OffEye"),
        ("near_eye", "off_eye"),
        ("Near Fore Hoof", "Off Fore Hoof"),
        ("front_left_paw", "front_right_paw"),
        ("L1", "R1"),
        ("eyeL2", "eyeR2"),
        ("lt_eye", "rt_eye"),
        ("左眼", "右眼"),
        ("left", "right"),
        ("L", "R"),
        ("left_hand_left_thumb", "right_hand_right_thumb"),
    ],
)
def test_common_forms(left, right):
    names = ["nose", right, left, "tail", "heel"]
    assert find_mirror_pairs(names) == [(left, right)]
    assert find_mirror_pairs(["nose", left, "tail"]) == []


def test_people_and_several_forms_in_one_set():
    names = ["l_hip", "r_hip", "L_Ear", "R_Ear", "kneeL", "kneeR", "left_toe", "right_toe", "neck", "bright"]
    pairs = [("l_hip", "r_hip"), ("L_Ear", "R_Ear"), ("kneeL", "kneeR"), ("left_toe", "right_toe")]
    assert find_mirror_pairs(names) == pairs


@pytest.mark.parametrize(
    "names", [[], ["nose", "tail"], ["1", "2", "3"], ["near", "far"], ["eye1", "eye2"], ["lip", "tip"]]
)
def test_names_without_sides(names):
    assert find_mirror_pairs(names) == []


def test_each_name_has_one_partner():
    pairs = find_mirror_pairs(["left", "right", "light", "l", "r", "Left_eye", "left_eye", "right_eye"])
    names = [name for pair in pairs for name in pair]
    assert len(names) == len(set(names)) and ("left", "right") in pairs and ("l", "r") in pairs
