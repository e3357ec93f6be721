import pickle

from hydet.data import DataError


def test_data_errors_are_value_errors_that_reach_the_main_process_unchanged():
    error = pickle.loads(pickle.dumps(DataError("a.png: no such file")))
    assert isinstance(error, DataError) and isinstance(error, ValueError)
    assert str(error) == "a.png: no such file"


def test_message_is_one_printable_line():
    assert str(DataError("a\nb\x1b[31m\ud800 ü 汽\u2028.png")) == r"a\nb\x1b[31m\ud800 ü 汽\u2028.png"
    assert str(pickle.loads(pickle.dumps(DataError("a\nb")))) == r"a\nb"
