import pytest
import torch

from hydet.distributed import (
    all_gather,
    any_process,
    broadcast_from_main,
    compute_on_main,
    gather_on_main,
    mean_over_processes,
    rank,
    sum_over_processes,
    sum_tensor_over_processes,
)


def test_a_single_process_gets_its_own_values():
    assert all_gather(3) == gather_on_main(3) == [3] and broadcast_from_main(3) == 3
    assert any_process(True) and not any_process(False)
    assert mean_over_processes({"a": 1.0}) == sum_over_processes({"a": 1.0}) == {"a": 1.0}
    assert compute_on_main(2, sum) == 2


def use_all_collectives():
    values = {"a": float(rank()), **({"b": 3.0} if rank() else {})}
    return {
        "all_gather": all_gather(rank()),
        "gather_on_main": gather_on_main(rank()),
        "broadcast": broadcast_from_main(f"from {rank()}"),
        "any": (any_process(rank() == 1), any_process(False)),
        "mean": mean_over_processes(values),
        "sum": sum_over_processes(values),
        "compute": compute_on_main(rank() + 1, sum),
    }


def test_two_processes(on_two_processes):
    expected = {
        "all_gather": [0, 1],
        "gather_on_main": [0, 1],
        "broadcast": "from 0",
        "any": (True, False),
        "mean": {"a": 0.5, "b": 3.0},  # over the processes that have the key
        "sum": {"a": 1.0, "b": 3.0},
        "compute": 3,
    }
    first, second = on_two_processes(use_all_collectives)
    assert first == expected
    assert second == {**expected, "gather_on_main": []}


def fail_on_main(values):
    raise ValueError("no images")


def catch_error():
    try:
        compute_on_main(rank(), fail_on_main)
    except ValueError as error:
        return str(error)


def test_an_error_of_the_main_process_reaches_all_processes(on_two_processes):
    assert on_two_processes(catch_error) == ["no images", "no images"]


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        compute_on_main(0, lambda values: 1 / values[0])


def sum_tensors():
    values = torch.tensor([rank() + 1, 10])
    total = sum_tensor_over_processes(values)
    return total.tolist(), values.tolist()


def test_sums_of_tensors_leave_the_values_as_they_are(on_two_processes):
    assert on_two_processes(sum_tensors) == [([3, 20], [1, 10]), ([3, 20], [2, 10])]
    value = torch.tensor(2.0)
    assert sum_tensor_over_processes(value) is value
