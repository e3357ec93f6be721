import torch.distributed as dist

from hydet.distributed import barrier, distributed_session, is_main_process, local_rank, rank, world_size


def test_a_single_process_needs_no_group(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with distributed_session("cpu") as device:
        assert device.type == "cpu" and not dist.is_initialized()
        assert (rank(), local_rank(), world_size()) == (0, 0, 1) and is_main_process()
        barrier()


def describe_process():
    barrier()
    return rank(), local_rank(), world_size(), is_main_process(), dist.get_backend()


def test_two_processes(on_two_processes):
    assert on_two_processes(describe_process) == [(0, 0, 2, True, "gloo"), (1, 1, 2, False, "gloo")]
    assert not dist.is_initialized()


def nest_sessions():
    with distributed_session("cpu"):
        pass
    return dist.is_initialized()


def test_an_inner_session_leaves_the_group_of_the_outer_one(on_two_processes):
    assert on_two_processes(nest_sessions) == [True, True]
