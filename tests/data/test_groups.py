"""Which rows stay on one side of a split, where the table says it in several columns."""

from medssl.data.groups import read_groups


def test_rows_without_a_patient_are_kept_together_by_the_finer_column():
    columns = {"patient": ["p1", "p1", "NA", "NA", ""], "slide": ["s1", "s2", "s9", "S9 ", "na"]}
    groups, notes = read_groups(columns, ["a", "b", "c", "d", "e"], "metadata.csv")
    assert groups == ["p1", "p1", "s9 (no patient)", "s9 (no patient)", "e"]
    assert any("3 of 5 rows have no 'patient'; they are grouped by 'slide', else" in note for note in notes)


def test_a_finer_group_is_not_taken_for_a_patient_who_is_called_alike():
    groups, _ = read_groups({"patient": ["7", "NA"], "slide": ["1", "7"]}, ["a", "b"], "metadata.csv")
    assert len(set(groups)) == 2
