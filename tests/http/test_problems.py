"""The one shape of errors on the admin listener."""

import json

import pytest

from gateway.core.http.problems import STATUSES, FieldProblem, problem_document


@pytest.mark.parametrize("status", [*STATUSES, 418])
def test_every_status_has_a_code_and_a_remedy(status: int) -> None:
    told = json.loads(problem_document(status, "It failed."))
    assert told["status"] == status and told["title"] and told["code"] and told["remedy"]
    assert (told["detail"], told["field"], told["problems"]) == ("It failed.", None, [])


def test_a_remedy_is_a_part_of_the_sentence() -> None:
    told = json.loads(problem_document(404, "Unknown tenant 'a'.", "create it", "gone", "tenant"))
    assert told["detail"] == "Unknown tenant 'a': create it."
    assert (told["remedy"], told["code"], told["field"]) == ("create it", "gone", "tenant")


def test_a_remedy_behind_a_question_is_a_sentence_of_its_own() -> None:
    told = json.loads(
        problem_document(400, "f.yaml:3: max: is not a setting: did you mean 'most'?", "correct the file")
    )
    assert told["detail"] == "f.yaml:3: max: is not a setting: did you mean 'most'? Correct the file."
    assert told["remedy"] == "correct the file"


def test_the_first_field_is_named_where_there_are_several() -> None:
    problems = [FieldProblem("a.b", "is \ud800"), FieldProblem("c", "too")]
    told = json.loads(problem_document(422, "a.b: is; c: too", problems=problems))
    assert told["field"] == "a.b" and told["problems"][1] == {"field": "c", "detail": "too"}


def test_a_remedy_of_several_problems_is_the_last_clause() -> None:
    """Each has colons of its own."""
    told = json.loads(problem_document(400, "f: 2: a: no; f: 3: b: no", "mend it", problems=[FieldProblem("", "x")]))
    assert told["detail"] == "f: 2: a: no; f: 3: b: no; mend it."
