import pickle

from hydet.data import DataError


def test_data_errors_are_value_errors_that_reach_the_main_process_unchanged():
    error = pickle.loads(pickle.dumps(DataError("a.png: no such file")))
    assert isinstance(error, DataError) and isinstance(error, ValueError)
    assert str(error) == "a.png: no such file"
