"""Windows: an interval of outputs needs exactly the inputs that it depends on."""

from hypothesis import given
from hypothesis import strategies as st

from sixfold.training.strategies.model_parallel.window import Window


@given(
    length=st.integers(1, 12),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    before=st.integers(-2, 4),
    dilation=st.integers(1, 3),
    start=st.integers(0, 6),
    count=st.integers(0, 5),
)
def test_the_need_is_what_the_outputs_read(
    length: int, kernel: int, stride: int, before: int, dilation: int, start: int, count: int
) -> None:
    window = Window(length=length, kernel=kernel, stride=stride, before=before, dilation=dilation)
    (low, high), (front, behind) = window.need((start, start + count))
    read = [
        out * stride - before + tap * dilation
        for out in range(start, start + count)
        for tap in range(kernel)
    ]
    if not read:
        assert (low, high, front, behind) == (0, 0, 0, 0)
        return
    inside = [place for place in range(min(read), max(read) + 1) if 0 <= place < length]
    assert list(range(low, high)) == inside
    assert front + (high - low) + behind == max(read) - min(read) + 1
    if inside:
        assert front == max(-min(read), 0)
