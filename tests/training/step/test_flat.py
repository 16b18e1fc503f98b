"""The flat state: views of payloads, and what keeps them."""

import weakref

from sixfold.models import build
from sixfold.models.config import ModelConfig
from sixfold.training.step.step import Step


def test_a_payload_is_let_go_with_its_parts() -> None:
    step = Step(build(ModelConfig(model="slide"), shape=(3, 8, 8), classes=10, seed=0), seed=0)
    payload = step.new_payload()
    kept, parts = weakref.ref(payload), weakref.ref(step.state.parts(payload).buffers)
    step.state.parts(payload).gradients[0].fill_(2.0)
    assert payload[0] == 2.0
    del payload
    assert kept() is None
    assert parts() is None
