"""What `with_fields` makes is a model like any other."""

import copy
import pickle

from toka_runtime.protocol.model import with_fields
from toka_runtime.protocol.usage import Usage


def test_a_copy_with_other_fields_is_what_pydantic_would_make() -> None:
    before = Usage(cpu_fraction=0.5, processes=3)
    made = with_fields(before, {**vars(before), "processes": 4})
    expected = before.model_copy(update={"processes": 4})
    assert made == expected
    assert made.model_dump_json() == expected.model_dump_json()
    assert before.processes == 3
    assert made.model_copy(update={"threads": 9}).threads == 9
    assert copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == expected
    assert Usage.model_validate(made) is made
