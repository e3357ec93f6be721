import pickle

from hydet.data.datasets.file_ids import FileIds


def test_ids_that_the_file_does_not_have_stay():
    ids = FileIds(images={1: "a"}, categories={2: "2"})
    assert [ids.image(i) for i in (1, 2, "other.jpg")] == ["a", 2, "other.jpg"]
    assert [ids.category(i) for i in (1, 2)] == [1, "2"]
    assert pickle.loads(pickle.dumps(ids)) == ids and FileIds() == FileIds()
