"""Prompts as they are written after `kft segment`."""

import numpy as np
import pytest
import typer

from kft.cli.segment import boxes_of, points_of

pytestmark = pytest.mark.once


def test_points_of_several_objects():
    points, labels = points_of(["120,80 60,70,0; 1.5,2,1", "5,6"])
    np.testing.assert_array_equal(points[0], [[120, 80], [60, 70], [1.5, 2]])
    np.testing.assert_array_equal(points[1, 0], [5, 6])
    assert labels.tolist() == [[1, 0, 1], [1, -1, -1]]
    assert points_of([]) is None and boxes_of([]) is None


def test_prompts_from_tables(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("object,x,y,label\na,1,2,1\nb,3,4,1\na,5,6,0\n")
    points, labels = points_of([str(path)])
    assert points.tolist() == [[[1, 2], [5, 6]], [[3, 4], [0, 0]]]
    assert labels.tolist() == [[1, 0], [1, -1]]
    path.write_text("X;Y\n1;2\n3;4\n")
    assert points_of([str(path)])[0].tolist() == [[[1, 2]], [[3, 4]]]
    path.write_text("x0,y0,x1,y1\n1,2,3,4\n5,6,7,8\n")
    assert boxes_of([str(path)]).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert boxes_of(["1,2,3,4", "5,6,7,8"]).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: points_of(["1"]), "--points takes \"X,Y\", .*received '1'"),
        (lambda path: points_of(["1,2,3"]), "the third number is 1 for a point of the object"),
        (lambda path: points_of([""]), "received an empty text"),
        (lambda path: boxes_of(["1,2,3"]), "--boxes takes X0,Y0,X1,Y1, received '1,2,3'"),
        (lambda path: boxes_of(["1,2,3,nan"]), "--boxes takes X0,Y0,X1,Y1"),
        (lambda path: boxes_of([path]), "has no column x0, x1, y1; it has x, y0"),
        (lambda path: points_of([path]), "has no column y; it has x, y0"),
        (lambda path: points_of([path[:-5] + "absent.csv"]), "cannot be read"),
    ],
)
def test_wrong_prompts_are_named(tmp_path, call, message):
    path = tmp_path / "a.csv"
    path.write_text("x,y0\n1,2\n")
    with pytest.raises(typer.BadParameter, match=message):
        call(str(path))
