"""Errors in one line, also those of worker processes."""

import pytest
from torch.utils.data import DataLoader

from rfviz.errors import RfvizError, reraising


class Broken:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            raise RfvizError("/images/2.jpg: image file is truncated. Repair or remove it.")
        return index


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_worker_is_one_line(workers):
    seen = []
    with pytest.raises(RfvizError) as caught:
        seen.extend(reraising(DataLoader(Broken(), batch_size=None, num_workers=workers)))
    assert str(caught.value) == "/images/2.jpg: image file is truncated. Repair or remove it."


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        list(reraising(1 // each for each in (1, 0)))
    assert list(reraising(range(3))) == [0, 1, 2]
