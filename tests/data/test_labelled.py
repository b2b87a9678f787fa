import numpy as np
import pytest

from medssl.data.labelled import Labelled
from medssl.errors import DataError


def test_rows_keep_what_belongs_together():
    images = Labelled(np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1]), np.array(["a", "b", "c", "d"]))
    for chosen in (np.array([2, 3]), np.array([False, False, True, True]), slice(2, None)):
        part = images.rows(chosen)
        assert len(part) == 2 and part.groups.tolist() == ["c", "d"] and part.labels.tolist() == [0, 1]
        assert part.embeddings.tolist() == [[4.0, 5.0], [6.0, 7.0]]


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(DataError, match="2 embeddings, 3 labels and 2 groups"):
        Labelled(np.zeros((2, 4)), np.zeros(3, int), np.array(["a", "b"]))
