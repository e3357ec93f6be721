from hydet.data import CocoDataset


def test_annotation_zero_gets_an_unused_id(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation(id=0), annotation(id=4)]))
    assert sorted(a["id"] for a in dataset.to_coco()["annotations"]) == [4, 5]
    assert dataset[0].annotation_ids.tolist() == [0, 4]


def test_objects_without_a_region_get_an_empty_one(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation(), annotation(id=2, segmentation=...)]))
    assert dataset.report().count("no_region") == 1
    assert dataset.to_coco()["annotations"][1]["segmentation"] == {"size": [30, 40], "counts": [1200]}


def test_fields_of_other_evaluations_are_kept(coco_folder, annotation):
    lists = {"neg_category_ids": [9], "not_exhaustive_category_ids": []}
    coco_folder()
    images = [{"id": 5, "file_name": "a.png", "width": 40, "height": 30, **lists}]
    categories = [{"id": 3, "name": "dog", "frequency": "r"}, {"id": 9, "name": "cat"}]
    annotations = [annotation(), annotation(id=2, difficult=1)]
    coco = CocoDataset(**coco_folder(annotations, images=images, categories=categories)).to_coco()
    assert coco["images"] == images
    assert coco["categories"] == [{"id": 3, "name": "dog", "frequency": "r"}, {"id": 9, "name": "cat"}]
    assert [a.get("ignore", 0) for a in coco["annotations"]] == [0, 1]
