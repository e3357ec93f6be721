from contextlib import contextmanager

import pytest

from hydet.engine import Callback, CallbackPhase
from hydet.engine.callback_list import name_callbacks, replaced_weights, sort_callbacks


class Early(Callback):
    phase = CallbackPhase.AVERAGE_WEIGHTS


class Late(Callback):
    phase = CallbackPhase.SAVE_CHECKPOINT


def test_callbacks_are_sorted_by_phase_and_keep_their_order_within_one():
    first, second, early, late = Callback(), Callback(), Early(), Late()
    assert sort_callbacks([late, first, None, second, early]) == [early, first, second, late]
    assert sort_callbacks({"a": late, "b": None, "c": early}) == [early, late]
    assert sort_callbacks(()) == []


def test_an_entry_that_is_no_callback_is_named():
    with pytest.raises(TypeError, match=r"must derive from hydet\.engine\.Callback, got str"):
        sort_callbacks(["evaluation"])


def test_callbacks_of_one_class_get_numbers():
    callbacks = [Early(), Late(), Early(), Early()]
    named = name_callbacks(callbacks)
    assert list(named) == ["Early", "Late", "Early-2", "Early-3"]
    assert list(named.values()) == callbacks


def test_weights_are_replaced_inside_the_context_only():
    class Replacing(Callback):
        active = False

        @contextmanager
        def evaluation_weights(self, trainer):
            self.active = True
            yield
            self.active = False

    replacing = Replacing()
    with replaced_weights([Callback(), replacing], trainer=None) as replaced:
        assert replaced and replacing.active
    assert not replacing.active
    with replaced_weights([Callback()], trainer=None) as replaced:
        assert not replaced
