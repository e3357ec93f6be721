import torch

from hydet.data.loading.batch_packing import PackedBatch, pack_batch, unpack_batch


def test_unpacking_inverts_packing(dataset, mapper, assert_same_batches):
    batch = [mapper(dataset[i], i) for i in range(5)]
    assert_same_batches([unpack_batch(pack_batch(batch))], [batch])
    assert unpack_batch(pack_batch([])) == []


def test_tensors_of_any_layout_and_dtype():
    tensors = {
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(3),
        "strided": torch.arange(12).reshape(3, 4).t(),
        "bool": torch.tensor([True, False]),
        "half": torch.tensor([0.5, 2.0], dtype=torch.bfloat16),
    }
    restored = unpack_batch(pack_batch({**tensors, "number": 1}))
    assert restored.pop("number") == 1
    for name, tensor in tensors.items():
        assert torch.equal(restored[name], tensor) and restored[name].dtype == tensor.dtype, name


def test_all_tensors_share_one_block():
    packed = pack_batch([torch.arange(3), torch.arange(5)])
    assert isinstance(packed, PackedBatch) and [span.start for span in packed.spans] == [0, 64]
    first, second = unpack_batch(packed)
    addresses = [first.data_ptr(), second.data_ptr()]
    assert [address - packed.block.data_ptr() for address in addresses] == [0, 64]
