from hydet.data.coco.ids import IdTable


def test_forms_of_an_integer():
    table = IdTable([7, "8", 9.0])
    assert [table.find(value) for value in (7, "7", 7.0, "007", "7.0")] == [7] * 5
    assert table.renumbered == {}


def test_other_values_are_not_ids():
    table = IdTable([None, [1], {}, True, 1.5, float("nan"), float("inf"), ""])
    for value in (None, [1], {}, True, 1.5, float("nan"), float("inf"), "", "x", 2**63):
        assert table.find(value) is None


def test_text_and_large_integers_get_unused_numbers_in_order():
    table = IdTable(["b", 2**63, "a", "b", 4])
    assert [table.find(value) for value in ("b", 2**63, "a", 4)] == [5, 6, 7, 4]


def test_numbers_stay_below_64_bits():
    table = IdTable([2**63 - 1, 1, "a"])
    assert table.find("a") == 2 and table.find(2**63 - 1) == 2**63 - 1


def test_ids_of_results_are_those_of_the_file():
    table = IdTable(["7", 8, 9.0, "a", 2**64, "0x10000000000000000"])
    originals = [table.in_file.get(table.find(value), table.find(value)) for value in ("7", 8, 9, "a", 2**64)]
    assert originals == ["7", 8, 9, "a", 2**64]
    assert table.find("0x10000000000000000") != table.find(2**64)  # text that looks like an integer
